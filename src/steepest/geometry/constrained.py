"""Constrained policy optimisation: the longest gain in the trust region that keeps a cost within its limit.

    max gᵀΔ   s.t.  ½ΔᵀHΔ ≤ δ,  bᵀΔ + c ≤ 0            b = ∇L_C,  c = (J_C − limit) per state

The optimum lies in the plane of u = H⁻¹g and v = H⁻¹b (Achiam, Held, Tamar & Abbeel 2017, section 6); there it is the
best point of a disc in a half-plane. Where the region holds no admissible point the step is the recovery
−√(2δ/bᵀH⁻¹b)·H⁻¹b, which only lowers the cost. H is undamped in lengths: of damped or unconverged u and v the step
is still the optimum of their plane, and δ is the KL.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from steepest import trees
from steepest.batch import Batch
from steepest.errors import UsageError
from steepest.geometry.half_plane import optimum
from steepest.geometry.local import Local
from steepest.geometry.moment import Moment
from steepest.geometry.objectives import Gradient, expected_advantage
from steepest.geometry.report import Reason
from steepest.geometry.steps import Taken, Trial, positive, still_finite
from steepest.linear import Operator, Solution


def cost_batch(batch: Batch, needed_by: str) -> Batch:
    """The same rows with the cost in place of the reward. UsageError where the batch reports none."""
    if batch.cost is None:
        raise UsageError(
            f"{needed_by} needs a batch with costs, and this one has none: use st.ConstrainedMDP(mdp, cost, limit), or "
            "train on an environment that reports info['cost'], with a cost limit"
        )
    return batch._replace(advantage=batch.cost.advantage, cost=None)


def needs_cost(part: Any) -> bool:
    """Whether a part of an algorithm, one within it, or an algorithm wants a batch with a `Cost`."""
    within = [getattr(part, field.name) for field in fields(part)] if is_dataclass(part) else []
    return bool(getattr(part, "needs_cost", False)) or any(map(needs_cost, within))


@runtime_checkable
class Constraining(Protocol):
    """A step of two gradients: the algorithm solves for the second as it does for the first."""

    @property
    def second(self) -> Gradient:
        """The gradient to solve for."""
        ...

    def given(self, solution: Solution) -> Any:
        """The step that knows its solution."""
        ...


_MARGIN = 1.5  # of the curvature of the cost: the steps are short, but not so short that it is the same along them


class _Known(NamedTuple):
    """What an update knows of its constraint. rows: `cost_batch`.  solution: v ≈ H⁻¹b, None until it is solved for."""

    local: Local
    rows: Batch
    excess: Float[Array, ""]
    gradient: Gradient
    solution: Solution | None


class _Plane(NamedTuple):
    """Two directions, orthonormal in H, zero where there is none, with aᵀy = gᵀΔ and bᵀy = bᵀΔ for Δ = y₁e₁ + y₂e₂."""

    first: Any
    second: Any
    a: Float[Array, "2"]
    b: Float[Array, "2"]

    def at(self, y: Array) -> Any:
        """Δ."""
        return trees.add(trees.scale(y[0], self.first), trees.scale(y[1], self.second))


class _Tried(NamedTuple):
    """One point of the search. curvature: what the cost exceeded its linear model by at most, for a step of R."""

    tries: Array
    theta: Any
    move: Any
    gain: Array
    kl: Array
    change: Array
    predicted: Array
    curvature: Array
    finite: Array
    good: Array


@dataclass(frozen=True)
class Constrained:
    """Constrained policy optimisation's step, for a batch with a `Cost`.

    delta: δ, KL(π_old‖π_new) in nats per state; never exceeded by an accepted step.
    backtracks: shrink the trust region at most so often.  shrink: √(2δ) by this factor.
    known: what it knows within an update; not to be set.

    A step is accepted if KL ≤ δ and: from within the limit, if the surrogate improves and that of the cost stays within
    it; from beyond, if that of the cost falls. The optimum is that of the linear cost; where the cost turns out to be
    curved upwards, the next tries aim so much lower. Raises UsageError for a batch without costs.

    `Taken.details`: cost_excess, c; cost_predicted, bᵀΔ; cost_change, what the surrogate of the cost changed by, both
    per state; cost_multiplier, ν; recovery, whether no step within δ could satisfy the limit.
    """

    delta: float | Array
    backtracks: int = 10
    shrink: float = 0.8
    known: Any = None

    def __post_init__(self) -> None:
        positive("Constrained", "delta", self.delta)
        if self.backtracks < 0:
            raise UsageError(f"Constrained needs backtracks ≥ 0, got {self.backtracks}")
        if not 0 < self.shrink < 1:
            raise UsageError(f"Constrained needs 0 < shrink < 1, got {self.shrink}")

    needs_cost = True

    def init(self, params: Any) -> Any:
        """Nothing is carried."""
        return ()

    def begin(self, carried: Any, moment: Moment) -> tuple[Constrained, Any]:
        """Take the cost of this batch, and its gradient."""
        rows = cost_batch(moment.batch, "constrained policy optimisation")
        assert moment.batch.cost is not None
        gradient = expected_advantage.gradient(moment.local, rows)
        excess = jnp.asarray(moment.batch.cost.excess)
        return replace(self, known=_Known(moment.local, rows, excess, gradient, None)), carried

    @property
    def second(self) -> Gradient:
        """b: to be solved for by the algorithm's own solver, and told by `given`."""
        return self.known.gradient

    def given(self, solution: Solution) -> Constrained:
        """With v ≈ H⁻¹b."""
        return replace(self, known=self.known._replace(solution=solution))

    def __call__(self, params: Any, gradient: Any, solution: Solution, metric: Operator, trial: Trial) -> Taken:
        known, b = self.known, self.known.gradient.vector
        plane = _plane(gradient, solution.x, b, known.solution.x, metric.damped(0.0))
        excess = jnp.asarray(known.excess, plane.a.dtype)
        radius = jnp.sqrt(jnp.asarray(2 * self.delta, excess.dtype))
        best = optimum(plane.a, plane.b, excess, radius)
        before = _refusal(gradient, b, excess, solution, known.solution, best.y, plane.b)

        def attempt(tries: Array, curvature: Array) -> _Tried:
            part = jnp.asarray(self.shrink, excess.dtype) ** tries
            y = optimum(plane.a, plane.b, excess + _MARGIN * curvature * part**2, radius * part).y
            move = plane.at(y)
            theta = trees.add(params, move)
            gain, kl = trial(theta)
            change = expected_advantage.gain(known.local.distribution, known.local.predict(theta), known.rows)
            finite = jnp.isfinite(gain) & jnp.isfinite(kl) & jnp.isfinite(change) & still_finite(theta, params)
            within = jnp.where(excess > 0, change < 0, (gain > 0) & (excess + change <= 0))
            predicted = jnp.dot(plane.b, y)
            seen = jnp.where(finite, jnp.maximum((change - predicted) / part**2, curvature), curvature)
            good = finite & within & (kl <= self.delta)
            return _Tried(tries, theta, move, gain, kl, change, predicted, seen, finite, good)

        def searching(tried: _Tried) -> Array:
            return ~tried.good & (tried.tries < self.backtracks) & (before == Reason.ACCEPTED)

        first = attempt(jnp.zeros((), jnp.int32), jnp.zeros_like(excess))
        last = jax.lax.while_loop(searching, lambda tried: attempt(tried.tries + 1, tried.curvature), first)
        after = jnp.where(last.good, Reason.ACCEPTED, jnp.where(last.finite, Reason.LINE_SEARCH, Reason.NONFINITE_STEP))
        reason = jnp.where(before == Reason.ACCEPTED, after, before).astype(jnp.int32)
        accepted = reason == Reason.ACCEPTED
        details = {
            "cost_excess": excess,
            "cost_predicted": last.predicted,
            "cost_change": jnp.where(accepted, last.change, 0.0),
            "cost_multiplier": best.multiplier,
            "recovery": best.infeasible,
        }
        return Taken(
            params=trees.where(accepted, last.theta, params),
            step_size=jnp.asarray(self.shrink, excess.dtype) ** last.tries,
            gain=jnp.where(accepted, last.gain, 0.0),
            kl=jnp.where(accepted, last.kl, 0.0),
            backtracks=last.tries,
            reason=reason,
            details=details,
            move=last.move,
        )


def _plane(g: Any, u: Any, b: Any, v: Any, metric: Operator) -> _Plane:
    """An orthonormal basis of the plane of u and v: v's direction first, as it alone is the recovery's."""
    first, direction = _unit(v, metric), _unit(u, metric)
    cosine = (metric.quadratic(trees.add(direction, first)) - metric.quadratic(trees.subtract(direction, first))) / 4
    rest = trees.axpy(-cosine, first, direction)
    form = metric.quadratic(rest)
    apart = form > jnp.finfo(form.dtype).eps  # else u is v to rounding, and what is left of it is noise
    second = trees.scale(jnp.where(apart, 1.0 / jnp.sqrt(jnp.where(apart, form, 1.0)), 0.0), rest)
    a = jnp.stack([trees.dot(g, first), trees.dot(g, second)])
    return _Plane(first, second, a, jnp.stack([trees.dot(b, first), trees.dot(b, second)]))


def _unit(x: Any, metric: Operator) -> Any:
    """x/‖x‖_H; 0 where x has no length, or one that is not finite."""
    size = trees.norm(x)
    usable = (size > 0) & jnp.isfinite(size)
    x = trees.where(usable, trees.scale(1.0 / jnp.where(usable, size, 1.0), x), trees.zeros_like(x))
    form = metric.quadratic(x)
    usable = (form > 0) & jnp.isfinite(form)
    return trees.scale(jnp.where(usable, 1.0 / jnp.sqrt(jnp.where(usable, form, 1.0)), 0.0), x)


def _refusal(g: Any, b: Any, excess: Array, u: Solution, v: Solution, y: Array, slope: Array) -> Array:
    """Why no step can be tried, or ACCEPTED."""
    finite = trees.all_finite(g) & trees.all_finite(b) & jnp.isfinite(excess)
    solved = jnp.isfinite(u.residual) & jnp.isfinite(v.residual) & jnp.all(jnp.isfinite(y))
    return jnp.select(
        [~finite, ~solved, (excess > 0) & jnp.all(slope == 0), (trees.norm(g) == 0) & (excess <= 0), jnp.all(y == 0)],
        [Reason.NONFINITE_GRADIENT, Reason.SOLVER, Reason.INFEASIBLE, Reason.NO_GRADIENT, Reason.CURVATURE],
        Reason.ACCEPTED,
    )
