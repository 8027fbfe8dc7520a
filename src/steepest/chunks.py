"""A function of one row for N rows: all at once, or a chunk after the other, whose intermediate arrays stay in cache.

The derivatives of what is worked out in chunks come in chunks too, so that a large batch costs per row what a small one
does, and takes no more memory than its residuals.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax

WHOLE = 16_384
"""So many rows are worked out at once, if nobody says otherwise."""
SIZE = 4_096
"""Rows of a chunk of more."""


def each(function: Callable[[Any], Any], rows: Any, size: int | None = None) -> Any:
    """`jax.vmap(function)(rows)`, computed `size` rows at a time.

    rows: a pytree of arrays [N,…].  size: None for all at once up to 16 384 rows, and 4 096 at a time beyond.
    """
    count = jax.tree.leaves(rows)[0].shape[0]
    if size is None:
        size = count if count <= WHOLE else SIZE
    return jax.vmap(function)(rows) if size >= count else jax.lax.map(function, rows, batch_size=size)
