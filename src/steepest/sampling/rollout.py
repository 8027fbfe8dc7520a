"""Rollouts: T steps of a world under one policy, on the host, and the episodes that ended in them.

    for t < T:   a_t = act(obs_t, t)      transition_t = world.step(a_t)

Episodes run on from one rollout to the next, so their returns are accumulated by a `Collector` that lives as long as
the world does. Ghost rows are stored (valid = False) but belong to no episode.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from steepest.batch import Rollout
from steepest.errors import UsageError
from steepest.worlds.world import World

Act = Callable[[np.ndarray, int], np.ndarray]
"""(obs [B,…], t) ↦ action [B,…], unclipped; t counts from 0 within the rollout."""


class Episode(NamedTuple):
    """One episode that ended.

    ret: undiscounted sum of raw rewards.
    length: steps.
    env: the index of its environment.
    terminated: False where it was only cut.
    cost: undiscounted sum of its costs; None where they were not reported.
    """

    ret: float
    length: int
    env: int
    terminated: bool
    cost: float | None = None


class Running(NamedTuple):
    """The episodes under way. returns: [B] float64, so far; lengths: [B] int64, so far; costs: [B] float64, NaN where
    one was not reported."""

    returns: np.ndarray
    lengths: np.ndarray
    costs: np.ndarray


class Collector:
    """Collects rollouts from one world and keeps account of the episodes that run across them.

    running: the episodes under way; replaced at every step, never written into.
    """

    def __init__(self, world: World):
        self.world = world
        self.running = _nothing(world.envs)

    def reset(self, seed: int | None = None) -> np.ndarray:
        """Reset the world, forget the episodes under way, and return the first observations [B,…]."""
        self.running = _nothing(self.world.envs)
        return self.world.reset(seed)

    def collect(self, act: Act, steps: int) -> tuple[Rollout, list[Episode]]:
        """The next `steps` steps, under `act`.

        Returns a `Rollout` of fresh arrays with T = steps, and the episodes that ended in it, in order of time and then
        of environment. Raises RunError where the world breaks, UsageError before the first reset.
        """
        if steps < 1:
            raise UsageError(f"a rollout has at least 1 step, got {steps}")
        episodes: list[Episode] = []
        costs = np.full((steps, self.world.envs), np.nan, np.float32)
        charged = False
        obs = self.world.obs
        action = np.asarray(act(obs, 0))
        rollout = _empty(steps, obs, action)
        for t in range(steps):
            if t:
                obs = self.world.obs
                action = np.asarray(act(obs, t))
            transition = self.world.step(action)
            row = Rollout(obs, action, *transition)
            for column, value in zip(rollout[:-1], row[:-1], strict=True):
                column[t] = value
            if row.cost is not None:
                costs[t] = row.cost
                charged |= bool(row.valid.any())  # a row of ghosts says nothing
            self._account(row, episodes)
        return rollout._replace(cost=costs if charged else None), episodes

    def _account(self, row: Rollout, episodes: list[Episode]) -> None:
        returns = self.running.returns + row.reward
        lengths = self.running.lengths + row.valid
        costs = self.running.costs + np.where(row.valid, np.nan if row.cost is None else row.cost, 0.0)
        done = row.valid & (row.terminated | row.truncated)
        if done.any():
            for b in np.flatnonzero(done):
                cost = None if np.isnan(costs[b]) else float(costs[b])
                episodes.append(Episode(float(returns[b]), int(lengths[b]), int(b), bool(row.terminated[b]), cost))
            for sums in (returns, lengths, costs):
                sums[done] = 0
        self.running = Running(returns, lengths, costs)


def collect(world: World, act: Act, steps: int) -> tuple[Rollout, list[Episode]]:
    """One rollout of `steps` steps from where `world` stands; its first episodes are counted from there on."""
    return Collector(world).collect(act, steps)


def _nothing(envs: int) -> Running:
    return Running(np.zeros(envs), np.zeros(envs, np.int64), np.zeros(envs))


def _empty(steps: int, obs: np.ndarray, action: np.ndarray) -> Rollout:
    envs = len(obs)
    # new arrays for every rollout: JAX may alias a NumPy array on a CPU, so one that was handed over is never reused
    return Rollout(
        obs=np.empty((steps, *obs.shape), obs.dtype),
        action=np.empty((steps, *action.shape), action.dtype),
        reward=np.empty((steps, envs), np.float32),
        next_obs=np.empty((steps, *obs.shape), obs.dtype),
        terminated=np.empty((steps, envs), bool),
        truncated=np.empty((steps, envs), bool),
        valid=np.empty((steps, envs), bool),
    )
