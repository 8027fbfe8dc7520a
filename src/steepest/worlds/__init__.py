"""Worlds: where policies act. Importing this loads no simulator; making a world loads the one it needs."""

from steepest.worlds.specification import Adapted, backends, is_made, make_up_to, make_world
from steepest.worlds.world import Transition, World, environment_seeds

__all__ = ["Adapted", "Transition", "World", "backends", "environment_seeds", "is_made", "make_up_to", "make_world"]
