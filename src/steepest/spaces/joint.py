"""Several spaces as one: those of a Dict or a Tuple side by side in a flat vector, as a rollout has one array for all.

    Dict(arm=Box(2), grip=Discrete(3))   {"arm": [x, y], "grip": 2}   ↔   [x, y, 2.0]

Whole numbers are counted from 0, as everywhere inside, and are exact in float32 up to 2²⁴.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import numpy as np
from numpy.typing import NDArray

from steepest.errors import UsageError
from steepest.spaces.plain import Box, Discrete, MultiBinary, MultiDiscrete

EXACT = 2**24
"""Up to here a float32 has every whole number."""


@dataclass(frozen=True)
class Joint:
    """parts: spaces, Joints among them; at least one.  names: of the parts of a Dict, in its order; None of a Tuple.

    Raises UsageError for more entries, or a part with more values, than a float32 can count.
    """

    parts: tuple[Space, ...]
    names: tuple[str, ...] | None = None
    inside = np.float32

    def __post_init__(self) -> None:
        if self.shape[0] > EXACT:
            raise UsageError(f"a Dict or Tuple may have {EXACT} entries, this one has {self.shape[0]}")
        for part in self.parts:
            if not isinstance(part, Box | Joint) and (part.counts > EXACT).any():
                raise UsageError(f"a part of a Dict or Tuple may have {EXACT} values, {part!r:.80} has more")

    @property
    def sizes(self) -> tuple[int, ...]:
        """Entries of each part."""
        return tuple(math.prod(part.shape) for part in self.parts)

    @property
    def shape(self) -> tuple[int, ...]:
        return (sum(self.sizes),)

    @property
    def counts(self) -> NDArray[np.float64]:
        """How many values there are, of each entry; ∞ of a real one."""
        pairs = zip(self.parts, self.sizes, strict=True)
        each = [np.full(n, np.inf) if isinstance(part, Box) else np.ravel(part.counts) for part, n in pairs]
        return np.concatenate(each).astype(np.float64)

    def split(self, flat: Any) -> list[Any]:
        """[…, Σ sizes] ↦ [[…, *part.shape] of each part], NumPy or JAX, in the dtype given."""
        ends = list(accumulate(self.sizes))
        return [
            flat[..., end - size : end].reshape((*flat.shape[:-1], *part.shape))
            for part, size, end in zip(self.parts, self.sizes, ends, strict=True)
        ]

    def structured(self, pieces: Any) -> Any:
        """What the environment calls it: a dict or a tuple of one thing for each part."""
        return tuple(pieces) if self.names is None else dict(zip(self.names, pieces, strict=True))

    def pieces(self, value: Any) -> list[Any]:
        """The other way. Raises KeyError, TypeError or ValueError for something of another structure."""
        if self.names is not None:
            return [value[name] for name in self.names]
        return [each for each, _ in zip(value, self.parts, strict=True)]

    def to_environment(self, action: Any) -> Any:
        """The environment's own of a policy's action [..., Σ sizes]: a dict or tuple, whose leaves have the leading
        axes."""
        pairs = zip(self.parts, self.split(np.asarray(action)), strict=True)
        return self.structured(part.to_environment(piece) for part, piece in pairs)

    def from_environment(self, obs: Any) -> NDArray[np.float32]:
        """The other way: a copy."""
        each = []
        for part, size, piece in zip(self.parts, self.sizes, self.pieces(obs), strict=True):
            array = part.from_environment(piece)
            each.append(array.reshape((*array.shape[: array.ndim - len(part.shape)], size)))
        return np.concatenate(each, axis=-1).astype(np.float32)


Space = Discrete | MultiDiscrete | MultiBinary | Box | Joint
