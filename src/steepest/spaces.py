"""What an agent sees and does, as plain data: the spaces of Gymnasium without Gymnasium, to be saved and loaded.

Box(shape, low, high)      real vectors; a policy's own sample is unbounded and is clipped on its way out
Discrete(n, start)         {start, …, start + n − 1}; policies count from 0
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from steepest.errors import UsageError


@dataclass(frozen=True)
class Discrete:
    """n values from `start`; policies and observations count from 0."""

    n: int
    start: int = 0

    @property
    def shape(self) -> tuple[int, ...]:
        return ()

    def to_environment(self, action: Any) -> NDArray[np.int64]:
        """The environment's own number of a policy's action."""
        return np.asarray(action, np.int64) + self.start

    def from_environment(self, obs: Any) -> NDArray[np.int32]:
        """A state index from the environment's own number: a copy."""
        return (np.asarray(obs) - self.start).astype(np.int32)


@dataclass(frozen=True, eq=False)
class Box:
    """Real arrays.  low, high: bounds, of the space's shape, ±∞ where there are none.  dtype: the environment's."""

    low: NDArray[Any]
    high: NDArray[Any]
    dtype: str = "float32"

    @property
    def shape(self) -> tuple[int, ...]:
        return self.low.shape

    def to_environment(self, action: Any) -> NDArray[Any]:
        """The action clipped to the bounds, in the environment's dtype. Never seen by the update."""
        return np.clip(np.asarray(action), self.low, self.high).astype(self.dtype)

    def from_environment(self, obs: Any) -> NDArray[np.float32]:
        """Observations are float32 from here on: a copy, since vector environments re-use their buffers."""
        return np.array(obs, np.float32)


Space = Discrete | Box


def describe(space: Any, role: str) -> Space:
    """A Gymnasium space as plain data.

    space: a `gymnasium.spaces` object.  role: "action" or "observation", for the message.

    Raises UsageError for a space that no policy here takes, naming those it does.
    """
    kind = type(space).__name__
    if kind == "Discrete":
        return Discrete(int(space.n), int(space.start))
    if kind == "Box":
        if role == "observation" and len(space.shape) == 3 and space.dtype == np.uint8:
            raise _unsupported(role, space, "images need a convolutional policy, which there is not yet")
        if role == "action" and (len(space.shape) != 1 or not np.issubdtype(space.dtype, np.floating)):
            raise _unsupported(role, space, "supported: Discrete, and Box of floats with one axis")
        return Box(np.asarray(space.low, np.float64), np.asarray(space.high, np.float64), str(space.dtype))
    hint = "" if role == "action" else " (gymnasium.wrappers.FlattenObservation makes a Box of most others)"
    raise _unsupported(role, space, f"supported: Discrete and Box{hint}")


def _unsupported(role: str, space: Any, hint: str) -> UsageError:
    return UsageError(f"the {role} space {space} is not supported; {hint}")


def to_record(space: Space) -> dict[str, Any]:
    """JSON of a space; an infinite bound is null."""
    if isinstance(space, Discrete):
        return {"kind": "discrete", "n": space.n, "start": space.start}
    bound = {
        name: [float(x) if np.isfinite(x) else None for x in array.ravel()]
        for name, array in (("low", space.low), ("high", space.high))
    }
    return {"kind": "box", "shape": list(space.shape), "dtype": space.dtype, **bound}


def from_record(record: dict[str, Any]) -> Space:
    """The space of a JSON record. Raises UsageError for one that `to_record` did not write."""
    try:
        if record["kind"] == "discrete":
            return Discrete(int(record["n"]), int(record["start"]))
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
