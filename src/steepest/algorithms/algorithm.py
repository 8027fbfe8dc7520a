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
from steepest.batch import Batch
from steepest.distributions import Policy
from steepest.errors import UsageError
from steepest.geometry import (
    Gradient,
    Local,
    Metric,
    Objective,
    Reason,
    Step,
    StepInfo,
    fisher,
    linearise,
    mean_kl,
)
from steepest.geometry.divergences import weighted
from steepest.linear import DIRECT_UP_TO, Blocks, Solution, Solver, Status
from steepest.parameters import merge, split

P = TypeVar("P", bound=Policy)


class AlgorithmState(NamedTuple):
    """What an algorithm carries from update to update.

    updates: how many there were.  failures: how many of the last in a row kept θ because something went wrong.
    """

    updates: Int[Array, ""]
    failures: Int[Array, ""]


@dataclass(frozen=True)
class Algorithm:
    """max L(θ + Δ) for a step of length δ in a metric.

    name: what it is called in reports and folders.
    objective: which g.
    metric: which M.
    solver: how M⁻¹g; None for a metric that is the identity.
    step: how far.
    damping: λ ≥ 0 in the direction (M + λI)⁻¹g, never in the length of the step. None: 0 in float64 up to 1 000
        parameters or with `Blocks`, else 0.1.

    Raises UsageError for a negative damping.
    """

    name: str
    objective: Objective
    metric: Metric
    solver: Solver | None
    step: Step
    damping: float | None = None

    def __post_init__(self) -> None:
        if self.damping is not None and not 0 <= self.damping < float("inf"):
            raise UsageError(f"damping must be a finite number ≥ 0, got {self.damping}")
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
        return AlgorithmState(jnp.zeros((), jnp.int32), jnp.zeros((), jnp.int32))

    def update(
        self, policy: P, state: AlgorithmState, batch: Batch, key: PRNGKeyArray | None = None
    ) -> tuple[P, AlgorithmState, StepInfo]:
        """One step. Compiled once for each algorithm and shape of policy and batch.

        policy: maps one observation to a distribution; θ is its trainable arrays.
        batch: N states with m actions each, collected or enumerated under this very policy.
        key: for algorithms that draw; none of pg, npg and trpo does.

        Returns the policy after the step (the same arrays where it was not taken), the state, and the trust report.
        """
        return _update(self, policy, state, batch)


_EXAMPLES = {"solver": "ConjugateGradient(10)", "step": "TrustRegion(0.01)"}


@eqx.filter_jit
def _update(algorithm: Algorithm, policy: Any, state: AlgorithmState, batch: Batch) -> Any:
    return update(algorithm, policy, state, batch)


def update(algorithm: Algorithm, policy: P, state: AlgorithmState, batch: Batch) -> tuple[P, AlgorithmState, StepInfo]:
    """`Algorithm.update` without compilation of its own: to be inlined in a larger program."""
    params, rest = split(policy)
    local = linearise(policy, batch.obs)
    gradient = algorithm.objective.gradient(local, batch)
    damping = default_damping(params, algorithm.solver) if algorithm.damping is None else algorithm.damping
    metric = algorithm.metric.operator(local, batch).damped(damping)
    if algorithm.solver is None:
        solution = _gradient_itself(gradient)
    else:
        solution = algorithm.solver(metric, gradient.vector, algorithm.metric.dual(local, batch, gradient))

    def trial(theta: Any) -> tuple[Array, Array]:
        new = local.predict(theta)
        return (
            algorithm.objective.gain(local.distribution, new, batch),
            mean_kl(local.distribution, new, batch.weight),
        )

    taken = algorithm.step(params, gradient.vector, solution, metric, trial)
    failed = (taken.reason != Reason.ACCEPTED) & (taken.reason != Reason.NO_GRADIENT)
    state = AlgorithmState(state.updates + 1, jnp.where(failed, state.failures + 1, 0).astype(jnp.int32))
    ascent = trees.dot(gradient.vector, solution.x)
    quadratic = fisher.operator(local, batch).quadratic(solution.x)
    info = StepInfo(
        gradient_norm=trees.norm(gradient.vector),
        natural_norm=jnp.sqrt(jnp.maximum(ascent, 0.0)),
        predicted_kl=0.5 * taken.step_size**2 * quadratic,
        kl=taken.kl,
        predicted_improvement=taken.step_size * ascent,
        improvement=taken.gain,
        entropy=_entropy(local, batch),
        iterations=solution.iterations,
        residual=solution.residual,
        status=solution.status,
        damping=jnp.asarray(damping, ascent.dtype),
        step_size=taken.step_size,
        backtracks=taken.backtracks,
        accepted=taken.reason == Reason.ACCEPTED,
        reason=taken.reason,
        normaliser_kl=jnp.zeros_like(taken.kl),
    )
    return merge(taken.params, rest), state, info


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


def _entropy(local: Local, batch: Batch) -> Array:
    return jnp.sum(weighted(batch.weight, local.distribution.entropy()))
