"""A function of one row for N rows: all at once, or a chunk after the other, whose intermediate arrays stay in cache.

The derivatives of what is worked out in chunks come in chunks too, and work out anew what they need of it: a large
batch costs per row about what a small one does, and takes the memory of its inputs, its outputs and one chunk.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from steepest.errors import UsageError
from steepest.sequences import Recurrent, Sequences, along, is_recurrent

WHOLE = 16_384
"""So many rows are worked out at once, if nobody says otherwise."""
SIZE = 4_096
"""Rows of a chunk of more."""


def each(function: Callable[[Any], Any] | Recurrent, rows: Any, size: int | None = None) -> Any:
    """`jax.vmap(function)(rows)`, computed `size` rows at a time.

    rows: a pytree of arrays [N,…].  size: None for all at once up to 16 384 rows, and 4 096 at a time beyond.
    For a function that remembers, rows are `Sequences`: all at once for None, else as many whole ones at a time as have
    `size` rows and divide their number, at least one.

    Raises UsageError where one remembers and the other does not.
    """
    if isinstance(rows, Sequences):
        return _along(function, rows, size)
    if is_recurrent(function):
        raise UsageError(f"{type(function).__name__} remembers, and is given sequences: observations [N,…] are no path")
    of_one: Any = function
    if not divided(rows, size):
        return jax.vmap(of_one)(rows)

    def one(row: Any) -> Any:  # a module is no key of a cache, a function is
        return of_one(row)

    return jax.lax.map(jax.checkpoint(one, prevent_cse=False), rows, batch_size=SIZE if size is None else size)


def _along(function: Any, rows: Sequences, size: int | None) -> Any:
    together = _together(rows, size)
    steps, envs = rows.fresh.shape
    if together == envs:
        return along(function, rows)[0]

    def apart(x: Any) -> Any:  # [T,B,…] ↦ [B/n,T,n,…]
        x = jnp.asarray(x)
        return jnp.moveaxis(x.reshape(steps, envs // together, together, *x.shape[2:]), 1, 0)

    def joined(x: Any) -> Any:  # [B/n,T·n,…] ↦ [T·B,…]
        x = jnp.moveaxis(x.reshape(envs // together, steps, together, *x.shape[2:]), 0, 1)
        return x.reshape(steps * envs, *x.shape[3:])

    memory = jnp.asarray(rows.memory).reshape(envs // together, together, -1)
    parts = Sequences(jax.tree.map(apart, rows.obs), apart(rows.fresh), memory)
    of_part = jax.checkpoint(lambda part: along(function, part)[0], prevent_cse=False)
    return jax.tree.map(joined, jax.lax.map(of_part, parts))


def _together(rows: Sequences, size: int | None) -> int:
    """How many sequences are worked out at a time."""
    steps, envs = rows.fresh.shape
    most = envs if size is None else max(1, size // steps)
    return max(n for n in range(1, envs + 1) if envs % n == 0 and n <= most)


def divided(rows: Any, size: int | None = None) -> bool:
    """Whether `each` computes these rows in chunks."""
    if isinstance(rows, Sequences):
        return _together(rows, size) < rows.fresh.shape[1]
    return jax.tree.leaves(rows)[0].shape[0] > (WHOLE if size is None else size)
