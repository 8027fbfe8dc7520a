"""An algorithm is a value of four parts: an objective, a metric, a solver and a step. One update composes them.

g = ∇L          x = (M + λI)⁻¹g          Δ = βx

state = algorithm.init(policy)
policy, state, info = algorithm.update(policy, state, batch, key)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Int, PRNGKeyArray

from steepest import trees
from steepest.algorithms.damping import Agreement, Damping
from steepest.batch import Batch
from steepest.distributions import Policy
from steepest.errors import UsageError
from steepest.geometry import (
    Constraining,
    Gradient,
    Local,
    Metric,
    Moment,
    Objective,
    Reason,
    Step,
    StepInfo,
    Taken,
    begun,
    fisher,
    initial,
    linearise,
    mean_kl,
    reported,
)
from steepest.geometry.divergences import weighted
from steepest.linear import DIRECT_UP_TO, Blocks, Operator, Remembering, Solution, Solver, Status
from steepest.parameters import merge, split

P = TypeVar("P", bound=Policy)


class AlgorithmState(NamedTuple):
    """What an algorithm carries from update to update.

    updates: how many there were.  failures: how many of the last in a row kept θ because something went wrong.
    parts: what its objective, metric and step carry, by these names; () for a part that carries nothing.
    damping: what the rule for λ carries.  last: the last solution, for a solver that remembers, else None.
    """

    updates: Int[Array, ""]
    failures: Int[Array, ""]
    parts: dict[str, Any]
    damping: Any
    last: Any


_VARYING = ("objective", "metric", "step")
_DRAWS = 2  # folded into an update's key for the damping's draws


@dataclass(frozen=True)
class Algorithm:
    """max L(θ + Δ) for a step of length δ in a metric.

    name: what it is called in reports and folders.
    objective: which g.
    metric: which M.
    solver: how M⁻¹g; None for a metric that is the identity.
    step: how far.
    damping: λ ≥ 0 in the direction (M + λI)⁻¹g, never in the length of the step; or a rule for it, such as
        `LevenbergMarquardt()`. None: 0 in float64 up to 1 000 parameters or with `Blocks`, else 0.1.
    chunk: rows of the batch that are worked out at a time; None: all up to 16 384 rows, 4 096 beyond. Results differ by
        rounding only.

    Raises UsageError for a negative damping, and a chunk of no rows.
    """

    name: str
    objective: Objective
    metric: Metric
    solver: Solver | None
    step: Step
    damping: float | Damping | None = None
    chunk: int | None = None

    def __post_init__(self) -> None:
        if self.chunk is not None and self.chunk < 1:
            raise UsageError(f"a chunk has at least 1 row, got {self.chunk}")
        if isinstance(self.damping, int | float) and not 0 <= self.damping < float("inf"):
            raise UsageError(f"damping must be a finite number ≥ 0, got {self.damping}")
        if self.damping is not None and not isinstance(self.damping, int | float | Damping):
            raise UsageError(
                f"damping must be a number ≥ 0 or a rule such as st.LevenbergMarquardt(), got {self.damping!r}"
            )
        for part in ("solver", "step"):
            value = getattr(self, part)
            if not callable(value) and not (part == "solver" and value is None):
                raise UsageError(f"{part} must be a {part.title()} such as st.{_EXAMPLES[part]}, got {value!r}")

    def init(self, policy: Policy) -> AlgorithmState:
        """The state before the first update of `policy`."""
        params, _ = split(policy)
        if trees.size(params) == 0:
            raise UsageError(
                "the policy has no trainable parameters: θ is its float arrays that are not wrapped in st.frozen"
            )
        zero = jnp.zeros((), jnp.int32)
        parts = {name: initial(getattr(self, name), params) for name in _VARYING}
        damping = self.damping.init(params) if isinstance(self.damping, Damping) else ()
        return AlgorithmState(zero, zero, parts, damping, trees.zeros_like(params) if self._remembers else None)

    @property
    def _remembers(self) -> bool:
        return isinstance(self.solver, Remembering) and self.solver.remembers

    def update(
        self, policy: P, state: AlgorithmState, batch: Batch, key: PRNGKeyArray | None = None
    ) -> tuple[P, AlgorithmState, StepInfo]:
        """One step. Compiled once for each algorithm and shape of policy and batch.

        policy: maps one observation to a distribution; θ is its trainable arrays.
        batch: N states with m actions each, collected or enumerated under this very policy.
        key: for algorithms with parts that draw. None: one made of the number of updates.

        Returns the policy after the step (the same arrays where it was not taken), the state, and the trust report.
        """
        return _update(self, policy, state, batch, key)


_EXAMPLES = {"solver": "ConjugateGradient(10)", "step": "TrustRegion(0.01)"}


@eqx.filter_jit
def _update(algorithm: Algorithm, policy: Any, state: AlgorithmState, batch: Batch, key: Any) -> Any:
    return update(algorithm, policy, state, batch, key)


def update(
    algorithm: Algorithm, policy: P, state: AlgorithmState, batch: Batch, key: PRNGKeyArray | None = None
) -> tuple[P, AlgorithmState, StepInfo]:
    """`Algorithm.update` without compilation of its own: to be inlined in a larger program."""
    params, rest = split(policy)
    local = linearise(policy, batch.obs, algorithm.chunk)
    key = jax.random.fold_in(jax.random.key(0), state.updates) if key is None else key
    moment = Moment(local, batch, key, state.updates)
    (objective, metric, step), parts = _begin(algorithm, state.parts, moment)

    gradient = objective.gradient(local, batch)
    operator = metric.operator(local, batch)
    damping = _damping(algorithm, state.damping, operator, params, jax.random.fold_in(key, _DRAWS))
    operator = operator.damped(damping)
    solution = _solve(algorithm, operator, gradient, metric.dual(local, batch, gradient), state.last)

    def trial(theta: Any) -> tuple[Array, Array]:
        new = local.predict(theta)
        return (
            objective.gain(local.distribution, new, batch),
            mean_kl(local.distribution, new, batch.weight),
        )

    if isinstance(step, Constraining):
        also = step.second
        step = step.given(_solve(algorithm, operator, also, metric.dual(local, batch, also), None))
    taken = step(params, gradient.vector, solution, operator, trial)
    failed = (taken.reason != Reason.ACCEPTED) & (taken.reason != Reason.NO_GRADIENT)
    ascent = trees.dot(gradient.vector, solution.x)
    accepted = taken.reason == Reason.ACCEPTED
    predicted, quadratic = _predictions(taken, ascent, gradient, solution, fisher.operator(local, batch))
    agreement = Agreement(predicted, taken.gain, accepted, taken.reason != Reason.NO_GRADIENT)
    state = AlgorithmState(
        updates=state.updates + 1,
        failures=jnp.where(failed, state.failures + 1, 0).astype(jnp.int32),
        parts=parts,
        damping=algorithm.damping.after(state.damping, agreement) if isinstance(algorithm.damping, Damping) else (),
        last=None if state.last is None else solution.x,
    )
    info = StepInfo(
        gradient_norm=trees.norm(gradient.vector),
        natural_norm=_root_of_product(gradient.vector, solution.x),
        predicted_kl=0.5 * quadratic,
        kl=taken.kl,
        predicted_improvement=predicted,
        improvement=taken.gain,
        entropy=_entropy(local, batch),
        iterations=solution.iterations,
        residual=solution.residual,
        status=solution.status,
        damping=jnp.asarray(damping, ascent.dtype),
        step_size=taken.step_size,
        backtracks=taken.backtracks,
        accepted=accepted,
        reason=taken.reason,
        normaliser_kl=jnp.zeros_like(taken.kl),
        details={**reported(objective), **(taken.details or {})} or None,
    )
    return merge(taken.params, rest), state, info


def _begin(algorithm: Algorithm, carried: dict[str, Any], moment: Moment) -> tuple[list[Any], dict[str, Any]]:
    """(objective, metric and step of this update, what they carry on)."""
    pairs = {name: begun(getattr(algorithm, name), carried[name], moment) for name in _VARYING}
    return [part for part, _ in pairs.values()], {name: kept for name, (_, kept) in pairs.items()}


def _predictions(
    taken: Taken, ascent: Array, gradient: Gradient, solution: Solution, metric: Operator
) -> tuple[Array, Array]:
    """(gᵀΔ, ‖Δ‖² in the expected Fisher metric) of the step that was tried last."""
    if taken.move is not None:
        return trees.dot(gradient.vector, taken.move), metric.quadratic(taken.move)
    return taken.step_size * ascent, taken.step_size**2 * metric.quadratic(solution.x)


def _solve(algorithm: Algorithm, operator: Operator, gradient: Gradient, dual: Array | None, last: Any) -> Solution:
    """x ≈ (M + λI)⁻¹g."""
    solver = algorithm.solver
    if solver is None:
        return _gradient_itself(gradient)
    if isinstance(solver, Remembering) and last is not None:
        return solver(operator, gradient.vector, dual, last)
    return solver(operator, gradient.vector, dual)


def _damping(algorithm: Algorithm, carried: Any, metric: Operator, params: Any, key: PRNGKeyArray) -> Any:
    """λ of this update: a Python number where it is one, so that 0 is known to be 0."""
    rule = algorithm.damping
    if isinstance(rule, Damping):
        return rule.value(carried, metric, params, key)
    return default_damping(params, algorithm.solver) if rule is None else rule


def default_damping(params: Any, solver: Solver | None = None) -> float:
    """λ for who has not chosen: 0 in float64 where the solver decides a rank, as a direct one does, 0.1 elsewhere.

    In float32 a direction of λ = 0 can lie where F is below its own rounding: the KL it then realises is not δ.
    """
    double = all(x.dtype == jnp.float64 for x in jax.tree.leaves(params))
    return 0.0 if double and (isinstance(solver, Blocks) or trees.size(params) <= DIRECT_UP_TO) else 0.1


def _gradient_itself(gradient: Gradient) -> Solution:
    finite = trees.all_finite(gradient.vector)
    status = jnp.where(finite, Status.CONVERGED, Status.NONFINITE).astype(jnp.int32)
    x = trees.where(finite, gradient.vector, trees.zeros_like(gradient.vector))
    return Solution(x, status, jnp.zeros((), trees.norm(x).dtype), jnp.zeros((), jnp.int32))


def _root_of_product(g: Any, x: Any) -> Array:
    """√(gᵀx), 0 where that is negative, without overflow on the way: advantages may be of any size."""
    a, b = trees.norm(g), trees.norm(x)
    known = (a > 0) & (b > 0) & jnp.isfinite(a) & jnp.isfinite(b)
    cosine = trees.dot(*(trees.scale(1.0 / jnp.where(known, n, 1.0), v) for n, v in ((a, g), (b, x))))
    return jnp.where(known, jnp.sqrt(jnp.maximum(cosine, 0.0)) * jnp.sqrt(a) * jnp.sqrt(b), 0.0)


def _entropy(local: Local, batch: Batch) -> Array:
    return jnp.sum(weighted(batch.weight, local.distribution.entropy()))
