"""Kronecker factors from update to update: averaged, and decomposed only now and then.

    S ← εS + (1 − ε)·(A, G)        m ← εm + (1 − ε)        Ā = S/m, unbiased from the first update on

One place for each leaf of θ, since that is all that is known before the first batch: the factors of a layer are at its
weight, or at its bias where it has no weight.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from steepest import trees
from steepest.errors import UsageError
from steepest.linear import Factor, factor

_LARGEST = 10_000


class Factors(NamedTuple):
    """Of one layer.  inputs: A.  outputs: G."""

    inputs: Float[Array, "i i"]
    outputs: Float[Array, "o o"]


class Running(NamedTuple):
    """sums: S.  mass: m.  blocks: (A, G) by their eigenvectors, as of the last time; both one a leaf of θ."""

    sums: list[Factors]
    mass: Float[Array, ""]
    blocks: list[tuple[Factor, Factor]]

    @classmethod
    def empty(cls, params: Any) -> Running:
        """Before the first update of θ."""
        leaves = jax.tree.leaves(params)
        sums = []
        for leaf in leaves:
            sides = (math.prod(leaf.shape[:-1]) + 1, leaf.shape[-1]) if leaf.ndim > 1 else (1, leaf.size)
            check_sides(*sides)
            sums.append(Factors(*(jnp.zeros((n, n), leaf.dtype) for n in sides)))
        blocks = [(_nothing(one.inputs), _nothing(one.outputs)) for one in sums]
        return cls(sums, jnp.zeros((), leaves[0].dtype), blocks)

    def absorbed(
        self, slots: list[Any], fresh: list[Factors], decay: float, due: Array
    ) -> tuple[list[tuple[Factor, Factor]], Running]:
        """(decomposed averages of the layers, what is carried on).

        slots: the leaf of each layer.  fresh: their factors, not averaged in where any of them is not finite.
        decay: ε.  due: whether it is time to decompose; it is, too, as long as nothing has been.
        """
        before = [_corner(self.sums[slot], one) for slot, one in zip(slots, fresh, strict=True)]
        usable = trees.all_finite(fresh)
        new = 1.0 - decay
        sums = trees.where(usable, trees.axpy(decay, before, trees.scale(new, fresh)), before)
        mass = jnp.where(usable, decay * self.mass + new, self.mass).astype(self.mass.dtype)
        average = trees.scale(1.0 / mass, sums)  # NaN as long as there was nothing: no solve is made of it
        last = [_corners(self.blocks[slot], one) for slot, one in zip(slots, fresh, strict=True)]
        pairs = jax.lax.cond(
            due | (self.mass == 0), lambda: [decomposed(Factors(*one)) for one in average], lambda: last
        )
        kept, blocks = list(self.sums), list(self.blocks)
        for slot, total, pair in zip(slots, sums, pairs, strict=True):
            kept[slot] = jax.tree.map(_inside, kept[slot], total)
            blocks[slot] = jax.tree.map(_inside, blocks[slot], pair)
        return pairs, Running(kept, mass, blocks)


def decomposed(factors: Factors) -> tuple[Factor, Factor]:
    """(A, G) by their eigenvectors."""
    return factor(factors.inputs), factor(factors.outputs)


def check_sides(*sides: int) -> None:
    """Raise UsageError for a factor that is larger than can be decomposed."""
    if max(sides) > _LARGEST:
        raise UsageError(
            f"a layer has Kronecker factors of {' and '.join(str(n) for n in sides)} rows, more than {_LARGEST}, to "
            "decompose; use the Fisher metric with ConjugateGradient"
        )


def _nothing(matrix: Array) -> Factor:
    return Factor(jnp.zeros(len(matrix), matrix.dtype), matrix)


def _corner(held: Factors, like: Factors) -> Factors:
    """What a layer uses of its place: all, but the last row of A where it has no bias."""
    if len(held.outputs) != len(like.outputs):
        raise UsageError(
            f"a constant of {len(like.outputs)} entries in several axes has no place for its average; flatten it, or "
            "use Kronecker with decay=0 and every=1"
        )
    side = len(like.inputs)
    return Factors(held.inputs[:side, :side], held.outputs)


def _corners(held: tuple[Factor, Factor], like: Factors) -> tuple[Factor, Factor]:
    side = len(like.inputs)
    return Factor(held[0].values[:side], held[0].vectors[:side, :side]), held[1]


def _inside(held: Array, part: Array) -> Array:
    """`held` with `part` in its first corner."""
    return held.at[tuple(slice(n) for n in part.shape)].set(part)
