"""How much λ: a number, or a rule that looks at what the last step did.

    ρ = (gain of the surrogate) / (gᵀΔ)        ρ > ¾: λ ← λ/growth        ρ < ¼ or no step: λ ← λ·growth

Levenberg (1944), Marquardt (1963); ρ as in Martens & Grosse (2015), section 6.5, but with the linear prediction gᵀΔ,
which is what a step of given length maximises.

    relative:  λ = c·tr(M)/P        tr(M) = E[vᵀMv] for v of random signs (Hutchinson 1990)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, PRNGKeyArray

from steepest import trees
from steepest.errors import UsageError
from steepest.linear import Operator


class Agreement(NamedTuple):
    """What a step promised and kept.  predicted: gᵀΔ.  improvement: of the surrogate.  accepted: whether θ changed.
    tried: whether there was a gradient at all."""

    predicted: Float[Array, ""]
    improvement: Float[Array, ""]
    accepted: Array
    tried: Array


@runtime_checkable
class Damping(Protocol):
    """A rule for λ."""

    def init(self, params: Any) -> Float[Array, ""]:
        """What is carried before the first update: a scalar."""
        ...

    def value(self, carried: Array, metric: Operator, like: Any, key: PRNGKeyArray) -> Float[Array, ""]:
        """λ for this update.  metric: M, undamped.  like: θ."""
        ...

    def after(self, carried: Array, agreement: Agreement) -> Float[Array, ""]:
        """What is carried on."""
        ...


@dataclass(frozen=True)
class LevenbergMarquardt:
    """λ that shrinks while the model holds and grows where it does not.

    initial: the first λ.  least, most: λ never leaves [least, most].  growth: > 1, the factor of one change.

    An update without a gradient changes nothing, nor does a step that was not to gain anything. Raises UsageError for
    settings that contradict one another.
    """

    initial: float = 0.1
    least: float = 1e-4
    most: float = 1e2
    growth: float = 1.5

    def __post_init__(self) -> None:
        if not 0 < self.least <= self.initial <= self.most < float("inf"):
            raise UsageError(
                "LevenbergMarquardt needs 0 < least ≤ initial ≤ most < ∞, got "
                f"least={self.least}, initial={self.initial}, most={self.most}"
            )
        if not 1 < self.growth < float("inf"):
            raise UsageError(f"LevenbergMarquardt needs a finite growth > 1, got {self.growth}")

    def init(self, params: Any) -> Float[Array, ""]:
        """`initial`, in the dtype of θ."""
        return jnp.asarray(self.initial, jax.tree.leaves(params)[0].dtype)

    def value(self, carried: Array, metric: Operator, like: Any, key: PRNGKeyArray) -> Float[Array, ""]:
        return carried

    def after(self, carried: Array, agreement: Agreement) -> Float[Array, ""]:
        ratio = agreement.improvement / jnp.where(agreement.predicted > 0, agreement.predicted, 1.0)
        good = agreement.accepted & (ratio > 0.75)
        poor = ~agreement.accepted | ~(ratio >= 0.25)  # a ratio that is not a number is poor
        factor = jnp.where(good, 1.0 / self.growth, jnp.where(poor, self.growth, 1.0))
        changed = jnp.clip(carried * factor, self.least, self.most).astype(carried.dtype)
        # a constrained step may give reward away on purpose: that its prediction is not positive says nothing of λ
        telling = agreement.tried & (~agreement.accepted | ~(agreement.predicted <= 0))
        return jnp.where(telling, changed, carried)


@dataclass(frozen=True)
class RelativeDamping:
    """λ = c·tr(M)/P, c times the mean of M's diagonal: the same for any scale of the parameters' units.

    fraction: c > 0.  probes: products with M that the trace is estimated by, an unbiased estimate.
    """

    fraction: float = 0.1
    probes: int = 8

    def __post_init__(self) -> None:
        if not 0 < self.fraction < float("inf"):
            raise UsageError(f"RelativeDamping needs a finite fraction > 0, got {self.fraction}")
        if self.probes < 1:
            raise UsageError(f"RelativeDamping needs probes ≥ 1, got {self.probes}")

    def init(self, params: Any) -> Float[Array, ""]:
        """Nothing is carried: 0."""
        return jnp.zeros((), jax.tree.leaves(params)[0].dtype)

    def value(self, carried: Array, metric: Operator, like: Any, key: PRNGKeyArray) -> Float[Array, ""]:
        flat, unravel = trees.ravel(like)

        def probe(key: PRNGKeyArray) -> Array:
            signs = unravel(jax.random.rademacher(key, flat.shape, flat.dtype))
            return trees.dot(signs, metric(signs))

        mean = jnp.mean(jax.lax.map(probe, jax.random.split(key, self.probes))) / flat.size
        # a metric that vanishes, or is not finite, has no scale: any λ will do, and the step refuses what comes of it
        return jnp.where((mean > 0) & jnp.isfinite(mean), self.fraction * mean, 1.0).astype(flat.dtype)

    def after(self, carried: Array, agreement: Agreement) -> Float[Array, ""]:
        return carried
