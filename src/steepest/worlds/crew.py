"""One of PettingZoo's parallel environments, or one of its form, as arrays: a row for each of its agents.

Nothing is inherited of PettingZoo, and nothing imported: what has its methods is such an environment.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from steepest.worlds.answers import Wrong, no_answer, no_number, not_finite, raised
from steepest.worlds.costs import KEY
from steepest.worlds.observing import Misfit, Reader


class Mistake(Exception):
    """What the environment did wrong.  agent: whose row shows it, by number; None where that cannot be said."""

    def __init__(self, wrong: Wrong, agent: int | None = None):
        super().__init__(wrong.what)
        self.wrong, self.agent = wrong, agent


class Acted(NamedTuple):
    """A step of A agents; the rows of those who had ended before are 0, their observation the last there was.

    reward: [A] float32.  obs: [A,…].  terminated, truncated: [A] bool.  costs: of those who reported one, by number.
    """

    reward: np.ndarray
    obs: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray
    costs: dict[int, Any]


class Crew:
    """environment: with `possible_agents` that are `names`.  reader: of their observations.

    alive: [A] bool, who has not ended since the last reset.
    """

    def __init__(self, environment: Any, names: Sequence[Any], reader: Reader):
        self.environment, self._names, self._reader = environment, list(names), reader
        self.alive = np.zeros(len(self._names), bool)

    def reset(self, seed: int | None) -> np.ndarray:
        """A new episode: what the agents see, [A,…]. Raises Mistake."""
        answer = self._call(self.environment.reset, seed=seed)
        try:
            obs, _ = answer
            for name in self._names:
                if name not in obs:
                    what = f"began an episode without its agent {name!r}: agents that come later are not supported"
                    raise Mistake(Wrong("answer", what))
            seen = {a: self._read(a, obs[name]) for a, name in enumerate(self._names)}
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise Mistake(no_answer(answer, error)) from error
        first = self._inside(seen)
        self.alive[:] = True
        return first

    def step(self, actions: Sequence[Any], before: np.ndarray) -> Acted:
        """actions: of all agents, of which those of the ended are ignored.  before: [A,…] what they saw.

        Raises Mistake; who is alive is then as it was."""
        count = len(self._names)
        rewards: list[Any] = [0.0] * count
        terminated, truncated = np.zeros((2, count), bool)
        costs, seen = dict[int, Any](), dict[int, np.ndarray]()
        there = np.flatnonzero(self.alive).tolist()
        answer = self._call(self.environment.step, {self._names[a]: actions[a] for a in there})
        try:
            obs, pay, ends, cuts, infos = answer
            for a in there:
                name = self._names[a]
                rewards[a], terminated[a], truncated[a] = pay[name], ends[name], cuts[name]
                if name in obs or not terminated[a]:  # of a state that has no value none is needed
                    seen[a] = self._read(a, obs[name])
                if KEY in infos.get(name, ()):
                    costs[a] = infos[name][KEY]
            reward, alive = self._rewards(rewards, there), self.alive & ~(terminated | truncated)
            self._check_lost(alive)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise Mistake(no_answer(answer, error)) from error
        after = before.copy()
        if seen:
            after[list(seen)] = self._inside(seen)
        self.alive = alive
        return Acted(reward, after, terminated, truncated, costs)

    def _read(self, a: int, raw: Any) -> np.ndarray:
        try:
            return self._reader.one(raw)
        except Misfit as error:
            raise Mistake(error.wrong, a) from error

    def _inside(self, seen: dict[int, np.ndarray]) -> np.ndarray:
        """Observations by agent, as they were read ↦ [n,…] in the dtype of a rollout."""
        raw, agents = np.stack(list(seen.values())), list(seen)
        with np.errstate(over="ignore"):
            obs = self._reader.inside(raw)
        for k, wrong in {**not_finite("observation", obs, raw), **self._reader.outside(obs, raw)}.items():
            raise Mistake(wrong, agents[k])
        return obs

    def _rewards(self, given: list[Any], there: list[int]) -> np.ndarray:
        for a in there:
            array = np.asarray(given[a])
            if array.size != 1 or array.dtype.kind not in "fiub":
                raise Mistake(no_number(given[a]), a)
            given[a] = array.item()
        with np.errstate(over="ignore"):
            reward = np.array(given, np.float32)
        for a, wrong in not_finite("reward", reward, given).items():
            raise Mistake(wrong, a)
        return reward

    def _check_lost(self, alive: np.ndarray) -> None:
        """Raise Mistake for an agent that is no more in its environment's `agents` and has not ended."""
        there = set(self.environment.agents)
        for a in np.flatnonzero(alive).tolist():
            if self._names[a] not in there:
                what = "is no more among the agents of its environment, which did not end it"
                raise Mistake(Wrong("answer", what), a)

    def _call(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except (Exception, SystemExit) as error:
            raise Mistake(raised(error)) from error
