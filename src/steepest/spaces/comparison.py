"""Whether what was made for one space can be used in another."""

from __future__ import annotations

import numpy as np

from steepest.spaces.joint import Joint, Masked, Space
from steepest.spaces.plain import Box, MultiDiscrete


def fits(ours: Space, theirs: Space) -> bool:
    """True for spaces of one form: bounds, starts and dtypes may differ."""
    if type(ours) is not type(theirs) or ours.shape != theirs.shape:
        return False
    if isinstance(ours, Joint) and isinstance(theirs, Joint):
        same = ours.names == theirs.names and len(ours.parts) == len(theirs.parts)
        return same and all(map(fits, ours.parts, theirs.parts))
    if isinstance(ours, Masked) and isinstance(theirs, Masked):
        return ours.mask == theirs.mask and fits(ours.observation, theirs.observation)
    if isinstance(ours, Box) or isinstance(theirs, Box):
        return is_squashed(ours) == is_squashed(theirs)
    return np.array_equal(ours.counts, theirs.counts)


def brief(space: Space) -> str:
    """In a few words, for messages."""
    if isinstance(space, Joint):
        parts = map(brief, space.parts)
        if space.names is None:
            return f"Tuple({', '.join(parts)})"
        return f"Dict({', '.join(f'{name}: {part}' for name, part in zip(space.names, parts, strict=True))})"
    if isinstance(space, Masked):
        return f"{brief(space.observation)} with a mask of {space.mask}"
    if isinstance(space, Box):
        return f"Box{space.shape}{' squashed' if space.squashed else ''}"
    return f"{type(space).__name__}({space.sizes if isinstance(space, MultiDiscrete) else space.n})"


def is_squashed(action: Space) -> bool:
    """Whether any box of it is."""
    if isinstance(action, Joint):
        return any(map(is_squashed, action.parts))
    return isinstance(action, Box) and action.squashed
