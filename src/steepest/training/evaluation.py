"""Evaluation: whole episodes of an agent on environments of their own, counted without favour to short ones.

Each of B environments plays a fixed number of episodes: the first that end are not the ones that are counted.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from numpy.typing import NDArray

from steepest.agent import Agent
from steepest.errors import UsageError
from steepest.parameters import merge, split
from steepest.sampling.acting import actions_remembering, compile_actor
from steepest.sampling.actor import finite
from steepest.sampling.groups import bear_faults
from steepest.sampling.rollout import Act, Forget
from steepest.sequences import initial_memory, is_recurrent
from steepest.spaces import Masked, brief, describe, fits, is_squashed
from steepest.training.checks import check_seed
from steepest.training.native_evaluation import play_functional
from steepest.worlds import Adapted, is_made, make_up_to, make_world
from steepest.worlds.faults import Fault, Irreparable, Report
from steepest.worlds.functional.world import FunctionalWorld
from steepest.worlds.world import World

_ENVS = 10


def evaluate(
    agent: Agent,
    env: Any,
    episodes: int = 20,
    seed: int = 0,
    deterministic: bool = True,
    *,
    allow_import: bool = True,
) -> NDArray[np.float64]:
    """Undiscounted raw returns of `episodes` whole episodes, [episodes].

    agent: with spaces that fit.  env: anything that `st.train` takes.  seed: of the environments and, if not
    deterministic, of the actions.  deterministic: the policy's mode instead of a sample.

    Raises UsageError for episodes < 1 or spaces that do not fit the agent's, RunError if the environment breaks.
    """
    if episodes < 1:
        raise UsageError(f"evaluate needs episodes ≥ 1, got {episodes}")
    masks, squashed = isinstance(agent.observation, Masked), is_squashed(agent.action)
    env = Adapted(env, masks, squashed) if masks or squashed else env
    if is_made(env):
        return play(agent, make_world(env), episodes, seed, deterministic)
    world = make_up_to(env, min(episodes, _ENVS), allow_import=allow_import)
    try:
        return play(agent, world, episodes, seed, deterministic)
    finally:
        world.close()


def play(
    agent: Agent,
    world: World,
    episodes: int,
    seed: int,
    deterministic: bool = True,
    stop: Callable[[], bool] = lambda: False,
    report: Report | None = None,
) -> NDArray[np.float64]:
    """`evaluate` in a world that is there already; it is reset, and left in the middle of episodes.

    stop: asked at every step; once it is true the episodes that have ended are returned, fewer than asked for.
    report: takes the faults of environments, whose episodes are left out; those that another's fault ended are played
        again. None: the first one raises RunError.
    """
    check_seed(seed)
    _fits(agent, world)
    quota = np.full(world.envs, episodes // world.envs)
    quota[: episodes % world.envs] += 1
    if isinstance(world, FunctionalWorld):
        return play_functional(agent, world, quota, seed, deterministic, stop)
    finished: list[list[float]] = [[] for _ in quota]
    act, forget = _acting(agent, world.envs, seed, deterministic)
    guilty, agents = set[int](), getattr(world, "agents", 1)

    def note(fault: Fault) -> None:
        first = fault.env - fault.env % agents  # of several agents a fault is one of all who are there
        guilty.update(range(first, first + agents))
        assert report is not None
        report(fault)

    if report is not None:
        bear_faults(world, note)
    with contextlib.suppress(Irreparable):  # the episodes that have ended are what there is
        _play_on_the_host(act, forget, world, quota, finished, seed, stop, guilty)
    return np.array([value for done in finished for value in done])


def _acting(agent: Agent, envs: int, seed: int, deterministic: bool) -> tuple[Act, Forget | None]:
    """What acts, and for a policy that remembers what is told of the ends of episodes."""
    params, rest = split(agent.policy)
    scaling, key = None if agent.normaliser is None else agent.normaliser.scaling(), jax.random.key(seed)
    if not is_recurrent(agent.policy):
        act = compile_actor(agent.policy)
        return lambda obs, step: act(params, scaling, obs, key, step, deterministic), None

    @jax.jit
    def choose(params: Any, obs: Any, step: Any, memory: Any, fresh: Any) -> Any:
        policy = merge(params, rest)
        return actions_remembering(policy, scaling, obs, key, step, deterministic, memory, fresh)

    memory: Any = np.zeros((envs, initial_memory(agent.policy).size), np.float32)
    fresh = np.ones(envs, bool)

    def acting(obs: np.ndarray, step: int) -> np.ndarray:
        nonlocal memory, fresh
        action, memory = choose(params, obs, np.int32(step), memory, fresh)
        fresh = np.zeros(envs, bool)
        return finite(np.asarray(action))

    def forget(ended: np.ndarray) -> None:
        nonlocal fresh
        fresh = ended

    return acting, forget


def _play_on_the_host(
    act: Act,
    forget: Forget | None,
    world: World,
    quota: NDArray[Any],
    finished: list[list[float]],
    seed: int,
    stop: Callable[[], bool],
    guilty: set[int],
) -> None:
    """Append the returns of each environment until it has its number, from which those lost to faults are taken.

    guilty: gets the rows of environments that commit faults. Once they have more often ended episodes of others than
    episodes were asked for, the ones that have ended are what there is."""
    step, running, patience = 0, np.zeros(world.envs), int(quota.sum())
    world.reset(seed)
    while any(len(done) < n for done, n in zip(finished, quota, strict=True)) and patience >= 0 and not stop():
        guilty.clear()
        transition = world.step(act(world.obs, step))
        running, again = running + np.where(transition.valid, transition.reward, 0.0), False
        for b in np.flatnonzero(transition.terminated | transition.truncated):
            if not transition.valid[b]:
                quota[b] -= int(b) in guilty
                again |= int(b) not in guilty and len(finished[b]) < quota[b]
            elif len(finished[b]) < quota[b]:
                finished[b].append(float(running[b]))
            running[b] = 0.0
        patience -= again
        if forget is not None:
            forget(transition.terminated | transition.truncated | ~transition.valid)
        step += 1


def _fits(agent: Agent, world: World) -> None:
    for role, ours, space in (
        ("observation", agent.observation, world.observation_space),
        ("action", agent.action, world.action_space),
    ):
        theirs = describe(space, role)
        if not fits(ours, theirs):
            raise UsageError(f"the agent's {role} space {brief(ours)} does not fit {world.name}'s {brief(theirs)}")
