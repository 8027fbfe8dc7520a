"""For operators that know their own inverse, M = diag(d) or diag_l(A_l ⊗ G_l): one exact solve and no iterations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from jax import Array

from steepest.errors import UsageError
from steepest.linear.direct import checked
from steepest.linear.operators import Invertible, Measured, Operator
from steepest.linear.solution import Solution


@dataclass(frozen=True)
class Factored:
    """Solve (M + λI)x = b by the operator's own inverse: M⁺b where λ = 0.

    Where a factor is not positive semi-definite, or not finite, x is 0 and the status SINGULAR.

    Raises UsageError, naming conjugate gradients instead, for an operator that is neither diagonal nor of Kronecker
    factors.
    """

    def __call__(self, operator: Operator, rhs: Any, dual: Array | None = None) -> Solution:
        inverse = invertible(operator)
        if inverse is None:
            raise UsageError(
                f"Factored solves with an operator's own inverse, which {type(operator).__name__} has not; "
                "use ConjugateGradient, or a metric such as st.kronecker"
            )
        return checked(operator, rhs, inverse.solve(rhs))


def invertible(operator: Operator) -> Invertible | None:
    """The operator that the direction is solved with, if it is cheap to invert."""
    if isinstance(operator, Measured):
        return invertible(operator.direction)
    return operator if isinstance(operator, Invertible) else None
