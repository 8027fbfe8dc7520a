"""New batches of a run's last policy, of the run's own size, and what is made of them: parts, wholes, all but one.

checkpoint → K consecutive rollouts, as the run collects them → K batches, their leaves stacked on a first axis
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from steepest.agent import Agent
from steepest.algorithms import Algorithm
from steepest.batch import Batch, Rollout
from steepest.critics import Critic
from steepest.errors import UsageError
from steepest.geometry import needs_cost
from steepest.normaliser import Scaling
from steepest.parameters import split
from steepest.sampling.acting import compile_actor
from steepest.sampling.rollout import Collector
from steepest.sequences import is_recurrent
from steepest.training.assembly import build_critic, build_learner
from steepest.training.composition import algorithm_of
from steepest.training.config import TrainConfig
from steepest.training.learner import Learner, single_path
from steepest.training.persistence import restore_agent, restore_critic
from steepest.worlds.world import World

PARTS = 4
"""A batch is also cut into so many, where its steps can be."""


class Loaded(NamedTuple):
    """What of a run is measured. reward_scale: of the critic's rewards.  scaling: of the observations."""

    config: TrainConfig
    learner: Learner
    agent: Agent
    critic: Critic
    reward_scale: np.float32
    scaling: Scaling | None
    steps: int


def batch_of(loaded: Loaded, rollout: Rollout) -> Batch:
    """The batch that the learner makes of a rollout: observations as the policy takes them, advantages by GAE."""
    given = loaded.agent.policy, loaded.critic, rollout, loaded.scaling, loaded.reward_scale
    return _single_path(loaded.learner, *given)[0]


_single_path = eqx.filter_jit(single_path)


def load_measured(
    config: TrainConfig, arrays: Any, info: Any, algorithm: str | Algorithm | None, policy: Any
) -> Loaded:
    """What is in a checkpoint of a run with that configuration.  algorithm, policy: of a run that was given objects."""
    method = algorithm_of(config.algorithm, algorithm, config.update)
    if method.damping is None:
        method = dataclasses.replace(method, damping=config.update.damping)
    if needs_cost(method.objective):
        raise UsageError(
            f"{method.name} prices a cost in its objective, and what the cost critic knows is not measured here: "
            "diagnose runs of the other methods, such as cpo"
        )
    agent = restore_agent(arrays, info, policy)
    if is_recurrent(agent.policy) or config.critic.memory not in (None, "none"):
        raise UsageError(
            "what is measured here takes rows of a batch one by one, and those of a policy with memory are a path: "
            "diagnose runs of policies and critics without one"
        )
    template = build_critic(config, agent.observation, agent.policy, jax.random.key(0))
    critic, scale = restore_critic(template, arrays)
    scaling = None if agent.normaliser is None else agent.normaliser.scaling()
    steps = int(info.get("progress", {}).get("steps", 0))
    # on a single path, whatever the scheme: the objective of a vine knows nothing of one action in a state
    learner = dataclasses.replace(build_learner(config, method), algorithm=method)
    return Loaded(config, learner, agent, critic, scale, scaling, steps)


def collect_batches(loaded: Loaded, world: World, count: int, seed: int) -> Batch:
    """`count` batches of consecutive rollouts, their leaves stacked on a first axis."""
    collector, steps = Collector(world), loaded.config.sampling.rollout
    assert steps is not None
    collector.reset(int(np.random.SeedSequence((seed, 0)).generate_state(1)[0] >> 1))
    act, (params, _) = compile_actor(loaded.agent.policy), split(loaded.agent.policy)
    batches = []
    for k in range(count):
        key = jax.random.fold_in(jax.random.key(seed), k)
        rollout, _ = collector.collect(lambda obs, t, key=key: act(params, loaded.scaling, obs, key, t), steps)
        batches.append(batch_of(loaded, rollout))
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *batches)


def all_but(batches: Batch, k: int) -> Batch:
    """All batches but the k-th as one, its rows with weight 0: always of the same shape, compiled once."""
    count, rows = batches.weight.shape
    share = jnp.where(jnp.arange(count) == k, 0.0, jnp.sum(batches.weight > 0, axis=1))
    weight = batches.weight * (share / jnp.sum(share))[:, None]
    segment = batches.segment + rows * jnp.arange(count, dtype=batches.segment.dtype)[:, None]
    apart = batches._replace(weight=weight, segment=segment)
    return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), apart)


def cut(batches: Batch, config: TrainConfig) -> tuple[Batch, np.ndarray]:
    """Every batch cut in time into PARTS where its steps can be, with weights of their own; and their valid rows."""
    pieces = math.gcd(PARTS, config.sampling.rollout or 1)
    cut = jax.tree.map(lambda x: x.reshape(-1, x.shape[1] // pieces, *x.shape[2:]), batches)
    valid = np.asarray(jnp.sum(cut.weight > 0, axis=1), np.float64)
    total = jnp.sum(cut.weight, axis=1, keepdims=True)
    return cut._replace(weight=cut.weight / jnp.where(total > 0, total, 1.0)), valid


def merged(gradients: np.ndarray, rows: np.ndarray, pieces: int) -> tuple[np.ndarray, np.ndarray]:
    """The gradients of whole batches from those of their parts."""
    share = rows.reshape(-1, pieces)
    total = share.sum(1)
    return np.einsum("kp,kpd->kd", share / total[:, None], gradients.reshape(*share.shape, -1)), total
