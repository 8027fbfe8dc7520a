"""Observation statistics: they belong to the agent, not to θ, and are frozen between a rollout and its update.

    x ↦ clip((x − mean)/√(variance + ε), ±10)

Float64 on the host, merged batch by batch (Chan, Golub & LeVeque 1983); applied in float32 in the compiled programs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array
from numpy.typing import NDArray

EPSILON = 1e-8
_CLIP = 10.0


class Scaling(NamedTuple):
    """What the compiled programs apply: shift and scale, of the observation's shape without its mask, float32.

    alone: of the same shape, the entries that stay as they are, such as whole numbers; None for none.
    """

    shift: Any
    scale: Any
    alone: Any = None

    def __call__(self, obs: Any) -> Array:
        """Normalised observations, in float32."""
        first = own(obs, self.shift.shape)
        scaled = jnp.clip((first - self.shift) * self.scale, -_CLIP, _CLIP)
        scaled = scaled if self.alone is None else jnp.where(self.alone, first, scaled)
        return scaled if first is obs else jnp.concatenate([scaled, obs[..., self.shift.shape[0] :]], axis=-1)


def own(obs: Any, shape: tuple[int, ...]) -> Any:
    """What of observations […, n] the statistics of [k] numbers are of: the first k. The rest is a mask, and stays."""
    return obs[..., : shape[0]] if len(shape) == 1 and shape[0] < obs.shape[-1] else obs


@dataclass(frozen=True, eq=False)
class Normaliser:
    """Running mean and variance of observations. count: how many; mean, m2: [...] float64, m2 the sum of squares;
    alone: as of a `Scaling`."""

    count: float
    mean: NDArray[np.float64]
    m2: NDArray[np.float64]
    alone: NDArray[np.bool_] | None = None

    @classmethod
    def empty(cls, shape: tuple[int, ...], alone: NDArray[np.bool_] | None = None) -> Normaliser:
        """No observations yet: the identity, but for the clip."""
        return cls(0.0, np.zeros(shape), np.zeros(shape), alone)

    def updated(self, obs: NDArray[Any]) -> Normaliser:
        """With the observations [n,…] merged in."""
        if not len(obs):
            return self
        obs = np.asarray(own(obs, self.mean.shape), np.float64)
        n, mean = float(len(obs)), obs.mean(axis=0)
        m2 = ((obs - mean) ** 2).sum(axis=0)
        total = self.count + n
        delta = mean - self.mean
        m2 = self.m2 + m2 + delta**2 * (self.count * n / total)
        return Normaliser(total, self.mean + delta * (n / total), m2, self.alone)

    def scaling(self) -> Scaling:
        """What to apply. An observation that never varies is shifted only."""
        variance = self.m2 / self.count if self.count else np.ones_like(self.m2)
        scale = np.where(variance > 0, 1.0 / np.sqrt(variance + EPSILON), 1.0)
        return Scaling(self.mean.astype(np.float32), scale.astype(np.float32), self.alone)
