"""The penalised form of the trust region, which the theory of TRPO guarantees to improve.

    max_θ L(θ) − C·D(π_old, π_θ)        D = max_n KL(π_old‖π_θ)(s_n)        C = 4εγ/(1−γ),  ε = max |A|

V^π_new ≥ V^π_old + (L − C·D)/(1−γ) (Schulman et al. 2015, eq. 9, theorem 1: there C = 4εγ/(1−γ)², for an L that is
summed over the steps; ours is per state). So any point on a line with L > C·D is better than the last policy, for
certain, and as C is large, hardly better: that is why TRPO constrains the KL instead.

    Δ = βx        β = β₀·shrinkʲ, least j with L(θ+βx) − C·D > 0        β₀ = gᵀx/(C·max_n ‖R_n J_n x‖²)

β₀ maximises the model βgᵀx − C·½β²max_n ‖R_n J_n x‖². With the mean KL in place of the largest and λ = 0, β₀ = 1/C.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from steepest import trees
from steepest.batch import Batch
from steepest.errors import UsageError
from steepest.geometry.divergences import OverStates, largest
from steepest.geometry.every_state import quadratics
from steepest.geometry.moment import Moment
from steepest.geometry.report import Reason
from steepest.geometry.steps import Taken, Trial, kept_unless, positive, refusal, still_finite
from steepest.linear import Operator, Solution


@dataclass(frozen=True)
class TheoreticalPenalty:
    """C = 4εγ/(1−γ) of the batch at hand, ε the largest |A| in it.  gamma: γ in (0, 1), the discount of A.

    On the exact batch of a discounted MDP this is the constant of the theorem; on a sample ε is too small and noisy.
    """

    gamma: float

    def __post_init__(self) -> None:
        if not 0 < self.gamma < 1:
            raise UsageError(f"TheoreticalPenalty needs a discount in (0, 1), got {self.gamma}")

    def __call__(self, batch: Batch) -> Float[Array, ""]:
        """C, mean advantage per state and nat."""
        present = jnp.asarray(batch.weight[:, None] * batch.action_weight) > 0
        epsilon = jnp.max(jnp.where(present, jnp.abs(batch.advantage), 0.0))
        return 4.0 * self.gamma / (1.0 - self.gamma) * epsilon


@dataclass(frozen=True)
class Penalised:
    """The longest step on the line, from the model's best one downwards, that improves L − C·D.

    coefficient: C > 0, mean advantage per state and nat; or a function of the batch, such as `TheoreticalPenalty(γ)`.
    over: D is the `largest` KL of any state, or its `mean` over them.
    backtracks, shrink: shrink at most so often, by this factor.
    moment: of an update, within it; not to be set.

    The report has L − C·D as `details["penalised"]` and C as `details["penalty"]`, beside the mean KL. Raises
    UsageError for settings out of their range.
    """

    coefficient: float | Callable[[Batch], Array]
    over: OverStates = largest
    backtracks: int = 20
    shrink: float = 0.5
    moment: Moment | None = None

    def __post_init__(self) -> None:
        if not callable(self.coefficient):
            positive("Penalised", "coefficient", self.coefficient)
        if self.backtracks < 0:
            raise UsageError(f"Penalised needs backtracks ≥ 0, got {self.backtracks}")
        if not 0 < self.shrink < 1:
            raise UsageError(f"Penalised needs 0 < shrink < 1, got {self.shrink}")

    def init(self, params: Any) -> tuple[()]:
        """Nothing is carried."""
        return ()

    def begin(self, carried: Any, moment: Moment) -> tuple[Penalised, Any]:
        """The step with the states of this update at hand."""
        return replace(self, moment=moment), carried

    def __call__(self, params: Any, gradient: Any, solution: Solution, metric: Operator, trial: Trial) -> Taken:
        if self.moment is None:
            raise UsageError("Penalised needs the states of the batch: an update calls begin first")
        local, batch = self.moment.local, self.moment.batch
        weight, ascent = jnp.asarray(batch.weight), trees.dot(gradient, solution.x)
        given = self.coefficient(batch) if callable(self.coefficient) else self.coefficient
        price = jnp.asarray(given, ascent.dtype)
        curvature = price * self.over(weight, quadratics(local, solution.x))
        first = jnp.where(curvature > 0, ascent / jnp.where(curvature > 0, curvature, 1.0), 0.0)
        before = refusal(gradient, solution, first)

        def evaluate(tries: Array) -> tuple[Array, Array, Array, Array, Any]:
            theta = trees.axpy(first * jnp.asarray(self.shrink, first.dtype) ** tries, solution.x, params)
            gain, kl = trial(theta)
            net = gain - price * self.over(weight, local.distribution.kl(local.predict(theta)))
            finite = jnp.isfinite(net) & jnp.isfinite(kl) & still_finite(theta, params)
            return gain, kl, net, finite, theta

        def searching(carry: tuple) -> Array:
            tries, (_, _, net, finite, _) = carry
            return ~(finite & (net > 0)) & (tries < self.backtracks) & (before == Reason.ACCEPTED)

        zero = jnp.zeros((), jnp.int32)
        tries, (gain, kl, net, finite, theta) = jax.lax.while_loop(
            searching, lambda c: (c[0] + 1, evaluate(c[0] + 1)), (zero, evaluate(zero))
        )
        after = jnp.where(finite, jnp.where(net > 0, Reason.ACCEPTED, Reason.LINE_SEARCH), Reason.NONFINITE_STEP)
        reason = jnp.where(before == Reason.ACCEPTED, after, before)
        beta = first * jnp.asarray(self.shrink, first.dtype) ** tries
        taken = kept_unless(params, theta, beta, gain, kl, tries, reason)
        realised = jnp.where(reason == Reason.ACCEPTED, net, 0.0)
        return taken._replace(details={"penalised": realised, "penalty": price})
