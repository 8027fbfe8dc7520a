"""What a policy or a critic is given of a rollout: N = T·B observations, or sequences where it remembers.

    V_t = V(o_t | m_t)        V'_t = V(o'_t | m_t and o_t)

The true successor o'_t is seen with the memory of its own episode, also where that ends in row t: bootstrapping needs
no more than one step from there.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from steepest import chunks
from steepest.batch import Rollout
from steepest.errors import UsageError
from steepest.sequences import Sequences, advance, along, fresh_rows, initial_memory, is_recurrent


def rows_of(model: Any, obs: Any, rollout: Rollout, memory: Any) -> Any:
    """Observations [N,…], row t·B + b; `Sequences` for a model that remembers, with 0 in rows that are not valid.

    obs: [T,B,…], the rollout's as the model takes them.  memory: [B,M] of the model before the first row; not looked at
    where it remembers nothing.  Raises UsageError where that is missing.
    """
    if not is_recurrent(model):
        return jax.tree.map(_flat, obs)
    if memory is None:
        raise UsageError("a rollout of a policy with memory needs `memory`, [B,M]: that before its first row")
    valid = jnp.asarray(rollout.valid)

    def kept(x: Any) -> Array:
        x = jnp.asarray(x)
        return jnp.where(valid.reshape(*valid.shape, *[1] * (x.ndim - 2)), x, jnp.zeros((), x.dtype))

    return Sequences(jax.tree.map(kept, obs), fresh_rows(_done(rollout), valid), memory)


class Values(NamedTuple):
    """rows: what the critic was given.  value: V(obs), and next_value: V(next_obs), [T,B].  memory: [B,M] after the
    rollout, that of a new episode where one ended with it; None of a critic that remembers nothing."""

    rows: Any
    value: Float[Array, "T B"]
    next_value: Float[Array, "T B"]
    memory: Any


def values_along(critic: Any, obs: Any, next_obs: Any, rollout: Rollout, memory: Any, chunk: int | None) -> Values:
    """What a critic says along a rollout.

    obs, next_obs: [T,B,…], the rollout's as the critic takes them.  memory: [B,M] of the critic, before the rollout.
    chunk: as of `chunks.each`, of a critic that remembers nothing.
    """
    shape, rows = rollout.valid.shape, rows_of(critic, obs, rollout, memory)
    after = jax.tree.map(_flat, next_obs)
    if not isinstance(rows, Sequences):
        value, next_value = (chunks.each(critic, x, chunk).reshape(shape) for x in (rows, after))
        return Values(rows, value, next_value, None)
    value, memories = along(critic, rows)
    _, next_value = advance(critic, _flat(memories), after)
    ended = _done(rollout)[-1] | ~jnp.asarray(rollout.valid)[-1]
    last = jnp.where(ended[:, None], initial_memory(critic), memories[-1])
    return Values(rows, value.reshape(shape), next_value.reshape(shape), jax.lax.stop_gradient(last))


def memories(model: Any, envs: int) -> Float[Array, "B M"] | None:
    """Of so many new episodes; None for a model that remembers nothing."""
    return jnp.tile(initial_memory(model), (envs, 1)) if is_recurrent(model) else None


def _done(rollout: Rollout) -> Array:
    return jnp.asarray(rollout.terminated) | jnp.asarray(rollout.truncated)


def _flat(x: Any) -> Any:
    """[T,B,…] ↦ [T·B,…]."""
    return x.reshape(-1, *x.shape[2:])
