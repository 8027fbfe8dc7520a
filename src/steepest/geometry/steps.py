"""How far along the direction x = M⁻¹g: Δ = βx. Pure: where a step cannot be taken, the same θ comes out.

    fixed           β = η
    normalised      ½β²·xᵀMx = δ                 the closed form of max gᵀΔ s.t. ½ΔᵀMΔ ≤ δ
    trust region    β = β₀·shrinkʲ, least j with L(θ+βx) > L(θ) and KL(π_θ‖π_θ+βx) ≤ δ,  β₀ the normalised

M is undamped in all of them, so that δ is the KL whatever λ made of the direction.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from steepest import trees
from steepest.errors import UsageError
from steepest.geometry.report import Reason
from steepest.linear import Identity, Operator, Solution

Trial = Callable[[Any], tuple[Array, Array]]
"""θ' ↦ (gain of the objective, KL(π_θ‖π_θ')), closed over the batch."""


class Taken(NamedTuple):
    """What a step rule did. params: θ', the same arrays as θ where `reason` is not ACCEPTED. step_size: the last β.
    details: whatever else this rule has to say, scalars by name.  move: the Δ tried last, where that is no βx."""

    params: Any
    step_size: Float[Array, ""]
    gain: Float[Array, ""]
    kl: Float[Array, ""]
    backtracks: Array
    reason: Array
    details: dict[str, Array] | None = None
    move: Any = None


@runtime_checkable
class Step(Protocol):
    """How far."""

    def __call__(self, params: Any, gradient: Any, solution: Solution, metric: Operator, trial: Trial) -> Taken:
        """Step from θ along solution.x.

        params: θ.  gradient: g.  solution: x ≈ (M + λI)⁻¹g.  metric: M + λI.  trial: evaluates a θ'.
        """
        ...


@dataclass(frozen=True)
class Fixed:
    """Δ = η·x, a learning rate: neither invariant to the scale of the rewards nor bounded in KL."""

    learning_rate: float | Array

    def __post_init__(self) -> None:
        positive("Fixed", "learning_rate", self.learning_rate)

    def __call__(self, params: Any, gradient: Any, solution: Solution, metric: Operator, trial: Trial) -> Taken:
        dtype = trees.dot(gradient, gradient).dtype
        return _once(params, gradient, solution, jnp.asarray(self.learning_rate, dtype), trial)


@dataclass(frozen=True)
class Normalised:
    """Δ = √(2δ/xᵀMx)·x: the closed form, whose quadratic KL is δ exactly.

    delta: δ, nats per state (for the Euclidean metric ½‖Δ‖², parameter units squared).
    half: False for the lecture's ΔᵀMΔ ≤ δ, without the ½.
    damped_form: True measures the step by M + λI as most libraries do; the realised KL is then less than δ.
    limit: refuse a step that realises a KL of more than limit·δ, where M is not the identity: the quadratic model is
        wrong there, as it is beside a deterministic policy, where M vanishes. ∞ refuses nothing.
    longest: β at most, η_max in ACKTR (Wu et al. 2017); it depends on the unit of the rewards, as δ does not.
    """

    delta: float | Array
    half: bool = True
    damped_form: bool = False
    limit: float = 100.0
    longest: float = math.inf

    def __post_init__(self) -> None:
        positive("Normalised", "delta", self.delta)
        if not self.limit > 0:
            raise UsageError(f"Normalised needs limit > 0, got {self.limit}")
        if not self.longest > 0:
            raise UsageError(f"Normalised needs longest > 0, got {self.longest}")

    def __call__(self, params: Any, gradient: Any, solution: Solution, metric: Operator, trial: Trial) -> Taken:
        budget = self.delta if self.half else self.delta / 2
        beta = jnp.minimum(full_step(budget, solution.x, metric, self.damped_form), self.longest)
        limit = math.inf if isinstance(metric, Identity) else self.limit * self.delta
        return _once(params, gradient, solution, beta, trial, limit)


@dataclass(frozen=True)
class TrustRegion:
    """The closed form, then a line search on the true surrogate and the true KL (Schulman et al. 2015, app. C).

    delta: δ, KL(π_old‖π_new) in nats per state; never exceeded by an accepted step.
    backtracks: shrink at most so often.  shrink: by this factor.
    damped_form: as in `Normalised`, for the first point on the line.
    longest: β₀ at most: 1 for an objective whose own curvature is M, as that of least squares is the Gauss–Newton
        matrix: there x ends at the optimum, and to go on to the edge of the region would pass it.
    """

    delta: float | Array
    backtracks: int = 10
    shrink: float = 0.8
    damped_form: bool = False
    longest: float | Array = math.inf

    def __post_init__(self) -> None:
        positive("TrustRegion", "delta", self.delta)
        if self.backtracks < 0:
            raise UsageError(f"TrustRegion needs backtracks ≥ 0, got {self.backtracks}")
        if not 0 < self.shrink < 1:
            raise UsageError(f"TrustRegion needs 0 < shrink < 1, got {self.shrink}")
        if not isinstance(self.longest, Array) and not self.longest > 0:
            raise UsageError(f"TrustRegion needs longest > 0, got {self.longest}")

    def __call__(self, params: Any, gradient: Any, solution: Solution, metric: Operator, trial: Trial) -> Taken:
        first = jnp.minimum(full_step(self.delta, solution.x, metric, self.damped_form), self.longest)
        before = refusal(gradient, solution, first)

        def evaluate(tries: Array) -> tuple[Array, Array, Array, Array, Any]:
            beta = first * jnp.asarray(self.shrink, first.dtype) ** tries
            theta = trees.axpy(beta, solution.x, params)
            gain, kl = trial(theta)
            finite = jnp.isfinite(gain) & jnp.isfinite(kl) & still_finite(theta, params)
            return gain, kl, finite, finite & (gain > 0) & (kl <= self.delta), theta

        def searching(carry: tuple) -> Array:
            tries, (_, _, _, good, _) = carry
            return (tries < 0) | (~good & (tries < self.backtracks) & (before == Reason.ACCEPTED))

        # the first try in the loop too: outside, a second copy of it would have to be compiled
        untried = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(evaluate, jnp.int32(0)))
        tries, (gain, kl, finite, good, theta) = jax.lax.while_loop(
            searching, lambda c: (c[0] + 1, evaluate(c[0] + 1)), (jnp.int32(-1), untried)
        )
        after = jnp.where(good, Reason.ACCEPTED, jnp.where(finite, Reason.LINE_SEARCH, Reason.NONFINITE_STEP))
        beta = first * jnp.asarray(self.shrink, first.dtype) ** tries
        return kept_unless(params, theta, beta, gain, kl, tries, jnp.where(before == Reason.ACCEPTED, after, before))


def full_step(budget: float | Array, x: Any, metric: Operator, damped_form: bool) -> Float[Array, ""]:
    """β with ½β²·xᵀMx = budget, M undamped unless `damped_form`; 0 where xᵀMx is not positive and finite."""
    form = (metric if damped_form else metric.damped(0.0)).quadratic(x)
    usable = (form > 0) & jnp.isfinite(form)
    root = math.sqrt(2 * budget) if isinstance(budget, int | float) else jnp.sqrt(2 * budget)
    beta = root / jnp.sqrt(jnp.where(usable, form, 1.0))
    return jnp.where(usable, beta, 0.0)


def _once(params: Any, gradient: Any, solution: Solution, beta: Array, trial: Trial, limit: Any = math.inf) -> Taken:
    before = refusal(gradient, solution, beta)
    theta = trees.axpy(beta, solution.x, params)
    gain, kl = trial(theta)
    finite = jnp.isfinite(gain) & jnp.isfinite(kl) & still_finite(theta, params)
    after = jnp.where(finite, jnp.where(kl <= limit, Reason.ACCEPTED, Reason.KL), Reason.NONFINITE_STEP)
    reason = jnp.where(before == Reason.ACCEPTED, after, before)
    return kept_unless(params, theta, beta, gain, kl, jnp.zeros((), jnp.int32), reason)


def kept_unless(
    params: Any, theta: Any, beta: Array, gain: Array, kl: Array, backtracks: Array, reason: Array
) -> Taken:
    """θ' and what it realised if it was accepted; else θ, and nothing realised."""
    accepted = reason == Reason.ACCEPTED
    return Taken(
        trees.where(accepted, theta, params),
        beta,
        jnp.where(accepted, gain, 0.0),
        jnp.where(accepted, kl, 0.0),
        backtracks,
        reason.astype(jnp.int32),
    )


def still_finite(theta: Any, params: Any) -> Array:
    """Every entry that was finite is. A logit of −∞ masks an action, and stays."""
    new, old = (trees.ravel(tree)[0] for tree in (theta, params))
    return jnp.all(jnp.isfinite(new) | ~jnp.isfinite(old))


def refusal(gradient: Any, solution: Solution, beta: Array) -> Array:
    """Why no step can be tried, or ACCEPTED."""
    size = trees.norm(gradient)
    ascent = trees.dot(gradient, solution.x)
    return jnp.select(
        [
            ~jnp.isfinite(size),
            size == 0,
            ~jnp.isfinite(solution.residual) | ~jnp.isfinite(ascent) | ~(ascent > 0),
            ~(beta > 0),
            ~jnp.isfinite(beta),
        ],
        [Reason.NONFINITE_GRADIENT, Reason.NO_GRADIENT, Reason.SOLVER, Reason.CURVATURE, Reason.NONFINITE_STEP],
        Reason.ACCEPTED,
    )


def positive(what: str, name: str, value: Any) -> None:
    """Raise UsageError for a setting that is not a finite number > 0. One that is computed in the update passes."""
    if not isinstance(value, Array) and not (value > 0 and math.isfinite(value)):
        raise UsageError(f"{what} needs a finite {name} > 0, got {value}")
