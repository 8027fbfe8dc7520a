"""The step of mirror descent: the penalised problem solved, not its quadratic model.

    θ' = argmax_θ J(θ),   J = L(θ) − KL(π_θ‖π_old)/η        MDPO, on-policy: Tomar, Shani, Efroni & Ghavamzadeh 2020

The KL is from new to old, the other way round than in the trust region: it is the Bregman divergence of the negative
entropy, for which the unrestricted optimum is π' = π·e^{ηA}/Z in every state. J is climbed by natural gradient steps
of length η with the Fisher matrix of where it stands,

    θ ← θ + βη(F(θ) + λI)⁻¹∇J(θ)        β = 1, ½, ¼, … until J increases

of which the first is the ordinary one, θ + ηx: F is the curvature of the KL in both directions. On a tabular softmax
ηF⁺∇J is the way to the optimum from wherever it stands; elsewhere some iterations find it, and they undo what the
damping did to the direction.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from steepest import trees
from steepest.errors import UsageError
from steepest.geometry.divergences import mean_kl
from steepest.geometry.local import linearise
from steepest.geometry.metrics import fisher
from steepest.geometry.moment import Moment
from steepest.geometry.report import Reason
from steepest.geometry.steps import Taken, Trial, full_step, kept_unless, positive, refusal, still_finite
from steepest.linear import ConjugateGradient, Operator, Solution, Solver
from steepest.parameters import merge

_CLIMBS_BY: Solver = ConjugateGradient(10)


@dataclass(frozen=True)
class MirrorDescent:
    """Climb J = L − KL(π_θ‖π_old)/η, from θ_old.

    learning_rate: η, nats per unit of mean advantage per state; or else
    delta: δ, nats per state: η is that for which the first step has ½η²xᵀMx = δ, which depends on no unit.
    iterations: climbs, each a solve and a line search; the first is along x. 1 is the natural gradient step.
    solver: of the climbs after the first; where the algorithm's λ is 0, one that decides a rank is needed.
    backtracks: halve a climb at most so often; where none is better, the climb ends.
    limit: no climb goes where KL(π_old‖π_new) is more than so many nats per state: δ says what η is, and bounds
        nothing, as a damped first step is shorter than what the climbs after it make of it.
    moment: of an update, within it; not to be set.

    The step size in the report is η; what it predicts is of the whole Δ, which is not along x.
    The report has KL(π_new‖π_old) as `details["reverse_kl"]`, η as `details["learning_rate"]` and the number of climbs
    taken as `details["climbs"]`. Raises UsageError unless exactly one of learning_rate and delta is given.
    """

    learning_rate: float | Array | None = None
    delta: float | Array | None = None
    iterations: int = 5
    solver: Solver = _CLIMBS_BY
    backtracks: int = 10
    limit: float = 1.0
    moment: Moment | None = None

    def __post_init__(self) -> None:
        if (self.learning_rate is None) == (self.delta is None):
            raise UsageError(
                "MirrorDescent needs a learning_rate or a delta, one of the two, got "
                f"learning_rate={self.learning_rate} and delta={self.delta}"
            )
        for name in ("learning_rate", "delta"):
            if getattr(self, name) is not None:
                positive("MirrorDescent", name, getattr(self, name))
        if self.iterations < 1:
            raise UsageError(f"MirrorDescent needs iterations ≥ 1, got {self.iterations}")
        if self.backtracks < 0:
            raise UsageError(f"MirrorDescent needs backtracks ≥ 0, got {self.backtracks}")
        if not self.limit > 0:
            raise UsageError(f"MirrorDescent needs limit > 0, got {self.limit}")

    def init(self, params: Any) -> tuple[()]:
        """Nothing is carried."""
        return ()

    def begin(self, carried: Any, moment: Moment) -> tuple[MirrorDescent, Any]:
        """The step with the states of this update at hand."""
        return replace(self, moment=moment), carried

    def __call__(self, params: Any, gradient: Any, solution: Solution, metric: Operator, trial: Trial) -> Taken:
        if self.moment is None:
            raise UsageError("MirrorDescent needs the states of the batch: an update calls begin first")
        local, batch = self.moment.local, self.moment.batch
        rate = self._rate(solution, metric, trees.dot(gradient, gradient).dtype)
        before = refusal(gradient, solution, rate)

        def reverse_kl(theta: Any) -> Array:
            return mean_kl(local.predict(theta), local.distribution, jnp.asarray(batch.weight))

        def height(theta: Any) -> Array:
            return trial(theta)[0] - reverse_kl(theta) / rate

        def allowed(theta: Any) -> Array:
            return jnp.where(trial(theta)[1] <= self.limit, height(theta), -jnp.inf)

        def direction(theta: Any) -> Any:
            here = fisher.operator(linearise(merge(theta, local.rest), batch.obs, local.chunk), batch).damped(
                metric.damping
            )
            return self.solver(here, jax.grad(height)(theta), None).x

        def climb(carry: tuple) -> tuple:
            count, theta, at, _ = carry
            # the first is along x, by the solver and the dual of the algorithm
            along = jax.lax.cond(count == 0, lambda: solution.x, lambda: direction(theta))
            theta, at, up, _ = self._search(allowed, theta, at, trees.scale(rate, along))
            return jnp.where(up, count + 1, count), theta, at, up

        def climbing(carry: tuple) -> Array:
            count, _, _, up = carry
            return up & (count < self.iterations)

        start = (jnp.zeros((), jnp.int32), params, jnp.zeros_like(rate), before == Reason.ACCEPTED)
        count, theta, _, _ = jax.lax.while_loop(climbing, climb, start)
        gain, kl = trial(theta)
        finite = jnp.isfinite(gain) & jnp.isfinite(kl) & still_finite(theta, params)
        after = jnp.where(finite, jnp.where(count > 0, Reason.ACCEPTED, Reason.LINE_SEARCH), Reason.NONFINITE_STEP)
        reason = jnp.where(before == Reason.ACCEPTED, after, before)
        taken = kept_unless(params, theta, rate, gain, kl, jnp.zeros((), jnp.int32), reason)
        details = {"reverse_kl": reverse_kl(taken.params), "learning_rate": rate, "climbs": count}
        return taken._replace(details=details, move=_between(params, theta))

    def _rate(self, solution: Solution, metric: Operator, dtype: Any) -> Array:
        """η, 0 where no x has a length."""
        if self.learning_rate is not None:
            return jnp.asarray(self.learning_rate, dtype)
        assert self.delta is not None
        return full_step(self.delta, solution.x, metric, damped_form=False).astype(dtype)

    def _search(self, height: Any, theta: Any, at: Array, along: Any) -> tuple[Any, Array, Array, Array]:
        """(θ', J(θ'), whether it is higher, halvings) for the first θ + 2⁻ʲ·along that is; else θ."""

        def evaluate(tries: Array) -> tuple[Any, Array]:
            new = trees.axpy(0.5 ** tries.astype(at.dtype), along, theta)
            return new, jnp.where(still_finite(new, theta), height(new), -jnp.inf)

        def searching(carry: tuple) -> Array:
            tries, (_, reached) = carry
            return ~(reached > at) & (tries < self.backtracks)

        zero = jnp.zeros((), jnp.int32)
        tries, (new, reached) = jax.lax.while_loop(
            searching, lambda c: (c[0] + 1, evaluate(c[0] + 1)), (zero, evaluate(zero))
        )
        up = reached > at
        return trees.where(up, new, theta), jnp.where(up, reached, at), up, tries


def _between(params: Any, theta: Any) -> Any:
    """θ' − θ; 0 where both are −∞, as the logit of a masked action stays."""
    return jax.tree.map(lambda old, new: jnp.where(jnp.isfinite(old), new - old, 0.0), params, theta)
