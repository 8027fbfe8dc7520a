"""The step of a `SyncVectorEnv` in the mode NEXT_STEP, without what its own costs: the same environments and flags.

Gymnasium's makes arrays of every number in every environment's info, which nothing here reads; of infos this keeps the
cost. The rest is the same: an environment whose episode ended resets itself in the next step, which ignores its action.
"""

from __future__ import annotations

import traceback
from typing import Any

import numpy as np
from gymnasium.vector import SyncVectorEnv

from steepest.worlds.costs import KEY


class Misfit(Exception):
    """An environment's observation is not what its space promised.  index: whose.  obs: it."""

    def __init__(self, index: int, obs: np.ndarray):
        self.index, self.obs = index, obs


class Lockstep:
    """env: its environments are stepped here; its own `reset` and flags remain in force."""

    def __init__(self, env: SyncVectorEnv):
        space: Any = env.single_observation_space
        self._env, self._shape, self._dtype = env, space.shape, space.dtype
        self._fitting = self._dtype  # the dtype that was seen last

    def step(self, actions: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """As `SyncVectorEnv.step`, in arrays that are the caller's own. Raises `Misfit`."""
        env, count = self._env, self._env.num_envs
        obs, reward = np.empty((count, *self._shape), self._dtype), np.zeros(count)
        terminated, truncated, ended = np.zeros(count, bool), np.zeros(count, bool), env._autoreset_envs
        costs: dict[int, Any] = {}
        for i, one in enumerate(env.envs):
            if ended[i]:
                raw, info = one.reset()
            else:
                raw, reward[i], terminated[i], truncated[i], info = one.step(actions[i])
            raw = np.asarray(raw)
            if raw.shape != self._shape or not (raw.dtype is self._fitting or self._fits(raw.dtype)):
                raise Misfit(i, raw)
            obs[i] = raw
            if KEY in info:
                costs[i] = info[KEY]
        env._autoreset_envs = terminated | truncated
        return obs, reward, terminated, truncated, _stacked(costs, count) if costs else {}

    def _fits(self, dtype: np.dtype) -> bool:
        if not np.can_cast(dtype, self._dtype, "same_kind"):
            return False
        self._fitting = dtype
        return True


def _stacked(costs: dict[int, Any], count: int) -> dict[str, Any]:
    """The costs as a vector environment's info has them."""
    values, who = np.zeros(count, object), np.zeros(count, bool)
    for i, cost in costs.items():
        values[i], who[i] = cost, True
    return {KEY: values, f"_{KEY}": who}


def culprit(error: Exception) -> tuple[int | None, bool]:
    """Which environment of a SyncVectorEnv or a `Lockstep` raised, and whether instead its observations could not be
    stacked."""
    index = None
    for frame, _ in traceback.walk_tb(error.__traceback__):
        if frame.f_globals.get("__name__") == "gymnasium.vector.utils.space_utils":
            return None, True
        if isinstance(frame.f_locals.get("self"), SyncVectorEnv | Lockstep):
            index = frame.f_locals.get("i")
    return index, False
