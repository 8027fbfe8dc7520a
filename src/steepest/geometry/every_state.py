"""The trust region of TRPO's theory: the KL at most δ in every state, not in the mean over them.

    Δ = βx        β = β₀·shrinkʲ, least j with L(θ+βx) > L(θ) and max_n KL(π_θ‖π_θ+βx)(s_n) ≤ δ
                  max_n ½β₀²‖R_n J_n x‖² = δ

The direction is still that of the mean KL, x = F⁻¹g, as one multiplier for each state would be needed for the other.
The largest KL of a batch is that of the states in it; Schulman et al. 2015, section 4 and figure 3 ("max KL").
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from steepest.errors import UsageError
from steepest.geometry.divergences import largest, max_kl
from steepest.geometry.local import Local
from steepest.geometry.moment import Moment
from steepest.geometry.steps import Taken, Trial, TrustRegion, positive
from steepest.linear import Operator, Solution


@dataclass(frozen=True)
class MaxKL:
    """`TrustRegion` with the largest KL of any state in place of the mean.

    delta: δ, KL(π_old‖π_new) in nats in the worst state of the batch; never exceeded by an accepted step.
    backtracks, shrink: as in `TrustRegion`.  moment: of an update, within it; not to be set.

    The report has the mean KL as `kl`, and the largest as `details["max_kl"]`.
    """

    delta: float | Array
    backtracks: int = 10
    shrink: float = 0.8
    moment: Moment | None = None

    def __post_init__(self) -> None:
        positive("MaxKL", "delta", self.delta)
        TrustRegion(1.0, self.backtracks, self.shrink)  # says what is wrong with these

    def init(self, params: Any) -> tuple[()]:
        """Nothing is carried."""
        return ()

    def begin(self, carried: Any, moment: Moment) -> tuple[MaxKL, Any]:
        """The step with the states of this update at hand."""
        return replace(self, moment=moment), carried

    def __call__(self, params: Any, gradient: Any, solution: Solution, metric: Operator, trial: Trial) -> Taken:
        if self.moment is None:
            raise UsageError("MaxKL needs the states of the batch: an update calls begin first")
        local, weight = self.moment.local, jnp.asarray(self.moment.batch.weight)

        def at_worst(theta: Any) -> tuple[Array, Array]:
            return trial(theta)[0], max_kl(local.distribution, local.predict(theta), weight)

        form = largest(weight, quadratics(local, solution.x))
        first = jnp.sqrt(2 * self.delta / jnp.where(form > 0, form, 1.0))
        search = TrustRegion(self.delta, self.backtracks, self.shrink, longest=jnp.where(form > 0, first, math.inf))
        taken = search(params, gradient, solution, metric, at_worst)
        return taken._replace(kl=trial(taken.params)[1], details={"max_kl": taken.kl})


def quadratics(local: Local, x: Any) -> Float[Array, " N"]:
    """‖R_n J_n x‖² in each state: twice the KL of a short step x there."""
    return jnp.sum(local.distribution.whiten(local.push(x)) ** 2, axis=-1)
