"""What a vine's branches and its trunk say to an update, in two batches: what is compared, and where it is measured."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from steepest import chunks
from steepest.batch import Batch
from steepest.geometry import log_probs
from steepest.normaliser import Scaling
from steepest.sampling.acting import normalise
from steepest.sampling.vine import Branches, action_values, along_trunk, batch_from_branches


def compared_of(
    policy: Any, critic: Any, branches: Branches, trunk: Batch, acted: Scaling | None, reward_scale: Any
) -> Batch:
    """The rollout set of a vine, with the actions that were compared in each of its states."""
    value = jax.vmap(jax.vmap(critic))(normalise(acted, branches.last_obs)) * reward_scale
    weight = jnp.full(branches.action.shape[:2], 1.0 / branches.action.shape[1])
    if branches.exhaustive:
        weight = _every_action(policy, branches, trunk)[1][branches.row]
    obs, q = trunk.obs[branches.row], action_values(branches, value)
    return batch_from_branches(
        obs, jnp.asarray(branches.action), weight, q, branches.valid, exhaustive=branches.exhaustive
    )


def with_trunk(policy: Any, branches: Branches, vine: Batch, trunk: Batch) -> Batch:
    """The surrogate of the rollout set, with all states of the trunk in the metric and the KL."""
    every = _every_action(policy, branches, trunk) if branches.exhaustive else None
    return along_trunk(vine, branches.row, trunk, every)


def _every_action(policy: Any, branches: Branches, trunk: Batch) -> tuple[Array, Array]:
    """All actions in each state of the trunk, and their probabilities [N,A]."""
    action = jnp.asarray(branches.action)
    every = jnp.tile(jnp.arange(action.shape[1], dtype=action.dtype), (len(trunk.weight), 1))
    return every, jnp.exp(log_probs(chunks.each(policy, trunk.obs), every))
