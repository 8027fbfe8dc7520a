"""Spaces without parts.

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
    """Real arrays.  low, high: bounds, of the space's shape, ±∞ where there are none.  dtype: the environment's.
    squashed: a policy's actions s are of any size, and stand for low + (high − low)·(1 + tanh s)/2."""

    low: NDArray[Any]
    high: NDArray[Any]
    dtype: str = "float32"
    squashed: bool = False

    @property
    def inside(self) -> Any:
        """float32 in a rollout; images of bytes, of three axes or more, stay bytes."""
        return np.uint8 if self.dtype == "uint8" and len(self.shape) >= 3 else np.float32

    @property
    def shape(self) -> tuple[int, ...]:
        return self.low.shape

    def to_environment(self, action: Any) -> NDArray[Any]:
        """The action clipped to the bounds, or squashed, in the environment's dtype. Never seen by the update."""
        action = np.asarray(action)
        if self.squashed:
            action = self.low + (self.high - self.low) * (0.5 + 0.5 * np.tanh(action))
        return np.clip(action, self.low, self.high).astype(self.dtype)

    def from_environment(self, obs: Any) -> NDArray[Any]:
        """Observations in their dtype from here on: a copy, since vector environments re-use their buffers."""
        return np.array(obs, self.inside)
