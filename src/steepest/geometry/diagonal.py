"""The diagonal of the Fisher matrix, exactly: a cheap preconditioner, and a metric that forgets what is coupled.

    F_pp = Σ_n w_n Σ_i (∂z_n/∂θ_p · Rᵀe_i)²        dense layer:  diag(W) = Σ_n w_n (x_n²)(Σ_i b_ni²)ᵀ

What is in no dense layer goes by gradients of single rows, a few at a time: nothing of size N × P is held.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from steepest.batch import Batch
from steepest.errors import UsageError
from steepest.geometry.local import Local
from steepest.geometry.metrics import fisher
from steepest.geometry.objectives import Gradient
from steepest.geometry.output_rows import every_row
from steepest.linear import Diagonal, Measured
from steepest.parameters import merge
from steepest.sequences import Sequences

_ROWS_AT_A_TIME = 64


@dataclass(frozen=True)
class FisherDiagonal:
    """diag(F) for the direction of a step; its length is measured by F itself. There is no dual."""

    def operator(self, local: Local, batch: Batch) -> Measured:
        leaves, structure = jax.tree.flatten(local.params)
        weight = jnp.asarray(batch.weight)
        known = _by_layers(local, weight)
        others = [n for n in range(len(leaves)) if n not in known]
        entries = {**known, **_by_rows(local, others, weight)}
        diagonal = jax.tree.unflatten(structure, [entries[n].astype(x.dtype) for n, x in enumerate(leaves)])
        return Measured(Diagonal(diagonal), fisher.operator(local, batch))

    def dual(self, local: Local, batch: Batch, gradient: Gradient) -> Array | None:
        return None


diagonal = FisherDiagonal()


def _by_layers(local: Local, weight: Array) -> dict[int, Array]:
    """The diagonal at the leaves of layers that are used at one position, by their numbers, as far as known."""
    try:
        tapped = local.taps()
    except UsageError:
        return {}
    rows = every_row(local)

    def add(sums: list[Array], j: Array) -> tuple[list[Array], None]:
        cotangents = tapped.pull(local.distribution.whiten_transpose(rows.row(j)))
        return [total + b**2 for total, b in zip(sums, cotangents, strict=True)], None

    shapes = [(len(weight), *tap.shape) for tap in tapped.taps]
    squares, _ = jax.lax.scan(add, [jnp.zeros(shape, weight.dtype) for shape in shapes], jnp.arange(rows.number))
    entries: dict[int, Array] = {}
    for tap, x, square in zip(tapped.taps, tapped.inputs, squares, strict=True):
        if tap.kind == "conv" or (tap.kind == "dense" and len(tap.shape) > 1):
            continue
        b = _kept(square, weight)
        if tap.bias is not None:
            entries[tap.bias] = jnp.tensordot(weight, b, axes=1)
        if tap.weight is not None:
            entries[tap.weight] = (weight[:, None] * _kept(x, weight) ** 2).T @ b
    return entries


def _by_rows(local: Local, numbers: list[int], weight: Array) -> dict[int, Array]:
    """The diagonal at these leaves: Σ_n w_n Σ_i g_ni², g_ni the gradient of one row's e_i·Rz."""
    if not numbers:
        return {}
    if isinstance(local.obs, Sequences):
        raise UsageError(
            "the diagonal of the Fisher matrix is not worked out for a policy with memory: leave preconditioner at none"
        )
    leaves, structure = jax.tree.flatten(local.params)

    def squares(obs: Any, w: Array) -> list[Array]:
        def predict(some: list[Array]) -> Any:
            whole = list(leaves)
            for n, leaf in zip(numbers, some, strict=True):
                whole[n] = leaf
            return merge(jax.tree.unflatten(structure, whole), local.rest)(obs)

        z, pull = jax.vjp(predict, [leaves[n] for n in numbers])
        size = jax.eval_shape(z.whiten, z).shape[0]
        gradients = jax.vmap(lambda y: pull(z.whiten_transpose(y))[0])(jnp.eye(size, dtype=weight.dtype))
        return [w * jnp.sum(g**2, axis=0) for g in gradients]

    def add(sums: list[Array], chunk: Any) -> tuple[list[Array], None]:
        return [total + part.sum(axis=0) for total, part in zip(sums, jax.vmap(squares)(*chunk), strict=True)], None

    zeros = [jnp.zeros(leaves[n].shape, weight.dtype) for n in numbers]
    sums, _ = jax.lax.scan(add, zeros, _chunks((local.obs, weight)))
    return dict(zip(numbers, sums, strict=True))


def _chunks(rows: Any) -> Any:
    """[N,…] as [chunks, rows in one,…]. In place of masked rows, and to fill up: the heaviest row, with weight 0."""
    obs, weight = rows
    count = len(weight)
    order = jnp.arange(-(-count // _ROWS_AT_A_TIME) * _ROWS_AT_A_TIME)
    real = (order < count) & (weight[jnp.minimum(order, count - 1)] > 0)
    order = jnp.where(real, order, jnp.argmax(weight))

    def cut(x: Any) -> Array:
        x = jnp.asarray(x)[order]
        return x.reshape(-1, _ROWS_AT_A_TIME, *x.shape[1:])

    return jax.tree.map(cut, obs), jnp.where(real, weight[order], 0.0).reshape(-1, _ROWS_AT_A_TIME)


def _kept(x: Array, weight: Array) -> Array:
    """x, 0 in masked rows, whatever is there."""
    return jnp.where(weight.reshape(-1, *[1] * (x.ndim - 1)) > 0, x, 0.0)
