"""Functional environments as a user would write them, and some that break on purpose."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from gymnasium.spaces import Box, Discrete


class Drift:
    """A point on a line, pushed by the action and by noise: terminates beyond ±2. Nothing of steepest is imported."""

    observation_space = Box(-np.inf, np.inf, (2,), np.float32)
    action_space = Box(-1.0, 1.0, (1,), np.float32)
    time_limit = 7

    def __init__(self) -> None:
        self.default_params = {"noise": 0.3}

    def reset(self, key: Any, params: Any) -> Any:
        place = jax.random.uniform(key, minval=-1.0, maxval=1.0)
        return jnp.stack([place, 0.0]), (place, 0)

    def step(self, key: Any, state: Any, action: Any, params: Any) -> Any:
        place, steps = state
        place = place + action[0] + params["noise"] * jax.random.normal(key)
        obs = jnp.stack([place, jnp.float32(steps + 1)])
        return obs, (place, steps + 1), 1.0 - place**2, jnp.abs(place) > 2, False, {}


class Corridor:
    """Three cells: left, right; each step in the last one earns 1. The optimum over 10 steps from cell 0 is 8."""

    observation_space = Box(0.0, 1.0, (3,), np.float32)
    action_space = Discrete(2)
    time_limit: int | None = 10

    def reset(self, key: Any, params: Any) -> Any:
        return jnp.eye(3)[0], 0

    def step(self, key: Any, state: Any, action: Any, params: Any) -> Any:
        state = jnp.clip(state + 2 * action - 1, 0, 2)
        return jnp.eye(3)[state], state, jnp.float32(state == 2), False, False, {}


class Charged(Corridor):
    """A corridor in which a step to the right costs 1."""

    def step(self, key: Any, state: Any, action: Any, params: Any) -> Any:
        *rest, _ = super().step(key, state, action, params)
        return (*rest, {"cost": jnp.float32(action)})


class Breaking(Corridor):
    """Its reward is not a number in step `at` of an episode, which has no other end."""

    def __init__(self, at: int):
        self.at, self.time_limit = at, None

    def reset(self, key: Any, params: Any) -> Any:
        return jnp.eye(3)[0], (0, 0)

    def step(self, key: Any, state: Any, action: Any, params: Any) -> Any:
        cell, steps = state
        obs, cell, reward, *flags, info = super().step(key, cell, action, params)
        return obs, (cell, steps + 1), jnp.where(steps == self.at, jnp.nan, reward), *flags, info


class Branching(Corridor):
    """Decides by an `if` on an array, which cannot be traced."""

    def step(self, key: Any, state: Any, action: Any, params: Any) -> Any:
        if action == 1:
            state = state + 1
        return jnp.eye(3)[state], state, jnp.float32(1), False, False, {}


class Shapeless(Corridor):
    """Its observation is not of its space."""

    def reset(self, key: Any, params: Any) -> Any:
        return jnp.eye(4)[0], 0


class Growing(Corridor):
    """Its state changes its shape from step to step."""

    def step(self, key: Any, state: Any, action: Any, params: Any) -> Any:
        return jnp.eye(3)[0], jnp.concatenate([jnp.atleast_1d(state), jnp.zeros(1)]), 0.0, False, False, {}
