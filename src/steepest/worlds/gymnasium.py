"""Gymnasium environments as worlds: any vector environment, in any autoreset mode, as canonical transitions.

    mode        where an episode ends, `step` returns   then
    NEXT_STEP   the final obs                           the next step ignores the action and resets: a ghost row
    SAME_STEP   the reset obs                           the final obs is in info["final_obs"]
    DISABLED    the final obs                           we reset the finished ones by options["reset_mask"]

Actions are clipped to the bounds of the space on the way in, and nowhere else. Observations leave as float32, or int32
state indices; every array is checked once, so that a broken environment stops the run with its name and number.
Environments in this process are stepped without Gymnasium's own loop where that does the same (`lockstep.py`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Discrete
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv, VectorEnv

from steepest import spaces
from steepest.errors import RunError, UsageError
from steepest.names import unknown
from steepest.worlds.costs import reported_costs
from steepest.worlds.lockstep import Lockstep, Misfit, culprit
from steepest.worlds.world import Transition, environment_seeds


class GymnasiumWorld:
    """A World made of a Gymnasium VectorEnv.

    env: in any of the three autoreset modes, which env.metadata["autoreset_mode"] must name.
    name: as in errors and run folders; by default the id of the environment, or the name of its class.

    Raises UsageError for a missing autoreset mode and for spaces that no policy here can take.
    """

    backend = "gymnasium"

    def __init__(self, env: VectorEnv, name: str | None = None):
        self.name = name or _name(env)
        self.envs = env.num_envs
        self.observation_space = env.single_observation_space
        self.action_space = env.single_action_space
        self._env = env
        self._first, self._total = 0, env.num_envs
        self._observe = _described(self.name, self.observation_space, "observation").from_environment
        self._actuate = _described(self.name, self.action_space, "action").to_environment
        self._shape = (self.envs, *(self.observation_space.shape or ()))
        mode = _autoreset_mode(self.name, env)
        self._settle = {
            AutoresetMode.NEXT_STEP: self._settle_next_step,
            AutoresetMode.SAME_STEP: self._settle_same_step,
            AutoresetMode.DISABLED: self._settle_disabled,
        }[mode]
        self._advance: Callable[..., Any] = env.step
        if type(env) is SyncVectorEnv and mode == AutoresetMode.NEXT_STEP:
            self._advance = Lockstep(env).step
        self._ghost = np.zeros(self.envs, bool)
        self._obs: np.ndarray | None = None
        self._steps = 0

    @property
    def obs(self) -> np.ndarray:
        """[B,…] what to act upon next. Raises UsageError before the first reset."""
        if self._obs is None:
            raise UsageError(f"world {self.name!r} must be reset before it is used")
        return self._obs

    def number(self, first: int, total: int) -> None:
        """Be the environments first, first + 1, … of `total` in what errors say."""
        self._first, self._total = first, total

    def reset(self, seed: int | None = None) -> np.ndarray:
        """Start B new episodes and return their observations [B,…]; see `World.reset`."""
        self._steps = 0
        self._ghost = np.zeros(self.envs, bool)
        self._obs = self._observations(self._call(self._env.reset, seed=self._seeds(seed))[0])
        return self._obs

    def step(self, action: np.ndarray) -> Transition:
        """One step of all environments. Raises RunError where one of them breaks."""
        action = self._actions(action)
        self._steps += 1
        raw, raw_reward, terminated, truncated, info = self._call(self._advance, action)
        obs, reward = self._observations(raw), self._rewards(raw_reward)
        valid, terminated, truncated = ~self._ghost, np.array(terminated, bool), np.array(truncated, bool)
        haunted = self._ghost.any()
        if haunted:
            terminated, truncated = terminated & valid, truncated & valid
            reward[self._ghost] = 0.0
        cost = reported_costs(info, valid) if info or haunted else None
        next_obs, self._obs, self._ghost = self._settle(obs, terminated | truncated, info)
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
            raise self._fault(None, 'ended, reset itself in the same step, and left no "final_obs" in its info')
        final = obs.copy()
        for i in map(int, np.flatnonzero(done)):
            if np.shape(info["final_obs"][i]) != self._shape[1:]:
                raise self._fault(i, f"returned a final observation of shape {np.shape(info['final_obs'][i])}")
            final[i] = self._observe(np.asarray(info["final_obs"][i]))
        self._check_observations(final, final)
        return final, obs, self._ghost

    def _settle_disabled(self, obs: np.ndarray, done: np.ndarray, info: Any) -> tuple[np.ndarray, ...]:
        if not done.any():
            return obs, obs, self._ghost
        fresh = self._observations(self._call(self._env.reset, options={"reset_mask": done})[0])
        chosen = obs.copy()
        chosen[done] = fresh[done]
        return obs, chosen, self._ghost

    def _seeds(self, seed: int | None) -> Any:
        if seed is None:
            return None
        seeds = environment_seeds(seed, self.envs)
        # a natively vectorised environment has one stream, and takes one seed
        return seeds if isinstance(self._env.unwrapped, SyncVectorEnv | AsyncVectorEnv) else seeds[0]

    def _actions(self, action: np.ndarray) -> np.ndarray:
        action, shape = np.asarray(action), (self.envs, *(self.action_space.shape or ()))
        if self._obs is None or action.shape != shape:
            raise UsageError(f"{self.name} takes actions of shape {shape} after a reset, got shape {action.shape}")
        self._check_finite("was to be given an action", action, action)
        return self._actuate(action)

    def _observations(self, raw: Any) -> np.ndarray:
        """A copy (vector environments re-use their buffers) in our dtype, checked."""
        raw = np.asarray(raw)
        if raw.shape != self._shape or raw.dtype.kind not in "fiub":
            what = f"observations of shape {raw.shape} and dtype {raw.dtype}"
            raise self._fault(None, f"returned {what}; expected {self._shape} of {self.observation_space}")
        obs = self._observe(raw)
        self._check_observations(obs, raw)
        return obs

    def _check_observations(self, obs: np.ndarray, raw: np.ndarray) -> None:
        if not isinstance(self.observation_space, Discrete):
            self._check_finite("returned an observation", obs, raw)
        elif (wrong := (obs < 0) | (obs >= self.observation_space.n)).any():
            i = int(np.argmax(wrong))
            raise self._fault(i, f"returned the state {raw[i]}, which is not in {self.observation_space}")

    def _rewards(self, raw: Any) -> np.ndarray:
        reward = np.array(raw, np.float32)
        if reward.shape != (self.envs,):
            raise self._fault(None, f"returned rewards of shape {reward.shape}, not ({self.envs},)")
        self._check_finite("returned a reward", reward, np.asarray(raw))
        return reward

    def _check_finite(self, what: str, array: np.ndarray, raw: np.ndarray) -> None:
        # the sum of squares is finite only if all entries are, and costs a third; where it overflows, all are looked at
        if array.dtype.kind == "f" and not math.isfinite(np.vdot(array, array)) and not np.isfinite(array).all():
            env, *entry = map(int, np.argwhere(~np.isfinite(array))[0])
            where = f" in entry {', '.join(map(str, entry))}" if entry else ""
            raise self._fault(env, f"{what} that is not finite: {raw[env, *entry]}{where}")

    def _call(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except Misfit as error:
            raise self._fault(error.index, self._said(error.obs)) from error
        except Exception as error:
            index, stacking = culprit(error)
            what = f"raised {type(error).__name__}: {error}"
            if stacking:
                index, what = self._misfit() or (None, f"returned observations that cannot be stacked: {error}")
            raise self._fault(index, what) from error

    def _misfit(self) -> tuple[int, str] | None:
        """Which of a SyncVectorEnv's environments broke its space's promise; None if that cannot be known."""
        space: Any = self.observation_space
        for i, obs in enumerate(getattr(self._env.unwrapped, "_env_obs", ())):
            obs = np.asarray(obs)
            if obs.shape != space.shape or not np.can_cast(obs.dtype, space.dtype, "same_kind"):
                return i, self._said(obs)
        return None

    def _said(self, obs: np.ndarray) -> str:
        space = self.observation_space
        return f"returned an observation of shape {obs.shape} and dtype {obs.dtype}; its space is {space}"

    def _fault(self, index: int | None, what: str) -> RunError:
        which = f"environment {self._first + (index or 0)} of {self._total}"
        if index is None and self.envs > 1:
            which = f"one of the environments {self._first} to {self._first + self.envs - 1} of {self._total}"
        return RunError(f"{self.name}: {which} {what} (at {f'step {self._steps}' if self._steps else 'the reset'})")


def make_gymnasium(spec: Any, envs: int | None = None, **kwargs: Any) -> GymnasiumWorld:
    """A world of `envs` environments, stepped one after the other in this process.

    spec: a registered id (also `module:EnvId`), a factory () → Env, an Env, or a VectorEnv. The last two exist already:
        `envs` may only repeat what they are.
    envs: how many; 1 if not said, or as many as the VectorEnv has.
    kwargs: for the constructor of the environment.

    Raises UsageError for an unknown id (it suggests the closest), a missing package (it says which extra to install), a
    constructor that fails, and spaces that are not supported.
    """
    if isinstance(spec, VectorEnv | gymnasium.Env):
        count = spec.num_envs if isinstance(spec, VectorEnv) else 1
        if kwargs or envs not in (None, count):
            what = "takes no more arguments" if kwargs else f"is {count} environment(s), not {envs}"
            raise UsageError(
                f"{_name(spec)} is made already and {what}; to make more, give a function that returns one"
            )
        return GymnasiumWorld(spec if isinstance(spec, VectorEnv) else _from_factory(lambda: spec, 1, {}))
    if isinstance(spec, str):
        return GymnasiumWorld(_from_id(spec, 1 if envs is None else envs, kwargs), spec)
    if not callable(spec):
        raise UsageError(
            f"an environment is an id, a factory, a gymnasium Env or a VectorEnv; got {type(spec).__name__}"
        )
    return GymnasiumWorld(_from_factory(spec, 1 if envs is None else envs, kwargs))


def _from_id(spec: str, envs: int, kwargs: Mapping[str, Any]) -> VectorEnv:
    try:
        # sync by name: without one, gymnasium prefers a vector entry point, which is a different program
        return gymnasium.make_vec(
            spec, envs, vectorization_mode="sync", vector_kwargs={"copy": False}, disable_env_checker=True, **kwargs
        )
    except gymnasium.error.DependencyNotInstalled as error:
        entry = str(getattr(gymnasium.registry.get(spec.rpartition(":")[2]), "entry_point", ""))
        hint = '; install it with: pip install "steepest[mujoco]"' if ".mujoco." in entry else ""
        raise UsageError(f"environment {spec!r} needs a package that is not installed: {error}{hint}") from error
    except Exception as error:
        if spec.rpartition(":")[2] not in gymnasium.registry:
            raise unknown("environment", spec.rpartition(":")[2], _latest()) from error
        raise UsageError(f"environment {spec!r} could not be made: {type(error).__name__}: {error}") from error


def _latest() -> list[str]:
    """The ids worth suggesting: the highest version of every registered name."""
    latest: dict[tuple[str | None, str], Any] = {}
    for spec in gymnasium.registry.values():
        best = latest.get((spec.namespace, spec.name))
        if best is None or (spec.version or 0) > (best.version or 0):
            latest[spec.namespace, spec.name] = spec
    return [spec.id for spec in latest.values()]


def _from_factory(factory: Callable[..., Any], envs: int, kwargs: Mapping[str, Any]) -> VectorEnv:
    try:
        made = [factory(**kwargs) for _ in range(envs)]
    except Exception as error:
        raise UsageError(f"the environment's factory raised {type(error).__name__}: {error}") from error
    for env in made:
        if not isinstance(env, gymnasium.Env):
            raise UsageError(f"the environment's factory returned a {type(env).__name__}, not a gymnasium.Env")
    if len({id(env) for env in made}) < envs:
        raise UsageError("the environment's factory returned the same object twice; each call must make a new one")
    return SyncVectorEnv([lambda env=env: env for env in made], copy=False)


def _name(env: Any) -> str:
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


def _described(name: str, space: Any, role: str) -> spaces.Space:
    try:
        return spaces.describe(space, role)
    except UsageError as error:
        raise UsageError(f"{name}: {error}") from error
