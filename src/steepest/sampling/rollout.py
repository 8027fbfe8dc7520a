"""Rollouts: T steps of a world under one policy, on the host, and the episodes that ended in them.

    for t < T:   a_t = act(obs_t, t)      transition_t = world.step(a_t)

Every step is written once, into its place in the rollout's arrays. Ghost rows and those of faults are stored (valid =
False) but belong to no episode.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from steepest.batch import Rollout
from steepest.errors import UsageError
from steepest.sampling.episodes import Episode, Running, account
from steepest.spaces import Space, describe
from steepest.worlds.world import World

Act = Callable[[np.ndarray, int], np.ndarray]
"""(obs [B,…], t) ↦ action [B,…], unclipped; t counts from 0 within the rollout."""

Forget = Callable[[np.ndarray], None]
"""Told the environments [B] in which new episodes begin."""


class Collector:
    """Collects rollouts from one world and keeps account of the episodes that run across them.

    running: the episodes under way; replaced after every rollout, never written into.
    """

    def __init__(self, world: World):
        self.world = world
        self.running = Running.none(world.envs)

    def reset(self, seed: int | None = None) -> np.ndarray:
        """Reset the world, forget the episodes under way, and return the first observations [B,…]."""
        self.running = Running.none(self.world.envs)
        return self.world.reset(seed)

    def collect(self, act: Act, steps: int) -> tuple[Rollout, list[Episode]]:
        """The next `steps` steps, under `act`.

        Returns a `Rollout` of fresh arrays with T = steps, and the episodes that ended in it, in order of time and then
        of environment. Raises RunError where the world breaks, UsageError before the first reset.
        """
        if steps < 1:
            raise UsageError(f"a rollout has at least 1 step, got {steps}")
        world = self.world
        observation, action = describe(world.observation_space, "observation"), describe(world.action_space, "action")
        rollout = empty(steps, world.envs, observation, action)
        charged = fill(world, act, rollout)
        rollout = rollout if charged else rollout._replace(cost=None)
        episodes, self.running = account(rollout, self.running)
        return rollout, episodes


def collect(world: World, act: Act, steps: int) -> tuple[Rollout, list[Episode]]:
    """One rollout of `steps` steps from where `world` stands; its first episodes are counted from there on."""
    return Collector(world).collect(act, steps)


def fill(world: World, act: Act, into: Rollout, first: int = 0, forget: Forget | None = None) -> bool:
    """Write the next steps of a world into given arrays [T,B,…], costs included: NaN where none was reported.

    first: the row to begin with.  forget: told after each step in which environments the next is of a new episode.

    Returns whether any was reported. Raises RunError where the world breaks, UsageError before the first reset.
    """
    charged = False
    for t in range(first, len(into.reward)):
        obs = world.obs
        action = act(obs, t)
        into.obs[t], into.action[t] = obs, action
        reward, next_obs, terminated, truncated, valid, cost = world.step(action)
        into.reward[t], into.next_obs[t] = reward, next_obs
        into.terminated[t], into.truncated[t], into.valid[t] = terminated, truncated, valid
        into.cost[t] = np.nan if cost is None else cost
        charged |= cost is not None and bool(valid.any())  # a row of ghosts says nothing
        if forget is not None:
            forget(into.terminated[t] | into.truncated[t] | ~into.valid[t])
    return charged


def lose(world: World, act: Act, into: Rollout) -> None:
    """Write the row of a fault in every environment of a world, as its first: no step is taken (`worlds/faults.py`)."""
    into.obs[0] = into.next_obs[0] = world.obs
    into.action[0] = act(world.obs, 0)
    into.reward[0] = into.cost[0] = 0.0
    into.terminated[0] = into.valid[0] = False
    into.truncated[0] = True


def layout(steps: int, envs: int, observation: Space, action: Space, memory: int | None = None) -> Rollout:
    """The shape and dtype of every array of a rollout, as (shape, dtype) in its place.

    memory: numbers that the policy remembers, M; None for one that remembers nothing.
    """

    def of(space: Space) -> tuple[tuple[int, ...], Any]:
        return (steps, envs, *space.shape), space.inside

    real, flag = ((steps, envs), np.float32), ((steps, envs), np.bool_)
    remembered = None if memory is None else ((envs, memory), np.float32)
    return Rollout(of(observation), of(action), real, of(observation), flag, flag, flag, real, remembered)


def empty(steps: int, envs: int, observation: Space, action: Space, memory: int | None = None) -> Rollout:
    """New arrays for a rollout: JAX may alias a NumPy array on a CPU, so one that was handed over is never reused."""
    form = layout(steps, envs, observation, action, memory)
    return Rollout(*(None if each is None else np.empty(*each) for each in form))


def columns(rollout: Rollout, begin: int, end: int) -> Rollout:
    """Views of what belongs to the environments `begin` to `end` − 1."""
    parts = Rollout(*(None if array is None else array[:, begin:end] for array in rollout))
    return parts._replace(memory=None if rollout.memory is None else rollout.memory[begin:end])
