"""Distributions of any kinds, independent of each other, as one: R is block diagonal, u, KL and entropy are in a row.

An action is one flat vector, the parts' own side by side, since a rollout has one array of actions: whole numbers are
floats in it, exact up to 2²⁴ in float32.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, PRNGKeyArray

from steepest.distributions.distribution import Distribution, FromNoise
from steepest.trees import AnyArray


class Product(eqx.Module):
    """The joint distribution of parts, at least one, which may be products themselves.

    parts: distributions at one state, without leading axes (`jax.vmap` over states adds them).  shapes: of their
    actions.  whole: of each, whether its actions are whole numbers.
    """

    parts: tuple[Any, ...]
    shapes: tuple[tuple[int, ...], ...] = eqx.field(static=True)
    whole: tuple[bool, ...] = eqx.field(static=True)

    def __init__(self, parts: Sequence[Distribution]):
        self.parts = tuple(parts)
        modes = [jax.eval_shape(lambda part: part.mode(), part) for part in self.parts]
        self.shapes = tuple(mode.shape for mode in modes)
        self.whole = tuple(jnp.issubdtype(mode.dtype, jnp.integer) for mode in modes)

    def sample(self, key: PRNGKeyArray) -> Float[Array, "... A"]:
        """One of each part, for each leading index."""
        keys = jax.random.split(key, len(self.parts))
        return self._flat(part.sample(k) for part, k in zip(self.parts, keys, strict=True))

    def noise(self, key: PRNGKeyArray) -> tuple[Any, ...]:
        """Each part's own; the key itself for a part whose sample is no function of noise."""
        keys = jax.random.split(key, len(self.parts))
        pairs = zip(self.parts, keys, strict=True)
        return tuple(part.noise(k) if isinstance(part, FromNoise) else k for part, k in pairs)

    def from_noise(self, noise: tuple[Any, ...]) -> Float[Array, "... A"]:
        """The sample."""
        pairs = zip(self.parts, noise, strict=True)
        return self._flat(part.from_noise(n) if isinstance(part, FromNoise) else part.sample(n) for part, n in pairs)

    def mode(self) -> Float[Array, "... A"]:
        """That of each part."""
        return self._flat(part.mode() for part in self.parts)

    def log_prob(self, action: Float[AnyArray, "... A"]) -> Float[Array, "..."]:
        """Σ ln π in nats."""
        return _sum(part.log_prob(own) for part, own in zip(self.parts, self._split(action), strict=True))

    def entropy(self) -> Float[Array, "..."]:
        """Summed over the parts, nats."""
        return _sum(part.entropy() for part in self.parts)

    def kl(self, other: Product) -> Float[Array, "..."]:
        """KL(self‖other), summed over the parts, nats."""
        return _sum(mine.kl(theirs) for mine, theirs in zip(self.parts, other.parts, strict=True))

    def whiten(self, tangent: Product) -> Float[Array, "... k"]:
        """R·ż, part by part."""
        return _joined(mine.whiten(dot) for mine, dot in zip(self.parts, tangent.parts, strict=True))

    def whiten_transpose(self, y: Float[AnyArray, "... k"]) -> Product:
        """Rᵀ·y."""
        sizes = [jax.eval_shape(lambda part: part.whiten(part), part).shape[-1] for part in self.parts]
        rows = jnp.split(y, list(accumulate(sizes))[:-1], axis=-1)
        parts = tuple(mine.whiten_transpose(row) for mine, row in zip(self.parts, rows, strict=True))
        return eqx.tree_at(lambda product: product.parts, self, parts)

    def whiten_cotangent(self, cotangent: Product) -> Float[Array, "... k"]:
        """R⁺ᵀ·c."""
        return _joined(mine.whiten_cotangent(c) for mine, c in zip(self.parts, cotangent.parts, strict=True))

    def whitened_score(self, action: Float[AnyArray, "... A"]) -> Float[Array, "... k"]:
        """u, part by part."""
        return _joined(part.whitened_score(own) for part, own in zip(self.parts, self._split(action), strict=True))

    def _split(self, action: AnyArray) -> list[Array]:
        """[…, A] ↦ each part's own action, in its dtype."""
        sizes = [math.prod(shape) for shape in self.shapes]
        pieces = jnp.split(jnp.asarray(action), list(accumulate(sizes))[:-1], axis=-1)
        each = zip(pieces, self.shapes, self.whole, strict=True)
        return [_typed(piece.reshape(piece.shape[:-1] + shape), whole) for piece, shape, whole in each]

    def _flat(self, actions: Iterable[Array]) -> Array:
        leaves = [leaf for leaf in jax.tree.leaves(self.parts) if eqx.is_inexact_array(leaf)]
        dtype, pieces = jnp.result_type(*leaves), []
        for action, shape in zip(actions, self.shapes, strict=True):
            lead = action.shape[: action.ndim - len(shape)]
            pieces.append(action.reshape((*lead, math.prod(shape))).astype(dtype))
        return jnp.concatenate(pieces, axis=-1)


def _typed(piece: Array, whole: bool) -> Array:
    return piece.astype(jnp.int32) if whole else piece


def _sum(values: Iterable[Array]) -> Array:
    return sum(values, start=jnp.zeros(()))


def _joined(rows: Iterable[Array]) -> Array:
    return jnp.concatenate(list(rows), axis=-1)
