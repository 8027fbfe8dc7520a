"""Tiny tasks of images whose best returns are known, as a user would write them for Gymnasium and for JAX."""

from __future__ import annotations

from typing import Any

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
from gymnasium.spaces import Box, Discrete

SIDE, LENGTH = 8, 8


class Dot(gymnasium.Env):
    """Say in which quadrant the bright dot is: 1 for each that is right, 8 in all at the best, 2 at random.

    form: "last" [8,8,1] bytes, "first" [1,8,8] bytes, or "float" [8,8,1] of 0 and 1.
    """

    def __init__(self, form: str = "last"):
        self.form, self.action_space = form, Discrete(4)
        shape = (1, SIDE, SIDE) if form == "first" else (SIDE, SIDE, 1)
        self.observation_space = Box(0, 1, shape, np.float32) if form == "float" else Box(0, 255, shape, np.uint8)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.count = 0
        return self._draw(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        right = float(action == self.wanted)
        self.count += 1
        return self._draw(), right, False, self.count == LENGTH, {}

    def _draw(self) -> np.ndarray:
        row, column = self.np_random.integers(SIDE, size=2)
        self.wanted = 2 * (row >= SIDE // 2) + (column >= SIDE // 2)
        space: Any = self.observation_space
        image = np.zeros(space.shape, space.dtype)
        image[(0, row, column) if self.form == "first" else (row, column, 0)] = 1 if self.form == "float" else 255
        return image


class FunctionalDot:
    """The same in JAX: bytes, channels last."""

    time_limit = LENGTH

    def __init__(self) -> None:
        like = Dot()
        self.action_space, self.observation_space = like.action_space, like.observation_space

    def reset(self, key: Any, params: Any) -> Any:
        place = jax.random.randint(key, (2,), 0, SIDE)
        image = jnp.zeros((SIDE, SIDE, 1), jnp.uint8).at[place[0], place[1], 0].set(255)
        return image, jnp.dot(place >= SIDE // 2, jnp.array([2, 1]))

    def step(self, key: Any, state: Any, action: Any, params: Any) -> Any:
        obs, wanted = self.reset(key, params)
        return obs, wanted, (action == state).astype(jnp.float32), False, False, {}


class Once(Dot):
    """The dot is shown in the first image of an episode alone, and its quadrant is right to the end."""

    def _draw(self) -> np.ndarray:
        if self.count == 0:
            return super()._draw()
        return np.zeros((SIDE, SIDE, 1), np.uint8)


class FunctionalOnce(FunctionalDot):
    """The same in JAX."""

    def step(self, key: Any, state: Any, action: Any, params: Any) -> Any:
        return jnp.zeros((SIDE, SIDE, 1), jnp.uint8), state, (action == state).astype(jnp.float32), False, False, {}
