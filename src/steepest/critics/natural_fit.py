"""A value function fitted as a policy is updated: by the natural gradient, whose Fisher matrix is Gauss–Newton.

    V(s) is the mean of a Gaussian of deviation σ, σ² the mean squared error before the fit
    L(θ) = −½ E[(target − V)²]/σ²      F = E[JᵀJ]/σ²,  J = ∂V/∂θ      KL(V‖V') = ½ E[(V − V')²]/σ²
    x = (F + λκI)⁻¹ ∇L,  κ = F's curvature along ∇L                      Δ = βx,  β ≤ min(1, √(2δ/xᵀFx))

Objective, metric, solver and step are the geometry's own, on a batch whose actions are the targets. The region is that
of Schulman et al. 2016, section 5; a natural gradient for the critic of TRPO: Gebotys et al. 2022. λ follows Levenberg
and Marquardt and is a number without unit, since F has that of σ and of the critic's features.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, PRNGKeyArray

from steepest import trees
from steepest.batch import Batch
from steepest.chunks import each
from steepest.critics.fit import FitInfo, quality
from steepest.critics.value import Critic
from steepest.distributions import UnitGaussian
from steepest.errors import UsageError
from steepest.geometry import Reason, Step, TrustRegion, fisher, least_squares, linearise, mean_kl
from steepest.linear import ConjugateGradient, Solver
from steepest.parameters import Frozen, frozen, merge, split
from steepest.sequences import Sequences, is_recurrent
from steepest.shuffle import permutation

C = TypeVar("C", bound=Critic)


class Observed(eqx.Module):
    """obs ↦ N(V(obs)/σ, 1): the critic as a policy whose actions are values in units of σ."""

    critic: Any
    deviation: Frozen[Float[Array, ""]]

    def __call__(self, obs: Any) -> UnitGaussian:
        return UnitGaussian(jnp.reshape(self.critic(obs) / self.deviation.value, 1))


class ObservedAlong(eqx.Module):
    """The same of a critic that remembers."""

    critic: Any
    deviation: Frozen[Float[Array, ""]]

    def initial(self) -> Any:
        """See `Recurrent`."""
        return self.critic.initial()

    def step(self, memory: Any, obs: Any) -> tuple[Any, UnitGaussian]:
        """See `Recurrent`."""
        memory, value = self.critic.step(memory, obs)
        return memory, UnitGaussian(jnp.reshape(value / self.deviation.value, 1))


def trust_region(delta: float) -> TrustRegion:
    """All of Δ = x, or as much of it as stays within δ = ½E[(V − V')²]/σ², nats, and lowers the loss."""
    return TrustRegion(delta, shrink=0.7, longest=1.0)


class NaturalFitState(NamedTuple):
    """damping: λ of the next step, relative to the curvature along the gradient."""

    damping: Float[Array, ""]


@dataclass(frozen=True)
class NaturalFit:
    """`iterations` natural gradient steps on the least squares of the targets.

    iterations: steps of each fit.
    rows: rows of the batch that a step sees, drawn afresh for each; None for all of them.
    solver: how (F + λI)⁻¹∇L.
    step: how far.
    damping: the first and the least λ, in units of the curvature gᵀFg/gᵀg along the gradient; 0 for none ever.
    factor, largest: λ grows by this factor, up to the largest, after a step that lowered the loss by less than ¼ of
        what the quadratic model says, and falls by it where that was more than ¾. 1 for a λ that stays.

    Raises UsageError for settings that cannot be meant.
    """

    iterations: int = 1
    rows: int | None = None
    solver: Solver = field(default_factory=lambda: ConjugateGradient(10))
    step: Step = field(default_factory=lambda: trust_region(0.3))
    damping: float = 1e-3
    factor: float = 2.0
    largest: float = 1.0

    def __post_init__(self) -> None:
        if self.iterations < 1 or (self.rows is not None and self.rows < 1):
            raise UsageError(f"the critic needs iterations, rows ≥ 1, got {self.iterations}, {self.rows}")
        if not 0 <= self.damping <= self.largest < math.inf:
            raise UsageError(f"the critic's damping must be ≥ 0 and at most {self.largest}, got {self.damping}")
        if not self.factor >= 1:
            raise UsageError(f"the critic's damping needs a factor ≥ 1, got {self.factor}")

    def init(self, critic: Critic) -> NaturalFitState:
        """λ before the first step."""
        dtype = jnp.result_type(*jax.tree.leaves(split(critic)[0]))
        return NaturalFitState(jnp.asarray(self.damping, dtype))

    def __call__(
        self,
        critic: C,
        state: NaturalFitState,
        obs: Any,
        target: Float[Array, " N"],
        weight: Float[Array, " N"],
        value: Float[Array, " N"],
        key: PRNGKeyArray,
    ) -> tuple[C, NaturalFitState, FitInfo]:
        """Fit V to `target` at obs [N,…].

        weight: [N] ≥ 0, 0 for a masked row.  value: [N], V(obs) now, for the report.  key: for the rows of each step.

        Returns the critic, the state and the report; the critic as it was where the fit is not finite or its loss, on
        all rows, has not fallen.
        """
        loss, explained = quality(value, target, weight)
        deviation = jnp.sqrt(jnp.where(loss > 0, loss, 1.0))
        before = (ObservedAlong if is_recurrent(critic) else Observed)(critic, frozen(deviation))
        batch = targets_as_actions(obs, target / deviation, weight)
        params, rest = split(before)

        def iterate(carry: tuple[Any, Array], key: PRNGKeyArray) -> tuple[tuple[Any, Array], None]:
            theta, damping = carry
            return self._step(theta, damping, rest, self._drawn(batch, key)), None

        keys = jax.random.split(key, self.iterations)
        (fitted, damping), _ = jax.lax.scan(iterate, (params, state.damping), keys)
        after = merge(fitted, rest)
        old, new = each(before, batch.obs), each(after, batch.obs)
        kept = trees.all_finite(fitted) & (least_squares.gain(old, new, batch) > 0)
        state = NaturalFitState(jnp.where(jnp.isfinite(loss), damping, state.damping))
        return merge(trees.where(kept, fitted, params), rest).critic, state, FitInfo(loss, explained, kept)

    def _drawn(self, batch: Batch, key: PRNGKeyArray) -> Batch:
        """The rows of one step."""
        count = batch.weight.shape[0]
        if self.rows is None or self.rows >= count:
            return batch
        if isinstance(batch.obs, Sequences):
            raise UsageError("a critic with memory is fitted to whole sequences: leave rows at None")
        rows = permutation(key, count)[: self.rows]
        drawn: Batch = jax.tree.map(lambda x: x[rows], batch)
        return drawn._replace(weight=_to_one(drawn.weight))

    def _step(self, params: Any, damping: Array, rest: Any, batch: Batch) -> tuple[Any, Array]:
        """One step, and the λ of the next. It is `Algorithm.update`, with the critic for a policy."""
        local = linearise(merge(params, rest), batch.obs)
        gradient = least_squares.gradient(local, batch)
        metric = fisher.operator(local, batch)
        if self.damping:
            along = trees.scale(1.0 / trees.norm(gradient.vector), gradient.vector)
            metric = metric.damped(damping * metric.quadratic(along))
        solution = self.solver(metric, gradient.vector, fisher.dual(local, batch, gradient))

        def trial(theta: Any) -> tuple[Array, Array]:
            new = local.predict(theta)
            return least_squares.gain(local.distribution, new, batch), mean_kl(local.distribution, new, batch.weight)

        taken = self.step(params, gradient.vector, solution, metric, trial)
        beta = taken.step_size
        curved = 0.5 * beta**2 * metric.damped(0.0).quadratic(solution.x)
        ratio = taken.gain / (beta * trees.dot(gradient.vector, solution.x) - curved)
        return taken.params, self._damping(damping, ratio, taken.reason)

    def _damping(self, damping: Array, ratio: Array, reason: Array) -> Array:
        """Levenberg–Marquardt: λ by the actual over the predicted decrease. A refused step has a ratio of 0."""
        idle = (reason == Reason.NO_GRADIENT) | (reason == Reason.NONFINITE_GRADIENT)
        change = jnp.where(ratio > 0.75, 1 / self.factor, jnp.where(ratio < 0.25, self.factor, 1.0))
        moved = jnp.clip(damping * change, self.damping, self.largest).astype(damping.dtype)
        return jnp.where(idle, damping, moved)


def targets_as_actions(obs: Any, target: Float[Array, " N"], weight: Float[Array, " N"]) -> Batch:
    """A regression as a batch, one action in each state: its target. Masked observations are 0, whatever is there."""
    seen = weight > 0
    if not isinstance(obs, Sequences):  # those have it already
        obs = jax.tree.map(lambda x: jnp.where(seen.reshape(-1, *[1] * (x.ndim - 1)), x, jnp.zeros((), x.dtype)), obs)
    ones = jnp.ones((len(weight), 1), weight.dtype)
    return Batch(obs, _to_one(weight), target[:, None, None], ones, 0.0 * ones, jnp.zeros(len(weight), jnp.int32))


def _to_one(weight: Array) -> Array:
    """w/Σw, all 0 where there is none."""
    total = jnp.sum(weight)
    return weight / jnp.where(total > 0, total, 1.0)
