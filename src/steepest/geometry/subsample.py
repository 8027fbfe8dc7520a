"""A metric from a part of the batch, drawn once an update: the products cost a fraction, all with the same matrix.

    M̂ = Σ_{n in R} w_n M_n / Σ_{n in R} w_n        R: a random tenth of the rows (Schulman et al. 2015, appendix C)

The gradient, the line search and the length of the step see the whole batch. A matrix that changed from product to
product would be none, and conjugate gradients would solve nothing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from steepest.batch import Batch
from steepest.errors import UsageError
from steepest.geometry.local import Local
from steepest.geometry.metrics import Metric, fisher
from steepest.geometry.moment import Moment, begun, initial
from steepest.geometry.objectives import Gradient
from steepest.linear import Measured, Operator
from steepest.sequences import part, rows_of_part, units
from steepest.shuffle import permutation

_PURPOSE = 1  # folded into the update's key


@dataclass(frozen=True)
class Subsampled:
    """`metric` on a random fraction of the rows, without replacement; steps are measured by F on all of them.

    Of a policy with memory, whose rows depend on those before them, whole sequences are drawn instead of rows.

    metric: of any kind.  fraction: in (0, 1]; one at least is drawn.  drawn: which, within an update; not to be set.

    There is no dual: a gradient of all rows is no combination of those of a few. Raises UsageError for a fraction that
    is not in (0, 1], and in an update for a number of rows that is fewer than 1.
    """

    metric: Metric = fisher
    fraction: float = 0.1
    drawn: Any = None

    def __post_init__(self) -> None:
        if not 0 < self.fraction <= 1:
            raise UsageError(f"Subsampled needs a fraction in (0, 1], got {self.fraction}")

    def init(self, params: Any) -> Any:
        """What `metric` carries."""
        return initial(self.metric, params)

    def begin(self, carried: Any, moment: Moment) -> tuple[Subsampled, Any]:
        """Draw the rows of this update."""
        count = units(moment.local.obs)
        order = permutation(jax.random.fold_in(moment.key, _PURPOSE), count)
        drawn = order[: math.ceil(self.fraction * count)]
        seen = moment._replace(local=moment.local.subset(drawn), batch=_only(moment.batch, drawn))
        metric, carried = begun(self.metric, carried, seen)
        return replace(self, metric=metric, drawn=drawn), carried

    def operator(self, local: Local, batch: Batch) -> Operator:
        if self.drawn is None:
            raise UsageError("Subsampled draws its rows when an update begins: call begin first")
        products = self.metric.operator(local.subset(self.drawn), _only(batch, self.drawn))
        return Measured(products, fisher.operator(local, batch))

    def dual(self, local: Local, batch: Batch, gradient: Gradient) -> Array | None:
        return None


def _only(batch: Batch, drawn: Array) -> Batch:
    """The batch of what was drawn, its weights summing to 1 again; all 0 where every row is masked."""
    rows, rest = rows_of_part(batch.obs, drawn), batch._replace(obs=None)
    some = jax.tree.map(lambda x: jnp.asarray(x)[rows] if jnp.ndim(x) else x, rest)  # a scalar is of the whole batch
    total = jnp.sum(some.weight)
    weight = some.weight / jnp.where(total > 0, total, 1.0)
    return some._replace(obs=part(batch.obs, drawn), weight=weight)
