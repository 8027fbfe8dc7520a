"""Gaussian of unit variance, z = μ.   R = I,   u(a) = a − μ,   KL = ½|μ − μ'|².

What a regression says of its target: the log-likelihood is −½|a − μ|² and a constant, so that least squares is maximum
likelihood, and the Fisher matrix in θ, E[JᵀJ], is that of Gauss and Newton.
"""

from __future__ import annotations

import math

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, PRNGKeyArray

from steepest.trees import AnyArray

_LOG_2PI = math.log(2.0 * math.pi)


class UnitGaussian(eqx.Module):
    """N(mean, I). mean: [..., d], in units of the deviation."""

    mean: Float[AnyArray, "... d"]

    def sample(self, key: PRNGKeyArray) -> Float[Array, "... d"]:
        """One action for each leading index."""
        return jax.random.normal(key, self.mean.shape, self.mean.dtype) + self.mean

    def mode(self) -> Float[Array, "... d"]:
        """μ."""
        return jnp.asarray(self.mean)

    def log_prob(self, action: Float[AnyArray, "... d"]) -> Float[Array, "..."]:
        """ln density in nats, summed over d."""
        return jnp.sum(-0.5 * (action - self.mean) ** 2 - 0.5 * _LOG_2PI, axis=-1)

    def entropy(self) -> Float[Array, "..."]:
        """Differential entropy in nats, summed over d: a constant."""
        return jnp.full(self.mean.shape[:-1], 0.5 * (1.0 + _LOG_2PI) * self.mean.shape[-1], self.mean.dtype)

    def kl(self, other: UnitGaussian) -> Float[Array, "..."]:
        """KL(self‖other) = ½|μ − μ'|², nats, summed over d."""
        return 0.5 * jnp.sum((self.mean - other.mean) ** 2, axis=-1)

    def whiten(self, tangent: UnitGaussian) -> Float[Array, "... k"]:
        """R·ż = μ̇."""
        return jnp.asarray(tangent.mean)

    def whiten_transpose(self, y: Float[AnyArray, "... k"]) -> UnitGaussian:
        """Rᵀ·y."""
        return UnitGaussian(y)

    def whiten_cotangent(self, cotangent: UnitGaussian) -> Float[Array, "... k"]:
        """R⁻ᵀ·c."""
        return jnp.asarray(cotangent.mean)

    def whitened_score(self, action: Float[AnyArray, "... d"]) -> Float[Array, "... k"]:
        """u = a − μ."""
        return jnp.asarray(action) - self.mean
