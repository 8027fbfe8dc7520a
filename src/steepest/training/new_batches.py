"""New batches of a run's last policy, of the run's own size, and what is made of them: parts, wholes, all but one.

checkpoint → K consecutive rollouts, as the run collects them → K batches, their leaves stacked on a first axis

Rows of a policy with memory are taken apart and put together as whole sequences.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from steepest.agent import Agent
from steepest.algorithms import Algorithm
from steepest.batch import Batch, Rollout
from steepest.critics import Critic
from steepest.errors import UsageError
from steepest.geometry import needs_cost
from steepest.normaliser import Scaling
from steepest.parameters import split
from steepest.sampling.acting import host_actor
from steepest.sampling.groups import Groups, Order
from steepest.sampling.rollout import empty
from steepest.sampling.rows import Values, memories
from steepest.sequences import Sequences, initial_memory, is_recurrent
from steepest.training.assembly import build_critic, build_learner
from steepest.training.composition import algorithm_of
from steepest.training.config import TrainConfig
from steepest.training.learner import Learner, path_of
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


def batch_of(loaded: Loaded, rollout: Rollout, memory: Any = None) -> tuple[Batch, Any]:
    """The batch that the learner makes of a rollout, observations as the policy takes them and advantages by GAE; and
    what the critic remembers after it.  memory: what it remembered before it."""
    given = loaded.agent.policy, loaded.critic, rollout, loaded.scaling, loaded.reward_scale, memory
    batch, values = _path(loaded.learner, *given)
    return batch, values.memory


@eqx.filter_jit
def _path(learner: Learner, *given: Any) -> tuple[Batch, Values]:
    return path_of(learner, *given)[:2]


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
    template = build_critic(config, agent.observation, agent.policy, jax.random.key(0))
    critic, scale = restore_critic(template, arrays)
    scaling = None if agent.normaliser is None else agent.normaliser.scaling()
    steps = int(info.get("progress", {}).get("steps", 0))
    # on a single path, whatever the scheme: the objective of a vine knows nothing of one action in a state
    learner = dataclasses.replace(build_learner(config, method), algorithm=method)
    return Loaded(config, learner, agent, critic, scale, scaling, steps)


def collect_batches(loaded: Loaded, world: World, count: int, seed: int) -> Batch:
    """`count` batches of consecutive rollouts, their leaves stacked on a first axis."""
    (params, _), policy, envs = split(loaded.agent.policy), loaded.agent.policy, world.envs
    observation, action, steps = loaded.agent.observation, loaded.agent.action, loaded.config.sampling.rollout
    assert steps is not None
    actor = host_actor(policy, envs)
    groups, weights = Groups({0: world}, envs, envs, actor), actor.export(params, loaded.scaling)
    remembered = initial_memory(policy).size if is_recurrent(policy) else None
    batches, memory = list[Batch](), memories(loaded.critic, envs)
    for k in range(count):
        rollout = empty(steps, envs, observation, action, remembered)
        charged = groups.collect(Order(weights, (seed, k), None if k else seed), rollout)
        batch, memory = batch_of(loaded, rollout if charged else rollout._replace(cost=None), memory)
        batches.append(batch)
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *batches)


def all_but(batches: Batch, k: int) -> Batch:
    """All batches but the k-th as one, its rows with weight 0: always of the same shape, compiled once."""
    count, rows = batches.weight.shape
    share = jnp.where(jnp.arange(count) == k, 0.0, jnp.sum(batches.weight > 0, axis=1))
    weight = batches.weight * (share / jnp.sum(share))[:, None]
    segment = batches.segment + rows * jnp.arange(count, dtype=batches.segment.dtype)[:, None]
    apart = batches._replace(weight=weight, segment=segment)
    if not isinstance(apart.obs, Sequences):
        return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), apart)
    steps, envs = apart.obs.fresh.shape[1:]

    def beside(x: Any) -> Array:  # [K,T,B,…] ↦ [T,K·B,…]
        return jnp.moveaxis(x, 0, 1).reshape(steps, count * envs, *x.shape[3:])

    def rowwise(x: Any) -> Array:  # [K,T·B,…] ↦ [T·K·B,…]
        return beside(x.reshape(count, steps, envs, *x.shape[2:])).reshape(-1, *x.shape[2:])

    obs, fresh, memory = apart.obs
    sequences = Sequences(jax.tree.map(beside, obs), beside(fresh), memory.reshape(count * envs, -1))
    return jax.tree.map(rowwise, apart._replace(obs=None))._replace(obs=sequences)


def cut(batches: Batch, config: TrainConfig) -> tuple[Batch, np.ndarray]:
    """Every batch cut into PARTS, with weights of their own, and their valid rows: cut in time where its steps can be,
    or sequences into groups of them."""
    if isinstance(batches.obs, Sequences):
        cut = _groups_of_sequences(batches)
    else:
        pieces = math.gcd(PARTS, config.sampling.rollout or 1)
        cut = jax.tree.map(lambda x: x.reshape(-1, x.shape[1] // pieces, *x.shape[2:]), batches)
    valid = np.asarray(jnp.sum(cut.weight > 0, axis=1), np.float64)
    total = jnp.sum(cut.weight, axis=1, keepdims=True)
    return cut._replace(weight=cut.weight / jnp.where(total > 0, total, 1.0)), valid


def _groups_of_sequences(batches: Batch) -> Batch:
    obs, fresh, memory = batches.obs
    count, steps, envs = fresh.shape
    pieces = math.gcd(PARTS, envs)

    def grouped(x: Any) -> Array:  # [K,T,B,…] ↦ [K·p,T,B/p,…]
        parts = jnp.moveaxis(x.reshape(count, steps, pieces, envs // pieces, *x.shape[3:]), 2, 1)
        return parts.reshape(count * pieces, steps, envs // pieces, *x.shape[3:])

    def rowwise(x: Any) -> Array:  # [K,T·B,…] ↦ [K·p,T·B/p,…]
        parts = grouped(x.reshape(count, steps, envs, *x.shape[2:]))
        return parts.reshape(count * pieces, -1, *x.shape[2:])

    parts = Sequences(jax.tree.map(grouped, obs), grouped(fresh), memory.reshape(count * pieces, envs // pieces, -1))
    return jax.tree.map(rowwise, batches._replace(obs=None))._replace(obs=parts)


def merged(gradients: np.ndarray, rows: np.ndarray, pieces: int) -> tuple[np.ndarray, np.ndarray]:
    """The gradients of whole batches from those of their parts."""
    share = rows.reshape(-1, pieces)
    total = share.sum(1)
    return np.einsum("kp,kpd->kd", share / total[:, None], gradients.reshape(*share.shape, -1)), total
