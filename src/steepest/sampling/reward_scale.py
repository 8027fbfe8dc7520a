"""The scale of the rewards: the running standard deviation of their discounted sum, R_t = γR_{t−1} + r_t.

The critic is fitted to rewards divided by it, so that one learning rate serves every environment; advantages are
multiplied by it again and stay in raw units.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from steepest.batch import Rollout
from steepest.normaliser import Normaliser


@dataclass(frozen=True, eq=False)
class RewardScale:
    """statistics: of R.  running: [B], R of the episodes under way."""

    statistics: Normaliser
    running: NDArray[np.float64]

    @classmethod
    def empty(cls, envs: int) -> RewardScale:
        """Nothing seen yet: the scale is 1."""
        return cls(Normaliser.empty(()), np.zeros(envs))

    def afresh(self) -> RewardScale:
        """With all episodes at their beginning."""
        return RewardScale(self.statistics, np.zeros_like(self.running))

    def updated(self, rollout: Rollout, gamma: float) -> RewardScale:
        """With the rewards of a rollout merged in."""
        running = self.running.copy()
        sums = np.empty(rollout.reward.shape)
        done = rollout.terminated | rollout.truncated
        for t in range(len(sums)):
            running = np.where(rollout.valid[t], gamma * running + rollout.reward[t], running)
            sums[t] = running
            running = np.where(done[t], 0.0, running)
        return RewardScale(self.statistics.updated(sums[rollout.valid]), running)

    @property
    def value(self) -> np.float32:
        """σ_R > 0, raw reward units."""
        statistics = self.statistics
        deviation = np.sqrt(statistics.m2 / statistics.count) if statistics.count else 0.0
        return np.float32(deviation) if deviation > 1e-8 else np.float32(1.0)
