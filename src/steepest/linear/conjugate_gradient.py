"""Conjugate gradients (Hestenes & Stiefel 1952) that survive singular matrices in float32, preconditioned if asked.

    α = rᵀz / pᵀMp     x ← x + αp     r ← r − αMp     z = N⁻¹r     p ← z + (r'ᵀz'/rᵀz) p

N = I unless the operator brings its preconditioner (`Preconditioned`). The iteration stops when the Rayleigh quotient
pᵀMp/pᵀp falls to eps times the largest seen: the test is relative, because an absolute one rejects ordinary Fisher
matrices, and x stays the last good iterate.

Within the iteration a vector is one flat array: leaf by leaf its algebra would be half of a small program's kernels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from steepest import trees
from steepest.errors import UsageError
from steepest.linear.operators import Measured, Operator, Preconditioned
from steepest.linear.solution import Solution, Status


class _Carry(NamedTuple):
    x: Array
    r: Array
    p: Array
    rz: Array  # rᵀN⁻¹r
    rr: Array  # rᵀr
    largest: Array  # κ, the largest Rayleigh quotient so far
    iterations: Array
    status: Array  # -1 while running


@dataclass(frozen=True)
class ConjugateGradient:
    """Solve (M + λI)x = b by conjugate gradients.

    iterations: at most this many products with M (10 in Schulman et al. 2015).
    tolerance: stop at ‖b − Mx‖ ≤ tolerance·‖b‖.
    warm: start from the multiple c·x' of the last update's solution x' that is nearest to x in the norm of M,
        c = bᵀx'/x'ᵀMx', for one product more; from x = 0 otherwise.

    Raises UsageError for iterations < 1 or a negative tolerance.
    """

    iterations: int = 10
    tolerance: float = 1e-10
    warm: bool = False

    def __post_init__(self) -> None:
        if self.iterations < 1:
            raise UsageError(f"ConjugateGradient needs iterations ≥ 1, got {self.iterations}")
        if not self.tolerance >= 0:
            raise UsageError(f"ConjugateGradient needs tolerance ≥ 0, got {self.tolerance}")

    @property
    def remembers(self) -> bool:
        """`warm`."""
        return self.warm

    def __call__(self, operator: Operator, rhs: Any, dual: Array | None = None, last: Any = None) -> Solution:
        # Of b's own scale, so that neither rᵀr nor pᵀMp under- or overflows in float32.
        vector, unravel = trees.ravel(rhs)
        size = trees.norm(vector)
        usable = jnp.isfinite(size) & (size > 0)
        b = trees.where(usable, trees.scale(1.0 / jnp.where(usable, size, 1.0), vector), trees.zeros_like(vector))
        multiply, precondition = (
            trees.on_vectors(operator, unravel),
            trees.on_vectors(_preconditioner(operator), unravel),
        )
        warm = self.warm and last is not None
        x, r, used = _start(multiply, b, trees.ravel(last)[0]) if warm else (trees.zeros_like(b), b, 0)
        z = precondition(r)
        rz, rr = trees.dot(r, z), trees.dot(r, r)
        eps = jnp.finfo(rr.dtype).eps

        def advance(c: _Carry) -> _Carry:
            product = multiply(c.p)
            pp, curvature = trees.dot(c.p, c.p), trees.dot(c.p, product)
            largest = jnp.maximum(c.largest, curvature / pp)
            positive = curvature > eps * largest * pp  # False for NaN too
            alpha = c.rz / jnp.where(positive, curvature, 1.0)
            x, r = trees.axpy(alpha, c.p, c.x), trees.axpy(-alpha, product, c.r)
            z = precondition(r)
            rz, rr = trees.dot(r, z), trees.dot(r, r)
            good = positive & jnp.isfinite(rr) & jnp.isfinite(rz) & trees.all_finite(x)
            status = jnp.select(
                [
                    ~jnp.isfinite(curvature) | (positive & ~good),
                    ~positive,
                    jnp.sqrt(rr) <= self.tolerance,
                    c.iterations + 1 >= self.iterations,
                    ~(rz > 0),  # a preconditioner that is not positive definite in this precision
                ],
                [Status.NONFINITE, Status.CURVATURE, Status.CONVERGED, Status.ITERATIONS, Status.CURVATURE],
                -1,
            )
            p = trees.axpy(rz / c.rz, c.p, z)
            return _Carry(
                trees.where(good, x, c.x),
                trees.where(good, r, c.r),
                p,
                jnp.where(good, rz, c.rz),
                jnp.where(good, rr, c.rr),
                largest,
                c.iterations + 1,
                status.astype(jnp.int32),
            )

        start = jnp.select(
            [~jnp.isfinite(size), jnp.sqrt(rr) <= self.tolerance * usable, ~jnp.isfinite(rz), ~(rz > 0)],
            [Status.NONFINITE, Status.CONVERGED, Status.NONFINITE, Status.CURVATURE],
            jnp.where(used >= self.iterations, Status.ITERATIONS, -1),
        )
        zero = jnp.zeros((), rr.dtype)
        carry = _Carry(x, r, z, rz, rr, zero, jnp.asarray(used, jnp.int32), start.astype(jnp.int32))
        end = jax.lax.while_loop(lambda c: c.status < 0, advance, carry)
        x = trees.scale(jnp.where(usable, size, 0.0), end.x)
        residual = jnp.where(jnp.isfinite(size), jnp.sqrt(end.rr), jnp.inf)
        return Solution(unravel(x), end.status, residual, end.iterations)


def _preconditioner(operator: Operator) -> Callable[[Any], Any]:
    """r ↦ N⁻¹r; r itself for an operator that brings none."""
    if isinstance(operator, Measured):
        return _preconditioner(operator.direction)
    return operator.by.solve if isinstance(operator, Preconditioned) else lambda r: r


def _start(multiply: Callable[[Array], Array], b: Array, last: Array) -> tuple[Array, Array, int]:
    """(c·x', its residual, 1 product): c minimises ‖c·x' − x‖ in the norm of M; x = 0 where x' is of no use."""
    size = trees.norm(last)
    known = jnp.isfinite(size) & (size > 0)
    unit = trees.where(known, trees.scale(1.0 / jnp.where(known, size, 1.0), last), trees.zeros_like(last))
    product = multiply(unit)
    curvature = trees.dot(unit, product)
    useful = known & (curvature > 0) & jnp.isfinite(curvature) & trees.all_finite(product)
    c = jnp.where(useful, trees.dot(b, unit) / jnp.where(useful, curvature, 1.0), 0.0)
    product = trees.where(useful, product, trees.zeros_like(product))
    return trees.scale(c, unit), trees.axpy(-c, product, b), 1
