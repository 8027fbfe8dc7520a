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

from steepest.agent import Agent, compile_actor
from steepest.errors import UsageError
from steepest.parameters import split
from steepest.sampling.groups import bear_faults
from steepest.sampling.rollout import Act
from steepest.spaces import Masked, brief, describe, fits, is_squashed
from steepest.training.checks import check_seed
from steepest.training.native_evaluation import play_functional
from steepest.worlds import Adapted, is_made, make_world
from steepest.worlds.faults import Irreparable, Report
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
    world = make_world(env, min(episodes, _ENVS), allow_import=allow_import)
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
    report: takes the faults of environments, whose episodes are left out. None: the first one raises RunError.
    """
    check_seed(seed)
    _fits(agent, world)
    quota = np.full(world.envs, episodes // world.envs)
    quota[: episodes % world.envs] += 1
    if isinstance(world, FunctionalWorld):
        return play_functional(agent, world, quota, seed, deterministic, stop)
    finished: list[list[float]] = [[] for _ in quota]
    act, (params, _) = compile_actor(agent.policy), split(agent.policy)
    scaling = None if agent.normaliser is None else agent.normaliser.scaling()
    key = jax.random.key(seed)

    def actions(obs: np.ndarray, step: int) -> Any:
        return act(params, scaling, obs, key, step, deterministic)

    if report is not None:
        bear_faults(world, report)
    with contextlib.suppress(Irreparable):  # the episodes that have ended are what there is
        _play_on_the_host(actions, world, quota, finished, seed, stop)
    return np.array([value for done in finished for value in done])


def _play_on_the_host(
    actions: Act, world: World, quota: NDArray[Any], finished: list[list[float]], seed: int, stop: Callable[[], bool]
) -> None:
    """Append the returns of each environment until it has its number, from which those lost to faults are taken."""
    step, running = 0, np.zeros(world.envs)
    world.reset(seed)
    while any(len(done) < n for done, n in zip(finished, quota, strict=True)) and not stop():
        transition = world.step(actions(world.obs, step))
        running += np.where(transition.valid, transition.reward, 0.0)
        for b in np.flatnonzero(transition.terminated | transition.truncated):
            if not transition.valid[b]:
                quota[b] -= 1
            elif len(finished[b]) < quota[b]:
                finished[b].append(float(running[b]))
            running[b] = 0.0
        step += 1


def _fits(agent: Agent, world: World) -> None:
    for role, ours, space in (
        ("observation", agent.observation, world.observation_space),
        ("action", agent.action, world.action_space),
    ):
        theirs = describe(space, role)
        if not fits(ours, theirs):
            raise UsageError(f"the agent's {role} space {brief(ours)} does not fit {world.name}'s {brief(theirs)}")
