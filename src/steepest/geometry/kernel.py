"""SSᵀ through the layers of a policy: without S, an array of samples × parameters.

The gradient of row i of state n by a dense layer's weights is the outer product x_n b_niᵀ, b_ni the row's cotangent at
the layer's output (`taps.py`), so that its products with all others need x and b alone; and SSᵀ is a sum over layers:

    dense      (x_n·x_m + 1)(b_ni·b_mj)                    1 for the bias
    conv       G_ni·G_mj + β_ni·β_mj                       G_ni = Σ_t x_nt b_nitᵀ, some features at a time;  β = Σ_t b
    constant   b_ni·b_mj
    the rest   Σ_p S_nip S_mjp                             column by column: parameters that belong to no layer

For a network of width h and R rows: 4R²P/h operations beside the one backward pass, where S itself would cost 2R²P.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from steepest.errors import UsageError
from steepest.geometry.local import Local, Tapped
from steepest.taps import Tap

_COLUMNS_AT_A_TIME = 64
_ENTRIES_AT_A_TIME = 2**23  # of SSᵀ by one layer, and of the gradients by a convolution's weights


def sample_kernel(
    local: Local, forward: Callable[[Any], Array], spread: Callable[[Array], Any]
) -> Float[Array, "R R"] | None:
    """SSᵀ of a factor S with the same number of rows for each state, R = N·k of them, in the order of `forward`.

    forward: v ↦ S·v, [N,k].  spread: y [N,k] ↦ the cotangent c on z with Sᵀy = Jᵀc, state by state.

    None where products with S are cheaper: for layers that cannot be followed, and for more than R parameters that
    belong to none.
    """
    try:
        tapped = local.taps()
    except UsageError:
        return None
    rows = jax.eval_shape(forward, local.params)
    leaves = jax.tree.leaves(local.params)
    others = sum(leaves[n].size for n in tapped.rest)
    if others > rows.size:
        return None
    layers = list(zip(tapped.taps, tapped.inputs, _cotangents(tapped, spread, rows), strict=True))
    kernel = _of_vectors([layer for layer in layers if not _has_patches(layer[0])], rows)
    for tap, x, b in (layer for layer in layers if _has_patches(layer[0])):
        kernel = _with_patches(kernel, tap, x, b)
    return _with_columns(kernel, local.params, tapped.rest, forward) if others else kernel


def _cotangents(tapped: Tapped, spread: Callable[[Array], Any], rows: Any) -> tuple[Array, ...]:
    """b of each layer, [N,k,…]: states do not mix, so that one backward pass serves the i-th row of all of them."""

    def one(unit: Array) -> tuple[Array, ...]:
        return tapped.pull(spread(jnp.broadcast_to(unit, rows.shape)))

    return jax.vmap(one, out_axes=1)(jnp.eye(rows.shape[1], dtype=rows.dtype))


def _has_patches(tap: Tap) -> bool:
    return tap.kind != "constant" and len(tap.shape) > 1


def _of_vectors(layers: list[tuple[Tap, Any, Array]], rows: Any) -> Array:
    """SSᵀ of the dense layers and the constants, some states at a time: of every layer alone it is R×R numbers too."""
    states, k = rows.shape
    size = min(states, max(1, _ENTRIES_AT_A_TIME // (k * rows.size)))

    def place(part: Array, kernel: Array) -> Array:
        first = jnp.minimum(part * size, states - size)  # the last part overlaps the one before it

        def some(x: Any) -> Array:
            return jax.lax.dynamic_slice_in_dim(jnp.asarray(x, rows.dtype), first, size)

        block = jnp.zeros((size, k, states, k), rows.dtype)
        for tap, x, b in layers:
            flat = b.reshape(rows.size, -1)
            product = _products(some(b).reshape(size * k, -1), flat).reshape(block.shape)
            if tap.kind == "dense":
                inputs = 0.0 if tap.weight is None else _products(some(x), jnp.asarray(x, rows.dtype))
                product = product * jnp.broadcast_to(inputs + (tap.bias is not None), (size, states))[:, None, :, None]
            block = block + product
        return jax.lax.dynamic_update_slice_in_dim(kernel, block.reshape(size * k, rows.size), first * k, axis=0)

    return jax.lax.fori_loop(0, math.ceil(states / size), place, jnp.zeros((rows.size, rows.size), rows.dtype))


def _with_patches(kernel: Array, tap: Tap, x: Any, b: Array) -> Array:
    """SSᵀ with that of a convolution: Σ_f G_f G_fᵀ over the features f of its patches, some at a time.

    x: [N,T,in].  b: [N,k,…,out], T positions.
    """
    states, k, outputs = len(b), b.shape[1], b.shape[-1]
    b = b.reshape(states, k, -1, outputs)
    if tap.bias is not None:
        kernel = kernel + _gram(jnp.sum(b, axis=2).reshape(states * k, -1))
    if tap.weight is None:
        return kernel
    x = jnp.asarray(x, b.dtype).reshape(states, b.shape[2], -1)
    rows, features = len(kernel), x.shape[-1]
    parts = math.ceil(rows * outputs * features / _ENTRIES_AT_A_TIME)
    size = math.ceil(features / min(parts, features))

    def add(part: Array, kernel: Array) -> Array:
        first = jnp.minimum(part * size, features - size)  # the last part overlaps the one before it,
        fresh = first + jnp.arange(size) >= part * size  # and must not count twice
        some = jnp.where(fresh, jax.lax.dynamic_slice_in_dim(x, first, size, axis=2), 0.0)
        gradients = jnp.einsum("ntf,nkto->nkfo", some, b, precision="highest")
        return kernel + _gram(gradients.reshape(rows, -1))

    return jax.lax.fori_loop(0, math.ceil(features / size), add, kernel)


def _with_columns(kernel: Array, params: Any, numbers: tuple[int, ...], forward: Callable[[Any], Array]) -> Array:
    """SSᵀ + CCᵀ, C the columns of S that belong to the leaves of those numbers, a few at a time."""
    leaves, structure = jax.tree.flatten(params)
    ends = [sum(leaves[n].size for n in numbers[: i + 1]) for i in range(len(numbers))]

    def column(p: Array) -> Array:  # 0 beyond the last: an index out of bounds sets nothing
        unit = jnp.zeros(ends[-1], kernel.dtype).at[p].set(1, mode="drop")
        tangent = [jnp.zeros_like(leaf) for leaf in leaves]
        for n, end in zip(numbers, ends, strict=True):
            leaf = leaves[n]
            tangent[n] = unit[end - leaf.size : end].reshape(leaf.shape).astype(leaf.dtype)
        return forward(jax.tree.unflatten(structure, tangent)).ravel()

    def add(part: Array, kernel: Array) -> Array:
        columns = jax.vmap(column, out_axes=1)(part * _COLUMNS_AT_A_TIME + jnp.arange(_COLUMNS_AT_A_TIME))
        return kernel + _gram(columns)

    return jax.lax.fori_loop(0, math.ceil(ends[-1] / _COLUMNS_AT_A_TIME), add, kernel)


def _products(a: Array, b: Array) -> Array:
    """ABᵀ, in full precision on every device."""
    return jnp.matmul(a, b.T, precision="highest")


def _gram(rows: Array) -> Array:
    return _products(rows, rows)
