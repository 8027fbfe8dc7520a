"""How a `GymnasiumWorld` is made: of an id, a factory, an environment or a vector environment.

Of an id or a factory there can be more environments of the kind, and the world can replace one that broke; what exists
already is all there is.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import gymnasium
from gymnasium.envs.registration import load_env_creator
from gymnasium.vector import SyncVectorEnv, VectorEnv

from steepest.errors import UsageError
from steepest.names import unknown
from steepest.worlds import memory_tasks
from steepest.worlds.gymnasium import GymnasiumWorld, name_of
from steepest.worlds.masks import ShowsMask, ShowsMasks
from steepest.worlds.missing import missing
from steepest.worlds.mujoco_warnings import say_once
from steepest.worlds.options import wrong_option
from steepest.worlds.stacking import FrameStack

memory_tasks.register()


def make_gymnasium(
    spec: Any,
    envs: int | None = None,
    *,
    stack: int | None = None,
    called: str | None = None,
    wrappers: Sequence[Any] = (),
    shows_masks: bool = False,
    **kwargs: Any,
) -> GymnasiumWorld:
    """A world of `envs` environments, stepped one after the other in this process.

    spec: a registered id (also `module:EnvId`), a factory () → Env, an Env, or a VectorEnv. The last two exist already:
        `envs` may only repeat what they are.
    envs: how many; 1 if not said, or as many as the VectorEnv has.
    stack, called: of an id, so many observations are shown as one, and the world is called so.
    wrappers: of an id, what is put around each environment.
    shows_masks: the observation is [obs, mask], as of `masks.py`.  kwargs: for the constructor of the environment.

    Raises UsageError for an unknown id (it suggests the closest), a missing package (it says which extra to install), a
    constructor that fails, and spaces that are not supported.
    """
    if isinstance(spec, VectorEnv | gymnasium.Env):
        count = spec.num_envs if isinstance(spec, VectorEnv) else 1
        if kwargs or envs not in (None, count):
            what = "takes no more arguments" if kwargs else f"is {count} environment(s), not {envs}"
            raise UsageError(
                f"{name_of(spec)} is made already and {what}; to make more, give a function that returns one"
            )
        if isinstance(spec, VectorEnv):
            return GymnasiumWorld(ShowsMasks(spec) if shows_masks else spec)
        one = ShowsMask(spec) if shows_masks else spec
        return GymnasiumWorld(_from_factory(lambda: one, 1, {}))
    if isinstance(spec, str):
        around = [*wrappers, *([] if stack is None else [functools.partial(FrameStack, count=stack)])]
        around += [ShowsMask] if shows_masks else []
        env = _from_id(spec, 1 if envs is None else envs, kwargs, around)
        return GymnasiumWorld(env, called or spec, again=lambda: _from_id(spec, 1, kwargs, around).envs[0])
    if not callable(spec):
        raise UsageError(
            f"an environment is an id, a factory, a gymnasium Env or a VectorEnv; got {type(spec).__name__}"
        )

    def one_more() -> Any:
        return ShowsMask(spec(**kwargs)) if shows_masks else spec(**kwargs)

    return GymnasiumWorld(_from_factory(one_more, 1 if envs is None else envs, {}), again=one_more)


class Opened:
    """A factory of which one environment was made already, so as to see of what kind they are; it comes first."""

    def __init__(self, factory: Callable[..., Any], kwargs: Mapping[str, Any]):
        self._factory = factory
        self.first: Any = _called(factory, kwargs)

    def __call__(self, **kwargs: Any) -> Any:
        first, self.first = self.first, None
        return self._factory(**kwargs) if first is None else first


def _from_id(spec: str, envs: int, kwargs: Mapping[str, Any], wrappers: Sequence[Any]) -> Any:
    if ".mujoco." in _entry(spec):
        say_once()
    try:
        # sync by name: without one, gymnasium prefers a vector entry point, which is a different program
        return gymnasium.make_vec(
            spec,
            envs,
            vectorization_mode="sync",
            vector_kwargs={"copy": False},
            wrappers=wrappers,
            disable_env_checker=True,
            **kwargs,
        )
    except UsageError:
        raise
    except gymnasium.error.DependencyNotInstalled as error:
        extra = next((name for name in ("mujoco", "box2d") if f".{name}." in _entry(spec)), None)
        raise missing(spec, error, extra) from error
    except Exception as error:
        if spec.rpartition(":")[2] not in gymnasium.registry:
            raise unknown("environment", spec.rpartition(":")[2], _latest()) from error
        wrong_option(spec, kwargs, error, _constructor(spec))
        raise UsageError(f"environment {spec!r} could not be made: {type(error).__name__}: {error}") from error


def _entry(spec: str) -> str:
    """Where an id says that its class is; empty for one that nobody registered yet."""
    return str(getattr(gymnasium.registry.get(spec.rpartition(":")[2]), "entry_point", ""))


def _constructor(spec: str) -> Any:
    """What makes one of an id that is registered."""
    entry = gymnasium.registry[spec.rpartition(":")[2]].entry_point
    return load_env_creator(entry) if isinstance(entry, str) else entry


def _latest() -> list[str]:
    """The ids worth suggesting: the highest version of every registered name."""
    latest: dict[tuple[str | None, str], Any] = {}
    for spec in gymnasium.registry.values():
        best = latest.get((spec.namespace, spec.name))
        if best is None or (spec.version or 0) > (best.version or 0):
            latest[spec.namespace, spec.name] = spec
    return [spec.id for spec in latest.values()]


def _called(factory: Callable[..., Any], kwargs: Mapping[str, Any]) -> Any:
    try:
        return factory(**kwargs)
    except UsageError:
        raise
    except Exception as error:
        raise UsageError(f"the environment's factory raised {type(error).__name__}: {error}") from error


def _from_factory(factory: Callable[..., Any], envs: int, kwargs: Mapping[str, Any]) -> VectorEnv:
    made = [_called(factory, kwargs) for _ in range(envs)]
    for env in made:
        if not isinstance(env, gymnasium.Env):
            raise UsageError(f"the environment's factory returned a {type(env).__name__}, not a gymnasium.Env")
    if len({id(env.unwrapped) for env in made}) < envs:
        raise UsageError("the environment's factory returned the same object twice; each call must make a new one")
    return SyncVectorEnv([lambda env=env: env for env in made], copy=False)
