"""Several categoricals, independent of each other, as one distribution: R and u are those of the parts, in a row.

One array of logits, since a network has one output layer; the parts lie in it side by side.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import accumulate

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int, PRNGKeyArray

from steepest.distributions.categorical import Categorical
from steepest.trees import AnyArray


class MultiCategorical(eqx.Module):
    """Distribution over {0, …, n₁−1} × … × {0, …, n_K−1}.

    logits: [..., Σn], those of the parts side by side; −∞ masks an action.  sizes: (n₁, …, n_K).
    """

    logits: Float[AnyArray, "... A"]
    sizes: tuple[int, ...] = eqx.field(static=True)

    @property
    def parts(self) -> list[Categorical]:
        """Each by itself."""
        return [Categorical(piece) for piece in self._pieces(self.logits)]

    def sample(self, key: PRNGKeyArray) -> Int[Array, "... K"]:
        """One index of each part, for each leading index."""
        return self.from_noise(self.noise(key))

    def noise(self, key: PRNGKeyArray) -> Float[Array, "... A"]:
        """Gumbel's."""
        return jax.random.gumbel(key, self.logits.shape, self.logits.dtype)

    def from_noise(self, noise: Float[AnyArray, "... A"]) -> Int[Array, "... K"]:
        """argmax_a z_a + noise_a of each part."""
        return jnp.stack([jnp.argmax(piece, axis=-1) for piece in self._pieces(noise + self.logits)], axis=-1)

    def mode(self) -> Int[Array, "... K"]:
        """The most probable index of each part, the first of equals."""
        return jnp.stack([part.mode() for part in self.parts], axis=-1)

    def log_prob(self, action: Int[AnyArray, "... K"]) -> Float[Array, "..."]:
        """Σ ln p in nats."""
        return sum((part.log_prob(action[..., i]) for i, part in enumerate(self.parts)), start=jnp.zeros(()))

    def entropy(self) -> Float[Array, "..."]:
        """Summed over the parts, nats."""
        return sum((part.entropy() for part in self.parts), start=jnp.zeros(()))

    def kl(self, other: MultiCategorical) -> Float[Array, "..."]:
        """KL(self‖other), summed over the parts, nats."""
        pairs = zip(self.parts, other.parts, strict=True)
        return sum((mine.kl(theirs) for mine, theirs in pairs), start=jnp.zeros(()))

    def whiten(self, tangent: MultiCategorical) -> Float[Array, "... A"]:
        """R·ż, part by part."""
        return self._joined(mine.whiten(dot) for mine, dot in zip(self.parts, tangent.parts, strict=True))

    def whiten_transpose(self, y: Float[AnyArray, "... A"]) -> MultiCategorical:
        """Rᵀ·y."""
        pairs = zip(self.parts, self._pieces(y), strict=True)
        return MultiCategorical(self._joined(mine.whiten_transpose(each).logits for mine, each in pairs), self.sizes)

    def whiten_cotangent(self, cotangent: MultiCategorical) -> Float[Array, "... A"]:
        """R⁺ᵀ·c."""
        return self._joined(mine.whiten_cotangent(c) for mine, c in zip(self.parts, cotangent.parts, strict=True))

    def whitened_score(self, action: Int[AnyArray, "... K"]) -> Float[Array, "... A"]:
        """u, part by part."""
        return self._joined(part.whitened_score(action[..., i]) for i, part in enumerate(self.parts))

    def _pieces(self, x: AnyArray) -> list[Array]:
        return jnp.split(x, list(accumulate(self.sizes))[:-1], axis=-1)

    def _joined(self, pieces: Iterable[AnyArray]) -> Array:
        return jnp.concatenate(list(pieces), axis=-1)
