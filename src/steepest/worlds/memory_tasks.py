"""Small Gymnasium environments that cannot be solved without memory, with known optima.

    steepest/CartPoleMasked-v0    CartPole-v1 without its velocities: (position, angle)           500
    steepest/PendulumMasked-v0    Pendulum-v1 without its angular velocity: (cos, sin)            as Pendulum-v1
    steepest/TMaze-v0             a corridor of 10 steps, the way to turn shown at its start      4
    steepest/TMaze50-v0           one of 50                                                       4

The T-maze is that of Bakker, Reinforcement learning with Long Short-Term Memory (2001).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

EAST, NORTH, WEST, SOUTH = range(4)
_SHOWN = {"north": (0, 1, 1), "south": (1, 1, 0), "corridor": (1, 0, 1), "junction": (0, 1, 0)}


class OnlyEntries(gymnasium.ObservationWrapper):
    """A part of the observation's entries, in their order.  entries: which."""

    def __init__(self, env: gymnasium.Env, entries: Sequence[int]):
        super().__init__(env)
        self._entries, box = list(entries), env.observation_space
        assert isinstance(box, spaces.Box)
        low, high = box.low[self._entries], box.high[self._entries]
        self.observation_space = spaces.Box(low, high, dtype=np.float32)

    def observation(self, observation: Any) -> NDArray[np.float32]:
        """Those entries."""
        return np.asarray(observation, np.float32)[self._entries]


class TMaze(gymnasium.Env):
    """A corridor of `length` steps to a junction where one must turn as was shown in its first position alone.

    Actions: east, north, west, south. At the junction north and south end the episode, with a reward of 4 where the
    sign said so and −0.1 where it did not. Whoever does not move gets −0.1. The optimum is 4; without memory, 1.95 in
    the mean.

    length: steps from the first position to the junction, ≥ 1.
    """

    def __init__(self, length: int = 10):
        if length < 1:
            raise ValueError(f"a T-maze has length ≥ 1, got {length}")
        self.length = length
        self.observation_space = spaces.Box(0.0, 1.0, (3,), np.float32)
        self.action_space = spaces.Discrete(4)
        self.at, self.north = 0, False

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """At the beginning, with a new sign."""
        super().reset(seed=seed)
        self.at, self.north = 0, bool(self.np_random.integers(2))
        return self._obs(), {}

    def step(self, action: Any) -> tuple[NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        """One step."""
        if self.at == self.length and action in (NORTH, SOUTH):
            return self._obs(), 4.0 if (action == NORTH) == self.north else -0.1, True, False, {}
        before = self.at
        self.at = min(max(self.at + {EAST: 1, WEST: -1}.get(int(action), 0), 0), self.length)
        return self._obs(), 0.0 if self.at != before else -0.1, False, False, {}

    def _obs(self) -> NDArray[np.float32]:
        sign = "north" if self.north else "south"
        shown = sign if self.at == 0 else "junction" if self.at == self.length else "corridor"
        return np.array(_SHOWN[shown], np.float32)


def masked_cartpole(**kwargs: Any) -> gymnasium.Env:
    """CartPole-v1's physics, the velocities hidden."""
    return OnlyEntries(gymnasium.make("CartPole-v1", max_episode_steps=-1, disable_env_checker=True, **kwargs), (0, 2))


def masked_pendulum(**kwargs: Any) -> gymnasium.Env:
    """Pendulum-v1's physics, the angular velocity hidden."""
    return OnlyEntries(gymnasium.make("Pendulum-v1", max_episode_steps=-1, disable_env_checker=True, **kwargs), (0, 1))


def register() -> None:
    """Make them known to Gymnasium by their ids."""
    here = __name__
    for name, entry, longest, kwargs in (
        ("CartPoleMasked-v0", "masked_cartpole", 500, {}),
        ("PendulumMasked-v0", "masked_pendulum", 200, {}),
        ("TMaze-v0", "TMaze", 100, {"length": 10}),
        ("TMaze50-v0", "TMaze", 500, {"length": 50}),
    ):
        if f"steepest/{name}" not in gymnasium.registry:
            gymnasium.register(
                f"steepest/{name}", entry_point=f"{here}:{entry}", max_episode_steps=longest, kwargs=kwargs
            )
