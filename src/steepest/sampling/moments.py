"""The statistics of a run on the device: what `Normaliser` and `RewardScale` keep on the host, in float32.

    mean += δ·n/N        m2 += Σ(x − x̄)² + δ²·n(N − n)/N        δ = x̄ − mean

Sums are of differences from the mean so far, and keep their digits where observations lie far from 0.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Bool, Float

from steepest.normaliser import EPSILON, Normaliser, Scaling, own


class Moments(NamedTuple):
    """seen: how many.  mean, m2: [...], m2 the sum of squares. float32.  alone: as of a `Scaling`."""

    seen: Array
    mean: Array
    m2: Array
    alone: Any = None

    @classmethod
    def of(cls, normaliser: Normaliser) -> Moments:
        """Those of the host."""
        seen, mean, m2 = (jnp.asarray(x, jnp.float32) for x in (normaliser.count, normaliser.mean, normaliser.m2))
        return cls(seen, mean, m2, None if normaliser.alone is None else jnp.asarray(normaliser.alone))

    def on_host(self) -> Normaliser:
        """For the host."""
        mean, m2 = np.asarray(self.mean, np.float64), np.asarray(self.m2, np.float64)
        return Normaliser(float(self.seen), mean, m2, None if self.alone is None else np.asarray(self.alone))

    def updated(self, x: Float[Array, "n ..."]) -> Moments:
        """With [n,…] merged in."""
        x = own(x, self.mean.shape)
        apart = x - self.mean
        delta = jnp.mean(apart, axis=0)
        total = self.seen + x.shape[0]
        m2 = jnp.sum((apart - delta) ** 2, axis=0) + delta**2 * (self.seen * (x.shape[0] / total))
        return Moments(total, self.mean + delta * (x.shape[0] / total), self.m2 + m2, self.alone)

    def scaling(self) -> Scaling:
        """As `Normaliser.scaling`."""
        variance = jnp.where(self.seen > 0, self.m2 / jnp.maximum(self.seen, 1.0), 1.0)
        scale = jnp.where(variance > 0, 1.0 / jnp.sqrt(variance + EPSILON), 1.0)
        return Scaling(self.mean, scale, self.alone)

    def deviation(self) -> Array:
        """As `RewardScale.value`."""
        deviation = jnp.sqrt(self.m2 / jnp.maximum(self.seen, 1.0))
        return jnp.where(deviation > 1e-8, deviation, 1.0)


def discounted_sums(
    running: Float[Array, " B"], reward: Float[Array, "T B"], done: Bool[Array, "T B"], gamma: Any
) -> tuple[Float[Array, " B"], Float[Array, "T B"]]:
    """R_t = γR_{t−1} + r_t of the episodes, from `running` on: (R of those under way after the last row, R_t)."""

    def step(running: Array, row: tuple[Array, Array]) -> tuple[Array, Array]:
        reward, done = row
        running = gamma * running + reward
        return jnp.where(done, 0.0, running), running

    return jax.lax.scan(step, running, (reward, done))
