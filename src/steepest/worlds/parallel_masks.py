"""Action masks of several agents: a parallel environment whose agents observe what they may do, as [obs, mask].

    obs[agent] = {"observation": …, "action_mask": …}     PettingZoo's own habit; the mask leaves the observation
    infos[agent]["action_mask"]                           of every reset and step

What a mask may be, and when one is a fault, is as of `masks.py`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium.spaces import Dict

from steepest.errors import RunError
from steepest.spaces import describe
from steepest.worlds.masks import KEY, MaskedSpace, checked, sizes_of


class ShowsMasksOfAgents:
    """environment: of PettingZoo's form.  Raises UsageError where there is nothing to mask."""

    def __init__(self, environment: Any):
        self.environment, first = environment, environment.possible_agents[0]
        self.possible_agents = environment.possible_agents
        self._observe = {a: self._describe(a).from_environment for a in self.possible_agents}
        self._action = {a: describe(environment.action_space(a), "action") for a in self.possible_agents}
        self._size = sum(sizes_of(environment.action_space(first)))

    @property
    def agents(self) -> Any:
        return self.environment.agents

    @property
    def unwrapped(self) -> Any:
        return getattr(self.environment, "unwrapped", self.environment)

    def observation_space(self, agent: Any) -> MaskedSpace:
        return MaskedSpace(without_mask(self.environment.observation_space(agent)), self._size)

    def action_space(self, agent: Any) -> Any:
        return self.environment.action_space(agent)

    def reset(self, seed: int | None = None, options: Any = None) -> tuple[dict[Any, Any], Any]:
        obs, infos = self.environment.reset(seed=seed)
        return {
            agent: self._shown(agent, raw, infos.get(agent, {}), False)
            for agent, raw in obs.items()
            if agent in self._observe
        }, infos

    def step(self, actions: Any) -> tuple[dict[Any, Any], Any, Any, Any, Any]:
        obs, pay, ends, cuts, infos = self.environment.step(actions)
        shown = {
            agent: self._shown(agent, raw, infos.get(agent, {}), bool(ends[agent] or cuts[agent]))
            for agent, raw in obs.items()
            if agent in actions
        }
        return shown, pay, ends, cuts, infos

    def close(self) -> None:
        self.environment.close()

    def _describe(self, agent: Any) -> Any:
        return describe(without_mask(self.environment.observation_space(agent)), "observation")

    def _shown(self, agent: Any, raw: Any, info: Any, over: bool) -> np.ndarray:
        if _in_observation(self.environment.observation_space(agent)):
            mask, rest = raw[KEY], {name: part for name, part in raw.items() if name != KEY}
            raw = next(iter(rest.values())) if len(rest) == 1 else rest
        elif KEY in info:
            mask = info[KEY]
        elif over:  # nothing is chosen there
            mask = np.ones(self._size)
        else:
            raise RunError(f'said nothing of what agent {agent!r} may do: no "{KEY}" in its observation or its info')
        own = np.ravel(self._observe[agent](raw))
        return np.concatenate([own, checked(mask, self._action[agent], over)], dtype=np.float32)


def without_mask(space: Any) -> Any:
    """A space of observations without the mask in it; of one part that is left, the space of that."""
    if not _in_observation(space):
        return space
    rest = {name: part for name, part in space.spaces.items() if name != KEY}
    return next(iter(rest.values())) if len(rest) == 1 else Dict(rest)


def offers_masks_in_observations(environment: Any) -> bool:
    """Whether they are part of what the agents observe."""
    return _in_observation(environment.observation_space(environment.possible_agents[0]))


def offers_masks_of_agents(environment: Any) -> bool:
    """Whether its agents are told what they may do; it is reset, if that is not in their observations."""
    if offers_masks_in_observations(environment):
        return True
    _, infos = environment.reset(seed=0)
    return all(KEY in infos.get(agent, ()) for agent in environment.possible_agents)


def _in_observation(space: Any) -> bool:
    return isinstance(space, Dict) and KEY in space.spaces
