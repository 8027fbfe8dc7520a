"""envpool's environments: `envpool:Hopper-v5`, stepped by threads in C++.

It bundles a MuJoCo of its own, of another version than Gymnasium's: returns of the two are not to be compared. It takes
its seeds when a pool is made and ignores those of a reset, so that a reset with a seed makes the pool anew.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from steepest.errors import UsageError
from steepest.names import unknown
from steepest.worlds.gymnasium import GymnasiumWorld
from steepest.worlds.missing import missing
from steepest.worlds.world import environment_seeds


def make_envpool(name: str, envs: int | None = None, **kwargs: Any) -> EnvpoolWorld:
    """A pool of `envs` environments.

    name: as envpool lists it.  kwargs: of `envpool.make_gymnasium`, as in num_threads=2.

    Raises UsageError where envpool is not installed, for an unknown name, and for arguments that it does not take.
    """
    try:
        import envpool  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise missing(f"envpool:{name}", error, "envpool") from error
    if name not in envpool.list_all_envs():
        raise unknown("envpool environment", name, envpool.list_all_envs())
    count = 1 if envs is None else envs

    def make(seeds: list[int]) -> Any:
        try:
            return envpool.make_gymnasium(name, num_envs=count, seed=seeds, **kwargs)
        except Exception as error:
            what = f"{type(error).__name__}: {error}"
            raise UsageError(f"environment 'envpool:{name}' could not be made: {what}") from error

    return EnvpoolWorld(make, count, name)


class EnvpoolWorld(GymnasiumWorld):
    """make: the seeds of the environments ↦ a new pool.  envs: how many.  name: without the backend."""

    backend = "envpool"

    def __init__(self, make: Callable[[list[int]], Any], envs: int, name: str):
        self._make = make
        super().__init__(make(environment_seeds(0, envs)), name)

    def reset(self, seed: int | None = None) -> Any:
        """See `World.reset`."""
        seeds = self._each_seed(seed)
        if seeds is not None:
            self._env.close()
            self._env = self._stepped = self._make(seeds)
        return super().reset(seed)

    def _seeds(self, seed: int | None) -> None:
        return None  # it has them
