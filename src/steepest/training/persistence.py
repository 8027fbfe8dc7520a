"""What a checkpoint holds, in and out: agent, learner, statistics, counters. And `st.load`, which executes nothing."""

from __future__ import annotations

import dataclasses
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from steepest.agent import Agent
from steepest.critics import Critic
from steepest.errors import RunError, UsageError
from steepest.normaliser import Normaliser
from steepest.policies.encoder import left_alone
from steepest.policies.masked import with_mask
from steepest.policies.specification import PolicySpec
from steepest.runs import RunFolder
from steepest.runs import checkpoint as checkpoint_file
from steepest.runs.checkpoint import flatten, restore
from steepest.runs.files import reachable
from steepest.runs.meta import versions
from steepest.sampling.cost_meter import CostMeter
from steepest.sampling.reward_scale import RewardScale
from steepest.spaces import Joint, seen, seen_shape, to_record
from steepest.training.config import TrainConfig
from steepest.training.iteration import LearnerState
from steepest.training.recorded import (
    Ended,
    Progress,
    costs_of,
    ended_of,
    logs_of,
    normaliser_of,
    objects_of,
    progress_of,
    recent_of,
    running_of,
    space_of,
    spec_of,
    worlds_of,
)
from steepest.training.settings import from_record as from_config_record
from steepest.training.settings import to_record as config_record
from steepest.training.standing import PREFIX, Stands, Stored

Arrays = dict[str, np.ndarray]


class Snapshot(NamedTuple):
    """A run between two iterations.

    standing: of its environments; None where all episodes begin afresh.  recent: the returns that ended last.
    ended: that the run was over then, if it was; a signal does not end one.
    """

    agent: Agent
    learner: LearnerState
    reward_scale: RewardScale | None
    progress: Progress
    costs: CostMeter | None = None
    standing: Stands | None = None
    recent: tuple[float, ...] = ()
    ended: Ended | None = None

    def afresh(self) -> Snapshot:
        """The same, with all episodes at their beginning."""
        scale, costs = self.reward_scale, self.costs
        return self._replace(
            reward_scale=None if scale is None else scale.afresh(),
            costs=None if costs is None else dataclasses.replace(costs, scale=costs.scale.afresh()),
            standing=None,
            learner=self.learner.afresh(),
        )


def contents(snapshot: Snapshot, logs: dict[str, int], origin: dict[str, Any]) -> tuple[Arrays, dict[str, Any]]:
    """(arrays, info) of a checkpoint.

    logs: the byte offsets of the run's logs at this moment.  origin: of `origin_of`.
    """
    agent, scale = snapshot.agent, snapshot.reward_scale
    stored = None if snapshot.standing is None else snapshot.standing.stored()
    arrays = flatten(snapshot.learner, "learner")
    if agent.normaliser is not None:
        arrays |= _normaliser_arrays(agent.normaliser, "normaliser")
    scales = {"reward_scale": scale, "cost_scale": None if snapshot.costs is None else snapshot.costs.scale}
    for name, each in scales.items():
        if each is not None:
            arrays |= _normaliser_arrays(each.statistics, name)
            arrays |= {} if stored is None else {f"{name}.running": each.running}
    if stored is not None:
        arrays |= stored.arrays
    info = {
        "observation": to_record(agent.observation),
        "action": to_record(agent.action),
        "policy": None if agent.spec is None else agent.spec.to_record(),
        "progress": snapshot.progress._asdict(),
        "costs": None
        if snapshot.costs is None
        else [list(sums) for sums in (snapshot.costs.all, *snapshot.costs.window)],
        "logs": logs,
        "recent": list(snapshot.recent),
        "ended": snapshot.ended,
        "worlds": None if stored is None else {"record": stored.record},
        **origin,
    }
    return arrays, info


def origin_of(config: TrainConfig, objects: Sequence[str]) -> dict[str, Any]:
    """What all checkpoints of a run have in common: its configuration, and what it was made by.

    objects: which of "env" and "algorithm" were given as objects, which no file can bring back.
    """
    return {"config": config_record(config), "versions": versions(), "objects": list(objects)}


def load(path: str | Path, *, policy: Any = None, checkpoint: str = "last") -> Agent:
    """The agent of a run folder, or of a checkpoint file. Nothing in it is executed, no module imported on its word.

    policy: a template of the same structure, where the run trained a module of your own.
    checkpoint: of a run folder: "last", or "best" by the evaluations during training.

    Raises UsageError if `path` is neither or lacks the checkpoint, RunError if it is damaged; in place of a damaged
    "last" the one before it is taken, with a warning.
    """
    arrays, info = read(path, checkpoint)
    return restore_agent(arrays, info, policy)


def read(path: str | Path, checkpoint: str = "last") -> tuple[Arrays, dict[str, Any]]:
    """(arrays, info) of a run folder's checkpoint, or of a checkpoint file. Raises as `load`."""
    if not reachable(path).is_file():
        arrays, info = RunFolder.open(path).load_checkpoint(checkpoint)
    elif checkpoint == "last":
        arrays, info = checkpoint_file.load(Path(path).resolve())
    else:
        raise UsageError(f"{path} is one checkpoint, and has no {checkpoint!r} in it: give the run folder")
    # nobody asks for these here, but what is false in a part is not believed
    for part in (progress_of, logs_of, recent_of, worlds_of, ended_of):
        part(info)
    return arrays, info


def read_config(path: str | Path, info: dict[str, Any]) -> TrainConfig:
    """The configuration of the run folder or checkpoint file that `read` gave `info` of."""
    record = info.get("config") if Path(path).is_file() else RunFolder.open(path).read_config()
    if record is None:
        raise UsageError(f"{path} is of format 1, which knows no configuration: give the run folder")
    return from_config_record(record)


def best_return(folder: RunFolder) -> float | None:
    """The mean return of the checkpoint "best"; None where there is none, and with a warning where it is damaged."""
    if not os.path.lexists(folder.checkpoint_path("best")):
        return None
    try:
        return progress_of(folder.load_checkpoint("best")[1]).best
    except RunError as error:
        warnings.warn(f"{error}; the best so far is lost, and the next evaluation is the best", stacklevel=2)
        return None


def needs(info: dict[str, Any], name: str, given: Any, call: str) -> None:
    """Raise UsageError where a run was given an object that a file cannot bring back, and it is not given again."""
    if given is None and name in objects_of(info):
        raise UsageError(f"this run was given its {name} as an object, which no file holds: give it again, {call}")


def restore_agent(arrays: Arrays, info: dict[str, Any], policy: Any = None) -> Agent:
    """The agent in a checkpoint."""
    spec = spec_of(info, arrays)
    if policy is None:
        if spec is None:
            raise UsageError("this run trained a policy of your own: load it with st.load(path, policy=template)")
        policy = _template(spec)
    observation, action = space_of(info, "observation"), space_of(info, "action")
    policy = with_mask(policy, observation)
    policy = jax.tree.map(lambda x: jnp.asarray(x) if eqx.is_inexact_array(x) else x, policy)  # as training takes it
    policy = restore(policy, arrays, "learner.policy")
    own = seen(observation)
    normaliser = normaliser_of(arrays, "normaliser", seen_shape(observation))
    if normaliser is not None and isinstance(own, Joint):
        normaliser = dataclasses.replace(normaliser, alone=left_alone(own))
    return Agent(policy, observation, action, normaliser, spec)


def _template(spec: PolicySpec) -> Any:
    """A policy of the shape that `spec` claims, which takes no memory until the file's arrays have that shape."""
    shapes = eqx.filter_eval_shape(spec.build, jax.random.key(0))
    return jax.tree.map(
        lambda x: np.broadcast_to(np.zeros((), x.dtype), x.shape) if isinstance(x, jax.ShapeDtypeStruct) else x, shapes
    )


def restore_snapshot(template: Snapshot, arrays: Arrays, info: dict[str, Any], envs: int, policy: Any) -> Snapshot:
    """What a resumed run goes on from.

    template: as it began.  envs: B.  policy: of `restore_agent`.  Where the checkpoint does not say where the
    environments stand, all episodes begin afresh.
    """
    agent, learner = restore_agent(arrays, info, policy), restore(template.learner, arrays, "learner")
    costs = template.costs
    scale, cost_scale = (_scale(arrays, name, envs) for name in ("reward_scale", "cost_scale"))
    if costs is not None and cost_scale is not None:
        every, *window = costs_of(info)
        costs = dataclasses.replace(costs, scale=cost_scale, all=every, window=tuple(window))
    learner = learner if info.get("worlds") is not None else learner.afresh()
    agent = dataclasses.replace(agent, policy=learner.policy)
    progress, standing, recent = progress_of(info), _standing(arrays, info), recent_of(info)
    return Snapshot(agent, learner, scale, progress, costs, standing, recent, ended_of(info))


def _scale(arrays: Arrays, name: str, envs: int) -> RewardScale | None:
    statistics = normaliser_of(arrays, name, ())
    return None if statistics is None else RewardScale(statistics, running_of(arrays, name, envs))


def _standing(arrays: Arrays, info: dict[str, Any]) -> Stored | None:
    """Where the environments stood; None where the checkpoint does not say."""
    if info.get("worlds") is None:
        return None
    mine = {name: array for name, array in arrays.items() if name.startswith(f"{PREFIX}.")}
    return Stored(worlds_of(info), mine)


def restore_critic(template: Critic, arrays: Arrays) -> tuple[Critic, np.float32]:
    """The critic in a checkpoint, and what the rewards that it is fitted to were divided by."""
    statistics = normaliser_of(arrays, "reward_scale", ())
    scale = np.float32(1.0) if statistics is None else RewardScale(statistics, np.zeros(1)).value
    return restore(template, arrays, "learner.critic"), scale


def _normaliser_arrays(normaliser: Normaliser, prefix: str) -> dict[str, np.ndarray]:
    return {
        f"{prefix}.count": np.asarray(normaliser.count, np.float64),
        f"{prefix}.mean": np.asarray(normaliser.mean),
        f"{prefix}.m2": np.asarray(normaliser.m2),
    }
