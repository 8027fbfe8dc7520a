"""PettingZoo's parallel environments as one world, for one policy that all agents share.

    row e·A + a     agent a of environment e, in the order of possible_agents; B = E·A rows

To the sampler an agent is what an environment is elsewhere: it has rows, episodes and returns of its own. Who ends
before the others is a ghost until the last has ended; in that step the environment is reset.

    row of        agent 0        agent 1
    step 1        terminated     goes on
    step 2        ghost          truncated      next_obs is the true successor, obs the first of the next episode
    step 3        goes on        goes on

A fault of an environment is one in the rows of all of its agents who have not ended (`faults.py`).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, MutableSequence, Sequence
from typing import Any

import numpy as np

from steepest.errors import RunError, UsageError
from steepest.spaces import Joint
from steepest.worlds.answers import not_finite, raised, short
from steepest.worlds.costs import KEY, reported_costs
from steepest.worlds.crew import Crew, Mistake
from steepest.worlds.faults import ATTEMPTS, Fault, Irreparable, Report
from steepest.worlds.observing import Reader, described
from steepest.worlds.world import Transition, environment_seeds, seed_anew


class ParallelWorld:
    """A World of parallel environments with the same agents.

    environments: at least one.  name: as in errors; by default the name of the first one's class.  again: () ↦ one more
    environment like them, where there can be more.

    agents: A, rows of one environment.  envs: B, rows in all.

    Raises UsageError for agents whose spaces differ, and for spaces that no policy here can take.
    """

    backend = "pettingzoo"

    def __init__(self, environments: Sequence[Any], name: str | None = None, again: Callable[[], Any] | None = None):
        first = environments[0]
        self.name = name or called(first)
        self._names = list(first.possible_agents)
        self.agents, self.envs = len(self._names), len(self._names) * len(environments)
        self._check_agents(environments)
        self.observation_space = _shared(self.name, first, "observation_space")
        self.action_space = _shared(self.name, first, "action_space")
        self.reader = Reader(self.observation_space, described(self.name, self.observation_space, "observation"))
        self._action = described(self.name, self.action_space, "action")
        self._crews = [Crew(environment, self._names, self.reader) for environment in environments]
        self._again, self._first, self._total = again, 0, self.envs
        self._report: Report | None = None
        self._at: MutableSequence[int] = [-1, -1]
        self._renewed = np.zeros(len(environments), int)  # how often each was made again since the last reset
        self._obs: np.ndarray | None = None
        self._seed: int | None = None
        self._steps, self._closed = 0, False

    @property
    def obs(self) -> np.ndarray:
        """[B,…] what to act upon next; of a ghost the last there was. Raises UsageError before the first reset."""
        if self._obs is None:
            raise UsageError(f"world {self.name!r} must be reset before it is used")
        return self._obs

    @property
    def environments(self) -> list[Any]:
        """All of them, as they are stepped."""
        return [crew.environment for crew in self._crews]

    def number(self, first: int, total: int) -> None:
        """Be the rows first, first + 1, … of `total` in what errors say."""
        self._first, self._total = first, total

    def bear(self, report: Report, at: MutableSequence[int] | None = None) -> None:
        """From now on report each fault and make its environment anew, where that can be: see `faults.py`.

        at: is kept at (the first row of the environment that is being called, the step of this world).
        """
        if self._again is not None:
            self._report, self._at = report, self._at if at is None else at

    def reset(self, seed: int | None = None) -> np.ndarray:
        """Start a new episode in every environment; see `World.reset`."""
        self._seed, self._steps, count = seed, 0, len(self._crews)
        self._renewed = np.zeros(count, int)
        self._at[1] = 0
        seeds = [None] * count if seed is None else environment_seeds(seed, count)
        self._obs = np.concatenate([self._begin(e, one) for e, one in enumerate(seeds)])
        return self._obs

    def step(self, action: np.ndarray) -> Transition:
        """One step of all environments; actions of ghosts are ignored. Raises RunError for a fault that is not borne
        with."""
        given, valid = self._actions(action), np.concatenate([crew.alive for crew in self._crews])
        self._steps += 1
        self._at[1] = self._steps
        reward, next_obs = np.zeros(self.envs, np.float32), self.obs.copy()
        terminated, truncated = np.zeros((2, self.envs), bool)
        costs, fresh = dict[int, Any](), dict[int, np.ndarray]()
        for e, crew in enumerate(self._crews):
            rows = slice(e * self.agents, (e + 1) * self.agents)
            self._at[0] = self._first + rows.start
            try:
                acted = crew.step(given[rows], self.obs[rows])
            except Mistake as mistake:
                self._bear(e, mistake, given[rows])
                fresh[e] = self._anew(e)
                truncated[rows], valid[rows] = valid[rows], False
                continue
            reward[rows], next_obs[rows], terminated[rows], truncated[rows] = acted[:4]
            costs |= {rows.start + a: cost for a, cost in acted.costs.items()}
            if not crew.alive.any():
                fresh[e] = self._begin(e, None)
        self._obs = next_obs.copy() if fresh else next_obs
        for e, first in fresh.items():
            self._obs[e * self.agents : (e + 1) * self.agents] = first
        return Transition(reward, next_obs, terminated, truncated, valid, self._costs(costs, valid))

    def close(self) -> None:
        """Close the environments; may be called twice."""
        if not self._closed:
            self._closed = True
            for crew in self._crews:
                crew.environment.close()

    def _begin(self, e: int, seed: int | None) -> np.ndarray:
        """A new episode of one environment: what its agents see, [A,…]."""
        self._at[0] = self._first + e * self.agents
        try:
            return self._crews[e].reset(seed)
        except Mistake as mistake:
            self._bear(e, mistake)
            return self._anew(e)

    def _bear(self, e: int, mistake: Mistake, action: Any = None) -> None:
        """Report it. Raises RunError where that is not to be borne with."""
        fault = self._fault(e, mistake, action)
        if self._report is None:
            raise RunError(str(fault)) from mistake.wrong.cause
        self._report(fault)

    def _anew(self, e: int) -> np.ndarray:
        """Make an environment again: its first observations [A,…]."""
        assert self._again is not None
        assert self._report is not None
        said = ""
        for _ in range(ATTEMPTS):
            self._renewed[e] += 1
            with contextlib.suppress(Exception, SystemExit):  # it is broken; that it cannot be closed is no news
                self._crews[e].environment.close()
            try:
                self._crews[e] = Crew(self._made(), self._names, self.reader)
                return self._crews[e].reset(seed_anew(self._seed, e, int(self._renewed[e])))
            except Mistake as mistake:
                wrong = mistake.wrong._replace(what=f"{mistake.wrong.what}, when it was made again")
                fault = self._fault(e, Mistake(wrong, mistake.agent))
                said = str(fault)
                self._report(fault)
        raise Irreparable(f"{said}; so it did {ATTEMPTS} times in a row")

    def _made(self) -> Any:
        assert self._again is not None
        try:
            return self._again()
        except (Exception, SystemExit) as error:
            raise Mistake(raised(error)) from error

    def _actions(self, action: np.ndarray) -> Any:
        """[B] things for the environments."""
        action, shape = np.asarray(action), (self.envs, *self._action.shape)
        if self._obs is None or action.shape != shape:
            raise UsageError(f"{self.name} takes actions of shape {shape} after a reset, got shape {action.shape}")
        for i, wrong in not_finite("action", action, action).items():  # the policy's doing
            wrong = wrong._replace(what=wrong.what.replace("returned", "was to be given"))
            raise RunError(str(self._fault(i // self.agents, Mistake(wrong, i % self.agents))))
        if isinstance(self._action, Joint):
            return [self._action.to_environment(one) for one in action]
        return self._action.to_environment(action)

    def _costs(self, costs: dict[int, Any], valid: np.ndarray) -> np.ndarray | None:
        values, who = np.zeros(self.envs, object), np.zeros(self.envs, bool)
        for i, cost in costs.items():
            values[i], who[i] = cost, True
        return reported_costs({KEY: values, f"_{KEY}": who} if costs else {}, valid)

    def _check_agents(self, environments: Sequence[Any]) -> None:
        if not self._names:
            raise UsageError(f"{self.name} has no possible_agents")
        for environment in environments[1:]:
            if list(environment.possible_agents) != self._names:
                theirs = list(environment.possible_agents)
                raise UsageError(f"the environments of {self.name} differ in their agents: {self._names} and {theirs}")

    def _fault(self, e: int, mistake: Mistake, action: Any = None) -> Fault:
        wrong, agent = mistake.wrong, mistake.agent
        who = f"environment {self._first // self.agents + e} of {self._total // self.agents}"
        who = who if agent is None else f"agent {self._names[agent]!r} of {who}"
        where = f"step {self._steps}" if self._steps else "the reset"
        given = "" if action is None or agent is None else f"action {short(action[agent])}"
        values = "; ".join(filter(None, (given, wrong.values)))
        row = self._first + e * self.agents + (agent or 0)
        return Fault(row, self._steps, wrong.kind, f"{self.name}: {who} {wrong.what} (at {where})", values)


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
