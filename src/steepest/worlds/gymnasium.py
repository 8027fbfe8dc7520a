"""Gymnasium environments as worlds: any vector environment, in any autoreset mode, as canonical transitions.

    mode        where an episode ends, `step` returns   then
    NEXT_STEP   the final obs                           the next step ignores the action and resets: a ghost row
    SAME_STEP   the reset obs                           the final obs is in info["final_obs"]
    DISABLED    the final obs                           we reset the finished ones by options["reset_mask"]

Actions are clipped to the bounds of the space on the way in, and nowhere else. Observations leave as float32, int32
state indices or uint8 images, those of a Dict or Tuple as one vector (`observing.py`); every array is checked once, so
that nothing that is not finite gets any further: see `faults.py`.
Environments in this process are stepped without Gymnasium's own loop where that does the same (`lockstep.py`).
"""

from __future__ import annotations

from collections.abc import Callable, MutableSequence
from typing import Any

import numpy as np
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv, VectorEnv

from steepest.errors import RunError, UsageError
from steepest.spaces import Joint
from steepest.worlds.answers import Wrong, not_finite, raised, short
from steepest.worlds.costs import reported_costs
from steepest.worlds.faults import ATTEMPTS, Fault, Irreparable, Report
from steepest.worlds.lockstep import Lockstep, culprit
from steepest.worlds.observing import Misfit, Reader, described, first_misfit
from steepest.worlds.world import Transition, environment_seeds, seed_anew


class GymnasiumWorld:
    """A World made of a Gymnasium VectorEnv.

    env: in any of the three autoreset modes, which env.metadata["autoreset_mode"] must name.
    name: as in errors and run folders; by default the id of the environment, or the name of its class.
    again: () ↦ one more environment like those of a SyncVectorEnv, where there can be more.

    Raises UsageError for a missing autoreset mode and for spaces that no policy here can take.
    """

    backend = "gymnasium"

    def __init__(self, env: VectorEnv, name: str | None = None, again: Callable[[], Any] | None = None):
        self.name = name or name_of(env)
        self.envs = env.num_envs
        self.observation_space = env.single_observation_space
        self.action_space = env.single_action_space
        self._env = env
        self._first, self._total = 0, env.num_envs
        self.reader = Reader(self.observation_space, described(self.name, self.observation_space, "observation"))
        self._observe = self.reader.inside
        self._action = described(self.name, self.action_space, "action")
        self._shape = (self.envs, *self.reader.shape)
        mode = _autoreset_mode(self.name, env)
        self._settle = {
            AutoresetMode.NEXT_STEP: self._settle_next_step,
            AutoresetMode.SAME_STEP: self._settle_same_step,
            AutoresetMode.DISABLED: self._settle_disabled,
        }[mode]
        self._lockstep: Lockstep | None = None
        if type(env) is SyncVectorEnv and mode == AutoresetMode.NEXT_STEP:
            self._lockstep = Lockstep(env, self.reader, again)
        self._stepped: Any = self._lockstep or env
        self._report: Report | None = None
        self._renewed = np.zeros(self.envs, int)  # how often each environment was made again since the last reset
        self._ghost = np.zeros(self.envs, bool)
        self._obs: np.ndarray | None = None
        self._seed: int | None = None
        self._steps = 0

    @property
    def obs(self) -> np.ndarray:
        """[B,…] what to act upon next. Raises UsageError before the first reset."""
        if self._obs is None:
            raise UsageError(f"world {self.name!r} must be reset before it is used")
        return self._obs

    @property
    def environments(self) -> list[Any]:
        """Those that are stepped here one by one; none of a vector environment of its own kind."""
        return list(self._env.envs) if isinstance(self._env, SyncVectorEnv) else []

    def number(self, first: int, total: int) -> None:
        """Be the environments first, first + 1, … of `total` in what errors say."""
        self._first, self._total = first, total
        if self._lockstep is not None:
            self._lockstep.first = first

    def bear(self, report: Report, at: MutableSequence[int] | None = None) -> None:
        """From now on report each fault and make its environment anew, where that can be: see `faults.py`.

        at: is kept at (the index of the environment that is being called, the step of this world).
        """
        if self._lockstep is None or self._lockstep.again is None:
            return
        self._report = report
        if at is not None:
            self._lockstep.at = at

    def reset(self, seed: int | None = None) -> np.ndarray:
        """Start B new episodes and return their observations [B,…]; see `World.reset`."""
        self._seed, self._steps = seed, 0
        self._ghost, self._renewed = np.zeros(self.envs, bool), np.zeros(self.envs, int)
        if self._lockstep is not None:
            self._lockstep.at[1] = self._steps
        raw = self._shaped(self._call(self._stepped.reset, seed=self._seeds(seed))[0])
        with np.errstate(over="ignore"):  # what becomes infinite is a fault, and needs no warning
            obs = self._observe(raw)
        for i, first in self._renew({**self._wrong(obs, raw), **self._silent()}).items():
            obs[i] = first
        self._obs = obs
        return self._obs

    def step(self, action: np.ndarray) -> Transition:
        """One step of all environments. Raises RunError where one of them breaks and is not borne with."""
        given = self._actions(action)
        self._steps += 1
        if self._lockstep is not None:
            self._lockstep.at[1] = self._steps
        raw, raw_reward, terminated, truncated, info = self._call(self._stepped.step, given)
        raw = self._shaped(raw)
        with np.errstate(over="ignore"):
            obs, reward = self._observe(raw), self._rewards(raw_reward)
        valid, terminated, truncated = ~self._ghost, np.array(terminated, bool), np.array(truncated, bool)
        wrong = {**not_finite("reward", reward, raw_reward), **self._wrong(obs, raw), **self._silent()}
        fresh = self._renew(wrong, given if isinstance(given, list | np.ndarray) else action) if wrong else {}
        for i in fresh:
            obs[i], valid[i] = self.obs[i], False
        haunted = not valid.all()
        if haunted:
            terminated, truncated = terminated & valid, truncated & valid
            reward[~valid] = 0.0
        cost = reported_costs(info, valid) if info or haunted else None
        next_obs, self._obs, self._ghost = self._settle(obs, terminated | truncated, info)
        if fresh:
            truncated[[*fresh]], self._obs = True, next_obs.copy()
            for i, first in fresh.items():
                self._obs[i] = first
        return Transition(reward, next_obs, terminated, truncated, valid, cost)

    def close(self) -> None:
        """Close the environments; may be called twice."""
        self._env.close()

    # each: (obs as returned, done[B], info) ↦ (true successor, obs to act upon next, which rows the next step wastes)

    def _settle_next_step(self, obs: np.ndarray, done: np.ndarray, info: Any) -> tuple[np.ndarray, ...]:
        return obs, obs, done

    def _settle_same_step(self, obs: np.ndarray, done: np.ndarray, info: Any) -> tuple[np.ndarray, ...]:
        if not done.any():
            return obs, obs, self._ghost
        if "final_obs" not in info:
            raise self._error(None, 'ended, reset itself in the same step, and left no "final_obs" in its info')
        final = obs.copy()
        for i in map(int, np.flatnonzero(done)):
            try:
                final[i] = self._observe(self.reader.one(info["final_obs"][i]))
            except Misfit as error:
                raise self._error(i, f"{error}, at the end of an episode") from error
        self.refuse(self._wrong(final, final))
        return final, obs, self._ghost

    def _settle_disabled(self, obs: np.ndarray, done: np.ndarray, info: Any) -> tuple[np.ndarray, ...]:
        if not done.any():
            return obs, obs, self._ghost
        raw = self._shaped(self._call(self._env.reset, options={"reset_mask": done})[0])
        fresh, chosen = self._observe(raw), obs.copy()
        self.refuse(self._wrong(fresh, raw))
        chosen[done] = fresh[done]
        return obs, chosen, self._ghost

    def _seeds(self, seed: int | None) -> Any:
        """What the vector environment's reset is given."""
        seeds = self._each_seed(seed)
        if seeds is None or isinstance(self._env.unwrapped, SyncVectorEnv | AsyncVectorEnv):
            return seeds
        return seeds[0]  # a natively vectorised environment has one stream, and takes one seed

    def _each_seed(self, seed: int | None) -> list[int] | None:
        return None if seed is None else environment_seeds(seed, self.envs)

    def _actions(self, action: np.ndarray) -> Any:
        """As the environments take them: action[i] is that of environment i, of those stepped one by one."""
        action, shape = np.asarray(action), (self.envs, *self._action.shape)
        if self._obs is None or action.shape != shape:
            raise UsageError(f"{self.name} takes actions of shape {shape} after a reset, got shape {action.shape}")
        for i, wrong in not_finite("action", action, action).items():  # the policy's doing
            raise self._error(i, wrong.what.replace("returned", "was to be given"))
        if isinstance(self._action, Joint) and self._lockstep is not None:
            return [self._action.to_environment(one) for one in action]
        return self._action.to_environment(action)

    def _shaped(self, raw: Any) -> np.ndarray:
        if self._lockstep is None:
            try:
                raw = self.reader.many(raw)
            except (KeyError, TypeError, ValueError) as error:
                what = f"observations that are none of {self.observation_space} ({type(error).__name__}: {error})"
                raise self._error(None, f"returned {what}") from error
        if raw.shape != self._shape or raw.dtype.kind not in "fiub":
            what = f"observations of shape {raw.shape} and dtype {raw.dtype}"
            raise self._error(None, f"returned {what}; expected {self._shape} of {self.observation_space}")
        return raw

    def _rewards(self, raw: Any) -> np.ndarray:
        reward = np.array(raw, np.float32)
        if reward.shape != (self.envs,):
            raise self._error(None, f"returned rewards of shape {reward.shape}, not ({self.envs},)")
        return reward

    def _wrong(self, obs: np.ndarray, raw: np.ndarray) -> dict[int, Wrong]:
        """Rows of observations that are none.  obs: [n,…] in our dtype.  raw: as they were returned."""
        return {**not_finite("observation", obs, raw), **self.reader.outside(obs, raw)}

    def _silent(self) -> dict[int, Wrong]:
        """Who did not answer the last call, or not so that there was anything to look at."""
        return {} if self._lockstep is None else self._lockstep.wrong

    def refuse(self, wrong: dict[int, Wrong], action: Any = None) -> None:
        """Raise RunError for what is wrong with the first of some environments, if there are any."""
        for i in sorted(wrong):
            raise RunError(str(self._fault(i, wrong[i], action))) from wrong[i].cause

    def _renew(self, wrong: dict[int, Wrong], action: Any = None) -> dict[int, np.ndarray]:
        """Report what is wrong, and make those environments anew: their first observations, by index.

        Raises RunError where faults are not borne with, or one cannot be made anew.
        """
        if self._report is None:
            self.refuse(wrong, action)
        else:
            for i in sorted(wrong):
                self._report(self._fault(i, wrong[i], action))
        return {i: self._anew(i) for i in sorted(wrong)}

    def _anew(self, i: int) -> np.ndarray:
        assert self._lockstep is not None
        assert self._report is not None
        said = ""
        for _ in range(ATTEMPTS):
            self._renewed[i] += 1
            raw, wrong = self._lockstep.renew(i, seed_anew(self._seed, i, int(self._renewed[i])))
            with np.errstate(over="ignore"):
                obs = self._observe(raw)
            wrong = wrong or self._wrong(obs, raw).get(0)
            if wrong is None:
                return obs[0]
            fault = self._fault(i, wrong._replace(what=f"{wrong.what}, when it was made again"))
            said = str(fault)
            self._report(fault)
        raise Irreparable(f"{said}; so it did {ATTEMPTS} times in a row")

    def _fault(self, i: int, wrong: Wrong, action: Any = None) -> Fault:
        given = "" if action is None else f"action {short(action[i])}"
        values = "; ".join(filter(None, (given, wrong.values)))
        return Fault(self._first + i, self._steps, wrong.kind, str(self._error(i, wrong.what)), values)

    def _error(self, index: int | None, what: str) -> RunError:
        which = f"environment {self._first + (index or 0)} of {self._total}"
        if index is None and self.envs > 1:
            which = f"one of the environments {self._first} to {self._first + self.envs - 1} of {self._total}"
        return RunError(f"{self.name}: {which} {what} (at {f'step {self._steps}' if self._steps else 'the reset'})")

    def _call(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Of a vector environment, which says in its own way which of its environments broke."""
        try:
            return function(*args, **kwargs)
        except Exception as error:
            index, stacking = culprit(error)
            what = raised(error).what
            if stacking:
                what = f"returned observations that cannot be stacked: {error}"
                index, what = first_misfit(self._env.unwrapped, self.reader) or (None, what)
            raise self._error(index, what) from error


def name_of(env: Any) -> str:
    """What to call an environment or a vector environment."""
    if isinstance(env.unwrapped, SyncVectorEnv):
        env = env.unwrapped.envs[0]
    return env.spec.id if env.spec is not None else type(env.unwrapped).__name__


def _autoreset_mode(name: str, env: VectorEnv) -> AutoresetMode:
    mode = env.metadata.get("autoreset_mode")
    if not isinstance(mode, AutoresetMode):
        raise UsageError(
            f'{name}: the vector environment\'s metadata["autoreset_mode"] is {mode!r}; it must be one of '
            f"{', '.join(str(m) for m in AutoresetMode)}: without it the end of an episode cannot be read"
        )
    return mode
