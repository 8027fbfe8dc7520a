"""What the parts of an update are worth, measured on batches of one policy.

    gradient    cos(g_n, g)          of a batch of n rows with that of all other rows;  E cos ≈ 1/√(1 + N₀/n)
    direction   cos_F(x_n, x)        of x = (M + λI)⁻¹g, in the metric of what the policy does
    solver      ‖b − (M + λI)x_k‖/‖b‖ for k iterations of conjugate gradients, and several λ
    spectrum    eigenvalues of F, and where in it the gradient lies
    line        KL(π_θ‖π_θ+βx) and the gain of the objective against ½β²xᵀFx and βgᵀx, for several lengths of step

N₀ = tr Cov(∇ of one row)/‖g‖² is the noise scale of McCandlish et al. 2018, in rows: at n = N₀ the cosine is about
0.71, where the noise lies across g, as it does in many dimensions; in few the cosine is larger.
Everything is in the precision of the policy, as in training; what comes out is NumPy.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float, PRNGKeyArray

from steepest import trees
from steepest.algorithms.algorithm import Algorithm
from steepest.batch import Batch
from steepest.distributions import Policy
from steepest.geometry import (
    Local,
    Metric,
    Moment,
    Objective,
    begun,
    euclidean,
    fisher,
    initial,
    linearise,
    mean_kl,
)
from steepest.linear import ConjugateGradient, Operator
from steepest.linear.lanczos import Ritz, Tridiagonal, pooled, random_starts, ritz, tridiagonalise
from steepest.linear.residuals import residual_history
from steepest.parameters import split

_REFERENCE = ConjugateGradient(50, tolerance=1e-3)
_BASIS = 50_000_000  # numbers that Lanczos may keep


class Spectrum(NamedTuple):
    """values, weights: of all P eigenvalues, [n] ascending, Σ weights = 1, from random starts.  gradient: the `Ritz`
    of g: its weights are the shares of ‖g‖².  floor: below it a value is rounding."""

    values: Float[np.ndarray, " n"]
    weights: Float[np.ndarray, " n"]
    gradient: Ritz
    floor: float


class Line(NamedTuple):
    """At θ + βx with ½β²xᵀFx = δ, for each δ [D].

    kl, gain: on the batch that made x, nats per state and mean advantage per state.  predicted: βgᵀx.
    kl_elsewhere, gain_elsewhere: on rows that had no part in x.
    """

    delta: Float[Any, " D"]
    kl: Float[Any, " D"]
    gain: Float[Any, " D"]
    predicted: Float[Any, " D"]
    kl_elsewhere: Float[Any, " D"]
    gain_elsewhere: Float[Any, " D"]


def batch_gradients(algorithm: Algorithm, policy: Policy, batches: Batch) -> Float[np.ndarray, "K P"]:
    """∇L of K batches of one shape, float64.  batches: one `Batch` whose leaves have a first axis of K."""
    return np.asarray(_batch_gradients(algorithm, policy, batches), np.float64)


def cosines(
    gradients: Float[np.ndarray, "K P"], rows: Float[np.ndarray, " K"], group: int, reference: Any = None
) -> Float[np.ndarray, " n"]:
    """The cosine of the gradient of every `group` consecutive batches with that of all the others: [K // group].

    gradients: of K disjoint batches.  rows: how many rows each has; their weights in a mean.
    reference: [P], to compare with instead.

    A group's own rows have no part in what it is compared with, or its noise would be taken for agreement. NaN where a
    gradient is 0. Raises UsageError where nothing is left to compare with.
    """
    total, count = rows @ gradients, rows.sum()
    found = []
    for k in range(len(rows) // group):
        part = slice(k * group, (k + 1) * group)
        mine, n = rows[part] @ gradients[part], rows[part].sum()
        found.append(_cosine(mine, reference if reference is not None else total - mine) if n < count else np.nan)
    return np.array(found)


def noise_rows(gradients: Float[np.ndarray, "K P"], rows: Float[np.ndarray, " K"]) -> float:
    """N₀ in rows, from K ≥ 2 disjoint batches; ∞ where they agree in nothing.

    E‖g_i‖² = ‖g‖² + N₀‖g‖²/n and E g_iᵀg_j = ‖g‖²: both means are unbiased, their ratio nearly so for many batches.
    """
    products = gradients @ gradients.T
    own = np.trace(products) / len(rows)
    common = (products.sum() - np.trace(products)) / (len(rows) * (len(rows) - 1))
    if not common > 0:
        return float("inf")
    return float(max(own - common, 0.0) / common * rows.mean())


@eqx.filter_jit
def direction(algorithm: Algorithm, policy: Policy, batch: Batch, damping: Any) -> tuple[Any, Any]:
    """(g, x): the gradient, and what the algorithm's solver makes of it with λ = damping; x = g without a solver."""
    local = linearise(policy, batch.obs, algorithm.chunk)
    return _direction(algorithm, local, batch, damping)


@eqx.filter_jit
def natural_cosine(
    algorithm: Algorithm, policy: Policy, batch: Batch, damping: Any, x: Any
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """The cosine of a direction x with (M + λI)⁻¹g of `batch`: (in the metric F of `batch`, Euclidean in θ).

    batch: large, and without the rows that made x.  It is solved by up to 50 conjugate gradient iterations, so that
    what an update's own solver leaves out counts against x.
    """
    local = linearise(policy, batch.obs, algorithm.chunk)
    objective, metric = _parts(algorithm, local, batch)
    gradient = objective.gradient(local, batch).vector
    y = _REFERENCE(metric.operator(local, batch).damped(damping), gradient).x
    form = fisher.operator(local, batch)
    fy = form(y)
    size = jnp.sqrt(form.quadratic(x) * form.quadratic(y))
    return trees.dot(x, fy) / size, trees.dot(x, y) / (trees.norm(x) * trees.norm(y))


def residual_curves(
    algorithm: Algorithm, policy: Policy, batch: Batch, dampings: Sequence[float], iterations: int
) -> Float[np.ndarray, "D K"]:
    """The true relative residual of conjugate gradients after 0 … `iterations` products, for each λ: [D, iterations+1].

    M is the algorithm's metric, Fisher where that is Euclidean; b the gradient.
    """
    lambdas = jnp.asarray(np.asarray(dampings), jnp.float32)
    return np.asarray(_residual_curves(algorithm, policy, batch, lambdas, iterations), np.float64)


def spectrum(
    algorithm: Algorithm, policy: Policy, batch: Batch, key: PRNGKeyArray, *, iterations: int = 60, probes: int = 4
) -> Spectrum:
    """Eigenvalues of the Fisher matrix on a batch, by Lanczos from the gradient and from random starts.

    iterations: products for each start; fewer where θ is so large that they would not fit.
    probes: random starts.
    """
    params, _ = split(policy)
    size = trees.size(params)
    iterations = max(2, min(iterations, size, _BASIS // max(size, 1)))
    starts = random_starts(params, probes, key)
    stacked = jax.tree.map(lambda *x: jnp.stack(x), *starts)
    runs: Any = jax.tree.map(np.asarray, _tridiagonals(algorithm, policy, batch, stacked, iterations))
    spectra = [ritz(Tridiagonal(*(x[k] for x in runs))) for k in range(probes + 1)]
    values, weights = pooled(spectra[1:])
    largest = max(itertools.chain([0.0], (one.values[-1] for one in spectra if len(one.values))))
    eps = float(np.finfo(np.asarray(jax.tree.leaves(params)[0]).dtype).eps)
    return Spectrum(values, weights, spectra[0], 10 * eps * largest)


def along(
    algorithm: Algorithm, policy: Policy, batch: Batch, elsewhere: Batch, damping: Any, deltas: Sequence[float]
) -> Line:
    """What is predicted and realised along the algorithm's direction x on `batch`, and on rows that had no part in it.

    elsewhere: another batch of the policy.  deltas: δ > 0, nats per state.
    """
    given = jnp.asarray(np.asarray(deltas), jnp.float32)
    line = _along(algorithm, policy, batch, elsewhere, damping, given)
    return Line(*(np.asarray(x, np.float64) for x in line))


def _parts(algorithm: Algorithm, local: Local, batch: Batch) -> tuple[Objective, Metric]:
    """Objective and metric as in a first update: what they would carry on from others is not looked at."""
    moment = Moment(local, batch, jax.random.key(0), jnp.zeros((), jnp.int32))
    parts = (algorithm.objective, algorithm.metric)
    objective, metric = (begun(part, initial(part, local.params), moment)[0] for part in parts)
    return objective, metric


def _direction(algorithm: Algorithm, local: Local, batch: Batch, damping: Any) -> tuple[Any, Any]:
    objective, metric = _parts(algorithm, local, batch)
    gradient = objective.gradient(local, batch)
    if algorithm.solver is None:
        return gradient.vector, gradient.vector
    operator = metric.operator(local, batch).damped(damping)
    dual = metric.dual(local, batch, gradient)
    return gradient.vector, algorithm.solver(operator, gradient.vector, dual).x


def _cosine(a: np.ndarray, b: np.ndarray) -> float:
    size = np.linalg.norm(a) * np.linalg.norm(b)
    return float(a @ b / size) if size > 0 else float("nan")


@eqx.filter_jit
def _batch_gradients(algorithm: Algorithm, policy: Policy, batches: Batch) -> Float[Array, "K P"]:
    def one(batch: Batch) -> Array:
        local = linearise(policy, batch.obs, algorithm.chunk)
        return trees.ravel(_parts(algorithm, local, batch)[0].gradient(local, batch).vector)[0]

    return jax.lax.map(one, batches)


@eqx.filter_jit
def _residual_curves(algorithm: Algorithm, policy: Policy, batch: Batch, lambdas: Array, iterations: int) -> Array:
    local = linearise(policy, batch.obs, algorithm.chunk)
    objective, metric = _parts(algorithm, local, batch)
    gradient = objective.gradient(local, batch).vector
    operator: Operator = (fisher if metric == euclidean else metric).operator(local, batch)
    solver = ConjugateGradient(iterations, tolerance=0.0)
    return jax.lax.map(lambda damping: residual_history(solver, operator.damped(damping), gradient), lambdas)


@eqx.filter_jit
def _tridiagonals(algorithm: Algorithm, policy: Policy, batch: Batch, starts: Any, iterations: int) -> Any:
    local = linearise(policy, batch.obs, algorithm.chunk)
    operator = fisher.operator(local, batch)
    gradient = _parts(algorithm, local, batch)[0].gradient(local, batch).vector
    every = jax.tree.map(lambda g, v: jnp.concatenate([g[None], v]), gradient, starts)
    return jax.lax.map(lambda start: tridiagonalise(operator, start, iterations), every)


@eqx.filter_jit
def _along(
    algorithm: Algorithm, policy: Policy, batch: Batch, elsewhere: Batch, damping: Any, deltas: Array
) -> tuple[Array, ...]:
    local = linearise(policy, batch.obs, algorithm.chunk)
    other = linearise(policy, elsewhere.obs, algorithm.chunk)
    gradient, x = _direction(algorithm, local, batch, damping)
    objective, _ = _parts(algorithm, local, batch)
    form, ascent = fisher.operator(local, batch).quadratic(x), trees.dot(gradient, x)

    def at(delta: Array) -> tuple[Array, ...]:
        beta = jnp.where(form > 0, jnp.sqrt(2 * delta / jnp.where(form > 0, form, 1.0)), 0.0)
        theta = trees.axpy(beta, x, local.params)
        new, there = local.predict(theta), other.predict(theta)
        gain = objective.gain
        return (
            delta,
            mean_kl(local.distribution, new, batch.weight),
            gain(local.distribution, new, batch),
            beta * ascent,
            mean_kl(other.distribution, there, elsewhere.weight),
            gain(other.distribution, there, elsewhere),
        )

    return jax.lax.map(at, deltas)
