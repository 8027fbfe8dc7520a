"""Beta on the unit cube, z = (a, b), α = 1 + softplus(a), β = 1 + softplus(b): one peak, and no mass beyond the bounds.

    ln π(x) = (α−1) ln x + (β−1) ln (1−x) − ln B(α, β)            (Chou, Maturana & Scherer 2017)
    I(α, β) = [[ψ'(α) − ψ'(α+β), −ψ'(α+β)], [−ψ'(α+β), ψ'(β) − ψ'(α+β)]] = LLᵀ,   D = diag(dα/da, dβ/db)
    R = LᵀD,   u(x) = L⁻¹(T − E T),   T = (ln x, ln (1−x))

An action is kept as s = ½ ln (x/(1−x)), as of `squashed.py`: near to both bounds float32 has all digits of ln x and
ln (1−x). Densities are with respect to x; those of an action in [low, high] are less by Σ ln (high − low).

ψ'(x) is 1/x and a rest r(x) > 0, a sum of positive terms, and the 1/x cancel by hand: of a narrow peak the determinant
of I is smaller than its entries by a factor of α + β, and would have few digits in float32.
"""

from __future__ import annotations

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.scipy.special import betaln, digamma
from jaxtyping import Float, PRNGKeyArray

from steepest.trees import AnyArray

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(6)


class _Factor(NamedTuple):
    """L of each dimension, and D."""

    first: Array
    below: Array
    second: Array
    slope_a: Array
    slope_b: Array


class Beta(eqx.Module):
    """a, b: [..., d]. The mean of x is α/(α+β); the larger α + β, the narrower; at a = b → −∞ it is uniform."""

    a: Float[AnyArray, "... d"]
    b: Float[AnyArray, "... d"]

    @property
    def alpha(self) -> Float[Array, "... d"]:
        """α > 1."""
        return 1.0 + jax.nn.softplus(self.a)

    @property
    def beta(self) -> Float[Array, "... d"]:
        """β > 1."""
        return 1.0 + jax.nn.softplus(self.b)

    def sample(self, key: PRNGKeyArray) -> Float[Array, "... d"]:
        """s, for each leading index: of two gamma variables."""
        first, second = jax.random.split(key)
        return 0.5 * (jax.random.loggamma(first, self.alpha) - jax.random.loggamma(second, self.beta))

    def mode(self) -> Float[Array, "... d"]:
        """Where x/(1−x) = (α−1)/(β−1)."""
        return 0.5 * (_log_softplus(self.a) - _log_softplus(self.b))

    def log_prob(self, action: Float[AnyArray, "... d"]) -> Float[Array, "..."]:
        """ln density of x at s in nats, summed over d."""
        x, rest = _logs(action)
        weighted = jax.nn.softplus(self.a) * x + jax.nn.softplus(self.b) * rest
        return jnp.sum(weighted - betaln(self.alpha, self.beta), axis=-1)

    def entropy(self) -> Float[Array, "..."]:
        """Of x in nats, summed over d, at most 0, as of the uniform."""
        x, rest = self._mean_logs()
        mean = jax.nn.softplus(self.a) * x + jax.nn.softplus(self.b) * rest
        return jnp.sum(betaln(self.alpha, self.beta) - mean, axis=-1)

    def kl(self, other: Beta) -> Float[Array, "..."]:
        """KL(self‖other), nats, summed over d.

        ln B is convex: the KL is its distance from a tangent, ∫₀¹ (1−t) ΔᵀI(z + tΔ)Δ dt, which keeps the digits of a
        small one (by 6 nodes, exact to 1e-15); a large one is the difference.
        """
        alpha, beta = self.alpha, self.beta
        da, db = other.alpha - alpha, other.beta - beta
        near = (jnp.abs(da) <= 0.25 * alpha) & (jnp.abs(db) <= 0.25 * beta)
        x, rest = self._mean_logs()
        far = betaln(other.alpha, other.beta) - betaln(alpha, beta) - da * x - db * rest
        da, db = jnp.where(near, da, 0.0), jnp.where(near, db, 0.0)
        return jnp.sum(jnp.where(near, _along(alpha, beta, da, db), far), axis=-1)

    def whiten(self, tangent: Beta) -> Float[Array, "... k"]:
        """R·ż."""
        f = self._factor()
        a, b = f.slope_a * tangent.a, f.slope_b * tangent.b
        return jnp.concatenate([f.first * a + f.below * b, f.second * b], axis=-1)

    def whiten_transpose(self, y: Float[AnyArray, "... k"]) -> Beta:
        """Rᵀ·y."""
        f, (first, second) = self._factor(), jnp.split(jnp.asarray(y), 2, axis=-1)
        return Beta(f.slope_a * f.first * first, f.slope_b * (f.below * first + f.second * second))

    def whiten_cotangent(self, cotangent: Beta) -> Float[Array, "... k"]:
        """R⁻ᵀ·c."""
        f = self._factor()
        return _solved(f, _divide(cotangent.a, f.slope_a), _divide(cotangent.b, f.slope_b))

    def whitened_score(self, action: Float[AnyArray, "... d"]) -> Float[Array, "... k"]:
        """u."""
        (x, rest), (mean_x, mean_rest) = _logs(action), self._mean_logs()
        return _solved(self._factor(), x - mean_x, rest - mean_rest)

    def _mean_logs(self) -> tuple[Array, Array]:
        """E ln x and E ln (1−x)."""
        both = digamma(self.alpha + self.beta)
        return digamma(self.alpha) - both, digamma(self.beta) - both

    def _factor(self) -> _Factor:
        alpha, beta = self.alpha, self.beta
        both = alpha + beta
        r_alpha, r_beta, r_both = (_rest(x) for x in (alpha, beta, both))
        corner = beta / (alpha * both) + r_alpha - r_both
        across = -(1.0 / both + r_both)
        determinant = (
            r_beta * beta / (alpha * both)
            + r_alpha * alpha / (beta * both)
            + r_alpha * r_beta
            - r_both * (both / (alpha * beta) + r_alpha + r_beta)
        )
        first = jnp.sqrt(corner)
        slopes = jax.nn.sigmoid(jnp.asarray(self.a)), jax.nn.sigmoid(jnp.asarray(self.b))
        return _Factor(first, across / first, jnp.sqrt(determinant / corner), *slopes)


def _logs(s: AnyArray) -> tuple[Array, Array]:
    """ln x and ln (1−x)."""
    return jax.nn.log_sigmoid(2.0 * s), jax.nn.log_sigmoid(-2.0 * s)


def _rest(x: Array) -> Array:
    """r(x) = ψ'(x) − 1/x for x ≥ 1, to 1e-11: r(x) − r(x+1) = 1/(x²(x+1)), eight times, then Stirling's series."""
    each = x[..., None] + jnp.arange(8, dtype=x.dtype)
    y = 1.0 / (x + 8.0)
    series = 1 / 2 + y * (1 / 6 - y**2 * (1 / 30 - y**2 * (1 / 42 - y**2 * (1 / 30 - y**2 * 5 / 66))))
    return jnp.sum(1.0 / (each**2 * (each + 1.0)), axis=-1) + y**2 * series


def _along(alpha: Array, beta: Array, da: Array, db: Array) -> Array:
    t, weights = (jnp.asarray(0.5 * each, alpha.dtype) for each in (1.0 + _NODES, _WEIGHTS))
    da, db = da[..., None], db[..., None]
    a, b = alpha[..., None] + t * da, beta[..., None] + t * db
    quadratic = (b * da - a * db) ** 2 / (a * b * (a + b))
    quadratic += _rest(a) * da**2 + _rest(b) * db**2 - _rest(a + b) * (da + db) ** 2
    return quadratic @ (weights * (1.0 - t))


def _solved(f: _Factor, a: Array, b: Array) -> Array:
    """L⁻¹(a, b)."""
    first = a / f.first
    return jnp.concatenate([first, (b - f.below * first) / f.second], axis=-1)


def _divide(a: AnyArray, slope: Array) -> Array:
    """a/slope, 0 where the slope is: there z has no effect."""
    return jnp.where(slope > 0, a / jnp.where(slope > 0, slope, 1.0), 0.0)


def _log_softplus(z: AnyArray) -> Array:
    """ln softplus(z), which is z for very negative ones."""
    z = jnp.asarray(z)
    return jnp.where(z < -15.0, z, jnp.log(jax.nn.softplus(jnp.maximum(z, -15.0))))
