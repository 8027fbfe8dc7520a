"""Which actions are allowed: a mask has a 1 or 0 for each value of each Discrete of an action space, in a row.

Discrete(3)                  3 entries
MultiDiscrete([2, 3])        2 + 3
Dict and Tuple               those of the parts in their order; a Box and a MultiBinary have none
"""

from __future__ import annotations

import math
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


def flat_mask(mask: Any, action: Space) -> NDArray[np.float32]:
    """[Σ sizes] of 0 and 1: a mask as an environment gives it, one array or one for each part, of a Dict by name.

    Raises UsageError for one of another length, with other numbers, or of other names.
    """
    sizes = choices(action)
    try:
        flat = np.concatenate([np.ravel(np.asarray(piece)) for piece in _pieces(mask, action)])
        if flat.dtype.kind not in "biuf" or not ((flat == 0) | (flat == 1)).all():
            raise UsageError(f"an action mask has a 1 for what is allowed and a 0 for what is not, got {mask!r:.100}")
    except (TypeError, ValueError) as error:
        if isinstance(error, UsageError):
            raise
        raise UsageError(f"an action mask is an array of {sum(sizes)} numbers, got {mask!r:.100}") from error
    if len(flat) != sum(sizes):
        raise UsageError(f"an action mask must have {sum(sizes)} entries, one for each action, got {len(flat)}")
    return flat.astype(np.float32)


def _pieces(mask: Any, action: Space) -> list[Any]:
    """Of the parts that have choices, in the order of the space."""
    parts = [part for part in action.parts if choices(part)] if isinstance(action, Joint) else []
    if isinstance(mask, Mapping):
        names = action.names if isinstance(action, Joint) and action.names is not None else ()
        wanted = [name for name, part in zip(names, getattr(action, "parts", ()), strict=True) if choices(part)]
        if unknown := set(mask) - set(names) or set(wanted) - set(mask):
            raise UsageError(f"an action mask by name has the parts {wanted}, not {sorted(map(str, unknown))}")
        mask = [mask[name] for name in wanted]
    if not isinstance(mask, list | tuple) or not any(map(_has_parts, mask)):
        return [mask]
    given = [each for each in mask if each is not None]
    if isinstance(action, Joint) and len(given) == len(parts):
        return [piece for each, part in zip(given, parts, strict=True) for piece in _pieces(each, part)]
    if isinstance(action, Joint):
        raise UsageError(f"an action mask has {len(parts)} parts, one for each that has choices, got {len(given)}")
    return given


def _has_parts(mask: Any) -> bool:
    return isinstance(mask, list | tuple | Mapping) or np.ndim(mask) > 0


def one_for_all(mask: Any) -> bool:
    """Whether something that is no mapping is one mask, not a sequence of them."""
    return not any(map(_has_parts, mask))


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


def seen_shape(observation: Space) -> tuple[int, ...]:
    """The shape of that within the array of a rollout: beside a mask it is flat."""
    shape = seen(observation).shape
    return (math.prod(shape),) if isinstance(observation, Masked) else shape
