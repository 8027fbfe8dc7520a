"""Conjugate gradients (Hestenes & Stiefel 1952) that survive singular matrices in float32.

    α = rᵀr / pᵀMp     x ← x + αp     r ← r − αMp     p ← r + (r'ᵀr'/rᵀr) p

It stops when the Rayleigh quotient pᵀMp/pᵀp falls to eps times the largest seen: the test is relative, because an
absolute one rejects ordinary Fisher matrices, and x stays the last good iterate.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from steepest import trees
from steepest.errors import UsageError
from steepest.linear.operators import Operator
from steepest.linear.solution import Solution, Status


class _Carry(NamedTuple):
    x: Any
    r: Any
    p: Any
    rr: Array  # rᵀr
    largest: Array  # κ, the largest Rayleigh quotient so far
    iterations: Array
    status: Array  # -1 while running


@dataclass(frozen=True)
class ConjugateGradient:
    """Solve (M + λI)x = b by conjugate gradients from x = 0.

    iterations: at most this many products with M (10 in Schulman et al. 2015).
    tolerance: stop at ‖b − Mx‖ ≤ tolerance·‖b‖.

    Raises UsageError for iterations < 1 or a negative tolerance.
    """

    iterations: int = 10
    tolerance: float = 1e-10

    def __post_init__(self) -> None:
        if self.iterations < 1:
            raise UsageError(f"ConjugateGradient needs iterations ≥ 1, got {self.iterations}")
        if not self.tolerance >= 0:
            raise UsageError(f"ConjugateGradient needs tolerance ≥ 0, got {self.tolerance}")

    def __call__(self, operator: Operator, rhs: Any, dual: Array | None = None) -> Solution:
        # Of b's own scale, so that neither rᵀr nor pᵀMp under- or overflows in float32.
        size = trees.norm(rhs)
        usable = jnp.isfinite(size) & (size > 0)
        b = trees.where(usable, trees.scale(1.0 / jnp.where(usable, size, 1.0), rhs), trees.zeros_like(rhs))
        rr = trees.dot(b, b)
        eps = jnp.finfo(rr.dtype).eps
        start = jnp.where(usable, -1, jnp.where(jnp.isfinite(size), Status.CONVERGED, Status.NONFINITE))

        def advance(c: _Carry) -> _Carry:
            product = operator(c.p)
            pp, curvature = trees.dot(c.p, c.p), trees.dot(c.p, product)
            largest = jnp.maximum(c.largest, curvature / pp)
            positive = curvature > eps * largest * pp  # False for NaN too
            alpha = c.rr / jnp.where(positive, curvature, 1.0)
            x, r = trees.axpy(alpha, c.p, c.x), trees.axpy(-alpha, product, c.r)
            new = trees.dot(r, r)
            good = positive & jnp.isfinite(new) & trees.all_finite(x)
            status = jnp.select(
                [
                    ~jnp.isfinite(curvature) | (positive & ~good),
                    ~positive,
                    jnp.sqrt(new) <= self.tolerance,
                    c.iterations + 1 >= self.iterations,
                ],
                [Status.NONFINITE, Status.CURVATURE, Status.CONVERGED, Status.ITERATIONS],
                -1,
            )
            p = trees.axpy(new / c.rr, c.p, r)
            return _Carry(
                trees.where(good, x, c.x),
                trees.where(good, r, c.r),
                p,
                jnp.where(good, new, c.rr),
                largest,
                c.iterations + 1,
                status.astype(jnp.int32),
            )

        zero = jnp.zeros((), rr.dtype)
        carry = _Carry(trees.zeros_like(b), b, b, rr, zero, jnp.zeros((), jnp.int32), start.astype(jnp.int32))
        end = jax.lax.while_loop(lambda c: c.status < 0, advance, carry)
        x = trees.scale(jnp.where(usable, size, 0.0), end.x)
        residual = jnp.where(jnp.isfinite(size), jnp.sqrt(end.rr), jnp.inf)
        return Solution(x, end.status, residual, end.iterations)
