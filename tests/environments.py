"""Tiny Gymnasium environments whose values are known in closed form, and some that break on purpose."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Discrete, Space
from gymnasium.vector import AutoresetMode, SyncVectorEnv

MODES = list(AutoresetMode)


class Counting(gymnasium.Env):
    """Reward 1 for every step; the observation counts them; ends after `limit` steps, by truncation or termination.

    V(c) = 1/(1−γ) where it only truncates, (1 − γ^{limit−c})/(1−γ) where it terminates.
    """

    def __init__(self, limit: int, terminates: bool = False):
        self.limit, self.terminates = limit, terminates
        self.observation_space: Space[Any] = Box(0.0, np.inf, (1,), np.float64)
        self.action_space: Space[Any] = Discrete(2)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.count = 0
        return np.array([0.0]), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.count += 1
        over = self.count >= self.limit
        return np.array([float(self.count)]), 1.0, over and self.terminates, over and not self.terminates, {}


class Walk(gymnasium.Env):
    """A random walk pushed by the action, from a random start: terminates beyond ±2, truncates after 7 steps."""

    def __init__(self, high: float = 1.0):
        self.observation_space: Space[Any] = Box(-np.inf, np.inf, (2,), np.float64)
        self.action_space: Space[Any] = Box(-high, high, (1,), np.float32)
        self.taken: list[Any] = []
        self.seeds: list[int | None] = []

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.seeds.append(seed)
        self.count, self.place = 0, self.np_random.uniform(-1, 1)
        return np.array([self.place, self.count]), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.taken.append(action)
        self.count += 1
        self.place += float(action[0]) + self.np_random.normal()
        return np.array([self.place, self.count]), self.place, abs(self.place) > 2, self.count == 7, {}


class Chain(gymnasium.Env):
    """Discrete states and actions that do not start at 0; the state is the last action taken."""

    def __init__(self):
        self.observation_space: Space[Any] = Discrete(3, start=5)
        self.action_space: Space[Any] = Discrete(3, start=5)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        return np.int64(5), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        assert self.action_space.contains(action)
        return action, 0.0, False, False, {}


class Broken(Counting):
    """`Counting` whose third step gives what it should not."""

    def __init__(self, obs: Any = None, reward: float = 1.0, error: Exception | None = None):
        super().__init__(limit=100)
        self.bad_obs, self.bad_reward, self.error = obs, reward, error

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        obs, reward, terminated, truncated, info = super().step(action)
        if self.count < 3:
            return obs, reward, terminated, truncated, info
        if self.error is not None:
            raise self.error
        obs = obs if self.bad_obs is None else self.bad_obs
        return obs, self.bad_reward, terminated, truncated, info


class Spaces(Counting):
    """`Counting` with other spaces, to be refused before the first step."""

    def __init__(self, observation_space: Space[Any] | None = None, action_space: Space[Any] | None = None):
        super().__init__(limit=5)
        self.observation_space = observation_space or self.observation_space
        self.action_space = action_space or self.action_space


class Effort(gymnasium.Env):
    """Hold x near 0: the reward is −x², and the cost a², of 50 steps of x ← x + a/2 + N(0, 0.2²) from x = 2.

    With a = −kx and m_t = E x_t², m_0 = 4 and m_{t+1} = (1 − k/2)²·m_t + 0.04: the return is −Σ_{t=1}^{50} m_t and the
    cost k²·Σ_{t=0}^{49} m_t. The best gain, 2, costs 24; of a cost of 6, 0.8 makes the most.
    """

    def __init__(self, costs: bool = True):
        self.observation_space: Space[Any] = Box(-np.inf, np.inf, (2,), np.float64)
        self.action_space: Space[Any] = Box(-5.0, 5.0, (1,), np.float32)
        self.costs = costs

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.count, self.place = 0, 2.0
        return np.array([self.place, 0.0]), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.count += 1
        self.place += 0.5 * float(action[0]) + 0.2 * self.np_random.normal()
        info = {"cost": float(action[0]) ** 2} if self.costs else {}
        return np.array([self.place, self.count / 50]), -(self.place**2), self.count == 50, False, info


class Looking(Counting):
    """The reward says whether JAX is there."""

    def step(self, action: Any) -> Any:
        obs, _, *rest = super().step(action)
        return obs, float("jax" in sys.modules), *rest


class Fragile(Counting):
    """The one with that seed breaks in its third step."""

    def __init__(self, seed: int):
        super().__init__(100)
        self.breaks, self.mine = seed, False

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        self.mine = seed == self.breaks
        return super().reset(seed=seed)

    def step(self, action: Any) -> Any:
        if self.mine and self.count == 2:
            raise KeyError("wheel")
        return super().step(action)


class Slow(Counting):
    """A step takes 0.05 s."""

    def step(self, action: Any) -> Any:
        time.sleep(0.05)
        return super().step(action)


class Endless(Counting):
    """A step never ends."""

    def step(self, action: Any) -> Any:
        time.sleep(1000)


def vector(envs: Sequence[gymnasium.Env], mode: AutoresetMode) -> SyncVectorEnv:
    """The given environments as one vector environment in one autoreset mode."""
    return SyncVectorEnv([lambda env=env: env for env in envs], autoreset_mode=mode)


class Wrong(Counting):
    """The one with that seed gives in its third step what `answer` makes of the right answer."""

    def __init__(self, limit: int, seed: int, answer: Callable[..., Any]):
        super().__init__(limit)
        self.breaks, self.answer, self.seed = seed, answer, None

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        self.seed = seed if seed is not None else self.seed
        return super().reset(seed=seed)

    def step(self, action: Any) -> Any:
        right = super().step(action)
        return self.answer(*right) if self.seed == self.breaks and self.count == 3 else right


def wheel(*right: Any) -> Any:
    """What `Fragile` raises."""
    raise KeyError("wheel")


def leave(*right: Any) -> Any:
    """End the process as a crash would."""
    os._exit(3)


def killed(*right: Any) -> Any:
    """End the process as the system would, out of memory."""
    os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(100)


def hang(*right: Any) -> Any:
    """Never end."""
    time.sleep(1000)


class Twice(Wrong):
    """`Wrong` of the environment with the one seed, in its second step, and of the one with the other, in its third."""

    def __init__(self, seed: int, answer: Callable[..., Any], other: int, another: Callable[..., Any]):
        super().__init__(5, other, another)
        self.first, self.early = seed, answer

    def step(self, action: Any) -> Any:
        right = super().step(action)
        return self.early(*right) if self.seed == self.first and self.count == 2 else right


class Leaving(Counting):
    """Ends its process in the first step, always."""

    def step(self, action: Any) -> Any:
        leave()


class Unmade(Counting):
    """Ends any process in which it is made but the one with that number."""

    def __init__(self, mine: int):
        super().__init__(5)
        if os.getpid() != mine:
            leave()


class Signs(gymnasium.Env):
    """Say which sign was drawn, ten times: reward 1 where that is right, 5 in the mean for a guess.

    With that chance it breaks instead, in a way drawn from `ways`, at a reset in all as likely as in a step; and writes
    the kind of its fault into the file `log` first, also where its process ends.
    """

    WAYS: ClassVar[dict[str, tuple[str, Callable[..., Any]]]] = {
        "raises": ("raised", wheel),
        "nan": ("observation", lambda obs, *rest: (obs * np.nan, *rest)),
        "inf": ("observation", lambda obs, *rest: (obs - np.inf, *rest)),
        "shape": ("observation", lambda obs, *rest: (obs[:1], *rest)),
        "dtype": ("observation", lambda obs, *rest: (obs.astype(str), *rest)),
        "reward": ("reward", lambda obs, reward, *rest: (obs, None, *rest)),
        "words": ("reward", lambda obs, reward, *rest: (obs, "much", *rest)),
        "infinite": ("reward", lambda obs, reward, *rest: (obs, 1e39, *rest)),
        "nothing": ("answer", lambda *right: None),
        "leaves": ("died", leave),
        "killed": ("died", killed),
        "hangs": ("hung", hang),
    }

    def __init__(self, log: str, chance: float, ways: Sequence[str]):
        self.observation_space: Space[Any] = Box(-np.inf, np.inf, (2,), np.float64)
        self.action_space: Space[Any] = Discrete(2)
        self.log, self.chance, self.ways = log, chance, list(ways)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.count = 0
        return self._maybe(self._draw(), {})

    def step(self, action: Any) -> Any:
        reward = float(action == (self.sign > 0))
        self.count += 1
        return self._maybe(self._draw(), reward, False, self.count == 10, {})

    def _draw(self) -> np.ndarray:
        self.sign = self.np_random.choice([-1.0, 1.0])
        return np.array([self.sign, self.np_random.normal()])

    def _maybe(self, *right: Any) -> Any:
        if self.np_random.random() >= self.chance:
            return right
        way = self.ways[self.np_random.integers(len(self.ways))]
        kind, answer = self.WAYS[way]
        if len(right) == 2 and kind == "reward":
            return right
        with open(self.log, "a") as file:
            file.write(f"{kind}\n")
        return answer(*right)


class Tethered(gymnasium.Env):
    """Reward by the action and a random number; terminates after `LENGTH` − 1 steps. A lock is in the way of copies."""

    LENGTH = 12

    def __init__(self) -> None:
        self.observation_space: Space[Any] = Box(-np.inf, np.inf, (2,), np.float64)
        self.action_space: Space[Any] = Discrete(2)
        self.lock = threading.Lock()

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.count, self.place = 0, self.np_random.normal()
        return np.array([self.place, self.count]), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.count += 1
        self.place = self.np_random.normal()
        reward = float(action) * self.place
        return np.array([self.place, self.count]), reward, self.count == self.LENGTH - 1, False, {}


class Mortal(Walk):
    """`Walk` that ends its process in its 150th step since it was made."""

    age = 0

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.age += 1
        self.taken, self.seeds = [], []
        if self.age == 150:
            leave()
        return super().step(action)


class Orphaning(Counting):
    """Ends its process in the second step, and leaves a copy of it behind, whose number is in the file `log`."""

    def __init__(self, log: str):
        super().__init__(5)
        self.log = log

    def step(self, action: Any) -> Any:
        if self.count == 1:
            if not (orphan := os.fork()):
                hang()
            with open(self.log, "a") as file:
                file.write(f"{orphan}\n")
            leave()
        return super().step(action)
