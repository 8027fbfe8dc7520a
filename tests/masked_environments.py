"""Environments that say which actions are allowed, and what is best of them."""

from __future__ import annotations

from typing import Any, ClassVar

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
from gymnasium.spaces import Box, Dict, Discrete, MultiDiscrete

from steepest import spaces
from steepest.spaces import choices

LENGTH = 8
DICT = Dict(aim=Box(-1.0, 1.0, (1,)), way=MultiDiscrete([2, 3]))


class Trap(gymnasium.Env):
    """The highest number that is allowed is best, and what is forbidden ends the episode at −100; 0 at the best.

    Of each choice a random half of the values is allowed, and never none, but nothing is when the episode is over.
    taken: (steps, those of them with a forbidden action) of all environments of the class.
    """

    taken: ClassVar[list[int]] = [0, 0]

    def __init__(self, actions: Any, by_method: bool):
        self.action_space, self.observation_space = actions, Box(-1.0, 1.0, (2,), np.float32)
        self.sizes = choices(spaces.describe(actions, "action"))
        self._info = not by_method

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.count = 0
        return self._draw()

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        assert self.action_space.contains(action), action
        each = np.ravel(action["way"] if isinstance(action, dict) else action)
        allowed = np.split(self.allowed, np.cumsum(self.sizes)[:-1])
        trapped = not all(mask[a] for mask, a in zip(allowed, each, strict=True))
        self.taken[0] += 1
        self.taken[1] += trapped
        best = [self._best(np.flatnonzero(mask)) for mask in allowed]
        self.count += 1
        over = trapped or self.count == LENGTH
        reward = -100.0 if trapped else -float(np.sum(np.abs(each - best))) / 3
        obs, info = self._draw()
        if over:
            self.allowed[:] = 0
        return obs, reward, over, False, info

    def _best(self, allowed: Any) -> int:
        return allowed.max()

    def _draw(self) -> tuple[Any, dict[str, Any]]:
        masks = []
        for size in self.sizes:
            mask = self.np_random.integers(0, 2, size)
            mask[self.np_random.integers(size)] = 1
            masks.append(mask)
        self.allowed = np.concatenate(masks).astype(np.int8)
        return np.zeros(2, np.float32), {"action_mask": self.allowed} if self._info else {}


class TrapWithMethod(Trap):
    """The same that says it by a method."""

    def __init__(self, actions: Any):
        super().__init__(actions, by_method=True)

    def action_masks(self) -> np.ndarray:
        return self.allowed


class Recall(TrapWithMethod):
    """The lowest number instead where the first observation of the episode, and no other, showed −1 and not 1."""

    def __init__(self) -> None:
        super().__init__(Discrete(4))

    def _best(self, allowed: Any) -> int:
        return allowed.max() if self.cue > 0 else allowed.min()

    def _draw(self) -> tuple[Any, dict[str, Any]]:
        obs, info = super()._draw()
        if self.count == 0:
            self.cue = obs[0] = 2 * self.np_random.integers(2) - 1
        return obs, info


def trap(actions: Any, by_method: bool) -> Trap:
    return TrapWithMethod(actions) if by_method else Trap(actions, False)


class FunctionalTrap:
    """The same in JAX, of one choice of four; forbids everything after `until` steps."""

    action_space, observation_space, time_limit = Discrete(4), Box(-1.0, 1.0, (2,), np.float32), LENGTH

    def __init__(self, until: int = 100):
        self.until = until

    def action_masks(self, state: Any, params: Any) -> Any:
        return state[0]

    def reset(self, key: Any, params: Any) -> Any:
        return jnp.zeros(2), (self._draw(key, 0), jnp.zeros((), jnp.int32))

    def step(self, key: Any, state: Any, action: Any, params: Any) -> Any:
        allowed, count = state
        best = jnp.max(jnp.where(allowed > 0, jnp.arange(4), 0))
        trapped = allowed[action] == 0
        reward = jnp.where(trapped, -100.0, (action - best) / 3)
        return jnp.zeros(2), (self._draw(key, count + 1), count + 1), reward, trapped, False, {}

    def _draw(self, key: Any, count: Any) -> Any:
        some = jax.random.bernoulli(key, 0.5, (4,)).at[jax.random.randint(key, (), 0, 4)].set(True)
        return jnp.where(count < self.until, some, False).astype(jnp.int32)


class FunctionalRecall(FunctionalTrap):
    """`Recall` in JAX."""

    def action_masks(self, state: Any, params: Any) -> Any:
        return state[0][0]

    def reset(self, key: Any, params: Any) -> Any:
        cue = 2.0 * jax.random.bernoulli(key) - 1
        return jnp.stack([cue, 0.0]), (super().reset(key, params)[1], cue)

    def step(self, key: Any, state: Any, action: Any, params: Any) -> Any:
        inner, cue = state
        obs, after, reward, *rest = super().step(key, inner, action, params)
        lowest = jnp.argmax(inner[0] > 0)
        reward = jnp.where((reward > -100) & (cue < 0), (lowest - action) / 3, reward)
        return obs, (after, cue), reward, *rest


class Wrong(Trap):
    """`Trap` with a mask of its own in the third step of every second environment."""

    made: ClassVar[int] = 0

    def __init__(self, mask: Any):
        super().__init__(Discrete(4), by_method=False)
        self.wrong, self.number = mask, Wrong.made
        Wrong.made += 1

    def step(self, action: Any) -> Any:
        obs, reward, terminated, truncated, info = super().step(action)
        return obs, reward, terminated, truncated, {"action_mask": self.wrong} if self.count == 3 else info
