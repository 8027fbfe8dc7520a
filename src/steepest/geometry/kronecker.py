"""Kronecker factors: the Fisher matrix of a network, a block A ⊗ G for each layer (Martens & Grosse 2015).

    F_l = E[x̄x̄ᵀ ⊗ bbᵀ] ≈ E[x̄x̄ᵀ] ⊗ E[bbᵀ] = A ⊗ G          x̄ = (x, 1), b the cotangent of the layer's output

    conv, over T positions (Grosse & Martens 2016):  A = E Σ_t x̄_t x̄_tᵀ,  G = (1/T) E Σ_t b_t b_tᵀ
    constant, such as ln σ:                          A = 1,  G = E[bbᵀ]: exact

b is the pull-back of Rᵀy for whitened rows y (`output_rows`): with all of them the expectation over the actions is
exact. The factors of an update can be averaged with those before, and decomposed once in several updates.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from steepest.batch import Batch
from steepest.errors import UsageError
from steepest.geometry.local import Local, Tapped
from steepest.geometry.metrics import fisher
from steepest.geometry.moment import Moment
from steepest.geometry.objectives import Gradient
from steepest.geometry.output_rows import OutputRows, Rows, every_row
from steepest.geometry.running_factors import Factors, Running, check_sides, decomposed
from steepest.linear import Block, KroneckerBlocks, Measured
from steepest.taps import Tap

_PURPOSE = 3  # folded into the update's key


@dataclass(frozen=True)
class Kronecker:
    """diag_l(A_l ⊗ G_l) for the direction of a step; its length is measured by F itself.

    rows: what G is made of: `every_row`, `Probes(n)` or `taken_actions`.
    decay: in [0, 1), the weight of the factors before; 0 for those of this batch alone. The averages are unbiased from
        the first update on, and factors that are not finite are not averaged in.
    every: decompose the factors anew in one update of so many. The inverse is exact for the λ of each.
    blocks: of this update; not to be set.

    Raises UsageError for a decay or every out of range, and in an update for parameters that belong to no layer.
    """

    rows: OutputRows = every_row
    decay: float = 0.0
    every: int = 1
    blocks: Any = None

    def __post_init__(self) -> None:
        if not 0 <= self.decay < 1:
            raise UsageError(f"Kronecker needs 0 ≤ decay < 1, got {self.decay}")
        if self.every < 1:
            raise UsageError(f"Kronecker needs every ≥ 1, got {self.every}")

    @property
    def _remembers(self) -> bool:
        return self.decay > 0 or self.every > 1

    def init(self, params: Any) -> Any:
        """The factors so far; nothing, if none are kept."""
        return Running.empty(params) if self._remembers else ()

    def begin(self, carried: Any, moment: Moment) -> tuple[Kronecker, Any]:
        """Compute the factors of this update, average them with those before, and decompose them if it is time."""
        taps, fresh = _factors(moment.local, moment.batch, self.rows, jax.random.fold_in(moment.key, _PURPOSE))
        if not self._remembers:
            return replace(self, blocks=_blocks(taps, [decomposed(one) for one in fresh])), ()
        slots = [tap.bias if tap.weight is None else tap.weight for tap in taps]
        due = moment.updates % self.every == 0
        pairs, carried = carried.absorbed(slots, fresh, self.decay, due)
        return replace(self, blocks=_blocks(taps, pairs)), carried

    def operator(self, local: Local, batch: Batch) -> Measured:
        blocks = self.blocks
        if blocks is None:
            if self._remembers:
                raise UsageError("Kronecker with a decay, or every > 1, averages when an update begins: call begin")
            taps, fresh = _factors(local, batch, self.rows, None)
            blocks = _blocks(taps, [decomposed(one) for one in fresh])
        return Measured(blocks, fisher.operator(local, batch))

    def dual(self, local: Local, batch: Batch, gradient: Gradient) -> Array | None:
        return None


kronecker = Kronecker()


def _blocks(taps: tuple[Tap, ...], pairs: list[Any]) -> KroneckerBlocks:
    return KroneckerBlocks(tuple(Block(tap.weight, tap.bias, *pair) for tap, pair in zip(taps, pairs, strict=True)))


def _factors(local: Local, batch: Batch, rows: OutputRows, key: Any) -> tuple[tuple[Tap, ...], list[Factors]]:
    """The layers, with A and G of each. Masked rows count for nothing, whatever is in them."""
    tapped = local.taps()
    _all_known(tapped, local.params)
    root = jnp.sqrt(jnp.asarray(batch.weight))
    inputs = [_input_factor(tap, x, root) for tap, x in zip(tapped.taps, tapped.inputs, strict=True)]
    for tap, a in zip(tapped.taps, inputs, strict=True):
        check_sides(len(a), _width(tap))
    outputs = _output_factors(tapped, local, rows(local, batch, key), root)
    return tapped.taps, [Factors(a, g) for a, g in zip(inputs, outputs, strict=True)]


def _input_factor(tap: Tap, x: Any, root: Array) -> Array:
    """A = Σ_n w_n Σ_t x̄_nt x̄_ntᵀ; a layer without weight has the input 1."""
    positions = _positions(tap)
    parts = [] if tap.weight is None else [jnp.reshape(x, (len(root), positions, -1))]
    if tap.bias is not None:
        parts.append(jnp.ones((len(root), positions, 1), root.dtype))
    rows = _weighted(jnp.concatenate(parts, axis=-1), root)
    return rows.T @ rows


def _output_factors(tapped: Tapped, local: Local, rows: Rows, root: Array) -> list[Array]:
    """G = Σ_n w_n Σ_j (1/T) Σ_t b_njt b_njtᵀ of each layer, one row j at a time."""

    def add(sums: list[Array], j: Array) -> tuple[list[Array], None]:
        cotangents = tapped.pull(local.distribution.whiten_transpose(rows.row(j)))
        pairs = zip(sums, tapped.taps, cotangents, strict=True)
        return [total + outer(tap, b) for total, tap, b in pairs], None

    def outer(tap: Tap, b: Array) -> Array:
        flat = _weighted(jnp.reshape(b, (len(root), _positions(tap), _width(tap))), root)
        return flat.T @ flat / _positions(tap)

    zeros = [jnp.zeros((_width(tap), _width(tap)), root.dtype) for tap in tapped.taps]
    return jax.lax.scan(add, zeros, jnp.arange(rows.number))[0]


def _weighted(x: Array, root: Array) -> Array:
    """√w·x as rows [N·T, …], 0 where w = 0."""
    kept = jnp.where(root[:, None, None] > 0, x, 0.0)
    return (root[:, None, None] * kept).reshape(-1, x.shape[-1])


def _width(tap: Tap) -> int:
    """The number of outputs at one position; all of a constant, which is used at once."""
    size = 1
    for n in tap.shape if tap.kind == "constant" else tap.shape[-1:]:
        size *= n
    return size


def _positions(tap: Tap) -> int:
    """T."""
    size = 1
    for n in () if tap.kind == "constant" else tap.shape[:-1]:
        size *= n
    return size


def _all_known(tapped: Tapped, params: Any) -> None:
    """Raise UsageError if a parameter belongs to no layer: a diagonal in its place would be another matrix."""
    if not tapped.rest:
        return
    paths = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(params)]
    names = ", ".join(f"policy{paths[n]}" for n in tapped.rest)
    raise UsageError(
        f"Kronecker factors are of layers, and {names} of the policy belongs to none, or to more than one; build it of "
        "steepest.layers, pass what is used as it is through steepest.taps.constant, keep it out of θ with st.frozen, "
        "or use the Fisher metric with ConjugateGradient"
    )
