"""How to make the world of a specification again, in another process: by `make_world`, after what it needs is there.

An id that the user's own program registered is known to that program only, so its registration goes along.
"""

from __future__ import annotations

import importlib
from typing import Any, NamedTuple

from steepest.worlds.options import bare
from steepest.worlds.specification import Adapted, make_world
from steepest.worlds.world import World


class Remake(NamedTuple):
    """spec: as of `make_world`, an id or a factory.  registered: Gymnasium's record of an id, or None."""

    spec: Any
    registered: Any

    def __call__(self, envs: int) -> World:
        """A new world of that many environments. Raises what `make_world` raises."""
        if self.registered is not None:
            import gymnasium

            if str(self.registered.entry_point).startswith("minigrid."):  # else it would register its ids once more
                importlib.import_module("minigrid")
            gymnasium.registry.setdefault(self.registered.id, self.registered)
        return make_world(self.spec, envs)


def remake(spec: Any) -> Remake:
    """How to make a Gymnasium environment again that has been made here.  spec: the id, or the factory."""
    own = spec.spec if isinstance(spec, Adapted) else spec
    if not isinstance(own, str):
        return Remake(spec, None)
    import gymnasium

    return Remake(spec, gymnasium.registry.get(bare(own).rpartition(":")[2]))
