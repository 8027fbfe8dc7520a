"""Vector algebra on pytrees of arrays.

What gives one number of a whole tree is of its flat vector, and so are the iterations of a solver: every leaf that is
worked out by itself is a kernel to be compiled and started. Gradients and products with matrices stay trees.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.flatten_util import ravel_pytree

AnyArray = Array | np.ndarray
"""What is accepted where an array is meant: parameters that left an exact method are NumPy float64."""

Tree = Any  # a pytree whose leaves are float arrays


def dot(a: Tree, b: Tree) -> Array:
    """aᵀb, a scalar. Two trees of one structure; an empty tree gives 0."""
    products = jax.tree.leaves(jax.tree.map(lambda x, y: jnp.vdot(x, y), a, b))
    return jnp.stack(products).sum() if products else jnp.zeros(())


def norm(a: Tree) -> Array:
    """‖a‖₂, safe against overflow and underflow of the squares in float32."""
    vector, _ = ravel(a)
    largest = jnp.max(jnp.abs(vector), initial=0.0)
    safe = jnp.where((largest > 0) & jnp.isfinite(largest), largest, 1.0)
    scaled = (1.0 / safe) * vector
    return jnp.where(jnp.isfinite(largest), safe * jnp.sqrt(jnp.vdot(scaled, scaled)), largest)


def scale(c: Any, a: Tree) -> Tree:
    """c·a, in the dtypes of a."""
    return jax.tree.map(lambda x: (c * x).astype(x.dtype), a)


def add(a: Tree, b: Tree) -> Tree:
    """a + b."""
    return jax.tree.map(jnp.add, a, b)


def subtract(a: Tree, b: Tree) -> Tree:
    """a − b."""
    return jax.tree.map(jnp.subtract, a, b)


def axpy(c: Any, a: Tree, b: Tree) -> Tree:
    """c·a + b, in the dtypes of b."""
    return jax.tree.map(lambda x, y: (c * x + y).astype(y.dtype), a, b)


def zeros_like(a: Tree) -> Tree:
    """The zero vector of a's structure."""
    return jax.tree.map(jnp.zeros_like, a)


def on_vectors(function: Callable[[Tree], Tree], unravel: Callable[[Array], Tree]) -> Callable[[Array], Array]:
    """A function from trees to trees as one from flat vectors [P] to flat vectors.  unravel: as of `ravel`."""
    return lambda vector: ravel(function(unravel(vector)))[0]


def where(condition: Array, a: Tree, b: Tree) -> Tree:
    """a if the scalar condition holds, else b, leaf by leaf and bit by bit."""
    return jax.tree.map(lambda x, y: jnp.where(condition, x, y), a, b)


def all_finite(a: Tree) -> Array:
    """True if no entry of any leaf is NaN or infinite."""
    return jnp.all(jnp.isfinite(ravel(a)[0]))


def size(a: Tree) -> int:
    """P, the number of entries in all leaves."""
    return sum(x.size for x in jax.tree.leaves(a))


def ravel(a: Tree) -> tuple[Array, Callable[[Array], Tree]]:
    """The flat vector [P] in the order of `jax.flatten_util.ravel_pytree`, and the way back."""
    return ravel_pytree(a)
