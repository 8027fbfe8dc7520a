"""The trust report: what every update of every method says of itself."""

from __future__ import annotations

import enum
from typing import NamedTuple

from jax import Array
from jaxtyping import Bool, Float, Int


class Reason(enum.IntEnum):
    """Why a step was taken, or θ kept."""

    ACCEPTED = 0
    NO_GRADIENT = 1
    """g = 0: there is nothing to do. Not a failure."""
    NONFINITE_GRADIENT = 2
    SOLVER = 3
    """The solver failed, or its direction does not ascend: gᵀx ≤ 0."""
    CURVATURE = 4
    """xᵀMx ≤ 0: the metric gives the direction no length."""
    NONFINITE_STEP = 5
    """The step, or the policy, gain or KL after it, is NaN or infinite."""
    KL = 7
    """The KL realised is a multiple of δ that the closed form cannot mean: its quadratic model does not hold here."""
    LINE_SEARCH = 6
    """No point on the line improves the surrogate within the trust region."""
    INFEASIBLE = 8
    """The cost is over its limit, and no direction is known that lowers it."""

    @property
    def failed(self) -> bool:
        """True where something went wrong, not where there was nothing to do."""
        return self not in (Reason.ACCEPTED, Reason.NO_GRADIENT)


class StepInfo(NamedTuple):
    """One update, in numbers. All scalars. Where θ was kept, what is realised is 0.

    gradient_norm: ‖g‖₂, raw reward units per parameter unit.
    natural_norm: √(gᵀx), x the solver's M⁻¹g.
    predicted_kl: ½‖SΔ‖² with the expected Fisher, undamped, nats per state, of the step that was tried last.
    kl: KL(π_old‖π_new), nats per state, of the policy returned.
    predicted_improvement: gᵀΔ, mean advantage per state, of the step that was tried last.
    improvement: the surrogate's change at the policy returned, mean advantage per state.
    entropy: mean entropy of π_old, nats per state.
    iterations, residual, status: of the solver; `Status`.
    damping: λ of the direction.
    step_size: β in Δ = βx of the step that was tried last.
    backtracks: how often the line search shrank the step.
    accepted: whether θ has changed.
    reason: a `Reason`.
    normaliser_kl: KL of the policy returned before and after the refresh of the agent's observation statistics, nats
        per state: it is outside any trust region. 0 where there are none.
    details: what this step rule reports beyond that, by name: the cost of a constrained one, for instance.
    """

    gradient_norm: Float[Array, ""]
    natural_norm: Float[Array, ""]
    predicted_kl: Float[Array, ""]
    kl: Float[Array, ""]
    predicted_improvement: Float[Array, ""]
    improvement: Float[Array, ""]
    entropy: Float[Array, ""]
    iterations: Int[Array, ""]
    residual: Float[Array, ""]
    status: Int[Array, ""]
    damping: Float[Array, ""]
    step_size: Float[Array, ""]
    backtracks: Int[Array, ""]
    accepted: Bool[Array, ""]
    reason: Int[Array, ""]
    normaliser_kl: Float[Array, ""]
    details: dict[str, Array] | None = None
