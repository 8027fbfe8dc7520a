"""Several spaces as one: those of a Dict or a Tuple side by side in a flat vector, as a rollout has one array for all.

    Dict(arm=Box(2), grip=Discrete(3))   {"arm": [x, y], "grip": 2}   ↔   [x, y, 2.0]

Whole numbers are counted from 0, as everywhere inside, and are exact in float32 up to 2²⁴.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, NamedTuple

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


class MaskedForm(NamedTuple):
    """What of a `Masked` a program needs.  shape, dtype: of the observation.  mask: entries of the mask."""

    shape: tuple[int, ...]
    dtype: str
    mask: int

    def split(self, flat: Any) -> tuple[Any, Any]:
        """[…, n + mask] ↦ the observation [...] in its own dtype, and the mask […, mask] as it is; NumPy or JAX."""
        end = flat.shape[-1] - self.mask
        return flat[..., :end].reshape((*flat.shape[:-1], *self.shape)).astype(self.dtype), flat[..., end:]


@dataclass(frozen=True)
class Masked:
    """An observation and which actions are allowed with it, side by side in a flat vector: [obs, 1 or 0 of each].

    observation: of what the environment says.  mask: entries of the mask.
    """

    observation: Space
    mask: int
    inside = np.float32

    @property
    def shape(self) -> tuple[int, ...]:
        return (math.prod(self.observation.shape) + self.mask,)

    @property
    def form(self) -> MaskedForm:
        return MaskedForm(self.observation.shape, np.dtype(self.observation.inside).name, self.mask)

    @property
    def counts(self) -> NDArray[np.float64]:
        """As of a `Joint`."""
        return Joint((self.observation, MultiBinary(self.mask))).counts

    def to_environment(self, action: Any) -> Any:
        """Masks are of observations."""
        raise NotImplementedError("an action has no mask")

    def from_environment(self, obs: Any) -> NDArray[np.float32]:
        """A copy: `worlds.masks` has put it together already."""
        return np.array(obs, np.float32)

    def joined(self, obs: Any, mask: Any) -> NDArray[np.float32]:
        """[…, n + mask] of the environment's own observation and masks […, mask], one or many."""
        own = self.observation.from_environment(obs)
        lead = own.shape[: own.ndim - len(self.observation.shape)]
        return np.concatenate([own.reshape((*lead, -1)), np.asarray(mask)], axis=-1).astype(np.float32)


Space = Discrete | MultiDiscrete | MultiBinary | Box | Joint | Masked
