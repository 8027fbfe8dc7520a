"""Gaussian squashed into the unit cube: a sample s ~ N(μ, σ²) stands for the action x = (1 + tanh s)/2.

    ln π(x) = ln N(s) − ln dx/ds          dx/ds = 2x(1 − x)

An action is kept as s, not as x: then its density is exact in float32 however near to a bound x lies, and no inverse is
ever taken. The map is one to one, so that Fisher matrix, score and KL are those of the Gaussian. Densities are with
respect to x; those of an action in [low, high] are less by Σ ln (high − low), in every state, which no ratio, KL or
gradient sees. The environment is given low + (high − low)·x by its space (`spaces.Box`).
"""

from __future__ import annotations

import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float, PRNGKeyArray

from steepest.distributions.gaussian import DiagonalGaussian
from steepest.trees import AnyArray

_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(32)


class SquashedGaussian(eqx.Module):
    """mean, log_std: [..., d], of s: μ and ln σ. A box is 2 wide in these units, where it is not yet bent."""

    mean: Float[AnyArray, "... d"]
    log_std: Float[AnyArray, "... d"]

    @property
    def straight(self) -> DiagonalGaussian:
        """Of s."""
        return DiagonalGaussian(self.mean, self.log_std)

    def sample(self, key: PRNGKeyArray) -> Float[Array, "... d"]:
        """s, for each leading index."""
        return self.straight.sample(key)

    def noise(self, key: PRNGKeyArray) -> Float[Array, "... d"]:
        """ε, of N(0, I). Of the mean only the shape is looked at."""
        return jax.random.normal(key, self.mean.shape, self.mean.dtype)

    def from_noise(self, noise: Float[AnyArray, "... d"]) -> Float[Array, "... d"]:
        """σε + μ."""
        return self.straight.from_noise(noise)

    def mode(self) -> Float[Array, "... d"]:
        """μ: the median of each dimension of x. The density's maximum lies elsewhere, at a bound where σ is large."""
        return self.straight.mode()

    def log_prob(self, action: Float[AnyArray, "... d"]) -> Float[Array, "..."]:
        """ln density of x at s in nats, summed over d."""
        return self.straight.log_prob(action) - jnp.sum(log_slope(action), axis=-1)

    def entropy(self) -> Float[Array, "..."]:
        """Of x in nats, summed over d, at most 0, as of the uniform: by Gauss–Hermite quadrature with 32 nodes."""
        dtype = jnp.result_type(self.mean)
        nodes, weights = jnp.asarray(_NODES, dtype), jnp.asarray(_WEIGHTS / math.sqrt(2 * math.pi), dtype)
        s = jnp.asarray(self.mean)[..., None] + jnp.exp(self.log_std)[..., None] * nodes
        return self.straight.entropy() + jnp.sum(log_slope(s) @ weights, axis=-1)

    def kl(self, other: SquashedGaussian) -> Float[Array, "..."]:
        """KL(self‖other), that of the Gaussians; nats, summed over d."""
        return self.straight.kl(other.straight)

    def whiten(self, tangent: SquashedGaussian) -> Float[Array, "... k"]:
        """R·ż."""
        return self.straight.whiten(tangent.straight)

    def whiten_transpose(self, y: Float[AnyArray, "... k"]) -> SquashedGaussian:
        """Rᵀ·y."""
        z = self.straight.whiten_transpose(y)
        return SquashedGaussian(z.mean, z.log_std)

    def whiten_cotangent(self, cotangent: SquashedGaussian) -> Float[Array, "... k"]:
        """R⁻ᵀ·c."""
        return self.straight.whiten_cotangent(cotangent.straight)

    def whitened_score(self, action: Float[AnyArray, "... d"]) -> Float[Array, "... k"]:
        """u(s)."""
        return self.straight.whitened_score(action)


def log_slope(s: AnyArray) -> Array:
    """ln dx/ds = ln 2 + ln x + ln (1 − x)."""
    return math.log(2.0) + jax.nn.log_sigmoid(2.0 * s) + jax.nn.log_sigmoid(-2.0 * s)
