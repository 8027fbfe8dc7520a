"""Worlds whose actions within bounds are given before they are squashed: s ∈ ℝ for low + (high − low)·(1 + tanh s)/2.

Only the space of the actions changes: its plain data (`spaces.Box`) is what maps s to the environment's own action.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import numpy as np
from gymnasium.spaces import Box, Dict, Tuple

from steepest.errors import UsageError
from steepest.spaces import describe
from steepest.worlds.gymnasium import GymnasiumWorld
from steepest.worlds.parallel import ParallelWorld


class SquashedBox(Box):
    """All of ℝⁿ.  squashed: the box that it stands for."""

    def __init__(self, squashed: Box):
        super().__init__(-np.inf, np.inf, squashed.shape, np.float32)
        self.squashed = squashed


def squashed_space(space: Any) -> Any:
    """A Gymnasium space with its boxes squashed, also those within a Dict or a Tuple.

    Raises UsageError for one without bounds.
    """
    if isinstance(space, Dict):
        return Dict(OrderedDict((name, squashed_space(part)) for name, part in space.spaces.items()))
    if isinstance(space, Tuple):
        return Tuple(tuple(map(squashed_space, space.spaces)))
    if not isinstance(space, Box):
        return space
    if not (np.isfinite(space.low).all() and np.isfinite(space.high).all() and (space.low < space.high).all()):
        raise UsageError(f"a squashed or Beta policy needs bounds, low < high; {space} has none: take a gaussian one")
    return SquashedBox(space)


def squash(world: Any) -> Any:
    """A world just made, with its actions before they are squashed. Raises UsageError as `squashed_space` does."""
    space = squashed_space(world.action_space)
    if hasattr(world, "copies"):
        from steepest.worlds.functional.squashed import SquashedActions
        from steepest.worlds.functional.world import FunctionalWorld

        environment = SquashedActions(world.copies.environment, space)
        return FunctionalWorld(environment, world.envs, name=world.name, backend=world.backend)
    if not isinstance(world, GymnasiumWorld | ParallelWorld):
        raise UsageError(f"worlds of the backend {world.backend!r} take actions as they are: take a gaussian policy")
    world.action_space, world._action = space, describe(space, "action")
    return world
