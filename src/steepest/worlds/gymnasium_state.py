"""Snapshots of Gymnasium environments: every layer's plain attributes, and what a simulator holds besides.

wrapper      numbers, strings, arrays, containers of them: TimeLimit's count, OrderEnforcing's flag
classic      the same of the environment itself: its state, its counters, its generators' states
MuJoCo       the simulator's integration state, and the quantities derived from it as they stood: rewards are made
             of positions before the step, which the simulator computed from an earlier state than the one restored
your own     what get_state() returns
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import gymnasium
import numpy as np
from gymnasium.vector import SyncVectorEnv

from steepest.errors import RunError, UsageError
from steepest.worlds import attributes
from steepest.worlds.answers import not_finite, raised
from steepest.worlds.settable import MOST, refusal
from steepest.worlds.simulators import Plain, simulator_of
from steepest.worlds.world import Transition


class EnvironmentState(NamedTuple):
    """One environment.

    layers: the plain attributes of each wrapper and of the environment, from the outside in.  own: of the simulator, or
    what get_state() gave.  obs: as the world gives it.  ended: the next step resets it.
    """

    layers: list[dict[str, Any]]
    own: Any
    obs: np.ndarray
    ended: bool


class WorldState(NamedTuple):
    """All environments of a world, and what it knows of them besides: for another process, and for a file.

    seed, steps, renewed: as the world keeps them.
    """

    envs: list[EnvironmentState]
    seed: int | None
    steps: int
    renewed: np.ndarray


class GymnasiumStates:
    """`SettableWorld` of a `GymnasiumWorld`: the same environments.

    Raises UsageError for one whose environments are not in this process, or of which no snapshot can be taken.
    """

    def __init__(self, world: Any):
        if type(world._env) is not SyncVectorEnv:
            where = f"its environments are out of reach in a {type(world._env).__name__}"
            raise refusal(world.name, where)
        self.name, self.envs, self._world = world.name, world.envs, world
        self._made: list[Any] = [None] * world.envs
        self._layers: list[list[Any]] = [[]] * world.envs
        self._constants: list[list[dict[str, Any]]] = [[]] * world.envs
        self._simulators = [Plain()] * world.envs
        for i in range(world.envs):
            self._look(i)

    def _look(self, i: int) -> None:
        self._made[i] = env = self._world._env.envs[i]
        self._layers[i] = _layers(env)
        inmost = self._layers[i][-1]
        self._simulators[i] = simulator_of(inmost)
        self._constants[i] = [attributes.constants_of(layer) for layer in self._layers[i]]
        self._taken(i, inmost)  # says at the start what cannot be copied

    @property
    def obs(self) -> np.ndarray:
        """[B,…] what to act upon next."""
        return self._world.obs

    def get_state(self, envs: Sequence[int] | None = None) -> list[EnvironmentState]:
        """See `SettableWorld.get_state`."""
        return [self._get(i) for i in (range(self.envs) if envs is None else envs)]

    def set_state(
        self, states: Sequence[EnvironmentState], seeds: Sequence[int] | np.ndarray | None = None
    ) -> np.ndarray:
        """See `SettableWorld.set_state`."""
        for what, given in (("states", states), ("seeds", seeds)):
            if given is not None and len(given) != self.envs:
                raise UsageError(f"{self.name} has {self.envs} environments, got {len(given)} {what}")
        for i, state in enumerate(states):
            for layer, plain in zip(self._layers[i], state.layers, strict=True):
                attributes.put(layer, plain)
            self._simulators[i].set(state.own)
            if seeds is not None:
                attributes.reseed(self._layers[i], int(seeds[i]))
        world, ended = self._world, np.array([state.ended for state in states])
        world._obs, world._ghost = np.stack([state.obs for state in states]), ended
        world._env._autoreset_envs = ended.copy()
        return world._obs

    def keep(self) -> WorldState:
        """See `Keepable.keep`: without what is constant, which may be nothing that another process could be sent."""
        world, states = self._world, []
        for i in range(self.envs):
            self._look_again(i)
            layers, simulator, budget = self._layers[i], self._simulators[i], attributes.Budget(MOST)
            own = simulator.get()
            if simulator.skips(layers[-1]):
                attributes.take_own(self.name, own, budget)
            taken = [
                attributes.take_for_elsewhere(self.name, layer, constants, budget, generators=simulator.skips(layer))
                for layer, constants in zip(layers, self._constants[i], strict=True)
            ]
            states.append(EnvironmentState(taken, own, world.obs[i].copy(), bool(world._ghost[i])))
        return WorldState(states, world._seed, world._steps, world._renewed.copy())

    def put_back(self, kept: Any) -> None:
        """See `Keepable.put_back`."""
        try:
            states, seed, steps, renewed = kept
            states = [EnvironmentState(*state) for state in states]
            for state, layers in zip(states, self._layers, strict=True):
                attributes.check(layers, state.layers)
                self._check_standing(state)
            self.set_state(states)
            if renewed.shape != (self.envs,) or not isinstance(steps, int) or not isinstance(seed, int | None):
                raise ValueError("its counters are none")
        except RunError:
            raise
        except Exception as error:  # of the environment's own, too: whatever it was given is not what it gave
            raise RunError(f"{self.name}: the state that was kept does not fit: {error!s:.200}") from error
        self._world._seed, self._world._steps, self._world._renewed = seed, steps, renewed.copy()

    def advance(self, action: np.ndarray, running: np.ndarray) -> Transition:
        """See `SettableWorld.advance`."""
        world, given = self._world, self._world._actions(action)
        obs, reward = world.obs.copy(), np.zeros(self.envs)
        terminated, truncated = np.zeros((2, self.envs), bool)
        world._steps += 1
        for i in map(int, np.flatnonzero(running)):
            try:
                raw, reward[i], terminated[i], truncated[i], _ = world._env.envs[i].step(given[i])
                obs[i] = world._observe(world.reader.one(raw))
            except Exception as error:
                world.refuse({i: raised(error)})
        paid = world._rewards(reward)
        world.refuse({**not_finite("reward", paid, reward), **world._wrong(obs, obs)})
        world._obs = obs
        return Transition(paid, obs, terminated, truncated, np.array(running, bool))

    def _get(self, i: int) -> EnvironmentState:
        self._look_again(i)
        layers = [self._taken(i, layer) for layer in self._layers[i]]
        world = self._world
        return EnvironmentState(layers, self._simulators[i].get(), world.obs[i].copy(), bool(world._ghost[i]))

    def _taken(self, i: int, layer: Any) -> dict[str, Any]:
        return attributes.take(self.name, layer, generators=self._simulators[i].skips(layer))

    def _look_again(self, i: int) -> None:
        if self._made[i] is not self._world._env.envs[i]:  # another one, after a fault
            self._look(i)

    def _check_standing(self, state: EnvironmentState) -> None:
        world = self._world
        form = world.reader.form
        if state.obs.shape != form.shape or state.obs.dtype != form.inside or type(state.ended) is not bool:
            raise ValueError(f"an observation {state.obs.dtype}{list(state.obs.shape)}")


def _layers(env: Any) -> list[Any]:
    """The wrappers, from the outside in, and the environment."""
    layers = [env]
    while isinstance(layers[-1], gymnasium.Wrapper):
        layers.append(layers[-1].env)
    return layers
