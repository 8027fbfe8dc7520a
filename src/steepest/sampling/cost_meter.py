"""What an episode costs, and how far that is from its limit, by the episodes that ended last.

    J_C ≈ Σ cost / episodes        c = (J_C − d) / length = (Σ cost − d·episodes) / Σ length

Summed over the episodes that ended in as few of the last rollouts as hold one for each environment: whole ones, so that
no part of an episode counts for more than the others. Before so many have ended, those under way count as ended.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from steepest.batch import Rollout
from steepest.errors import RunError
from steepest.sampling.reward_scale import RewardScale
from steepest.sampling.rollout import Episode


class Sums(NamedTuple):
    """Of some episodes.  cost: Σ over their steps.  steps: how many.  episodes: how many."""

    cost: float
    steps: int
    episodes: int


_NOTHING = Sums(0.0, 0, 0)


class Limited(NamedTuple):
    """What a learner needs of it.  excess: c, per step.  scale: what the cost critic's costs are divided by.  seen: 1
    once there was a cost other than 0, and 0 before: a critic that was fitted to none has noise for advantages."""

    excess: np.float32
    scale: np.float32
    seen: np.float32


@dataclass(frozen=True)
class CostMeter:
    """limit: d, the cost of an episode.  envs: B.  scale: of the costs, as of rewards.  all: every step so far.
    window: the episodes that ended in each of the last rollouts."""

    limit: float
    envs: int
    scale: RewardScale
    all: Sums = _NOTHING
    window: tuple[Sums, ...] = ()

    @classmethod
    def empty(cls, limit: float, envs: int) -> CostMeter:
        """Nothing seen yet."""
        return cls(limit, envs, RewardScale.empty(envs))

    def updated(self, rollout: Rollout, episodes: Sequence[Episode], gamma: float, name: str) -> CostMeter:
        """With one more rollout and the episodes that ended in it.

        gamma: discount of the scale.  name: of the world, for the error.

        Raises RunError where a step reported no cost, or one that is not finite.
        """
        cost = np.full(rollout.valid.shape, np.nan) if rollout.cost is None else rollout.cost
        missing = rollout.valid & ~np.isfinite(cost)
        if missing.any():
            step, env = np.argwhere(missing)[0]
            raise RunError(
                f"{name}: environment {env} of {self.envs} reported no finite info['cost'] in step {step} of the "
                "rollout; with a cost limit every step must have one"
            )
        everything = Sums(float(cost[rollout.valid].sum()), int(rollout.valid.sum()), len(episodes))
        ended = Sums(sum(e.cost or 0.0 for e in episodes), sum(e.length for e in episodes), len(episodes))
        window = (*self.window, ended)
        while sum(each.episodes for each in window[1:]) >= self.envs:
            window = window[1:]
        scale = self.scale.updated(rollout._replace(reward=cost), gamma)
        return dataclasses.replace(self, all=_total([self.all, everything]), window=window, scale=scale)

    @property
    def sums(self) -> Sums:
        """What J_C is the mean of."""
        ended = _total(self.window)
        return ended if ended.episodes >= self.envs else self.all._replace(episodes=self.all.episodes + self.envs)

    @property
    def cost(self) -> float:
        """J_C."""
        return self.sums.cost / self.sums.episodes

    @property
    def limited(self) -> Limited:
        """c, and the scale."""
        sums = self.sums
        excess = np.float32((sums.cost - self.limit * sums.episodes) / max(sums.steps, 1))
        return Limited(excess, self.scale.value, np.float32(self.scale.statistics.m2 > 0))


def _total(sums: Sequence[Sums]) -> Sums:
    return Sums(*(sum(column) for column in zip(*sums, strict=True))) if sums else _NOTHING
