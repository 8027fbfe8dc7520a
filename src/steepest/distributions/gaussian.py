"""Diagonal Gaussian over ℝᵈ, z = (μ, ln σ).   R = diag(1/σ, √2),   u(a) = (ε, (ε² − 1)/√2),   ε = (a − μ)/σ.

Log-probability, entropy and KL are *sums* over the dimensions of the action, so that a KL budget δ means the same
whatever d is: an average would make the real budget d·δ.
"""

from __future__ import annotations

import math

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, PRNGKeyArray

from steepest.trees import AnyArray

_ROOT_2 = math.sqrt(2.0)
_LOG_2PI = math.log(2.0 * math.pi)


class DiagonalGaussian(eqx.Module):
    """N(mean, diag(exp(log_std))²). mean, log_std: [..., d], in the units of the action and their logarithm."""

    mean: Float[AnyArray, "... d"]
    log_std: Float[AnyArray, "... d"]

    def sample(self, key: PRNGKeyArray) -> Float[Array, "... d"]:
        """One action for each leading index."""
        return self.from_noise(self.noise(key))

    def noise(self, key: PRNGKeyArray) -> Float[Array, "... d"]:
        """ε, of N(0, I)."""
        return jax.random.normal(key, self.mean.shape, self.mean.dtype)

    def from_noise(self, noise: Float[AnyArray, "... d"]) -> Float[Array, "... d"]:
        """σε + μ."""
        return jnp.exp(self.log_std) * noise + self.mean

    def mode(self) -> Float[Array, "... d"]:
        """μ."""
        return jnp.asarray(self.mean)

    def log_prob(self, action: Float[AnyArray, "... d"]) -> Float[Array, "..."]:
        """ln density in nats, summed over d."""
        error = (action - self.mean) * jnp.exp(-self.log_std)
        return jnp.sum(-0.5 * error**2 - self.log_std - 0.5 * _LOG_2PI, axis=-1)

    def entropy(self) -> Float[Array, "..."]:
        """Differential entropy in nats, summed over d."""
        return jnp.sum(self.log_std + 0.5 * (1.0 + _LOG_2PI), axis=-1)

    def kl(self, other: DiagonalGaussian) -> Float[Array, "..."]:
        """KL(self‖other) = Σ ½(e^{2d} − 1) − d + ½((μ − μ')/σ')², d = ln σ − ln σ'; nats, summed over d."""
        d = self.log_std - other.log_std
        error = (self.mean - other.mean) * jnp.exp(-other.log_std)
        return jnp.sum(0.5 * jnp.expm1(2.0 * d) - d + 0.5 * error**2, axis=-1)

    def whiten(self, tangent: DiagonalGaussian) -> Float[Array, "... k"]:
        """R·ż = (μ̇/σ, √2 (ln σ)˙)."""
        return jnp.concatenate([tangent.mean * jnp.exp(-self.log_std), _ROOT_2 * tangent.log_std], axis=-1)

    def whiten_transpose(self, y: Float[AnyArray, "... k"]) -> DiagonalGaussian:
        """Rᵀ·y."""
        first, second = jnp.split(y, 2, axis=-1)
        return DiagonalGaussian(first * jnp.exp(-self.log_std), _ROOT_2 * second)

    def whiten_cotangent(self, cotangent: DiagonalGaussian) -> Float[Array, "... k"]:
        """R⁻ᵀ·c: R is square and invertible."""
        return jnp.concatenate([cotangent.mean * jnp.exp(self.log_std), cotangent.log_std / _ROOT_2], axis=-1)

    def whitened_score(self, action: Float[AnyArray, "... d"]) -> Float[Array, "... k"]:
        """u = (ε, (ε² − 1)/√2)."""
        error = (action - self.mean) * jnp.exp(-self.log_std)
        return jnp.concatenate([error, (error**2 - 1.0) / _ROOT_2], axis=-1)
