"""Small environments of several agents, with the methods of PettingZoo's ParallelEnv and nothing inherited from it."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from gymnasium.spaces import Box, Discrete


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
