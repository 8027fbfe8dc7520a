"""What a solver returns: never a bare array, always why it stopped and how well it did. Nothing here returns NaN."""

from __future__ import annotations

import enum
from typing import Any, NamedTuple, Protocol, runtime_checkable

from jax import Array
from jaxtyping import Float, Int

from steepest.linear.operators import Operator


class Status(enum.IntEnum):
    """Why a solver stopped."""

    CONVERGED = 0
    """The relative residual is within the tolerance (or the method is direct)."""
    ITERATIONS = 1
    """The iterations were used up; x is the last iterate."""
    CURVATURE = 2
    """pᵀMp was not positive relative to the largest curvature seen; x is the iterate before it."""
    NONFINITE = 3
    """The right-hand side or a product was NaN or infinite; x is the last finite iterate."""
    SINGULAR = 4
    """A factorisation failed: the matrix is not positive definite in this precision; x = 0."""
    STRUCTURE = 5
    """The operator is not of the kind that the solver solves; x = 0."""


class Solution(NamedTuple):
    """x with (M + λI)x ≈ b.

    x: pytree like b, always finite.
    status: a `Status`, as an int32 scalar.
    residual: ‖b − (M + λI)x‖ / ‖b‖, 0 for b = 0, ∞ for a b that is not finite. That of an iterative method is the
        residual it carries along, which in float32 is smaller than the true one where M is ill-conditioned.
    iterations: products with M, 0 for direct methods.
    """

    x: Any
    status: Int[Array, ""]
    residual: Float[Array, ""]
    iterations: Int[Array, ""]


@runtime_checkable
class Solver(Protocol):
    """How M⁻¹b is computed."""

    def __call__(self, operator: Operator, rhs: Any, dual: Array | None = None) -> Solution:
        """Solve (M + λI)x = b.

        operator: M + λI.  rhs: b, a pytree.  dual: y with Sᵀy = b for an operator SᵀS, if the caller knows one.
        """
        ...


@runtime_checkable
class Remembering(Protocol):
    """A solver that has use for the solution of the update before, and asks to be given it."""

    @property
    def remembers(self) -> bool:
        """Whether `last` is wanted: it is then kept between updates, a vector like θ."""
        ...

    def __call__(self, operator: Operator, rhs: Any, dual: Array | None = None, last: Any = None) -> Solution:
        """As `Solver`.  last: the x of the update before, zeros before the first."""
        ...
