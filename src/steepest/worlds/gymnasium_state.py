"""Snapshots of Gymnasium environments: every layer's plain attributes, and what a simulator holds besides.

    wrapper      numbers, strings, arrays, containers of them: TimeLimit's count, OrderEnforcing's flag
    classic      the same of the environment itself: its state, its counters, its generators' states
    MuJoCo       the simulator's integration state, and the quantities derived from it as they stood: rewards are made
                 of positions before the step, which the simulator computed from an earlier state than the one restored
    your own     what get_state() returns

An attribute that is neither plain nor known to be constant is refused: a snapshot without it might not be one.
"""

from __future__ import annotations

import copy
import types
from collections import deque
from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import gymnasium
import numpy as np
from gymnasium.envs.registration import EnvSpec
from gymnasium.vector import SyncVectorEnv

from steepest.errors import UsageError
from steepest.worlds.answers import not_finite, raised
from steepest.worlds.settable import refusal
from steepest.worlds.world import Transition

_CONSTANT = {"spec", "metadata", "observation_structure", "_saved_kwargs", "_cached_spec", "_metadata",
             "_ezpickle_args", "_ezpickle_kwargs"}  # fmt: skip
_SCALARS = (type(None), bool, int, float, complex, str, bytes, np.generic)
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


class _Generator(NamedTuple):
    state: Any


class GymnasiumStates:
    """`SettableWorld` of a `GymnasiumWorld`: the same environments.

    Raises UsageError for one whose environments are not in this process, or of which no snapshot can be taken.
    """

    def __init__(self, world: Any):
        if type(world._env) is not SyncVectorEnv:
            where = f"its environments are out of reach in a {type(world._env).__name__}"
            raise refusal(world.name, where)
        self.name, self.envs, self._world = world.name, world.envs, world
        self._layers = [_layers(env) for env in world._env.envs]
        self._simulators = [_simulator(world.name, layers[-1]) for layers in self._layers]

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

    def _get(self, i: int) -> EnvironmentState:
        layers = [_plain(self.name, layer, skip=self._simulators[i].skips(layer)) for layer in self._layers[i]]
        world = self._world
        return EnvironmentState(layers, self._simulators[i].get(), world.obs[i].copy(), bool(world._ghost[i]))


class _Plain:
    """An environment that is its attributes."""

    def skips(self, layer: Any) -> bool:
        return False

    def get(self) -> Any:
        return None

    def set(self, own: Any) -> None:
        pass


class _Own(_Plain):
    """An environment that takes its own snapshots; its generators are ours all the same."""

    def __init__(self, env: Any):
        self._env = env

    def skips(self, layer: Any) -> bool:
        return layer is self._env

    def get(self) -> Any:
        return copy.deepcopy(self._env.get_state())

    def set(self, own: Any) -> None:
        self._env.set_state(copy.deepcopy(own))


class _Mujoco(_Plain):
    """model, data: MuJoCo's."""

    def __init__(self, env: Any):
        import mujoco

        self._model, self._data, self._mujoco = env.model, env.data, cast(Any, mujoco)
        self._kind = self._mujoco.mjtState.mjSTATE_INTEGRATION
        self._size = self._mujoco.mj_stateSize(env.model, self._kind)
        self._derived = _fixed_arrays(env.data)

    def get(self) -> Any:
        state = np.empty(self._size)
        self._mujoco.mj_getState(self._model, self._data, state, self._kind)
        return state, [array.copy() for array in self._derived]

    def set(self, own: Any) -> None:
        state, derived = own
        self._mujoco.mj_setState(self._model, self._data, state, self._kind)
        self._mujoco.mj_forward(self._model, self._data)  # contacts, which have no place of their own
        for array, value in zip(self._derived, derived, strict=True):
            array[...] = value


def _fixed_arrays(data: Any) -> list[np.ndarray]:
    """Views of all arrays of MjData whose sizes the model fixes: they lie in one block of memory, qpos first."""
    begin, end = data.qpos.ctypes.data, data.qpos.ctypes.data + data.nbuffer
    arrays = (getattr(data, name) for name in dir(data) if not name.startswith("_"))
    return [x for x in arrays if isinstance(x, np.ndarray) and x.size and begin <= x.ctypes.data < end]


def _simulator(name: str, env: Any) -> _Plain:
    own = getattr(type(env), "set_state", None)
    is_mujoco = type(getattr(env, "data", None)).__name__ == "MjData" and hasattr(env, "model")
    if callable(getattr(env, "get_state", None)) and own is not None:
        return _Own(env)
    found = _Mujoco(env) if is_mujoco else _Plain()
    _plain(name, env)  # says at the start what cannot be copied
    return found


def _layers(env: Any) -> list[Any]:
    """The wrappers, from the outside in, and the environment."""
    layers = [env]
    while isinstance(layers[-1], gymnasium.Wrapper):
        layers.append(layers[-1].env)
    return layers


def _plain(name: str, layer: Any, skip: bool = False) -> dict[str, Any]:
    """A copy of the attributes that may change; of the generators alone where the environment says the rest itself."""
    copied = {}
    for attribute, value in vars(layer).items():
        if isinstance(value, np.random.Generator):
            copied[attribute] = _Generator(value.bit_generator.state)
            continue
        inner = attribute == "env" and isinstance(layer, gymnasium.Wrapper)
        if skip or inner or attribute in _CONSTANT or type(value).__name__ in _SIMULATOR:
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


def _restore(layer: Any, plain: dict[str, Any]) -> None:
    for attribute, value in plain.items():
        if not isinstance(value, _Generator):
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
