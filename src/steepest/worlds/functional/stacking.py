"""The last N observations of a functional environment as one: as `steepest.worlds.stacking`, in JAX."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp

from steepest.worlds.masks import METHOD
from steepest.worlds.stacking import stacked_space


class FunctionalStack:
    """A functional environment that shows its last `count` observations; its state is (the environment's, frames)."""

    def __init__(self, environment: Any, count: int):
        self._environment, self._count = environment, count
        self.observation_space = stacked_space(environment.observation_space, count)
        self.action_space = environment.action_space
        for name in ("name", "default_params", "time_limit"):
            if hasattr(environment, name):
                setattr(self, name, getattr(environment, name))
        if hasattr(environment, METHOD):
            self.action_masks = self._masks

    def reset(self, key: Any, params: Any) -> tuple[Any, Any]:
        """All frames are the first."""
        obs, state = self._environment.reset(key, params)
        frames = jnp.stack([jnp.asarray(obs)] * self._count)
        return frames, (state, frames)

    def step(self, key: Any, state: Any, action: Any, params: Any) -> tuple[Any, Any, Any, Any, Any, dict[str, Any]]:
        """The oldest frame goes, the new one comes."""
        inner, frames = state
        obs, inner, reward, terminated, truncated, info = self._environment.step(key, inner, action, params)
        frames = jnp.concatenate([frames[1:], jnp.asarray(obs, frames.dtype)[None]])
        return frames, (inner, frames), reward, terminated, truncated, info

    def _masks(self, state: Any, params: Any) -> Any:
        """Those of the environment: of the latest frame."""
        return self._environment.action_masks(state[0], params)
