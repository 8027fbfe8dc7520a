"""Direct solves: Cholesky where λ > 0, the pseudo-inverse where λ = 0.

For M = SᵀS the pseudo-inverse is taken of S, not of M, so that the condition number is not squared, and the rank is
decided on S with its columns scaled to unit length: S = UΣVᵀD. A global cut-off would freeze the parameters of rare
states, which is the opposite of what a natural gradient is for.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from steepest import trees
from steepest.errors import UsageError
from steepest.linear.operators import Gram, Operator
from steepest.linear.solution import Solution, Status


@dataclass(frozen=True)
class Direct:
    """Solve (M + λI)x = b exactly. Cost O(P³) and memory O(P²): for P up to a few thousand.

    With λ = 0 (a Python number) x is the solution of least norm, M⁺b; with any other λ, Cholesky.

    parameters: refuse more than this, with a UsageError that names conjugate gradients.
    """

    parameters: int = 10_000

    def __call__(self, operator: Operator, rhs: Any, dual: Array | None = None) -> Solution:
        flat, unravel = trees.ravel(rhs)
        if flat.size > self.parameters:
            raise UsageError(
                f"Direct would factorise a {flat.size}×{flat.size} matrix, more than {self.parameters} parameters; "
                "use ConjugateGradient"
            )
        if not undamped(operator):
            x = cholesky_solve(operator.matrix(rhs), flat)
        elif isinstance(operator, Gram):
            x = least_norm(operator.factor(rhs), rhs=flat, dual=dual)
        else:
            x = pseudo_solve(operator.matrix(rhs), flat)
        return checked(operator, rhs, unravel(x))


def undamped(operator: Operator) -> bool:
    """True if λ is the number 0. A traced λ, which may be anything, counts as damped."""
    return isinstance(operator.damping, int | float) and operator.damping == 0


def checked(operator: Operator, rhs: Any, x: Any) -> Solution:
    """The `Solution` of a direct method: x = 0 and a status that says so where it is not finite."""
    finite = trees.all_finite(x)
    status = jnp.where(
        trees.all_finite(rhs), jnp.where(finite, Status.CONVERGED, Status.SINGULAR), Status.NONFINITE
    ).astype(jnp.int32)
    x = trees.where(finite, x, trees.zeros_like(x))
    size = trees.norm(rhs)
    residual = trees.norm(trees.subtract(rhs, operator(x))) / jnp.where(size > 0, size, 1.0)
    residual = jnp.where(jnp.isfinite(residual), residual, jnp.inf)
    return Solution(x, status, residual, jnp.zeros((), jnp.int32))


def cholesky_solve(matrix: Float[Array, "n n"], rhs: Float[Array, " n"]) -> Float[Array, " n"]:
    """A⁻¹b for a positive definite A; NaN where it is not, in this precision."""
    factor = jax.scipy.linalg.cho_factor(matrix, lower=True)
    return jax.scipy.linalg.cho_solve(factor, rhs)


def pseudo_solve(matrix: Float[Array, "n n"], rhs: Float[Array, " n"]) -> Float[Array, " n"]:
    """A⁺b for a symmetric positive semi-definite A, the rank decided after scaling the diagonal to 1."""
    diagonal = jnp.sqrt(jnp.diag(matrix))
    d = jnp.where(diagonal > 0, diagonal, 1.0)
    values, vectors = jnp.linalg.eigh(matrix / d[:, None] / d)
    values, vectors = values[::-1], vectors[:, ::-1]
    keep = values > values[0] * matrix.shape[0] * jnp.finfo(matrix.dtype).eps
    coordinates = jnp.where(keep, (vectors.T @ (rhs / d)) / jnp.where(keep, values, 1.0), 0.0)
    return _row_space(vectors, d, keep, (vectors @ coordinates) / d)


def least_norm(factor: Float[Array, "R P"], *, rhs: Float[Array, " P"], dual: Array | None) -> Float[Array, " P"]:
    """(SᵀS)⁺b of least norm from S itself: S⁺y where a dual y (of R entries) with Sᵀy = b is known, else S⁺S⁺ᵀb."""
    length = jnp.linalg.norm(factor, axis=0)
    d = jnp.where(length > 0, length, 1.0)
    u, sigma, vt = jnp.linalg.svd(factor / d, full_matrices=False)
    keep = sigma > sigma[0] * max(factor.shape) * jnp.finfo(factor.dtype).eps
    inverse = jnp.where(keep, 1.0 / jnp.where(keep, sigma, 1.0), 0.0)
    whitened = u.T @ dual.ravel() if dual is not None else inverse * (vt @ (rhs / d))
    return _row_space(vt.T, d, keep, (vt.T @ (inverse * whitened)) / d)


def _row_space(vectors: Array, d: Array, keep: Array, x: Array) -> Array:
    """x less its part in the null space: the range is D·V_kept, whose columns come first, so QR finds a basis."""
    basis, _ = jnp.linalg.qr(d[:, None] * vectors)
    basis = jnp.where(keep, basis, 0.0)
    return basis @ (basis.T @ x)
