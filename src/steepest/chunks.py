"""A function of one row for N rows: all at once, or a chunk after the other, whose intermediate arrays stay in cache.

The derivatives of what is worked out in chunks come in chunks too, and work out anew what they need of it: a large
batch costs per row about what a small one does, and takes the memory of its inputs, its outputs and one chunk.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax

from steepest.errors import UsageError
from steepest.sequences import Recurrent, Sequences, along, is_recurrent

WHOLE = 16_384
"""So many rows are worked out at once, if nobody says otherwise."""
SIZE = 4_096
"""Rows of a chunk of more."""


def each(function: Callable[[Any], Any] | Recurrent, rows: Any, size: int | None = None) -> Any:
    """`jax.vmap(function)(rows)`, computed `size` rows at a time.

    rows: a pytree of arrays [N,…].  size: None for all at once up to 16 384 rows, and 4 096 at a time beyond.
    For a function that remembers, rows are `Sequences`, and are always worked out all at once.

    Raises UsageError where one remembers and the other does not, and for sequences in chunks.
    """
    if isinstance(rows, Sequences):
        if size is not None:
            raise UsageError(f"what remembers is worked out along whole sequences, not {size} rows at a time: no chunk")
        return along(function, rows)[0]
    if is_recurrent(function):
        raise UsageError(f"{type(function).__name__} remembers, and is given sequences: observations [N,…] are no path")
    of_one: Any = function
    if not divided(rows, size):
        return jax.vmap(of_one)(rows)

    def one(row: Any) -> Any:  # a module is no key of a cache, a function is
        return of_one(row)

    return jax.lax.map(jax.checkpoint(one, prevent_cse=False), rows, batch_size=SIZE if size is None else size)


def divided(rows: Any, size: int | None = None) -> bool:
    """Whether `each` computes these rows in chunks."""
    if isinstance(rows, Sequences):
        return False
    return jax.tree.leaves(rows)[0].shape[0] > (WHOLE if size is None else size)
