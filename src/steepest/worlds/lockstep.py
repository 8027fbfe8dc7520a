"""The step of a `SyncVectorEnv` in the mode NEXT_STEP, without what its own costs: the same environments and flags.

Gymnasium's makes arrays of every number in every environment's info, which nothing here reads; of infos this keeps the
cost. The rest is the same: an environment whose episode ended resets itself in the next step, which ignores its action.

An environment that raises, or answers with something that is no answer, is noted in `wrong`, and the others are stepped
all the same. It can be made anew.
"""

from __future__ import annotations

import contextlib
import traceback
from collections.abc import Callable, MutableSequence, Sequence
from typing import Any

import numpy as np
from gymnasium.vector import SyncVectorEnv

from steepest.worlds.answers import Wrong, misfit, no_answer, no_number, raised
from steepest.worlds.costs import KEY
from steepest.worlds.observing import Misfit, Reader


class Lockstep:
    """env: its environments are stepped here; its flags remain in force.  reader: of their observations.  again: makes
    one more of them, or None.

    wrong: of the last call, by index; their rows are 0.  at: at[0] is the environment that is being called now, counted
    from `first`.
    """

    def __init__(self, env: SyncVectorEnv, reader: Reader, again: Callable[[], Any] | None = None):
        self._env, self._space, self._shape, self._dtype = env, reader.space, reader.shape, reader.dtype
        self._read: Callable[[Any], np.ndarray] = np.asarray if reader.joint is None else reader.one
        self._fitting: Any = self._dtype  # the dtype that was seen last
        self._paying: type = float  # the same of rewards
        self._nothing = np.zeros(self._shape, self._dtype)
        self.again, self.wrong = again, dict[int, Wrong]()
        self.first, self.at = 0, _nowhere()

    def reset(self, seed: Sequence[int] | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        """As `SyncVectorEnv.reset`."""
        count = self._env.num_envs
        self._env._autoreset_envs, self.wrong = np.zeros(count, bool), {}
        obs = np.zeros((count, *self._shape), self._dtype)
        for i in range(count):
            obs[i], wrong = self._reset(i, None if seed is None else seed[i])
            if wrong is not None:
                self.wrong[i] = wrong
        return obs, {}

    def step(self, actions: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """As `SyncVectorEnv.step`, in arrays that are the caller's own."""
        env, count = self._env, self._env.num_envs
        obs, reward = np.empty((count, *self._shape), self._dtype), np.zeros(count)
        terminated, truncated = np.zeros(count, bool), np.zeros(count, bool)
        costs, wrong = dict[int, Any](), dict[int, Wrong]()
        at, first, shape, paying, read = self.at, self.first, self._shape, self._paying, self._read
        for i, (one, ended) in enumerate(zip(env.envs, env._autoreset_envs.tolist(), strict=True)):
            at[0] = first + i
            try:
                answer: Any = one.reset() if ended else one.step(actions[i])
            except (Exception, SystemExit) as error:
                wrong[i], obs[i] = raised(error), 0
                continue
            try:
                if ended:
                    raw, info = answer
                else:
                    raw, pay, terminated[i], truncated[i], info = answer
                    if type(pay) is not paying and not self._pays(pay):
                        wrong[i], obs[i] = no_number(pay), 0
                        continue
                    reward[i] = pay
                raw = read(raw)
                if raw.shape != shape or not (raw.dtype is self._fitting or self._fits(raw.dtype)):
                    wrong[i], obs[i], reward[i] = misfit(self._space, raw), 0, 0
                    continue
                obs[i] = raw
                if KEY in info:
                    costs[i] = info[KEY]
            except Exception as error:
                wrong[i], obs[i], reward[i] = _none(answer, error), 0, 0
        self.wrong = wrong
        env._autoreset_envs = terminated | truncated
        return obs, reward, terminated, truncated, _stacked(costs, count) if costs else {}

    def renew(self, i: int, seed: int | None) -> tuple[np.ndarray, Wrong | None]:
        """Make environment i anew and reset it: its observation [1,…], and what is wrong with it, if anything is."""
        assert self.again is not None
        self.at[0] = self.first + i
        with contextlib.suppress(Exception, SystemExit):  # it is broken; that it cannot be closed either is no news
            self._env.envs[i].close()
        self._env._autoreset_envs[i] = False
        try:
            self._env.envs[i] = self.again()
        except (Exception, SystemExit) as error:
            return self._nothing[None], raised(error)
        obs, wrong = self._reset(i, seed)
        return obs[None], wrong

    def _reset(self, i: int, seed: int | None) -> tuple[np.ndarray, Wrong | None]:
        self.at[0] = self.first + i
        try:
            answer: Any = self._env.envs[i].reset(seed=seed)
        except (Exception, SystemExit) as error:
            return self._nothing, raised(error)
        try:
            raw, _ = answer
            raw = self._read(raw)
        except Exception as error:
            return self._nothing, _none(answer, error)
        if raw.shape != self._shape or not self._fits(raw.dtype):
            return self._nothing, misfit(self._space, raw)
        return raw, None

    def _fits(self, dtype: np.dtype) -> bool:
        if not np.can_cast(dtype, self._dtype, "same_kind"):
            return False
        self._fitting = dtype
        return True

    def _pays(self, reward: Any) -> bool:
        array = np.asarray(reward)
        if array.size != 1 or array.dtype.kind not in "fiub":
            return False
        self._paying = type(reward)
        return True


def _none(answer: Any, error: Exception) -> Wrong:
    return error.wrong if isinstance(error, Misfit) else no_answer(answer, error)


def _nowhere() -> MutableSequence[int]:
    """What `at` is where nobody looks at it: (environment, step)."""
    return [-1, -1]


def _stacked(costs: dict[int, Any], count: int) -> dict[str, Any]:
    """The costs as a vector environment's info has them."""
    values, who = np.zeros(count, object), np.zeros(count, bool)
    for i, cost in costs.items():
        values[i], who[i] = cost, True
    return {KEY: values, f"_{KEY}": who}


def culprit(error: Exception) -> tuple[int | None, bool]:
    """Which of a SyncVectorEnv raised in Gymnasium's own loop; and if instead observations could not be stacked."""
    index = None
    for frame, _ in traceback.walk_tb(error.__traceback__):
        if frame.f_globals.get("__name__") == "gymnasium.vector.utils.space_utils":
            return None, True
        if isinstance(frame.f_locals.get("self"), SyncVectorEnv):
            index = frame.f_locals.get("i")
    return index, False
