"""Independent switches, z = logits.   R = diag(√(p(1 − p))),   u(a) = (a − p)/√(p(1 − p)) = ±e^{∓z/2},   p = σ(z)."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int, PRNGKeyArray

from steepest.distributions.categorical import kl_terms
from steepest.trees import AnyArray


class Bernoulli(eqx.Module):
    """Distribution over {0, 1}ᵈ. logits: [..., d], ln p − ln (1 − p) of each switch."""

    logits: Float[AnyArray, "... d"]

    @property
    def log_probs(self) -> tuple[Float[Array, "... d"], Float[Array, "... d"]]:
        """(ln p, ln (1 − p)), nats."""
        return jax.nn.log_sigmoid(self.logits), jax.nn.log_sigmoid(-self.logits)

    def sample(self, key: PRNGKeyArray) -> Int[Array, "... d"]:
        """0 or 1 of each, for each leading index."""
        return self.from_noise(self.noise(key))

    def noise(self, key: PRNGKeyArray) -> Float[Array, "... d"]:
        """Logistic."""
        return jax.random.logistic(key, self.logits.shape, self.logits.dtype)

    def from_noise(self, noise: Float[AnyArray, "... d"]) -> Int[Array, "... d"]:
        """1 where z + noise > 0."""
        return (jnp.asarray(noise) + self.logits > 0).astype(jnp.int32)

    def mode(self) -> Int[Array, "... d"]:
        """1 where p > ½."""
        return (jnp.asarray(self.logits) > 0).astype(jnp.int32)

    def log_prob(self, action: Int[AnyArray, "... d"]) -> Float[Array, "..."]:
        """Σ ln p(a) in nats."""
        on, off = self.log_probs
        return jnp.sum(jnp.where(action > 0, on, off), axis=-1)

    def entropy(self) -> Float[Array, "..."]:
        """Summed over the switches, nats."""
        on, off = self.log_probs
        return -jnp.sum(jnp.exp(on) * on + jnp.exp(off) * off, axis=-1)

    def kl(self, other: Bernoulli) -> Float[Array, "..."]:
        """KL(self‖other), summed over the switches, nats; a small one keeps its digits."""
        pairs = zip(self.log_probs, other.log_probs, strict=True)
        return jnp.sum(sum((kl_terms(p, q) for p, q in pairs), start=jnp.zeros(())), axis=-1)

    def whiten(self, tangent: Bernoulli) -> Float[Array, "... d"]:
        """R·ż."""
        return self._root() * jnp.asarray(tangent.logits)

    def whiten_transpose(self, y: Float[AnyArray, "... d"]) -> Bernoulli:
        """Rᵀ·y."""
        return Bernoulli(self._root() * y)

    def whiten_cotangent(self, cotangent: Bernoulli) -> Float[Array, "... d"]:
        """R⁻ᵀ·c."""
        root = self._root()
        return jnp.where(root > 0, cotangent.logits / jnp.where(root > 0, root, 1.0), 0.0)

    def whitened_score(self, action: Int[AnyArray, "... d"]) -> Float[Array, "... d"]:
        """u = e^{−z/2} for 1, −e^{z/2} for 0."""
        half = 0.5 * jnp.asarray(self.logits)
        return jnp.where(action > 0, jnp.exp(-half), -jnp.exp(half))

    def _root(self) -> Array:
        """√(p(1 − p))."""
        on, off = self.log_probs
        return jnp.exp(0.5 * (on + off))
