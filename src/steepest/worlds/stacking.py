"""The last N observations as one, on a new first axis, the latest last: `stack:4:CartPole-v1`.

    o_t ↦ (o_{t−N+1}, …, o_t)        at the start of an episode the first one N times, so that none is of another

As Gymnasium's FrameStackObservation; but frames are copied, as environments may use a buffer again. N images are taken
side by side, in N times the channels.
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np

from steepest.errors import UsageError


def stacked_space(space: Any, count: int) -> Any:
    """The space of `count` observations. Raises UsageError for one that is no Box."""
    if not isinstance(space, gymnasium.spaces.Box):
        raise UsageError(f"frames of a Box are stacked, not of {space}")
    low, high = (np.stack([np.asarray(bound)] * count) for bound in (space.low, space.high))
    dtype: Any = space.dtype
    return gymnasium.spaces.Box(low, high, dtype=dtype)


class FrameStack(gymnasium.Wrapper):
    """A Gymnasium environment that shows its last `count` observations."""

    def __init__(self, env: Any, count: int):
        super().__init__(env)
        space: Any = stacked_space(env.observation_space, count)
        self.observation_space = space
        self.frames = np.zeros(space.shape, space.dtype)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """All frames are the first."""
        obs, info = self.env.reset(seed=seed, options=options)
        self.frames = self._checked(obs)[None].repeat(len(self.frames), axis=0)
        return self.frames.copy(), info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """The oldest frame goes, the new one comes."""
        obs, reward, terminated, truncated, info = self.env.step(action)
        self.frames = np.concatenate([self.frames[1:], self._checked(obs)[None]])
        return self.frames.copy(), reward, terminated, truncated, info

    def _checked(self, obs: Any) -> np.ndarray:
        obs = np.asarray(obs)
        if obs.shape != self.frames.shape[1:] or not np.can_cast(obs.dtype, self.frames.dtype, "same_kind"):
            raise ValueError(f"an observation of shape {obs.shape} and dtype {obs.dtype} is no frame of its space")
        return obs.astype(self.frames.dtype)
