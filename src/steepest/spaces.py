"""What an agent sees and does, as plain data: the spaces of Gymnasium without Gymnasium, to be saved and loaded.

Box(shape, low, high)      real vectors; a policy's own sample is unbounded and is clipped on its way out
Discrete(n, start)         {start, …, start + n − 1}; policies count from 0
MultiDiscrete(sizes, …)    as many of these side by side; of actions
MultiBinary(n)             {0, 1}ⁿ; of actions
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from steepest.errors import UsageError


class _WholeNumbers:
    """Of whole numbers, one or several: policies count each from 0."""

    inside = np.int32
    """The dtype in a rollout."""
    _outside: Any = np.int64

    @property
    def counts(self) -> NDArray[np.int64]:
        """How many values there are, of each: 0 … counts − 1."""
        raise NotImplementedError

    @property
    def offset(self) -> NDArray[np.int64]:
        """What the environment's own numbers are more, of each."""
        raise NotImplementedError

    def to_environment(self, action: Any) -> NDArray[Any]:
        """The environment's own numbers of a policy's action, in its dtype."""
        return (np.asarray(action, np.int64) + self.offset).astype(self._outside)

    def from_environment(self, obs: Any) -> NDArray[np.int32]:
        """The other way: a copy."""
        return (np.asarray(obs) - self.offset).astype(np.int32)


@dataclass(frozen=True)
class Discrete(_WholeNumbers):
    """n values from `start`."""

    n: int
    start: int = 0

    @property
    def shape(self) -> tuple[int, ...]:
        return ()

    @property
    def counts(self) -> NDArray[np.int64]:
        return np.asarray(self.n)

    @property
    def offset(self) -> NDArray[np.int64]:
        return np.asarray(self.start)


@dataclass(frozen=True)
class MultiDiscrete(_WholeNumbers):
    """One of sizes[i] values from starts[i], for each i."""

    sizes: tuple[int, ...]
    starts: tuple[int, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self.sizes),)

    @property
    def counts(self) -> NDArray[np.int64]:
        return np.asarray(self.sizes)

    @property
    def offset(self) -> NDArray[np.int64]:
        return np.asarray(self.starts)


@dataclass(frozen=True)
class MultiBinary(_WholeNumbers):
    """n switches, 0 or 1."""

    n: int
    _outside = np.int8

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.n,)

    @property
    def counts(self) -> NDArray[np.int64]:
        return np.full(self.n, 2)

    @property
    def offset(self) -> NDArray[np.int64]:
        return np.asarray(0)


@dataclass(frozen=True, eq=False)
class Box:
    """Real arrays.  low, high: bounds, of the space's shape, ±∞ where there are none.  dtype: the environment's."""

    low: NDArray[Any]
    high: NDArray[Any]
    dtype: str = "float32"

    @property
    def inside(self) -> Any:
        """float32 in a rollout; images of bytes, of three axes or more, stay bytes."""
        return np.uint8 if self.dtype == "uint8" and len(self.shape) >= 3 else np.float32

    @property
    def shape(self) -> tuple[int, ...]:
        return self.low.shape

    def to_environment(self, action: Any) -> NDArray[Any]:
        """The action clipped to the bounds, in the environment's dtype. Never seen by the update."""
        return np.clip(np.asarray(action), self.low, self.high).astype(self.dtype)

    def from_environment(self, obs: Any) -> NDArray[Any]:
        """Observations in their dtype from here on: a copy, since vector environments re-use their buffers."""
        return np.array(obs, self.inside)


_LARGEST = 2**53
"""Up to here a reader that has but floats has a whole number exactly."""
Space = Discrete | MultiDiscrete | MultiBinary | Box


def describe(space: Any, role: str) -> Space:
    """A Gymnasium space as plain data.

    space: a `gymnasium.spaces` object.  role: "action" or "observation", for the message.

    Raises UsageError for a space that no policy here takes, naming those it does.
    """
    kind = type(space).__name__
    if kind == "Discrete":
        return Discrete(int(space.n), int(space.start))
    if kind == "Box":
        if role == "action" and (len(space.shape) != 1 or not np.issubdtype(space.dtype, np.floating)):
            raise _unsupported(role, space, "supported: Discrete, and Box of floats with one axis")
        return Box(np.asarray(space.low, np.float64), np.asarray(space.high, np.float64), str(space.dtype))
    if role == "action" and kind == "MultiDiscrete" and len(space.shape) == 1:
        return MultiDiscrete(*(tuple(int(n) for n in each) for each in (space.nvec, space.start)))
    if role == "action" and kind == "MultiBinary" and len(space.shape) == 1:
        return MultiBinary(int(space.shape[0]))
    supported = "Discrete, Box, and MultiDiscrete and MultiBinary of one axis"
    if role == "observation":
        supported = "Discrete and Box (gymnasium.wrappers.FlattenObservation makes a Box of most others)"
    raise _unsupported(role, space, f"supported: {supported}")


def _unsupported(role: str, space: Any, hint: str) -> UsageError:
    return UsageError(f"the {role} space {space} is not supported; {hint}")


def to_record(space: Space) -> dict[str, Any]:
    """JSON of a space; an infinite bound is null."""
    if isinstance(space, Discrete):
        return {"kind": "discrete", "n": space.n, "start": space.start}
    if isinstance(space, MultiDiscrete):
        return {"kind": "multi-discrete", "sizes": list(space.sizes), "starts": list(space.starts)}
    if isinstance(space, MultiBinary):
        return {"kind": "multi-binary", "n": space.n}
    bound = {
        name: [float(x) if np.isfinite(x) else None for x in array.ravel()]
        for name, array in (("low", space.low), ("high", space.high))
    }
    return {"kind": "box", "shape": list(space.shape), "dtype": space.dtype, **bound}


def from_record(record: dict[str, Any]) -> Space:
    """The space of a JSON record. Raises UsageError for one that `to_record` did not write."""
    try:
        if record["kind"] == "discrete":
            return Discrete(_whole(record["n"], 1), _whole(record["start"]))
        if record["kind"] == "multi-discrete":
            sizes, starts = tuple(_whole(n, 1) for n in record["sizes"]), tuple(map(_whole, record["starts"]))
            if len(sizes) != len(starts) or not sizes:
                raise ValueError(f"{len(sizes)} sizes and {len(starts)} starts")
            return MultiDiscrete(sizes, starts)
        if record["kind"] == "multi-binary":
            return MultiBinary(_whole(record["n"], 1))
        if record["kind"] != "box":
            raise ValueError(record["kind"])
        shape, dtype = tuple(int(n) for n in record["shape"]), str(np.dtype(record["dtype"]))
        low, high = (
            np.array([missing if x is None else float(x) for x in record[name]], np.float64).reshape(shape)
            for name, missing in (("low", -np.inf), ("high", np.inf))
        )
        return Box(low, high, dtype)
    except (KeyError, TypeError, ValueError) as error:
        raise UsageError(f"not the record of a space: {record!r:.200} ({error})") from error


def _whole(value: Any, least: int = -_LARGEST) -> int:
    if not least <= int(value) <= _LARGEST:
        raise ValueError(f"{value!r:.40} is out of range")
    return int(value)
