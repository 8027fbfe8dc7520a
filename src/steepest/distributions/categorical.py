"""Categorical over A actions, z = logits.   R = diag(√p)(I − 1pᵀ),   u(a) = e_a/√p_a − √p,   I = diag(p) − ppᵀ.

Rows of actions with p = 0 (masked by a logit of −∞) are 0 in R, u and every product: they take no part.
"""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int, PRNGKeyArray

from steepest.trees import AnyArray


class Categorical(eqx.Module):
    """Distribution over {0, …, A−1}. logits: [..., A], unnormalised log-probabilities; −∞ masks an action."""

    logits: Float[AnyArray, "... A"]

    @property
    def log_probs(self) -> Float[Array, "... A"]:
        """ln p, nats; −∞ where masked."""
        return jax.nn.log_softmax(self.logits, axis=-1)

    @property
    def probs(self) -> Float[Array, "... A"]:
        """p, sums to 1."""
        return jax.nn.softmax(self.logits, axis=-1)

    def sample(self, key: PRNGKeyArray) -> Int[Array, "..."]:
        """One action index for each leading index."""
        return self.from_noise(self.noise(key))

    def noise(self, key: PRNGKeyArray) -> Float[Array, "... A"]:
        """Gumbel's."""
        return jax.random.gumbel(key, self.logits.shape, self.logits.dtype)

    def from_noise(self, noise: Float[AnyArray, "... A"]) -> Int[Array, "..."]:
        """argmax_a z_a + noise_a, of the probabilities p."""
        return jnp.argmax(noise + self.logits, axis=-1)

    def mode(self) -> Int[Array, "..."]:
        """The most probable action, the first of equals."""
        return jnp.argmax(self.logits, axis=-1)

    def log_prob(self, action: Int[AnyArray, "..."]) -> Float[Array, "..."]:
        """ln p_a in nats."""
        return jnp.take_along_axis(self.log_probs, action[..., None], axis=-1)[..., 0]

    def entropy(self) -> Float[Array, "..."]:
        """−Σ p ln p in nats."""
        return -jnp.sum(self.probs * _finite(self.log_probs, self.probs), axis=-1)

    def kl(self, other: Categorical) -> Float[Array, "..."]:
        """KL(self‖other) in nats; ∞ where q = 0 < p.

        Σ p (ln p − ln q) = Σ p (eˣ − 1 − x), x = ln q − ln p: every term is ≥ 0, so a small KL keeps its digits.
        """
        return jnp.sum(_kl_terms(self.probs, other.probs, self.log_probs, other.log_probs), axis=-1)

    def whiten(self, tangent: Categorical) -> Float[Array, "... A"]:
        """R·ż = √p (ż − p·ż)."""
        p = self.probs
        v = jnp.where(p > 0, tangent.logits, 0.0)
        return jnp.sqrt(p) * (v - jnp.sum(p * v, axis=-1, keepdims=True))

    def whiten_transpose(self, y: Float[AnyArray, "... A"]) -> Categorical:
        """Rᵀ·y = √p y − p (√p·y)."""
        p = self.probs
        root = jnp.sqrt(p)
        return Categorical(root * y - p * jnp.sum(root * y, axis=-1, keepdims=True))

    def whiten_cotangent(self, cotangent: Categorical) -> Float[Array, "... A"]:
        """R⁺ᵀ·c = c/√p − √p Σc. Σc = 0 for a c in the range of Rᵀ; taking it off keeps y ⟂ √p in float32."""
        root = jnp.sqrt(self.probs)
        c = cotangent.logits
        return _divide(c, root) - root * jnp.sum(jnp.where(root > 0, c, 0.0), axis=-1, keepdims=True)

    def whitened_score(self, action: Int[AnyArray, "..."]) -> Float[Array, "... A"]:
        """u = e_a/√p_a − √p, centred: the uncentred form cancels in float32."""
        root = jnp.sqrt(self.probs)
        return _divide(jax.nn.one_hot(action, root.shape[-1], dtype=root.dtype), root) - root


def kl_terms(log_p: Array, log_q: Array) -> Array:
    """p (ln p − ln q) − p + q of each outcome: ≥ 0, and its sum over all outcomes is the KL, in nats."""
    return _kl_terms(jnp.exp(log_p), jnp.exp(log_q), log_p, log_q)


def _kl_terms(p: Array, q: Array, log_p: Array, log_q: Array) -> Array:
    x = jnp.where(p > 0, log_q - log_p, 0.0)
    near = jnp.abs(x) < 1
    terms = jnp.where(near, p * (jnp.expm1(jnp.where(near, x, 0.0)) - x), q - p - p * x)
    return jnp.where(p > 0, terms, q)


def _divide(a: AnyArray, root: Array) -> Array:
    """a/√p, 0 where p = 0; the inner `where` keeps NaN out of derivatives."""
    return jnp.where(root > 0, a / jnp.where(root > 0, root, 1.0), 0.0)


def _finite(log_probs: Array, probs: Array) -> Array:
    """ln p with 0 in place of the −∞ of a masked action: p ln p → 0."""
    return jnp.where(probs > 0, log_probs, 0.0)
