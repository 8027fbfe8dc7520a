"""What a checkpoint holds, in and out: agent, learner, statistics, counters. And `st.load`, which executes nothing."""

from __future__ import annotations

import dataclasses
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
from steepest.policies.specification import PolicySpec
from steepest.runs import RunFolder
from steepest.runs.checkpoint import flatten, restore
from steepest.sampling.cost_meter import CostMeter, Sums
from steepest.sampling.reward_scale import RewardScale
from steepest.spaces import from_record, to_record
from steepest.training.learner import LearnerState


class Progress(NamedTuple):
    """Counters of a run. failures: updates in all that kept θ because something went wrong."""

    iteration: int = 0
    steps: int = 0
    episodes: int = 0
    failures: int = 0
    seconds: float = 0.0
    resumed: int = 0
    evaluated_at: int = 0
    best: float | None = None


class Snapshot(NamedTuple):
    """A run between two iterations."""

    agent: Agent
    learner: LearnerState
    reward_scale: RewardScale | None
    progress: Progress
    costs: CostMeter | None = None


def save(folder: RunFolder, name: str, snapshot: Snapshot, logs: dict[str, int], objects: Sequence[str] = ()) -> None:
    """Write a checkpoint, atomically.

    logs: the byte offsets of the run's logs at this moment.  objects: which of "env" and "algorithm" were given as
    objects, which no file can bring back.
    """
    agent, scale = snapshot.agent, snapshot.reward_scale
    arrays = flatten(snapshot.learner, "learner")
    if agent.normaliser is not None:
        arrays |= _normaliser_arrays(agent.normaliser, "normaliser")
    if scale is not None:
        arrays |= _normaliser_arrays(scale.statistics, "reward_scale")
    if snapshot.costs is not None:
        arrays |= _normaliser_arrays(snapshot.costs.scale.statistics, "cost_scale")
    info = {
        "observation": to_record(agent.observation),
        "action": to_record(agent.action),
        "policy": None if agent.spec is None else agent.spec.to_record(),
        "progress": snapshot.progress._asdict(),
        "costs": None
        if snapshot.costs is None
        else [list(sums) for sums in (snapshot.costs.all, *snapshot.costs.window)],
        "logs": logs,
        "objects": list(objects),
    }
    folder.save_checkpoint(name, arrays, info)


def load(path: str | Path, *, policy: Any = None, checkpoint: str = "last") -> Agent:
    """The agent of a run folder. Nothing in the folder is executed, and no module is imported on its word.

    policy: a template of the same structure, where the run trained a module of your own.
    checkpoint: "last", or "best" by the evaluations during training.

    Raises UsageError if `path` is no run folder or lacks the checkpoint, RunError if it is damaged.
    """
    folder = RunFolder.open(path)
    arrays, info = folder.load_checkpoint(checkpoint)
    return restore_agent(arrays, info, policy)


def needs(info: dict[str, Any], name: str, given: Any, call: str) -> None:
    """Raise UsageError where a run was given an object that a file cannot bring back, and it is not given again."""
    if given is None and name in info.get("objects", ()):
        raise UsageError(f"this run was given its {name} as an object, which no file holds: give it again, {call}")


def restore_agent(arrays: dict[str, np.ndarray], info: dict[str, Any], policy: Any = None) -> Agent:
    """The agent in a checkpoint."""
    spec = None
    if info.get("policy") is not None:
        spec = PolicySpec.from_record(info["policy"])
    if policy is None:
        if spec is None:
            raise UsageError("this run trained a policy of your own: load it with st.load(path, policy=template)")
        policy = _template(spec)
    policy = jax.tree.map(lambda x: jnp.asarray(x) if eqx.is_inexact_array(x) else x, policy)  # as training takes it
    policy = restore(policy, arrays, "learner.policy")
    return Agent(
        policy,
        from_record(_field(info, "observation")),
        from_record(_field(info, "action")),
        _normaliser(arrays, "normaliser"),
        spec,
    )


def _template(spec: PolicySpec) -> Any:
    """A policy of the shape that `spec` claims, which takes no memory until the file's arrays have that shape."""
    shapes = eqx.filter_eval_shape(spec.build, jax.random.key(0))
    return jax.tree.map(
        lambda x: np.broadcast_to(np.zeros((), x.dtype), x.shape) if isinstance(x, jax.ShapeDtypeStruct) else x, shapes
    )


def restore_learner(
    template: LearnerState, arrays: dict[str, np.ndarray], info: dict[str, Any], envs: int
) -> tuple[LearnerState, RewardScale | None, Progress]:
    """What a resumed run goes on from. The episodes under way are lost: the running discounted sums start at 0."""
    learner = restore(template, arrays, "learner")
    statistics = _normaliser(arrays, "reward_scale")
    scale = None if statistics is None else RewardScale(statistics, np.zeros(envs))
    try:
        progress = Progress(**_field(info, "progress"))
    except TypeError as error:
        raise RunError(f"the checkpoint's counters are damaged: {error}") from error
    return learner, scale, progress


def restore_costs(template: CostMeter | None, arrays: dict[str, np.ndarray], info: dict[str, Any]) -> CostMeter | None:
    """What the costs of a resumed run are measured from."""
    statistics = _normaliser(arrays, "cost_scale")
    if template is None or statistics is None:
        return template
    scale = RewardScale(statistics, np.zeros(template.envs))
    try:
        every, *window = (Sums(float(cost), int(steps), int(count)) for cost, steps, count in _field(info, "costs"))
    except (TypeError, ValueError) as error:
        raise RunError(f"the checkpoint's costs are damaged: {error}") from error
    return dataclasses.replace(template, scale=scale, all=every, window=tuple(window))


def restore_critic(template: Critic, arrays: dict[str, np.ndarray]) -> tuple[Critic, np.float32]:
    """The critic in a checkpoint, and what the rewards that it is fitted to were divided by."""
    statistics = _normaliser(arrays, "reward_scale")
    scale = np.float32(1.0) if statistics is None else RewardScale(statistics, np.zeros(1)).value
    return restore(template, arrays, "learner.critic"), scale


def _normaliser_arrays(normaliser: Normaliser, prefix: str) -> dict[str, np.ndarray]:
    return {
        f"{prefix}.count": np.asarray(normaliser.count, np.float64),
        f"{prefix}.mean": np.asarray(normaliser.mean),
        f"{prefix}.m2": np.asarray(normaliser.m2),
    }


def _normaliser(arrays: dict[str, np.ndarray], prefix: str) -> Normaliser | None:
    if f"{prefix}.count" not in arrays:
        return None
    return Normaliser(float(arrays[f"{prefix}.count"]), arrays[f"{prefix}.mean"], arrays[f"{prefix}.m2"])


def _field(info: dict[str, Any], name: str) -> Any:
    if name not in info:
        raise RunError(f"the checkpoint is damaged: it has no {name!r}")
    return info[name]
