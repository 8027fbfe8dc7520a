"""Advantages of a rollout: generalised advantage estimation, cut where an episode ends, bootstrapped where it was cut.

    δ_t = r_t + γ V(s'_t)·(1 − terminated_t) − V(s_t)
    A_t = δ_t + γλ·(1 − terminated_t)·(1 − truncated_t) · A_{t+1}          A_T = 0

s'_t is the true successor of row t, not the observation of row t+1: at a truncation, and at the rollout's last row,
V(s'_t) is all that is known of the rest. (Schulman et al. 2016, eq. 16; Pardo et al. 2018 on time limits.)
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float, Int

from steepest.batch import Batch


def gae(
    reward: Float[Any, "T B"],
    value: Float[Any, "T B"],
    next_value: Float[Any, "T B"],
    terminated: Bool[Any, "T B"],
    truncated: Bool[Any, "T B"],
    valid: Bool[Any, "T B"],
    *,
    gamma: float | Array,
    lam: float | Array,
) -> tuple[Float[Array, "T B"], Float[Array, "T B"]]:
    """Advantages and value targets of a rollout, in the units of the reward.

    reward: [T,B].  value: V(obs), [T,B].  next_value: V(next_obs), [T,B], of the true successors.
    terminated, truncated, valid: [T,B], as in a `Rollout`.
    gamma, lam: γ and λ in [0,1]. λ = 1 gives discounted returns minus V, λ = 0 the TD errors.

    Returns (advantage [T,B], target [T,B]), target = advantage + value, the λ-return. A row with valid = False gets
    advantage 0 and passes nothing on to the rows before it, whatever its reward and values are.
    """
    delta = reward + gamma * jnp.where(terminated, 0.0, next_value) - value
    goes_on = ~(jnp.asarray(terminated) | jnp.asarray(truncated))
    decay = jnp.asarray(gamma * lam, delta.dtype)

    def backward(later: Array, row: tuple[Array, Array, Array]) -> tuple[Array, Array]:
        delta, goes_on, valid = row
        advantage = jnp.where(valid, delta + decay * jnp.where(goes_on, later, 0.0), 0.0)
        return advantage, advantage

    rows = (delta, goes_on, jnp.asarray(valid))
    _, advantage = jax.lax.scan(backward, jnp.zeros_like(delta[0]), rows, reverse=True)
    return advantage, advantage + value


def batch_from_rollout(
    obs: Any,
    action: Any,
    advantage: Float[Any, "T B"],
    valid: Bool[Any, "T B"],
    done: Bool[Any, "T B"],
    *,
    centre: bool = True,
    segment: int | None = None,
) -> Batch:
    """The Batch of a rollout: N = T·B rows with one action each, row t·B + b from step t of environment b.

    obs: [T,B,…] as the policy takes it (normalised).  action: [T,B,…].  advantage: [T,B].  valid: [T,B].
    done: [T,B], terminated | truncated.
    centre: subtract the weighted mean of the advantages. They are not divided by their standard deviation: a normalised
        step is the same for every scale of the rewards, so they keep the units of the reward.
    segment: cut the paths after so many steps, None for nowhere but where an episode ends.

    weight is 1/Σvalid, or 0 where not valid. The batch's segments number the paths, 0 ≤ segment < N, with gaps: the
    k-th path of environment b within this rollout is b·T + k. A row that is not valid is a path of its own.
    """
    advantage, valid = jnp.asarray(advantage), jnp.asarray(valid)
    steps, envs = advantage.shape
    rows = steps * envs
    weight = valid.astype(advantage.dtype) / jnp.maximum(jnp.sum(valid), 1).astype(advantage.dtype)
    advantage = jnp.where(valid, advantage, 0.0)
    if centre:
        advantage = jnp.where(valid, advantage - jnp.sum(weight * advantage), 0.0)
    return Batch(
        obs=jnp.reshape(obs, (rows, *obs.shape[2:])),
        weight=weight.reshape(rows),
        action=jnp.reshape(action, (rows, 1, *action.shape[2:])),
        action_weight=jnp.ones((rows, 1), advantage.dtype),
        advantage=advantage.reshape(rows, 1),
        segment=_paths(jnp.asarray(done) | ~valid, segment).reshape(rows),
    )


def _paths(last: Bool[Array, "T B"], longest: int | None) -> Int[Array, "T B"]:
    """The number of the path of each row: a new one after the last row of another, and every `longest` steps of one."""
    steps, envs = last.shape
    row = jnp.arange(steps, dtype=jnp.int32)[:, None]
    fresh = jnp.concatenate([jnp.ones((1, envs), bool), last[:-1]])
    since = row - jax.lax.cummax(jnp.where(fresh, row, 0), axis=0)
    begins = since % (longest or steps) == 0
    return jnp.arange(envs, dtype=jnp.int32) * steps + jnp.cumsum(begins, axis=0, dtype=jnp.int32) - 1
