"""The spectrum of a symmetric operator from products alone: Lanczos (1950) with full reorthogonalisation.

    M q_k = β_{k-1} q_{k-1} + α_k q_k + β_k q_{k+1}        T = tridiag(β, α, β) = QᵀMQ = U diag(θ) Uᵀ

The Ritz values θ approach the eigenvalues, those at the ends of the spectrum first, and with w_i = U_1i² they are the
nodes and weights of Gauss quadrature: vᵀM^k v = ‖v‖² Σ_i w_i θ_i^k for k ≤ 2m − 1, m the number of steps. The mean of
w over random v is therefore the density of all eigenvalues, tr f(M)/P ≈ mean_v Σ_i w_i f(θ_i) (Golub & Welsch 1969;
Ubaru, Chen & Saad 2017).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float, Int, PRNGKeyArray

from steepest import trees
from steepest.errors import UsageError
from steepest.linear.operators import Operator


class Ritz(NamedTuple):
    """values: θ [m] ascending.  weights: w [m] ≥ 0, Σ = 1.  bounds: [m], an eigenvalue lies within θ ± bound.

    NumPy float64, though the products behind them have the precision of the operator. m is smaller than the steps that
    were asked for where the start spans an invariant subspace, as it does for an operator of low rank.
    """

    values: Float[np.ndarray, " m"]
    weights: Float[np.ndarray, " m"]
    bounds: Float[np.ndarray, " m"]


class Tridiagonal(NamedTuple):
    """alpha, beta: [iterations], the diagonal of T and what is beside it, β_m last.  steps: m, how many are meant."""

    alpha: Float[Array, " m"]
    beta: Float[Array, " m"]
    steps: Int[Array, ""]


def lanczos(operator: Operator, start: Any, iterations: int) -> Ritz:
    """Ritz values, weights and residual bounds of M after `iterations` products with it.

    operator: M + λI, on pytrees like `start`.
    start: v, a pytree that is neither 0 nor infinite; its norm does not matter.
    iterations: at most this many products; memory is iterations × P.

    Returns a `Ritz`, never with NaN: it stops at an invariant subspace, and before a product that is not finite.
    Raises UsageError for iterations < 1 and for a start without direction. Not for inside `jax.jit`: see
    `tridiagonalise`.
    """
    size = float(trees.norm(start))
    if not 0 < size < float("inf"):
        raise UsageError(f"lanczos needs a start of finite norm > 0, got one of norm {size}")
    return ritz(tridiagonalise(operator, start, iterations))


def spectral_density(
    operator: Operator, like: Any, iterations: int, probes: int, key: PRNGKeyArray
) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    """Where the P eigenvalues lie, by stochastic Lanczos quadrature: (values ascending [n], weights [n], Σ = 1).

    operator: M + λI.  like: a pytree of the shapes and dtypes that it multiplies.
    iterations: products for each probe.  probes: random starts, standard normal; the error of Σ w f(θ) against
    tr f(M)/P falls as their number^-½, and is smaller for a larger P.

    Raises UsageError for iterations or probes < 1.
    """
    if probes < 1:
        raise UsageError(f"spectral_density needs probes ≥ 1, got {probes}")
    starts = jax.tree.map(lambda *leaves: jnp.stack(leaves), *random_starts(like, probes, key))
    found = jax.lax.map(lambda v: tridiagonalise(operator, v, iterations), starts)
    return pooled([ritz(jax.tree.map(lambda x, i=i: x[i], found)) for i in range(probes)])


def tridiagonalise(operator: Operator, start: Any, iterations: int) -> Tridiagonal:
    """T of `lanczos`; for use inside `jax.jit`."""
    if iterations < 1:
        raise UsageError(f"Lanczos needs iterations ≥ 1, got {iterations}")
    v, unravel = trees.ravel(start)
    size = trees.norm(v)
    usable = (size > 0) & jnp.isfinite(size)
    first = jnp.where(usable, v / jnp.where(usable, size, 1.0), 0.0)
    eps = jnp.finfo(v.dtype).eps

    def step(carry: tuple, k: Array) -> tuple[tuple, tuple[Array, Array, Array]]:
        basis, q, running, largest = carry
        basis = basis.at[k].set(q)
        product = trees.ravel(operator(unravel(q)))[0]
        alpha = jnp.vdot(q, product)
        r = product
        for _ in range(2):  # twice is enough (Kahan; Parlett 1980, §6.9): the basis is then orthogonal to rounding
            r = r - basis.T @ (basis @ r)
        beta = trees.norm(r)
        finite = jnp.isfinite(alpha) & jnp.isfinite(beta)
        done = running & finite
        largest = jnp.maximum(largest, jnp.where(finite, jnp.maximum(jnp.abs(alpha), beta), 0.0))
        goes_on = done & (beta > 10 * eps * largest)
        beta = jnp.where(goes_on, beta, 0.0)
        q = jnp.where(goes_on, r / jnp.where(goes_on, beta, 1.0), jnp.zeros_like(r))
        return (basis, q, goes_on, largest), (jnp.where(done, alpha, 0.0), beta, done)

    empty = jnp.zeros((iterations, v.size), v.dtype)
    carry = (empty, first, usable, jnp.zeros((), v.dtype))
    _, (alpha, beta, done) = jax.lax.scan(step, carry, jnp.arange(iterations))
    return Tridiagonal(alpha, beta, jnp.sum(done).astype(jnp.int32))


def ritz(tridiagonal: Any) -> Ritz:
    """The `Ritz` of a `Tridiagonal`, on the host in float64."""
    m = int(tridiagonal.steps)
    alpha, beta = (np.asarray(x, np.float64)[:m] for x in (tridiagonal.alpha, tridiagonal.beta))
    if m == 0:
        return Ritz(np.zeros(0), np.zeros(0), np.zeros(0))
    values, vectors = np.linalg.eigh(np.diag(alpha) + np.diag(beta[:-1], 1) + np.diag(beta[:-1], -1))
    return Ritz(values, vectors[0] ** 2, beta[-1] * np.abs(vectors[-1]))


def random_starts(like: Any, count: int, key: PRNGKeyArray) -> list[Any]:
    """`count` standard normal vectors of the shapes and dtypes of `like`."""
    flat, unravel = trees.ravel(like)
    return [unravel(jax.random.normal(k, flat.shape, flat.dtype)) for k in jax.random.split(key, count)]


def pooled(spectra: list[Ritz]) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    """The Ritz values of several starts in one ascending list, each start with the same share of the weight."""
    spectra = [one for one in spectra if len(one.values)]
    if not spectra:
        return np.zeros(0), np.zeros(0)
    values = np.concatenate([one.values for one in spectra])
    weights = np.concatenate([one.weights for one in spectra]) / len(spectra)
    order = np.argsort(values, kind="stable")
    return values[order], weights[order]
