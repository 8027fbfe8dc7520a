"""Action masks: environments that say which actions are allowed, as environments whose observation says it.

    obs  ↦  [obs, mask]        mask: of `action_masks()`, a method, or of info["action_mask"]; as of `spaces.masking`

    method    of the environment or one of its wrappers, as sb3-contrib has it; of a functional one
              action_masks(state, params) → mask
    info      of every reset and step, as Gymnasium's Taxi and PettingZoo have it

A mask of another length, or that forbids everything where there is an action to choose, is a fault of the environment.
With an observation in which the episode ended nothing is chosen: there everything counts as allowed if nothing is.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Space
from gymnasium.vector import VectorEnv, VectorWrapper
from gymnasium.vector.utils import batch_space

from steepest.errors import RunError, UsageError
from steepest.spaces import choices, describe, flat_mask, forbids_all, seen

KEY, METHOD = "action_mask", "action_masks"


class MaskedSpace(Box):
    """The flat vectors [obs, mask].  masked: the space of obs.  mask: entries of the mask."""

    def __init__(self, masked: Space[Any], mask: int):
        self.masked, self.mask = masked, mask
        size = int(np.prod(seen(describe(masked, "observation")).shape)) + mask
        super().__init__(-np.inf, np.inf, (size,), np.float32)


class ShowsMask(gymnasium.Wrapper):
    """One environment, whose observation is [obs, mask] from here on.

    Raises UsageError where there is nothing to mask.
    """

    def __init__(self, env: Any):
        super().__init__(env)
        self._observe = describe(env.observation_space, "observation").from_environment
        self._action, self._sizes = describe(env.action_space, "action"), sizes_of(env.action_space)
        self._by_method = env.has_wrapper_attr(METHOD)
        self.observation_space = MaskedSpace(env.observation_space, sum(self._sizes))

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        obs, info = self.env.reset(seed=seed, options=options)
        return self._shown(obs, info, False), info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        obs, reward, terminated, truncated, info = self.env.step(action)
        return self._shown(obs, info, bool(terminated or truncated)), reward, bool(terminated), bool(truncated), info

    def _shown(self, obs: Any, info: dict[str, Any], over: bool) -> np.ndarray:
        if self._by_method:
            mask = self.env.get_wrapper_attr(METHOD)()
        elif KEY in info:
            mask = info[KEY]
        else:
            raise RunError(f'said nothing of what is allowed: no method {METHOD} and no info["{KEY}"]')
        flat = checked(mask, self._action, over)
        return np.concatenate([np.ravel(self._observe(obs)), flat], dtype=np.float32)


class ShowsMasks(VectorWrapper):
    """The same of a vector environment: by the method of each of its environments, or info["action_mask"], [B, mask].

    Raises UsageError where there is nothing to mask.
    """

    def __init__(self, env: VectorEnv):
        super().__init__(env)
        self._own = describe(env.single_observation_space, "observation")
        self._action, self._sizes = describe(env.single_action_space, "action"), sizes_of(env.single_action_space)
        self._by_method = _every_has_method(env)
        self._masks = np.ones((env.num_envs, sum(self._sizes)), np.float32)
        self.single_observation_space = MaskedSpace(env.single_observation_space, sum(self._sizes))
        self.observation_space = batch_space(self.single_observation_space, env.num_envs)

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        obs, info = self.env.reset(seed=seed, options=options)
        return self._shown(obs, info, np.zeros(self.num_envs, bool)), info

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        obs, reward, terminated, truncated, info = self.env.step(actions)
        shown = self._shown(obs, info, np.asarray(terminated) | np.asarray(truncated))
        if "final_obs" in info:  # nothing is chosen there
            final = [None if each is None else self._joined(each, self._masks[0] * 0 + 1) for each in info["final_obs"]]
            info = {**info, "final_obs": np.array([*final, None], object)[:-1]}
        return shown, reward, terminated, truncated, info

    def _shown(self, obs: Any, info: dict[str, Any], over: np.ndarray) -> np.ndarray:
        said = self.env.call(METHOD) if self._by_method else info.get(KEY)  # type: ignore[attr-defined]
        if said is None:
            raise RunError(f'said nothing of what is allowed: no method {METHOD} and no info["{KEY}"]')
        who = np.ones(self.num_envs, bool) if self._by_method else info.get(f"_{KEY}", np.ones(self.num_envs, bool))
        for i in np.flatnonzero(who):
            own = {k: v[i] for k, v in said.items() if k[:1] != "_"} if isinstance(said, Mapping) else said[i]
            self._masks[i] = checked(own, self._action, bool(over[i]))
        return self._joined(obs, self._masks)

    def _joined(self, obs: Any, masks: np.ndarray) -> np.ndarray:
        own = self._own.from_environment(obs).reshape((*masks.shape[:-1], -1))
        return np.concatenate([own, masks], axis=-1, dtype=np.float32)


def _every_has_method(env: Any) -> bool:
    call = getattr(env, "call", None)
    return call is not None and all(call("has_wrapper_attr", METHOD))


def sizes_of(action_space: Any) -> tuple[int, ...]:
    """As `choices` of a Gymnasium space. Raises UsageError where there are none."""
    sizes = choices(describe(action_space, "action"))
    if not sizes:
        raise UsageError(
            f"a mask is for Discrete and MultiDiscrete actions, and Dict and Tuple with them: {action_space}"
        )
    return sizes


def checked(mask: Any, action: Any, over: bool) -> np.ndarray:
    """[Σ sizes] float32.  action: the space as plain data.  over: nothing will be chosen. Raises RunError for a mask
    that is none."""
    try:
        flat = flat_mask(mask, action)
    except UsageError as error:
        raise RunError(str(error)) from None
    if forbids_all(flat, choices(action)):
        if not over:
            raise RunError(f"its action mask forbids everything: {mask!r:.100}")
        return np.ones_like(flat)
    return flat


def offers_masks(world: Any) -> bool:
    """Whether the environments of a world say what is allowed; they are reset, if they have no method for it.

    world: a `GymnasiumWorld`, a `ParallelWorld` or a `FunctionalWorld`; another has none.
    """
    if not choices(describe(world.action_space, "action")):
        return False
    if hasattr(world, "agents"):
        from steepest.worlds.parallel_masks import offers_masks_of_agents

        return offers_masks_of_agents(world.environments[0])
    if hasattr(world, "copies"):
        return hasattr(world.copies.environment, METHOD)
    env = getattr(world, "_env", None)
    return isinstance(env, VectorEnv) and (_every_has_method(env) or KEY in env.reset()[1])
