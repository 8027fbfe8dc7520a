"""Worlds of several agents by name, factory or environment: `pettingzoo:butterfly.cooperative_pong_v6`.

A name is one of PettingZoo's own registry; nothing else is imported for it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from steepest.errors import UsageError
from steepest.names import unknown
from steepest.worlds.missing import missing
from steepest.worlds.parallel import ParallelWorld, called
from steepest.worlds.parallel_masks import ShowsMasksOfAgents


class NotWhole(UsageError):
    """A number of rows that is no number of environments.  agents: rows of each of these."""

    def __init__(self, message: str, agents: int):
        super().__init__(message)
        self.agents = agents


def make_pettingzoo(name: str, rows: int | None = None, *, shows_masks: bool = False, **kwargs: Any) -> ParallelWorld:
    """Environments of a name.

    name: as PettingZoo registers its parallel environments, "butterfly/pistonball-v6", or as it calls the module,
    "butterfly.pistonball_v6".  rows, shows_masks: as of `make_parallel`.  kwargs: for its constructor.

    Raises UsageError where pettingzoo, or what an environment needs, is not installed, and for an unknown name.
    """
    try:
        import pettingzoo  # pyright: ignore[reportMissingImports]
        from pettingzoo.env_registry.exceptions import FailedToImport  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise missing(f"pettingzoo:{name}", error, "pettingzoo") from error
    known = {_module(id): id for id in pettingzoo.parallel_registry}
    if _module(name) not in known:
        raise unknown("parallel environment of PettingZoo", name, known)

    def make() -> Any:
        try:
            return pettingzoo.make("parallel", known[_module(name)], **kwargs)
        except FailedToImport as error:
            needs = f"pip install 'pettingzoo[{name.replace('.', '/').partition('/')[0]}]'"
            raise missing(f"pettingzoo:{name}", f"{error.__cause__}; {needs}", None) from error
        except Exception as error:
            what = f"{type(error).__name__}: {error}"
            raise UsageError(f"environment 'pettingzoo:{name}' could not be made: {what}") from error

    return make_parallel(make, rows, name, shows_masks=shows_masks)


def make_parallel(
    make: Callable[[], Any],
    rows: int | None = None,
    name: str | None = None,
    *,
    shows_masks: bool = False,
    made: bool = False,
) -> ParallelWorld:
    """Environments of a kind.

    make: () ↦ a new one.  rows: agents in all environments together, a multiple of those of one; those of one if not
    said.  name: as of `ParallelWorld`.  shows_masks: the observation is [obs, mask], as of `parallel_masks.py`.
    made: there is only the one that exists already, which cannot be made again.

    Raises NotWhole for another number of rows, UsageError as `ParallelWorld`.
    """
    first = make()
    agents = len(first.possible_agents)
    rows = agents if rows is None else rows
    try:
        check_whole(name or called(first), agents, rows)
    except NotWhole:
        first.close()
        raise
    environments = [first, *(make() for _ in range(rows // max(1, agents) - 1))]
    if len({id(environment) for environment in environments}) < len(environments):
        raise UsageError("the environment's factory returned the same object twice; each call must make a new one")
    shown: Any = ShowsMasksOfAgents if shows_masks else lambda environment: environment
    again = None if made else lambda: shown(make())
    return ParallelWorld([shown(environment) for environment in environments], name, again)


def check_whole(name: str, agents: int, rows: int) -> None:
    """Raise NotWhole for a number of rows that is no number of environments of so many agents."""
    if agents and rows % agents:
        less = rows // agents * agents
        near = f"{less} or {less + agents}" if less else str(agents)
        raise NotWhole(
            f"{name} has {agents} agents, each of which counts as an environment: envs must be a multiple of {agents}, "
            f"got {rows}; take {near}",
            agents,
        )


def is_parallel(environment: Any) -> bool:
    """Whether something that was made has the methods of PettingZoo's ParallelEnv. Raises UsageError for an AECEnv."""
    if not (hasattr(environment, "possible_agents") and callable(getattr(environment, "action_space", None))):
        return False
    if hasattr(environment, "agent_iter"):
        raise UsageError(
            f"{type(environment).__name__} steps its agents in turns, and those of a world step together: give "
            "pettingzoo.utils.aec_to_parallel(env), if it allows that"
        )
    return True


def _module(name: str) -> str:
    """As the module is called: "butterfly/pistonball-v6" ↦ "butterfly.pistonball_v6"."""
    return name.replace("/", ".").replace("-v", "_v")
