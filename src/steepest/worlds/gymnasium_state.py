"""Snapshots of Gymnasium environments: every layer's plain attributes, and what a simulator holds besides.

    wrapper      numbers, strings, arrays, containers of them: TimeLimit's count, OrderEnforcing's flag
    classic      the same of the environment itself: its state, its counters, its generators' states
    MuJoCo       the simulator's integration state, and the quantities derived from it as they stood: rewards are made
                 of positions before the step, which the simulator computed from an earlier state than the one restored
    your own     what get_state() returns

An attribute that is neither plain nor known to be constant is refused: a snapshot without it might not be one.
"""

from __future__ import annotations

import inspect
import types
from collections import deque
from collections.abc import Sequence
from typing import Any, NamedTuple

import gymnasium
import numpy as np
from gymnasium.envs.registration import EnvSpec
from gymnasium.vector import SyncVectorEnv

from steepest.errors import RunError, UsageError
from steepest.worlds.answers import not_finite, raised
from steepest.worlds.settable import refusal
from steepest.worlds.simulators import Plain, simulator_of
from steepest.worlds.state_record import GeneratorState
from steepest.worlds.world import Transition

_CONSTANT = {"spec", "metadata", "observation_structure", "_saved_kwargs", "_cached_spec", "_metadata",
             "_ezpickle_args", "_ezpickle_kwargs"}  # fmt: skip
_SCALARS = (type(None), bool, int, float, complex, str, bytes, np.generic)
_PLAINEST = {type(None), bool, int, float, str}
_IGNORED = (gymnasium.Space, EnvSpec, type, types.FunctionType, types.MethodType, types.ModuleType,
            types.BuiltinFunctionType)  # fmt: skip
_SIMULATOR = {"MjModel", "MjData", "MujocoRenderer"}


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
        self._made, self._layers, self._simulators = list[Any](), list[list[Any]](), list[Plain]()
        for i in range(world.envs):
            self._made.append(None)
            self._layers.append([])
            self._simulators.append(Plain())
            self._look(i)

    def _look(self, i: int) -> None:
        self._made[i] = env = self._world._env.envs[i]
        self._layers[i] = _layers(env)
        inmost = self._layers[i][-1]
        self._simulators[i] = simulator_of(inmost)
        _plain(self.name, inmost, self._simulators[i].skips(inmost))  # says at the start what cannot be copied

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
                _restore(layer, plain)
            self._simulators[i].set(state.own)
            if seeds is not None:
                _reseed(self._layers[i], int(seeds[i]))
        world, ended = self._world, np.array([state.ended for state in states])
        world._obs, world._ghost = np.stack([state.obs for state in states]), ended
        world._env._autoreset_envs = ended.copy()
        return world._obs

    def keep(self) -> WorldState:
        """See `Keepable.keep`: without what is constant, which may be nothing that another process could be sent."""
        world = self._world
        states = [self._get(i, constants=False) for i in range(self.envs)]
        return WorldState(states, world._seed, world._steps, world._renewed.copy())

    def put_back(self, kept: Any) -> None:
        """See `Keepable.put_back`."""
        try:
            states, seed, steps, renewed = kept
            states = [EnvironmentState(*state) for state in states]
            for state, layers in zip(states, self._layers, strict=True):
                _check_layers(self._world, state, layers)
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
        world, action = self._world, self._world._actions(action)
        obs, reward = world.obs.copy(), np.zeros(self.envs)
        terminated, truncated = np.zeros((2, self.envs), bool)
        world._steps += 1
        for i in map(int, np.flatnonzero(running)):
            try:
                raw, reward[i], terminated[i], truncated[i], _ = world._env.envs[i].step(action[i])
                obs[i] = world._observe(np.asarray(raw))
            except Exception as error:
                world.refuse({i: raised(error)})
        paid = world._rewards(reward)
        world.refuse({**not_finite("reward", paid, reward), **world._wrong(obs, obs)})
        world._obs = obs
        return Transition(paid, obs, terminated, truncated, np.array(running, bool))

    def _get(self, i: int, constants: bool = True) -> EnvironmentState:
        if self._made[i] is not self._world._env.envs[i]:  # another one, after a fault
            self._look(i)
        simulator = self._simulators[i]
        layers = [_plain(self.name, layer, simulator.skips(layer), constants) for layer in self._layers[i]]
        world = self._world
        return EnvironmentState(layers, self._simulators[i].get(), world.obs[i].copy(), bool(world._ghost[i]))


def _layers(env: Any) -> list[Any]:
    """The wrappers, from the outside in, and the environment."""
    layers = [env]
    while isinstance(layers[-1], gymnasium.Wrapper):
        layers.append(layers[-1].env)
    return layers


def _plain(name: str, layer: Any, skip: bool = False, constants: bool = True) -> dict[str, Any]:
    """A copy of the attributes that may change; of the generators alone where the environment says the rest itself.

    constants: also spaces, functions and the like, which an attribute may hold one after the other.
    """
    copied = {}
    for attribute, value in vars(layer).items():
        if type(value) in _PLAINEST:  # nearly all of them, at once
            if not skip and attribute not in _CONSTANT:
                copied[attribute] = value
            continue
        if isinstance(value, np.random.Generator):
            copied[attribute] = GeneratorState(dict(value.bit_generator.state))
            continue
        inner = attribute == "env" and isinstance(layer, gymnasium.Wrapper)
        if skip or inner or attribute in _CONSTANT or type(value).__name__ in _SIMULATOR:
            continue
        if not constants and isinstance(value, _IGNORED):
            continue
        try:
            copied[attribute] = _copy(value)
        except TypeError as error:
            what = f"{type(layer).__name__}.{attribute} is a {error}, of which no snapshot can be taken"
            raise refusal(name, what) from None
    return copied


def _copy(value: Any) -> Any:
    """A copy of plain data. Raises TypeError, with the name of the type, for what is not."""
    if isinstance(value, (*_SCALARS, *_IGNORED)):
        return value
    if isinstance(value, np.ndarray) and value.dtype != object:
        return value.copy()
    if type(value) is dict:
        return {key: _copy(x) for key, x in value.items()}
    for container in (list, tuple, set, frozenset):
        if type(value) is container:
            return container(_copy(x) for x in value)
    if type(value) is deque:
        return deque((_copy(x) for x in value), value.maxlen)
    raise TypeError(type(value).__name__)


def _check_layers(world: Any, state: EnvironmentState, layers: list[Any]) -> None:
    """Raise ValueError for attributes that these have by their class, such as a method, and for no observation."""
    if len(state.layers) != len(layers):
        raise ValueError(f"{len(state.layers)} layers, not {len(layers)}")
    for layer, plain in zip(layers, state.layers, strict=True):
        for attribute in plain:
            of_class = inspect.getattr_static(type(layer), attribute, None)
            if not attribute.isidentifier() or hasattr(of_class, "__get__") or attribute in _CONSTANT | {"env"}:
                raise ValueError(f"{type(layer).__name__} cannot be given {attribute!r:.40}")
    expected = world._observe(np.zeros(world._shape[1:], world.observation_space.dtype))
    if state.obs.shape != expected.shape or state.obs.dtype != expected.dtype or type(state.ended) is not bool:
        raise ValueError(f"an observation {state.obs.dtype}{list(state.obs.shape)}")


def _restore(layer: Any, plain: dict[str, Any]) -> None:
    for attribute, value in plain.items():
        if not isinstance(value, GeneratorState):
            setattr(layer, attribute, _copy(value))
            continue
        if not isinstance(getattr(layer, attribute, None), np.random.Generator):
            setattr(layer, attribute, np.random.Generator(getattr(np.random, value.state["bit_generator"])()))
        getattr(layer, attribute).bit_generator.state = value.state  # in place: others may hold the same generator


def _reseed(layers: list[Any], seed: int) -> None:
    """Every generator starts anew, each from a number of its own."""
    generators = [x for layer in layers for x in vars(layer).values() if isinstance(x, np.random.Generator)]
    for k, generator in enumerate(generators):
        generator.bit_generator.state = type(generator.bit_generator)(np.random.SeedSequence((seed, k))).state
