"""The push-through identity: (SᵀS + λI)⁻¹Sᵀy = Sᵀ(SSᵀ + λI)⁻¹y, exact, and cheap where rows are fewer than parameters.

It starts from the dual y, never from b = Sᵀy: solving for y from b first cancels (relative error 7e-3 at λ = 1e-5 in
float32, against 2e-7 from the dual).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from jax import Array

from steepest import trees
from steepest.errors import UsageError
from steepest.linear.direct import checked, cholesky_solve, least_norm, undamped
from steepest.linear.operators import Gram, Operator
from steepest.linear.solution import Solution


@dataclass(frozen=True)
class SampleSpace:
    """Solve (SᵀS + λI)x = Sᵀy in the space of the rows of S. Cost O(R³), memory O(R²), R = rows.

    rows: refuse more rows than this.

    Raises UsageError, naming conjugate gradients instead, for an operator that is not SᵀS, without a dual, or with
    too many rows.
    """

    rows: int = 8192

    def __call__(self, operator: Operator, rhs: Any, dual: Array | None = None) -> Solution:
        if not isinstance(operator, Gram):
            raise UsageError(f"SampleSpace solves SᵀS + λI, got {type(operator).__name__}; use ConjugateGradient")
        if dual is None:
            raise UsageError("SampleSpace needs the dual y with Sᵀy = g, which this metric and objective do not have; "
                             "use ConjugateGradient")  # fmt: skip
        rows = operator.rows(rhs)
        if rows > self.rows:
            raise UsageError(f"SampleSpace would factorise a {rows}×{rows} matrix, more than {self.rows} rows; "
                             "use ConjugateGradient, or a smaller batch")  # fmt: skip
        flat, unravel = trees.ravel(rhs)
        if undamped(operator):
            # SSᵀ is singular where a row's factor is; its squared spectrum is beyond float32, that of S is not.
            return checked(operator, rhs, unravel(least_norm(operator.factor(rhs), rhs=flat, dual=dual)))
        y = cholesky_solve(operator.kernel(rhs), dual.ravel())
        return checked(operator, rhs, operator.transpose(y.reshape(dual.shape)))
