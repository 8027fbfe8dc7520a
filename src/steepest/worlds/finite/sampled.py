"""A finite MDP as a world to sample from: B copies step together, in NumPy, from one random generator.

Sampled and exact are the same tables, so whatever an estimator makes of these transitions has a known limit.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from steepest.errors import UsageError
from steepest.worlds.finite.generators import MDPS
from steepest.worlds.finite.model import FiniteHorizonMDP
from steepest.worlds.finite.streams import Streams
from steepest.worlds.finite.tables import at
from steepest.worlds.world import Transition, environment_seeds


class MDPState(NamedTuple):
    """One copy: its state, h, and the state of the generator that all copies draw from."""

    state: int
    time: int
    generator: Any


class MDPWorld:
    """`envs` copies of a finite MDP as a vector world; the observation is the state's index.

    A copy resets itself in the step that ends its episode: `obs` is then the new episode's first state, while the
    transition's next_obs is the true successor. Step H returns terminated=True: the end of the horizon is part of the
    world, no cut, and nothing is truncated ever. It is a `SettableWorld`.

    obs: [B] int32, where the next action will be taken.
    time: [B], h of that action, 0 … H−1.

    Raises UsageError for envs < 1 and, in `step`, for actions that do not exist.
    """

    backend = "mdp"

    def __init__(self, mdp: FiniteHorizonMDP, envs: int, *, name: str = "mdp", seed: int = 0):
        if envs < 1:
            raise UsageError(f"a world has at least one environment, got envs={envs}")
        from gymnasium.spaces import Discrete

        self.mdp = mdp
        self.name = name
        self.envs = envs
        self.observation_space = Discrete(mdp.states)
        self.action_space = Discrete(mdp.actions)
        self._successors = cumulative(mdp.transition)
        self._starts = cumulative(mdp.initial)
        self._streams: Streams | None = None
        self.reset(seed)

    @property
    def obs(self) -> Int[np.ndarray, " B"]:
        """The states now, [B] int32."""
        return self._state.astype(np.int32)

    def reset(self, seed: int | None = None) -> Int[np.ndarray, " B"]:
        """Start all episodes afresh, and give `obs`. The same seed and actions give the same transitions; None goes on
        with the same stream."""
        if seed is not None:
            # hashed: a caller who draws actions from default_rng(seed) must not share the world's stream
            self._rng = np.random.default_rng(environment_seeds(seed, 1))
        self._state = self._start(self.envs)
        self.time = np.zeros(self.envs, np.int64)
        return self.obs

    def step(self, action: Int[Any, " B"]) -> Transition:
        """One step of every copy. action: [B] int, 0 … A−1."""
        reward, successor = self._outcome(action, self._rng.random(self.envs))
        self.time = self.time + 1
        ended = self.time == self.mdp.horizon
        self._state = successor.copy()
        self._state[ended] = self._start(int(ended.sum()))
        self.time[ended] = 0
        return Transition(
            reward=reward.astype(np.float32),
            next_obs=successor.astype(np.int32),
            terminated=ended,
            truncated=np.zeros(self.envs, bool),
            valid=np.ones(self.envs, bool),
        )

    def close(self) -> None:
        """Nothing is held."""

    def get_state(self, envs: Sequence[int] | None = None) -> list[MDPState]:
        """See `SettableWorld.get_state`."""
        generator = self._rng.bit_generator.state
        which = range(self.envs) if envs is None else envs
        return [MDPState(int(self._state[i]), int(self.time[i]), generator) for i in which]

    def set_state(
        self, states: Sequence[MDPState], seeds: Sequence[int] | np.ndarray | None = None
    ) -> Int[np.ndarray, " B"]:
        """See `SettableWorld.set_state`. Without seeds the one generator goes on as it did after the first snapshot."""
        for what, given in (("states", states), ("seeds", seeds)):
            if given is not None and len(given) != self.envs:
                raise UsageError(f"{self.name} has {self.envs} environments, got {len(given)} {what}")
        self._state = np.array([s.state for s in states], np.int64)
        self.time = np.array([s.time for s in states], np.int64)
        self._rng.bit_generator.state = states[0].generator
        self._streams = None if seeds is None else Streams(seeds)
        return self.obs

    def advance(self, action: Int[Any, " B"], running: Any) -> Transition:
        """See `SettableWorld.advance`. A copy that ends stays where it is."""
        uniforms = self._rng.random(self.envs) if self._streams is None else self._streams.random()
        reward, successor = self._outcome(action, uniforms)
        running = np.array(running, bool)
        ended = running & (self.time + 1 == self.mdp.horizon)
        on = running & ~ended
        next_obs = np.where(running, successor, self._state)
        self._state = np.where(on, successor, self._state)
        self.time = self.time + on
        return Transition(
            reward=np.where(running, reward, 0.0).astype(np.float32),
            next_obs=next_obs.astype(np.int32),
            terminated=ended,
            truncated=np.zeros(self.envs, bool),
            valid=running,
        )

    def _outcome(self, action: Any, uniforms: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Rewards and successors of actions [B] in the states now."""
        action = np.asarray(action)
        if action.shape != (self.envs,) or action.dtype.kind not in "iu":
            raise UsageError(f"expected {self.envs} integer actions, got {action.dtype} of shape {list(action.shape)}")
        if np.any((action < 0) | (action >= self.mdp.actions)):
            raise UsageError(f"actions are 0 … {self.mdp.actions - 1}, got {action.min()} … {action.max()}")
        reward = _row(self.mdp.reward, self.time, self._state, action, axes=2)
        return reward, _invert(_row(self._successors, self.time, self._state, action, axes=3), uniforms)

    def _start(self, count: int) -> Int[np.ndarray, " count"]:
        return _draw(np.broadcast_to(self._starts, (count, self.mdp.states)), self._rng)


def make_mdp(name: str, envs: int, **kwargs: Any) -> MDPWorld:
    """`envs` copies of the registered MDP `name`, as in `mdp:two-state`.

    kwargs: for its generator, as in horizon=50.

    Raises UsageError for a name that is not registered and for arguments that its generator does not take.
    """
    return MDPWorld(MDPS.call(name, **kwargs), envs, name=name)


def sample_paths(
    mdp: FiniteHorizonMDP, policy_or_table: Any, paths: int, rng: np.random.Generator
) -> tuple[Int[np.ndarray, "N H"], Int[np.ndarray, "N H"], Float[np.ndarray, "N H"]]:
    """Draw N = `paths` independent paths s_0, a_0, r_0, …, a_{H−1}, r_{H−1}: (states, actions, rewards), each [N,H]."""
    choices = cumulative(mdp.probabilities(policy_or_table))
    successors = cumulative(mdp.transition)
    states = np.empty((paths, mdp.horizon), np.int64)
    actions = np.empty_like(states)
    rewards = np.empty(states.shape)
    state = _draw(np.broadcast_to(cumulative(mdp.initial), (paths, mdp.states)), rng)
    for h in range(mdp.horizon):
        action = _draw(at(choices, h, 2)[state], rng)
        states[:, h], actions[:, h], rewards[:, h] = state, action, at(mdp.reward, h, 2)[state, action]
        state = _draw(at(successors, h, 3)[state, action], rng)
    return states, actions, rewards


def cumulative(probabilities: Float[np.ndarray, "... K"]) -> Float[np.ndarray, "... K"]:
    """Σ_{j≤k} p_j, exactly 1 from the last outcome that is possible: rounding must not draw one that is not."""
    total = np.cumsum(probabilities, axis=-1)
    return np.where(total >= total[..., -1:], 1.0, total)


def _draw(cumulative: Float[np.ndarray, "N K"], rng: np.random.Generator) -> Int[np.ndarray, " N"]:
    """One outcome a row, by inversion; outcomes of probability 0 are never drawn."""
    return _invert(cumulative, rng.random(len(cumulative)))


def _invert(cumulative: Float[np.ndarray, "N K"], uniforms: np.ndarray) -> Int[np.ndarray, " N"]:
    return np.sum(uniforms[:, None] >= cumulative, axis=-1)


def _row(table: np.ndarray, time: Any, state: Any, action: Any, *, axes: int) -> np.ndarray:
    """table[(h,) s, a] for each copy: its own h where the table depends on time."""
    return table[time, state, action] if table.ndim == axes + 1 else table[state, action]
