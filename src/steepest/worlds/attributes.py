"""The attributes of an environment and its wrappers as plain data: taken out, looked at, and put back.

An attribute that is neither plain nor known to be constant is refused: a snapshot without it might not be one.
"""

from __future__ import annotations

import inspect
import types
from collections import deque
from collections.abc import Sequence
from typing import Any, get_args

import gymnasium
import numpy as np
from gymnasium.envs.registration import EnvSpec

from steepest.spaces import Space
from steepest.worlds.settable import refusal
from steepest.worlds.state_record import GeneratorState

_CONSTANT = {"spec", "metadata", "observation_structure", "_saved_kwargs", "_cached_spec", "_metadata",
             "_ezpickle_args", "_ezpickle_kwargs"}  # fmt: skip
_SCALARS = (type(None), bool, int, float, complex, str, bytes, np.generic)
_NUMBERS = {type(None), bool, int, float}
_IGNORED = (gymnasium.Space, *get_args(Space), EnvSpec, type, types.FunctionType, types.MethodType, types.ModuleType,
            types.BuiltinFunctionType)  # fmt: skip
_SIMULATOR = {"MjModel", "MjData", "MujocoRenderer"}


def take(name: str, layer: Any, *, generators: bool = False) -> dict[str, Any]:
    """A copy of the attributes that may change, within this process.

    name: of the world, for errors.  generators: of nothing else, where the environment says the rest itself.
    Raises UsageError for what cannot be copied.
    """
    return _taken(name, layer, generators, None, None)


def take_for_elsewhere(
    name: str, layer: Any, constants: dict[str, Any], budget: Budget, *, generators: bool = False
) -> dict[str, Any]:
    """The same for another process: without what is constant, which may be nothing that it could be given.

    constants: of `constants_of` this layer, as it was at first.  budget: how much more there may be.
    Raises UsageError for what cannot be copied, is too much, or is no constant after all.
    """
    return _taken(name, layer, generators, constants, budget)


def constants_of(layer: Any) -> dict[str, Any]:
    """What is taken for constant: texts, spaces, functions and the like, by their attribute."""
    return {name: value for name, value in vars(layer).items() if isinstance(value, (str, *_IGNORED))}


def take_own(name: str, own: Any, budget: Budget) -> None:
    """Raise UsageError where what an environment says of itself is not plain, or too much."""
    try:
        _copy(own, budget)
    except TypeError as error:
        raise refusal(name, f"what get_state() returned has a {error}") from None


class Budget:
    """How many parts there may be, and how many kilobytes."""

    def __init__(self, most: int):
        self._parts, self._bytes = most, 1000 * most

    def spend(self, size: int) -> None:
        """One more part, of so many bytes. Raises TypeError where that is too much."""
        self._parts -= 1
        self._bytes -= size
        if self._parts < 0 or self._bytes < 0:
            raise TypeError("part of more than is kept")


def _taken(
    name: str, layer: Any, generators: bool, constants: dict[str, Any] | None, budget: Budget | None
) -> dict[str, Any]:
    copied = {}
    for attribute, value in vars(layer).items():
        if type(value) in _NUMBERS:  # nearly all of them, at once
            if not generators and attribute not in _CONSTANT:
                copied[attribute] = value
            continue
        if isinstance(value, np.random.Generator):
            copied[attribute] = GeneratorState(dict(value.bit_generator.state))
            continue
        inner = attribute == "env" and isinstance(layer, gymnasium.Wrapper)
        if generators or inner or attribute in _CONSTANT or type(value).__name__ in _SIMULATOR:
            continue
        try:
            if constants is not None and isinstance(value, (str, *_IGNORED)):
                _check_constant(value, constants.get(attribute))
            else:
                copied[attribute] = _copy(value, budget)
        except TypeError as error:
            what = f"{type(layer).__name__}.{attribute} is a {error}, of which no snapshot can be taken"
            raise refusal(name, what) from None
    return copied


def _check_constant(value: Any, before: Any) -> None:
    """Raise TypeError for what is taken for constant and is not."""
    if value is not before and not (isinstance(value, str) and value == before):
        raise TypeError(f"{type(value).__name__} that has changed")


def _copy(value: Any, budget: Budget | None = None) -> Any:
    """A copy of plain data. Raises TypeError, with the name of the type, for what is not."""
    if budget is not None:
        budget.spend(getattr(value, "nbytes", 0) or (len(value) if isinstance(value, str | bytes) else 0))
    if isinstance(value, (*_SCALARS, *_IGNORED)):
        return value
    if isinstance(value, np.ndarray) and value.dtype != object:
        return value.copy()
    if type(value) is dict:
        return {key: _copy(x, budget) for key, x in value.items()}
    for container in (list, tuple, set, frozenset):
        if type(value) is container:
            return container(_copy(x, budget) for x in value)
    if type(value) is deque:
        return deque((_copy(x, budget) for x in value), value.maxlen)
    raise TypeError(type(value).__name__)


def check(layers: Sequence[Any], kept: Sequence[dict[str, Any]]) -> None:
    """Raise ValueError for attributes that these cannot be given: those of their class, such as a method, and those
    that hold something else than plain data, or a text.

    layers: environment and wrappers.  kept: of each, as a file says.
    """
    if len(kept) != len(layers):
        raise ValueError(f"{len(kept)} layers, not {len(layers)}")
    for layer, plain in zip(layers, kept, strict=True):
        for attribute, value in plain.items():
            of_class, there = inspect.getattr_static(type(layer), attribute, None), vars(layer).get(attribute)
            known = attribute.isidentifier() and not hasattr(of_class, "__get__") and attribute not in _CONSTANT
            fixed = isinstance(there, (str, gymnasium.Env, *_IGNORED)) or type(there).__name__ in _SIMULATOR
            if not known or fixed or isinstance(value, str):
                raise ValueError(f"{type(layer).__name__} cannot be given {attribute!r:.40}")


def put(layer: Any, plain: dict[str, Any]) -> None:
    """Give a layer what was taken out of it, or out of another of its kind."""
    for attribute, value in plain.items():
        if not isinstance(value, GeneratorState):
            setattr(layer, attribute, _copy(value))
            continue
        if not isinstance(getattr(layer, attribute, None), np.random.Generator):
            setattr(layer, attribute, np.random.Generator(getattr(np.random, value.state["bit_generator"])()))
        getattr(layer, attribute).bit_generator.state = value.state  # in place: others may hold the same generator


def reseed(layers: list[Any], seed: int) -> None:
    """Every generator starts anew, each from a number of its own."""
    generators = [x for layer in layers for x in vars(layer).values() if isinstance(x, np.random.Generator)]
    for k, generator in enumerate(generators):
        generator.bit_generator.state = type(generator.bit_generator)(np.random.SeedSequence((seed, k))).state
