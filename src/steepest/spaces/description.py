"""From a Gymnasium space to plain data, or to what is wrong with it."""

from __future__ import annotations

from typing import Any

import numpy as np

from steepest.errors import UsageError
from steepest.spaces.joint import Joint, Masked, Space
from steepest.spaces.plain import Box, Discrete, MultiBinary, MultiDiscrete


def describe(space: Any, role: str) -> Space:
    """A Gymnasium space as plain data.

    space: a `gymnasium.spaces` object.  role: "action" or "observation", for the message.

    Raises UsageError for a space that no policy here takes, naming those it does, and the part of a Dict or Tuple.
    """
    if role == "observation" and hasattr(space, "masked"):  # of worlds.masks
        return Masked(describe(space.masked, role), int(space.mask))
    return _part(space, role, "", space)


def _part(space: Any, role: str, path: str, whole: Any) -> Space:
    """A space within another.  path: what leads to it, "Dict['arm'].".  whole: what is described."""
    kind = "Box" if hasattr(space, "squashed") else type(space).__name__
    if kind == "Discrete":
        return Discrete(int(space.n), int(space.start))
    if kind == "Box":
        if role == "action" and not np.issubdtype(space.dtype, np.floating):
            raise _unsupported(role, whole, path + kind, "supported: Discrete, and Box of floats with one axis")
        if role == "action" and not path and len(space.shape) != 1:
            raise _unsupported(role, whole, path + kind, "supported: Discrete, and Box of floats with one axis")
        own, squashed = getattr(space, "squashed", space), hasattr(space, "squashed")  # of worlds.squashing
        return Box(np.asarray(own.low, np.float64), np.asarray(own.high, np.float64), str(own.dtype), squashed)
    if kind == "MultiDiscrete" and len(space.shape) == 1:
        return MultiDiscrete(*(tuple(int(n) for n in each) for each in (space.nvec, space.start)))
    if kind == "MultiBinary" and len(space.shape) == 1:
        return MultiBinary(int(space.shape[0]))
    if kind in ("Dict", "Tuple"):
        names = tuple(space.spaces) if kind == "Dict" else range(len(space.spaces))
        if not names:
            raise _unsupported(role, whole, path + kind, "it has no parts")
        parts = tuple(_part(space.spaces[name], role, f"{path}{kind}[{name!r}].", whole) for name in names)
        return Joint(parts, names if isinstance(names, tuple) else None)
    supported = "Discrete, Box, MultiDiscrete and MultiBinary of one axis, and Tuple and Dict of these"
    raise _unsupported(role, whole, path + kind, f"supported: {supported}")


def _unsupported(role: str, space: Any, part: str, hint: str) -> UsageError:
    why = f" because of its {part}" if "." in part else ""
    return UsageError(f"the {role} space {space} is not supported{why}; {hint}")
