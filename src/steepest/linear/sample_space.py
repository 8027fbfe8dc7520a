"""The push-through identity: (SᵀS + λI)⁻¹Sᵀy = Sᵀ(SSᵀ + λI)⁻¹y, exact, and cheap where rows are fewer than parameters.

    μ = 0      x = (SᵀS + λI)⁻¹Sᵀy
    SPRING     x = μφ + (SᵀS + λI)⁻¹Sᵀ(y − μSφ)        φ the last x: the minimum of ‖Sx − y‖² + λ‖x − μφ‖²

It starts from the dual y, never from b = Sᵀy: solving for y from b first cancels (relative error 7e-3 at λ = 1e-5 in
float32, against 2e-7 from the dual). SSᵀ squares the condition number κ of S; one step of refinement on the system of
least squares, which does not square it (Björck 1967), gives the digits back: u = (SSᵀ + λI)⁻¹y, x = Sᵀu, then

    f = y − Sx − λu        x ← x + Sᵀ(SSᵀ + λI)⁻¹f
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
from jax import Array

from steepest import trees
from steepest.errors import UsageError
from steepest.linear.direct import checked, least_norm, undamped
from steepest.linear.operators import Gram, Operator
from steepest.linear.solution import Solution

_ENTRIES = 2**26  # of S, dense, at most: 268 MB in float32, and its singular values take minutes


@dataclass(frozen=True)
class SampleSpace:
    """Solve (SᵀS + λI)x = Sᵀy in the space of the rows of S. Cost O(R³), memory O(R²), R = rows.

    rows: refuse more rows than this.
    momentum: μ in [0, 1). With μ > 0, SPRING (Goldshlager, Abrahamsen & Lin 2024, eq. 17–19; μ = 0.99 there): what the
        rows of this update do not determine is kept from the x of the updates before. It solves
        (SᵀS + λI)x = Sᵀy + λμφ, and on one and the same problem tends to the solution of damping (1 − μ)λ. A bᵀx ≤ 0
        is possible where a new b contradicts φ; the step rules then keep θ, and the next x starts from that φ.

    Raises UsageError for a μ out of range; and, naming conjugate gradients or a damping instead, for an operator that
    is not SᵀS, without a dual, with too many rows, or with λ = 0 and an S of more than 2²⁶ entries.
    """

    rows: int = 8192
    momentum: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.momentum < 1:
            raise UsageError(f"SampleSpace needs 0 ≤ momentum < 1, got {self.momentum}")

    @property
    def remembers(self) -> bool:
        """μ > 0."""
        return self.momentum > 0

    def __call__(self, operator: Operator, rhs: Any, dual: Array | None = None, last: Any = None) -> Solution:
        if not isinstance(operator, Gram):
            raise UsageError(f"SampleSpace solves SᵀS + λI, got {type(operator).__name__}; use ConjugateGradient")
        if dual is None:
            raise UsageError("SampleSpace needs the dual y with Sᵀy = g, which this metric and objective do not have; "
                             "use ConjugateGradient")  # fmt: skip
        rows = operator.rows(rhs)
        if rows > self.rows:
            raise UsageError(f"SampleSpace would factorise a {rows}×{rows} matrix, more than {self.rows} rows; "
                             "use ConjugateGradient, or a smaller batch")  # fmt: skip
        if undamped(operator) and rows * trees.size(rhs) > _ENTRIES:
            raise UsageError(f"SampleSpace with λ = 0 would decompose a {rows}×{trees.size(rhs)} factor, more than "
                             "2^26 entries; give a damping, such as damping=0.1, or use ConjugateGradient")  # fmt: skip
        if not self.remembers or last is None:
            return checked(operator, rhs, _solve(operator, rhs, dual))
        kept = trees.scale(self.momentum, last)
        x = trees.add(kept, _solve(operator, rhs, dual - operator.forward(kept)))
        return checked(operator, trees.axpy(operator.damping, kept, rhs), x)


def _solve(operator: Gram, like: Any, dual: Array) -> Any:
    """(SᵀS + λI)⁻¹Sᵀy; of least norm for λ = 0.  like: of the structure of x.  dual: y."""
    if undamped(operator):
        # SSᵀ is singular where a row's factor is; its squared spectrum is beyond float32, that of S is not.
        flat, unravel = trees.ravel(like)
        return unravel(least_norm(operator.factor(like), rhs=flat, dual=dual))
    factor = jax.scipy.linalg.cho_factor(operator.kernel(like), lower=True)

    def multipliers(y: Array) -> Array:
        return jax.scipy.linalg.cho_solve(factor, y.ravel()).reshape(y.shape)

    u = multipliers(dual)
    x = operator.transpose(u)
    left = dual - operator.forward(x) - operator.damping * u
    return trees.add(x, operator.transpose(multipliers(left)))
