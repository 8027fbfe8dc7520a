"""Small environments of several agents, with the methods of PettingZoo's ParallelEnv and nothing inherited from it."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from gymnasium.spaces import Box, Dict, Discrete


class Parallel:
    """The agents of `lives` act together; each has as many steps and ends as it says there: terminated, or cut."""

    lives: ClassVar[dict[str, tuple[int, bool]]] = {"brief": (1, True), "long": (3, False)}
    spaces: tuple[Any, Any] = (Box(-np.inf, np.inf, (3,), np.float64), Discrete(2))
    closed = 0

    def __init__(self):
        self.possible_agents = list(self.lives)
        self.agents: list[str] = []
        self.episode = 0

    def observation_space(self, agent: str) -> Any:
        return self.spaces[0]

    def action_space(self, agent: str) -> Any:
        return self.spaces[1]

    def reset(self, seed: int | None = None, options: Any = None) -> tuple[dict[str, Any], dict[str, Any]]:
        self.agents, self.time = list(self.possible_agents), 0
        self.episode = 0 if seed is not None else self.episode + 1
        if seed is not None or not hasattr(self, "random"):
            self.random = np.random.default_rng(seed)
        self.begin()
        return {agent: self.seen(agent) for agent in self.agents}, {agent: {} for agent in self.agents}

    def step(self, actions: dict[str, Any]) -> tuple[dict[str, Any], ...]:
        assert list(actions) == self.agents, (actions, self.agents)
        assert all(action in self.spaces[1] for action in actions.values())
        self.time += 1
        pay = self.paid(actions)
        ended = {agent: self.time >= self.lives[agent][0] for agent in actions}
        answer = (
            {agent: self.seen(agent) for agent in actions},
            pay,
            {agent: ended[agent] and self.lives[agent][1] for agent in actions},
            {agent: ended[agent] and not self.lives[agent][1] for agent in actions},
            {agent: {} for agent in actions},
        )
        self.agents = [agent for agent in self.agents if not ended[agent]]
        return answer

    def close(self) -> None:
        self.closed += 1

    def begin(self) -> None:
        """A new episode."""

    def seen(self, agent: str) -> Any:
        """(which agent, episode, step)."""
        return np.array([self.possible_agents.index(agent), self.episode, self.time], float)

    def paid(self, actions: dict[str, Any]) -> dict[str, Any]:
        """The step, and ten times that for the second."""
        return {agent: float(self.time * 10 ** self.possible_agents.index(agent)) for agent in actions}


class Noisy(Parallel):
    """With noise: one that is ended by its luck, one by its limit, and both."""

    lives: ClassVar = {"one": (12, False), "two": (12, False), "three": (12, False)}
    spaces = (Box(-np.inf, np.inf, (2,), np.float64), Discrete(3, start=1))

    def step(self, actions: dict[str, Any]) -> tuple[dict[str, Any], ...]:
        answer = super().step(actions)
        for agent in actions:
            answer[2][agent] = bool(self.random.random() < 0.1)
        self.agents = [agent for agent in self.agents if not answer[2][agent]]
        return answer

    def seen(self, agent: str) -> Any:
        return self.random.normal(size=2)


class Signals(Parallel):
    """Both see a signal: the first has to repeat it and the second to say the opposite, and both are paid 1 where all
    who are there do. The first leaves after two steps. Whoever acts always right has 2 and 4."""

    lives: ClassVar = {"repeats": (2, True), "opposes": (4, False)}
    spaces = (Discrete(4), Discrete(2))

    def begin(self) -> None:
        self.signal = int(self.random.integers(2))

    def seen(self, agent: str) -> Any:
        return np.int64(2 * self.possible_agents.index(agent) + self.signal)

    def paid(self, actions: dict[str, Any]) -> dict[str, Any]:
        right = {"repeats": self.signal, "opposes": 1 - self.signal}
        well = float(all(action == right[agent] for agent, action in actions.items()))
        self.signal = int(self.random.integers(2))
        return dict.fromkeys(actions, well)


class Gated(Parallel):
    """Each agent sees a number of four and is paid 1 for saying it. The next one is forbidden; what was forbidden and
    done all the same is counted. Whoever says always what it sees has 2 and 4."""

    lives: ClassVar = {"brief": (2, True), "long": (4, False)}
    spaces = (Box(0.0, 1.0, (4,), np.float32), Discrete(4))
    taken: ClassVar = [0, 0]
    shown = True

    def begin(self) -> None:
        self.number = {agent: int(self.random.integers(4)) for agent in self.lives}

    def seen(self, agent: str) -> Any:
        return np.eye(4, dtype=np.float32)[self.number[agent]]

    def mask(self, agent: str) -> np.ndarray:
        return (np.arange(4) != (self.number[agent] + 1) % 4).astype(np.int8)

    def reset(self, seed: int | None = None, options: Any = None) -> Any:
        obs, _ = super().reset(seed)
        return obs, {agent: {"action_mask": self.mask(agent)} for agent in obs}

    def step(self, actions: dict[str, Any]) -> Any:
        obs, *rest, _ = super().step(actions)
        return obs, *rest, {agent: {"action_mask": self.mask(agent)} for agent in obs}

    def paid(self, actions: dict[str, Any]) -> dict[str, Any]:
        pay = {}
        for agent, action in actions.items():
            self.taken[0] += 1
            self.taken[1] += not self.mask(agent)[action]
            pay[agent] = float(action == self.number[agent])
            self.number[agent] = int(self.random.integers(4))
        return pay


class Shown(Gated):
    """The same, as PettingZoo has it: the mask is in the observation."""

    def observation_space(self, agent: str) -> Any:
        return Dict(observation=self.spaces[0], action_mask=Box(0, 1, (4,), np.int8))

    def seen(self, agent: str) -> Any:
        return {"observation": super().seen(agent), "action_mask": self.mask(agent)}


class Moody(Noisy):
    """`Noisy` that breaks now and then, in one of `WAYS`, and writes it down first in the file `log`."""

    WAYS = ("raises", "nan", "reward", "gone", "reset")

    def __init__(self, log: str, chance: float = 0.1):
        super().__init__()
        self.log, self.chance = log, chance

    def broken(self, way: str) -> bool:
        found = self.random.random() < self.chance / len(self.WAYS)
        if found:
            with open(self.log, "a") as file:
                file.write(way + "\n")
        return found

    def begin(self) -> None:
        if self.broken("reset"):
            raise OSError("no display")

    def step(self, actions: dict[str, Any]) -> Any:
        obs, pay, ends, cuts, infos = super().step(actions)
        last = next(reversed(actions))
        if self.broken("raises"):
            raise KeyError("wheel")
        if self.broken("nan"):
            obs[last] = obs[last] * np.nan
        elif self.broken("reward"):
            pay[last] = None
        elif self.agents and self.broken("gone"):
            self.agents = []
        return obs, pay, ends, cuts, infos
