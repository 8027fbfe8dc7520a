"""PettingZoo's parallel environments as one world, for one policy that all agents share.

    row e·A + a     agent a of environment e, in the order of possible_agents; B = E·A rows

To the sampler an agent is what an environment is elsewhere: it has rows, episodes and returns of its own. Who ends
before the others is a ghost until the last has ended; in that step the environment is reset.

    row of        agent 0        agent 1
    step 1        terminated     goes on
    step 2        ghost          truncated      next_obs is the true successor, obs the first of the next episode
    step 3        goes on        goes on

Nothing is inherited of PettingZoo, and nothing imported: what has its methods is such an environment.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from steepest.errors import RunError, UsageError
from steepest.spaces import Joint
from steepest.worlds.answers import Wrong, no_answer, no_number, not_finite, raised
from steepest.worlds.costs import KEY, reported_costs
from steepest.worlds.observing import Misfit, Reader, described
from steepest.worlds.world import Transition, environment_seeds


class ParallelWorld:
    """A World of parallel environments with the same agents.

    environments: at least one.  name: as in errors; by default the name of the first one's class.

    agents: A, rows of one environment.  envs: B, rows in all.

    Raises UsageError for agents whose spaces differ, and for spaces that no policy here can take. What an environment
    does wrong is a RunError: it is not made anew.
    """

    backend = "pettingzoo"

    def __init__(self, environments: Sequence[Any], name: str | None = None):
        self._environments, first = list(environments), environments[0]
        self.name = name or called(first)
        self._names = list(first.possible_agents)
        self.agents, self.envs = len(self._names), len(self._names) * len(self._environments)
        self._check_agents()
        self.observation_space = _shared(self.name, first, "observation_space")
        self.action_space = _shared(self.name, first, "action_space")
        if "action_mask" in getattr(self.observation_space, "spaces", {}):
            raise UsageError(
                f"{self.name}: its observations hold an action_mask, and a world of several agents takes no masks yet: "
                "leave it out of them, and make an action that is not allowed do nothing"
            )
        self.reader = Reader(self.observation_space, described(self.name, self.observation_space, "observation"))
        self._action = described(self.name, self.action_space, "action")
        self._alive = np.zeros(self.envs, bool)
        self._obs: np.ndarray | None = None
        self._steps, self._closed = 0, False

    @property
    def obs(self) -> np.ndarray:
        """[B,…] what to act upon next; of a ghost the last there was. Raises UsageError before the first reset."""
        if self._obs is None:
            raise UsageError(f"world {self.name!r} must be reset before it is used")
        return self._obs

    def reset(self, seed: int | None = None) -> np.ndarray:
        """Start a new episode in every environment; see `World.reset`."""
        self._steps = 0
        count = len(self._environments)
        seeds = [None] * count if seed is None else environment_seeds(seed, count)
        self._obs = np.concatenate([self._begin(e, one) for e, one in enumerate(seeds)])
        return self._obs

    def step(self, action: np.ndarray) -> Transition:
        """One step of all environments; actions of ghosts are ignored."""
        given, valid = self._actions(action), self._alive.copy()
        self._steps += 1
        rewards: list[Any] = [0.0] * self.envs
        terminated, truncated = np.zeros((2, self.envs), bool)
        costs, seen = dict[int, Any](), dict[int, np.ndarray]()
        for e, environment in enumerate(self._environments):
            rows = [i for i in self._rows(e) if valid[i]]
            answer = self._call(e, environment.step, {self._name(i): given[i] for i in rows})
            try:
                obs, pay, ends, cuts, infos = answer
                for i in rows:
                    name = self._name(i)
                    rewards[i], terminated[i], truncated[i] = pay[name], ends[name], cuts[name]
                    if name in obs or not terminated[i]:  # of a state that has no value none is needed
                        seen[i] = self._read(i, obs[name])
                    if KEY in infos.get(name, ()):
                        costs[i] = infos[name][KEY]
            except (KeyError, TypeError, ValueError, AttributeError) as error:
                raise self._error(no_answer(answer, error), e) from error
        reward = self._rewards(rewards, valid)
        next_obs = self._with(self.obs, seen)
        self._alive, self._obs = valid & ~(terminated | truncated), next_obs
        self._check_lost()
        over = ~self._alive.reshape(-1, self.agents).any(axis=1)
        if over.any():
            self._obs = next_obs.copy()
            for e in map(int, np.flatnonzero(over)):
                self._obs[self._rows(e)] = self._begin(e, None)
        return Transition(reward, next_obs, terminated, truncated, valid, self._costs(costs, valid))

    def close(self) -> None:
        """Close the environments; may be called twice."""
        if not self._closed:
            self._closed = True
            for environment in self._environments:
                environment.close()

    def _rows(self, e: int) -> range:
        return range(e * self.agents, (e + 1) * self.agents)

    def _name(self, i: int) -> Any:
        return self._names[i % self.agents]

    def _begin(self, e: int, seed: int | None) -> np.ndarray:
        """A new episode of one environment: what its agents see, [A,…]."""
        answer = self._call(e, self._environments[e].reset, seed=seed)
        rows = self._rows(e)
        try:
            obs, _ = answer
            for name in self._names:
                if name not in obs:
                    what = f"began an episode without its agent {name!r}: agents that come later are not supported"
                    raise self._error(Wrong("answer", what), e)
            seen = {i: self._read(i, obs[self._name(i)]) for i in rows}
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise self._error(no_answer(answer, error), e) from error
        self._alive[rows] = True
        return self._inside(seen)

    def _read(self, i: int, raw: Any) -> np.ndarray:
        try:
            return self.reader.one(raw)
        except Misfit as error:
            raise self._error(error.wrong, i // self.agents, self._name(i)) from error

    def _with(self, obs: np.ndarray, seen: dict[int, np.ndarray]) -> np.ndarray:
        """A copy of observations [B,…], with those that were seen now in their rows."""
        obs = obs.copy()
        if seen:
            obs[list(seen)] = self._inside(seen)
        return obs

    def _inside(self, seen: dict[int, np.ndarray]) -> np.ndarray:
        """Observations by row, as they were read ↦ [n,…] in the dtype of a rollout."""
        raw, rows = np.stack(list(seen.values())), list(seen)
        with np.errstate(over="ignore"):
            obs = self.reader.inside(raw)
        for k, wrong in {**not_finite("observation", obs, raw), **self.reader.outside(obs, raw)}.items():
            raise self._error(wrong, rows[k] // self.agents, self._name(rows[k]))
        return obs

    def _actions(self, action: np.ndarray) -> Any:
        """[B] things for the environments."""
        action, shape = np.asarray(action), (self.envs, *self._action.shape)
        if self._obs is None or action.shape != shape:
            raise UsageError(f"{self.name} takes actions of shape {shape} after a reset, got shape {action.shape}")
        for i, wrong in not_finite("action", action, action).items():  # the policy's doing
            wrong = wrong._replace(what=wrong.what.replace("returned", "was to be given"))
            raise self._error(wrong, i // self.agents, self._name(i))
        if isinstance(self._action, Joint):
            return [self._action.to_environment(one) for one in action]
        return self._action.to_environment(action)

    def _rewards(self, given: list[Any], valid: np.ndarray) -> np.ndarray:
        for i in map(int, np.flatnonzero(valid)):
            array = np.asarray(given[i])
            if array.size != 1 or array.dtype.kind not in "fiub":
                raise self._error(no_number(given[i]), i // self.agents, self._name(i))
            given[i] = array.item()
        with np.errstate(over="ignore"):
            reward = np.array(given, np.float32)
        for i, wrong in not_finite("reward", reward, given).items():
            raise self._error(wrong, i // self.agents, self._name(i))
        return reward

    def _costs(self, costs: dict[int, Any], valid: np.ndarray) -> np.ndarray | None:
        values, who = np.zeros(self.envs, object), np.zeros(self.envs, bool)
        for i, cost in costs.items():
            values[i], who[i] = cost, True
        return reported_costs({KEY: values, f"_{KEY}": who} if costs else {}, valid)

    def _check_lost(self) -> None:
        """Raise RunError for an agent that is no more in its environment's `agents` and has not ended."""
        for e, environment in enumerate(self._environments):
            there = set(environment.agents)
            for i in self._rows(e):
                if self._alive[i] and self._name(i) not in there:
                    what = "is no more among the agents of its environment, which did not end it"
                    raise self._error(Wrong("answer", what), e, self._name(i))

    def _check_agents(self) -> None:
        if not self._names:
            raise UsageError(f"{self.name} has no possible_agents")
        for environment in self._environments[1:]:
            if list(environment.possible_agents) != self._names:
                theirs = list(environment.possible_agents)
                raise UsageError(f"the environments of {self.name} differ in their agents: {self._names} and {theirs}")

    def _call(self, e: int, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except Exception as error:
            raise self._error(raised(error), e) from error

    def _error(self, wrong: Wrong, e: int, agent: Any = None) -> RunError:
        who = f"environment {e} of {len(self._environments)}"
        who = who if agent is None else f"agent {agent!r} of {who}"
        values = f" ({wrong.values})" if wrong.values else ""
        return RunError(
            f"{self.name}: {who} {wrong.what} (at {f'step {self._steps}' if self._steps else 'the reset'}){values}"
        )


def called(environment: Any) -> str:
    """The name of its class."""
    return type(getattr(environment, "unwrapped", environment)).__name__


def _shared(name: str, environment: Any, kind: str) -> Any:
    """The space of all agents.  kind: "observation_space" or "action_space". Raises UsageError where they differ."""
    spaces: Mapping[Any, Any] = {agent: getattr(environment, kind)(agent) for agent in environment.possible_agents}
    (first, own), *_ = spaces.items()
    other = [agent for agent, space in spaces.items() if space != own]
    if other:
        raise UsageError(
            f"{name}: one policy acts for all agents, whose {kind.replace('_', ' ')}s must be the same: {first!r} has "
            f"{own}, but {', '.join(map(repr, other))} {'has' if len(other) == 1 else 'have'} {spaces[other[0]]}"
            f"{' and others' if any(spaces[agent] != spaces[other[0]] for agent in other) else ''}"
        )
    return own
