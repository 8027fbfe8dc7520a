"""An update that failed, with all that went into it: written down while the run goes on, and made again from the file.

    iteration fails → RUN/updates/iteration-000012.safetensors → `steepest diagnose` that file

The file is a checkpoint of the moment before, and beside it what the update was given: `st.load` takes it too.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from steepest import chunks
from steepest.agent import Agent
from steepest.algorithms import Algorithm
from steepest.algorithms.diagnostics import along
from steepest.batch import Rollout
from steepest.errors import RunError, UsageError
from steepest.geometry import Reason
from steepest.linear import Status
from steepest.normaliser import Scaling
from steepest.parameters import split
from steepest.policies.images import is_image
from steepest.policies.specification import weights
from steepest.runs.checkpoint import restore
from steepest.sampling.cost_meter import Limited
from steepest.sampling.rollout import layout
from steepest.sampling.vine import Branches
from steepest.sequences import Sequences, initial_memory, is_recurrent
from steepest.spaces import Joint, Space, seen, seen_shape
from steepest.training.assembly import build_critic
from steepest.training.beginning import first_snapshot, learner_of
from steepest.training.config import TrainConfig
from steepest.training.hosting import shown
from steepest.training.iteration import Given, LearnerState
from steepest.training.learner import Learner, single_path
from steepest.training.metrics import of_step
from steepest.training.native_engine import NativeRuns
from steepest.training.persistence import Arrays, needs, read, read_config, restore_agent, restore_snapshot
from steepest.training.recorded import check_size, check_weights, progress_of, update_of
from steepest.worlds import make_world
from steepest.worlds.functional.world import FunctionalWorld

_SPAN = 2.0 ** np.arange(-6, 3)
"""δ at which the direction is looked at, as multiples of its own."""


class Replayed(NamedTuple):
    """A failed update, made again.

    learner, state, given: what it is made of.  step: its report now.  recorded: as it was then, by the names of
    metrics.jsonl.  record: of the checkpoint.  ahead: how many iterations after it.
    """

    learner: Learner
    state: LearnerState
    given: Given
    step: dict[str, Any]
    recorded: dict[str, Any]
    record: dict[str, Any]
    ahead: int


def replay(
    path: str | Path, *, env: Any = None, algorithm: str | Algorithm | None = None, policy: Any = None
) -> dict[str, Any]:
    """Make a failed update again, and say what is to be seen of it: plain data.

    path: a file of RUN/updates.  env, algorithm, policy: as for `st.resume`; the environment only where the run was one
    program, which is then made again up to the update. Nothing in the file is executed.

    Raises UsageError for a file that holds no update, RunError for one that is damaged.
    """
    replayed = load_update(path, env=env, algorithm=algorithm, policy=policy)
    step, recorded = replayed.step, replayed.recorded
    progress = progress_of(replayed.record)
    numbers = {name: (recorded[name], step[name]) for name in recorded if name in step}
    return {
        "format": 1,
        "iteration": progress.iteration + 1 + replayed.ahead,
        "steps": progress.steps + replayed.ahead * len(replayed.given.rollout.reward.ravel()),
        "algorithm": replayed.learner.algorithm.name,
        "recorded": recorded,
        "replayed": step,
        "same": all(_same(a, b) for a, b in numbers.values()),
        "rollout": _of_rollout(replayed.given.rollout),
        "batch": _of_batch(replayed),
        "parameters": _of_parameters(replayed.state.policy),
        "line": _line(replayed),
        "trials": _trials(replayed),
    }


def load_update(
    path: str | Path, *, env: Any = None, algorithm: str | Algorithm | None = None, policy: Any = None
) -> Replayed:
    """The update in a file, made again. Parameters and errors as of `replay`."""
    arrays, info = read(path)
    said = update_of(info)
    if said is None:
        raise UsageError(f"{path} is a checkpoint and holds no update: give a file of RUN/updates, or a run folder")
    needs(info, "algorithm", algorithm, "replay(path, algorithm=…); the command line cannot")
    config = read_config(path, info)
    agent = restore_agent(arrays, info, policy)
    _check_critic(config, agent, arrays)
    learner = learner_of(config, algorithm)
    ahead = said.get("ahead")
    if ahead is not None:
        needs(info, "env", env, "replay(path, env=…); the command line takes --env ID")
        state, given = _made_again(config, learner, arrays, info, env, policy, ahead)
    else:
        critics = [build_critic(config, agent.observation, agent.policy, jax.random.key(0)) for _ in range(2)]
        limited = any(name.startswith("learner.cost_critic") for name in arrays)
        second, envs = critics[1] if limited else None, config.sampling.envs or 1
        state = restore(learner.init(agent.policy, critics[0], second, envs), arrays, "learner")
        given = _given(arrays, said["exhaustive"], config, agent)
        if (agent.normaliser is None) != (given.acted is None) or (given.acted is None) != (given.refreshed is None):
            raise RunError("the update is damaged: its statistics are not those of the agent")
        if limited != (given.limited is not None) or (limited and given.rollout.cost is None):
            raise RunError("the update is damaged: what it says of the cost is not what the learner needs")
    _, _, step, _ = learner.improve(state, given)
    step = of_step(jax.tree.map(np.asarray, step))
    return Replayed(learner, state, given, step, said["report"], info, ahead or 0)


def _check_critic(config: TrainConfig, agent: Agent, arrays: Arrays) -> None:
    """Raise RunError where the critic would be larger than the file."""
    observation = seen(agent.observation)
    if not is_image(observation):
        units = () if config.critic.memory in (None, "none") else (config.critic.memory_units or 1,) * 2
        check_size((1, *config.critic.hidden, *units, 1), arrays, "critic")
    size = weights(lambda: build_critic(config, agent.observation, agent.policy, jax.random.key(0)))
    check_weights(size, arrays, "critic")


def _made_again(
    config: TrainConfig, learner: Learner, arrays: Arrays, info: dict[str, Any], env: Any, policy: Any, ahead: int
) -> tuple[LearnerState, Given]:
    """Of a run that was one program: its iterations from the checkpoint on."""
    world = make_world(
        shown(config, config.env if env is None else env), config.sampling.envs, allow_import=env is not None
    )
    if not isinstance(world, FunctionalWorld):
        world.close()
        raise UsageError(f"this update is of a run that was one program, and {world.name} is none: give its env")
    template = first_snapshot(config, learner, world, policy)
    snapshot = restore_snapshot(template, arrays, info, config.sampling.envs or 1, policy)
    return NativeRuns(config, [config.seed], learner, world, stepwise=True).given(snapshot, ahead)


def _given(arrays: Arrays, exhaustive: Any, config: TrainConfig, agent: Agent) -> Given:
    """What the learner was given. Raises RunError for arrays of other shapes than this configuration's."""
    sampling, observation, action = config.sampling, agent.observation, agent.action
    width = initial_memory(agent.policy).size if is_recurrent(agent.policy) else None
    form = layout(sampling.rollout or 0, sampling.envs or 0, observation, action, width)
    rollout = Rollout(*(None if each is None else np.broadcast_to(np.zeros((), each[1]), each[0]) for each in form))
    if "update.rollout.cost" not in arrays:
        rollout = rollout._replace(cost=None)
    own = seen(observation)
    stand = np.zeros(seen_shape(observation), np.float32)
    scaling = Scaling(stand, stand, stand > 0 if isinstance(own, Joint) else None)
    found: dict[str, Any] = {}
    for name, like in {
        "rollout": rollout,
        "acted": scaling,
        "refreshed": scaling,
        "reward_scale": np.zeros((), np.float32),
        "key": jax.random.key(0),
        "limited": Limited(*(np.float32(0),) * 3),
    }.items():
        there = any(key == f"update.{name}" or key.startswith(f"update.{name}.") for key in arrays)
        found[name] = restore(like, arrays, f"update.{name}") if there else None
    if found["rollout"] is None or found["key"] is None or found["reward_scale"] is None:
        raise RunError("the update is damaged: it lacks a part of what it was given")
    branches = None
    if exhaustive is not None:
        branches = _branches(arrays, exhaustive, config, observation, action)
    return Given(branches=branches, **found)


def _branches(arrays: Arrays, exhaustive: bool, config: TrainConfig, observation: Space, action: Space) -> Branches:
    actions = arrays.get("update.branches.reward", np.zeros((0, 0))).shape
    if len(actions) != 2 or min(actions) < 1:
        raise RunError("the update is damaged: its branches are none")
    _, moves, _, states, *_ = layout(actions[0], actions[1], observation, action)
    real = np.zeros(actions, np.float32)
    row, obs = np.zeros(actions[0], np.int64), np.zeros((actions[0], *observation.shape), states[1])
    like = Branches(row, obs, np.zeros(*moves), real, real, np.zeros(*states), np.zeros(actions[0], bool), exhaustive)
    there = {name: array.astype(np.int64) if name == "update.branches.row" else array for name, array in arrays.items()}
    found: Branches = restore(like, there, "update.branches")
    rows = (config.sampling.rollout or 0) * (config.sampling.envs or 0)
    if ((found.row < 0) | (found.row >= rows)).any():
        raise RunError("the update is damaged: its branches begin in rows that its rollout has not")
    return found


def _same(a: Any, b: Any) -> bool:
    return a == b or (a is None and isinstance(b, float) and not np.isfinite(b))


def _summary(array: Any, weight: Any = None) -> dict[str, Any]:
    """Least, greatest, mean and deviation of what is finite, and how many numbers are not."""
    x = np.asarray(array, np.float64)
    x = x if weight is None else x[np.asarray(weight)]
    good = x[np.isfinite(x)]
    said: dict[str, Any] = {"not finite": int(x.size - good.size)}
    if good.size:
        some = {"least": good.min(), "greatest": good.max(), "mean": good.mean(), "deviation": good.std()}
        said |= {name: float(value) for name, value in some.items()}
    return said


def _of_rollout(rollout: Rollout) -> dict[str, Any]:
    valid = np.asarray(rollout.valid)
    ends = {name: int(np.sum(getattr(rollout, name) & valid)) for name in ("terminated", "truncated")}
    arrays = {"observation": rollout.obs, "action": rollout.action, "reward": rollout.reward}
    return {"rows": int(valid.sum()), **ends, **{name: _summary(x, valid) for name, x in arrays.items()}}


def _of_batch(replayed: Replayed) -> dict[str, Any]:
    """Of what the policy saw of it: observations as it takes them, advantages in raw units."""
    state, given = replayed.state, replayed.given
    how = given.rollout, given.acted, given.reward_scale, state.critic_memory
    batch, value, target = single_path(replayed.learner, state.policy, state.critic, *how)
    rows = np.asarray(batch.weight) > 0
    entropy = chunks.each(state.policy, batch.obs).entropy()
    seen = batch.obs
    if isinstance(seen, Sequences):
        seen = seen.obs.reshape(seen.rows, *seen.obs.shape[2:])
    arrays = {"observation": seen, "advantage": batch.advantage, "value": value, "target": target}
    return {**{name: _summary(x, rows) for name, x in arrays.items()}, "entropy": _summary(entropy, rows)}


def _of_parameters(policy: Any) -> dict[str, Any]:
    params, _ = split(policy)
    named = jax.tree_util.tree_flatten_with_path(params)[0]
    return {jax.tree_util.keystr(path).lstrip("."): _summary(leaf) for path, leaf in named}


def _line(replayed: Replayed) -> dict[str, list[float]] | None:
    """What is predicted and realised along the direction, where there is one and a single path says it."""
    algorithm, state, given = replayed.learner.algorithm, replayed.state, replayed.given
    delta, damping = getattr(algorithm.step, "delta", None), replayed.step.get("update/damping")
    if given.branches is not None or given.limited is not None or not isinstance(delta, int | float):
        return None
    how = given.rollout, given.acted, given.reward_scale, state.critic_memory
    batch, *_ = single_path(replayed.learner, state.policy, state.critic, *how)
    line = along(algorithm, state.policy, batch, batch, damping, (delta * _SPAN).tolist())
    return {name: getattr(line, name).tolist() for name in ("delta", "predicted", "gain", "kl")}


def _trials(replayed: Replayed) -> list[dict[str, Any]]:
    """The same update with other settings: what became of it."""
    algorithm = replayed.learner.algorithm
    changes: list[tuple[str, Callable[[], Algorithm]]] = []
    damping, delta = replayed.step.get("update/damping"), getattr(algorithm.step, "delta", None)
    if algorithm.solver is not None and isinstance(damping, float):
        for factor in (10.0, 100.0):
            to = factor * damping if damping > 0 else factor * 1e-3
            changes.append((f"damping {to:.3g}", lambda to=to: dataclasses.replace(algorithm, damping=to)))
    step: Any = algorithm.step
    if isinstance(delta, int | float) and dataclasses.is_dataclass(step) and not isinstance(step, type):
        step = dataclasses.replace(step, delta=delta / 10)
        changes.append((f"delta {delta / 10:.3g}", lambda: dataclasses.replace(algorithm, step=step)))
    found = []
    for what, changed in changes:
        method = changed()
        learner = dataclasses.replace(replayed.learner, algorithm=method)
        state = replayed.state._replace(
            algorithm=replayed.state.algorithm._replace(damping=method.init(replayed.state.policy).damping)
        )
        _, _, info, _ = learner.improve(state, replayed.given)
        found.append({
            "with": what,
            "reason": Reason(int(info.reason)).name.lower(),
            "status": Status(int(info.status)).name.lower(),
            "residual": float(jnp.asarray(info.residual)),
            "kl": float(info.kl),
            "improvement": float(info.improvement),
        })  # fmt: skip
    return found
