"""A metric with a rough copy of itself beside it, which is cheap to invert: fewer products in conjugate gradients.

M by N:     N⁻¹(M + λI)x = N⁻¹g        the same x, the same length of a step; N = diag(F), or Kronecker factors, + λI
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from jax import Array

from steepest import linear
from steepest.batch import Batch
from steepest.errors import UsageError
from steepest.geometry.kronecker import kronecker
from steepest.geometry.local import Local
from steepest.geometry.metrics import Metric, fisher
from steepest.geometry.moment import Moment, begun, initial
from steepest.geometry.objectives import Gradient


@dataclass(frozen=True)
class Preconditioned:
    """`metric`, with what conjugate gradients are preconditioned by; other solvers leave that aside.

    metric: M, of any kind.  by: N, a metric whose operator is diagonal or of Kronecker factors.

    Raises UsageError in an update for a `by` that is neither.
    """

    metric: Metric = fisher
    by: Metric = kronecker

    def init(self, params: Any) -> Any:
        """What the two carry."""
        return initial(self.metric, params), initial(self.by, params)

    def begin(self, carried: Any, moment: Moment) -> tuple[Preconditioned, Any]:
        """Begin both."""
        metric, first = begun(self.metric, carried[0], moment)
        by, second = begun(self.by, carried[1], moment)
        return replace(self, metric=metric, by=by), (first, second)

    def operator(self, local: Local, batch: Batch) -> linear.Preconditioned:
        by = self.by.operator(local, batch)
        inverse = linear.invertible(by)
        if inverse is None:
            raise UsageError(
                f"Preconditioned needs a metric that is cheap to invert, such as st.kronecker or st.diagonal, got "
                f"by={self.by!r}, whose operator is a {type(by).__name__}"
            )
        return linear.Preconditioned(self.metric.operator(local, batch), inverse)

    def dual(self, local: Local, batch: Batch, gradient: Gradient) -> Array | None:
        return None
