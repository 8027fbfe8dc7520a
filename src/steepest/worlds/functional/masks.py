"""A functional environment with `action_masks(state, params)`, as one that observes [obs, mask] (`worlds/masks.py`)."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp

from steepest.errors import UsageError
from steepest.spaces import describe
from steepest.worlds.functional.copies import observed
from steepest.worlds.functional.protocol import FunctionalEnvironment, name_of
from steepest.worlds.masks import METHOD, MaskedSpace, sizes_of


class ShowsMask:
    """environment: of the functional form, with a method action_masks(state, params) → [mask] of 0 and 1.

    Raises UsageError where it has none, or nothing to mask.
    """

    def __init__(self, environment: FunctionalEnvironment):
        self.name = name_of(environment)
        if not hasattr(environment, METHOD):
            raise UsageError(f"{self.name} has no method {METHOD}(state, params): leave mask at false")
        self._masks: Any = getattr(environment, METHOD)
        self._environment, sizes = environment, sizes_of(environment.action_space)
        self.default_params = getattr(environment, "default_params", None)
        self.time_limit = getattr(environment, "time_limit", None)
        self.action_space = environment.action_space
        self.observation_space = MaskedSpace(environment.observation_space, sum(sizes))
        self._own = describe(environment.observation_space, "observation")
        self._size = sum(sizes)

    def reset(self, key: Any, params: Any) -> tuple[Any, Any]:
        """See `FunctionalEnvironment`."""
        obs, state = self._environment.reset(key, params)
        return self._shown(obs, state, params), state

    def step(self, key: Any, state: Any, action: Any, params: Any) -> tuple[Any, ...]:
        """See `FunctionalEnvironment`."""
        obs, state, *rest = self._environment.step(key, state, action, params)
        return self._shown(obs, state, params), state, *rest

    def _shown(self, obs: Any, state: Any, params: Any) -> Any:
        mask = jnp.asarray(self._masks(state, params))
        if mask.shape != (self._size,):
            raise UsageError(f"{self.name}: an action mask must have shape ({self._size},), got {mask.shape}")
        return jnp.concatenate([jnp.ravel(observed(self._own, obs)), mask], dtype=jnp.float32)
