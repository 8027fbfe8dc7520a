"""Which actions are allowed: a mask has a 1 or 0 for each value of each Discrete of an action space, in a row.

Discrete(3)                  3 entries
MultiDiscrete([2, 3])        2 + 3
Dict and Tuple               those of the parts in their order; a Box and a MultiBinary have none
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from steepest.errors import UsageError
from steepest.spaces.joint import Joint, Masked, Space
from steepest.spaces.plain import Discrete, MultiDiscrete


def choices(action: Space) -> tuple[int, ...]:
    """How many values each Discrete has, in the order of the mask; () where there is nothing to mask."""
    if isinstance(action, Discrete):
        return (action.n,)
    if isinstance(action, MultiDiscrete):
        return action.sizes
    return sum(map(choices, action.parts), ()) if isinstance(action, Joint) else ()


def flat_mask(mask: Any, sizes: tuple[int, ...]) -> NDArray[np.float32]:
    """[Σ sizes] of 0 and 1: a mask as an environment gives it, one array or one for each part.

    Raises UsageError for one of another length, or with other numbers.
    """
    try:
        flat = np.concatenate([np.ravel(np.asarray(piece)) for piece in _pieces(mask)])
        if flat.dtype.kind not in "biuf" or not ((flat == 0) | (flat == 1)).all():
            raise UsageError(f"an action mask has a 1 for what is allowed and a 0 for what is not, got {mask!r:.100}")
    except (TypeError, ValueError) as error:
        if isinstance(error, UsageError):
            raise
        raise UsageError(f"an action mask is an array of {sum(sizes)} numbers, got {mask!r:.100}") from error
    if len(flat) != sum(sizes):
        raise UsageError(f"an action mask must have {sum(sizes)} entries, one for each action, got {len(flat)}")
    return flat.astype(np.float32)


def _pieces(mask: Any) -> list[Any]:
    if isinstance(mask, Mapping):
        mask = list(mask.values())
    if isinstance(mask, list | tuple) and any(np.ndim(each) or isinstance(each, Mapping) for each in mask):
        return [piece for each in mask if each is not None for piece in _pieces(each)]
    return [mask]


def forbids_all(mask: NDArray[Any], sizes: tuple[int, ...]) -> Any:
    """[…]: whether of any of the choices nothing is allowed.  mask: […, Σ sizes], NumPy or JAX."""
    ends = np.cumsum(sizes).tolist()
    none = mask[..., 0] < 0  # nowhere
    for end, size in zip(ends, sizes, strict=True):
        none = none | ~(mask[..., end - size : end] > 0.5).any(axis=-1)
    return none


def permitted(action: Space, chosen: Any, mask: Any) -> NDArray[Any]:
    """Actions [...] of a policy, with the first that is allowed in place of each that is not.  mask: […, Σ sizes]."""
    chosen, mask = np.array(chosen), np.asarray(mask) > 0.5
    if isinstance(action, Joint):
        pieces, begin = [], 0
        for part, piece in zip(action.parts, action.split(chosen), strict=True):
            size = sum(choices(part))
            own = permitted(part, piece, mask[..., begin : begin + size]) if size else piece
            pieces.append(own.reshape((*chosen.shape[:-1], -1)))
            begin += size
        return np.concatenate(pieces, axis=-1).astype(chosen.dtype)
    single, begin = isinstance(action, Discrete), 0
    for k, size in enumerate(choices(action)):
        allowed, value = mask[..., begin : begin + size], chosen if single else chosen[..., k]
        index = np.asarray(value, np.int64)[..., None]
        kept = np.where(np.take_along_axis(allowed, index, -1)[..., 0], value, allowed.argmax(-1))
        if single:
            return kept.astype(chosen.dtype)
        chosen[..., k], begin = kept, begin + size
    return chosen


def seen(observation: Space) -> Space:
    """What the environment says, without its mask."""
    return observation.observation if isinstance(observation, Masked) else observation
