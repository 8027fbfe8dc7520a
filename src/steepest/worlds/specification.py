"""From what the user wrote to a world:  `[backend:]name`, a factory, an environment, or a world.

    Hopper-v5   gymnasium:Hopper-v5   ALE/Pong-v5   atari:Pong-v5   envpool:Hopper-v5   my_package:MyEnv-v0
    gymnax:CartPole-v1   playground:CartpoleBalance   mdp:two-state   lqr:scalar   stack:4:CartPole-v1
    MiniGrid-Empty-5x5-v0   minigrid:Empty-5x5-v0   pettingzoo:classic.rps_v2
    lambda: MyEnv()   MyEnv()

Before all of it, stack:N: shows the last N observations as one (`stacking.py`); behind it stand options for the
constructor, as in FrozenLake-v1,map_name=8x8 (`options.py`). A prefix that is no backend is Gymnasium's own module
form: importing the module registers the id. Other packages add backends by entry points of the
group "steepest.worlds".
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any, NamedTuple

from steepest.errors import RunError, UsageError
from steepest.names import Registry, nearest
from steepest.worlds.functional.protocol import is_functional, is_functional_world
from steepest.worlds.options import with_options
from steepest.worlds.world import World


class Adapted(NamedTuple):
    """An environment as of `make_world`, made to the measure of a policy.

    masks: it observes its action masks too (`masks.py`).  squashed: its actions within bounds are given before they are
    squashed (`squashing.py`).
    """

    spec: Any
    masks: bool = False
    squashed: bool = False


backends: Registry[Callable[..., World]] = Registry("environment backend", "steepest.worlds")
"""name ↦ make(specification, envs, **kwargs) → World; `envs` is None where the user gave no number."""


def make_world(spec: Any, envs: int | None = None, *, allow_import: bool = True, **kwargs: Any) -> World:
    """The world that `spec` means, with `envs` environments (one, if not said).

    spec: an id with an optional backend or module before a colon and options behind it, a factory () → gymnasium.Env,
        a gymnasium.Env, a gymnasium VectorEnv, a functional environment, or a World, which is returned as it is; or
        these `Adapted`.
    allow_import: False for an id that was read from a file. A module named only by a file is not imported.
    kwargs: for the constructor of the environment, beside the options of the id.

    Raises UsageError for an unknown id, backend, module or option, and for a number of environments that cannot be had.
    """
    masks, squashed = (spec.masks, spec.squashed) if isinstance(spec, Adapted) else (False, False)
    spec = spec.spec if isinstance(spec, Adapted) else spec
    if squashed and not _is_world(spec):
        from steepest.worlds.squashing import squash

        return squash(make_world(Adapted(spec, masks), envs, allow_import=allow_import, **kwargs))
    if _is_world(spec):
        if masks or squashed:
            what = "show its masks" if masks else "have its actions squashed"
            raise UsageError(f"world {spec.name!r} is made already: give the environment, so that it can {what}")
        return _same(spec, envs, kwargs)
    if envs is not None and envs < 1:
        raise UsageError(f"envs must be at least 1, got {envs}")
    if isinstance(spec, str) and "," in spec:
        identifier, options = with_options(spec, trusted=allow_import)
        try:
            return make_world(Adapted(identifier, masks), envs, allow_import=allow_import, **{**options, **kwargs})
        except (UsageError, RunError):
            raise
        except Exception as error:
            raise UsageError(f"environment {spec!r} could not be made: {type(error).__name__}: {error}") from error
    stack, inner = counted(spec)
    if stack is not None:
        return _stacked(stack, inner, Adapted(spec, masks), envs, allow_import, kwargs)
    gymnasium = _gymnasium_with_masks if masks else backends["gymnasium"]
    if not isinstance(spec, str):
        if is_functional(spec):
            return (_functional_with_masks if masks else _functional)(spec, envs, **kwargs)
        return _of_objects(gymnasium, spec, envs, masks, kwargs)
    prefix, colon, name = spec.partition(":")
    if not colon:
        if spec.startswith("ALE/") and not masks:
            return backends["atari"](spec, envs, **kwargs)
        if spec.startswith(("MiniGrid-", "BabyAI-")) and not masks:
            return backends["minigrid"](spec, envs, **kwargs)
        return gymnasium(spec, envs, **kwargs)
    if allow_import:
        backends.plug(prefix)
    if prefix not in backends and prefix not in backends.plugins:
        _import(prefix, spec, allow_import)
        return gymnasium(spec, envs, **kwargs)
    if masks and prefix == "pettingzoo":
        return backends[prefix](name, envs, shows_masks=True, **kwargs)
    if masks and prefix != "gymnasium":
        raise UsageError(f"environments of the backend {prefix!r} have no action masks: leave mask at false")
    module, colon, _ = name.partition(":")
    if prefix == "gymnasium" and colon:
        _import(module, spec, allow_import)
    return (gymnasium if masks else backends[prefix])(name, envs, **kwargs)


def make_up_to(spec: Any, envs: int, *, allow_import: bool = True) -> World:
    """As `make_world`; fewer environments where these would be no whole ones, as where each has several agents, but at
    least one."""
    try:
        return make_world(spec, envs, allow_import=allow_import)
    except UsageError as error:
        agents = getattr(error, "agents", None)  # of worlds.pettingzoo
        if agents is None:
            raise
        return make_world(spec, max(1, envs // agents) * agents, allow_import=allow_import)


def counted(spec: Any) -> tuple[int | None, Any]:
    """(N, the rest) of "stack:N:rest"; None where nothing is stacked. Raises UsageError for an N that is none."""
    if not isinstance(spec, str) or not spec.startswith("stack:"):
        return None, spec
    count, colon, rest = spec.removeprefix("stack:").partition(":")
    if not count.isdecimal() or not 1 <= int(count) <= 1000 or not colon or not rest:
        raise UsageError(
            f"{spec!r}: frames are stacked by stack:N:ENVIRONMENT, N from 1 to 1000, as in stack:4:CartPole-v1"
        )
    if rest.startswith("stack:"):
        raise UsageError(f"{spec!r}: a stack is of no stack")
    return int(count), rest


def is_made(spec: Any) -> bool:
    """True for an environment or a world that exists already; False for an id, a factory or a functional environment,
    of all of which there can be as many as one likes."""
    spec = spec.spec if isinstance(spec, Adapted) else spec
    return not isinstance(spec, str | type) and hasattr(spec, "step") and not is_functional(spec)


def _import(module: str, spec: str, allowed: bool) -> None:
    """Import what registers a `module:EnvId`, so that a wrong prefix and a broken module have their own errors."""
    close = [f"{backend}:{spec.partition(':')[2]}" for backend in nearest(module, backends)]
    hint = f"did you mean {close[0]!r}?" if close else f"backends: {', '.join(backends)}"
    if not allowed:
        raise UsageError(
            f"environment {spec!r} needs the Python module {module!r}, which only a file names; a file's word imports "
            f"nothing: repeat {spec!r} on the command line if you trust it"
        )
    try:
        importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is not None and (module == error.name or module.startswith(error.name + ".")):
            raise UsageError(
                f"environment {spec!r}: {module!r} is neither a backend nor a Python module found here; {hint}"
            ) from error
        raise _broken(module, spec, error) from error
    except Exception as error:
        raise _broken(module, spec, error) from error


def _broken(module: str, spec: str, error: Exception) -> UsageError:
    return UsageError(f"environment {spec!r}: importing {module!r} raised {type(error).__name__}: {error}")


def _stacked(
    count: int, inner: str, whole: Adapted, envs: int | None, allow_import: bool, kwargs: dict[str, Any]
) -> World:
    """The world of "stack:N:inner".  whole: with masks or without."""
    world, spec = make_world(inner, allow_import=allow_import, **kwargs), whole.spec
    if is_functional_world(world):
        from steepest.worlds.functional.stacking import FunctionalStack

        functional: Any = world
        make = _functional_with_masks if whole.masks else _functional
        return make(FunctionalStack(functional.copies.environment, count), envs, name=spec, backend=world.backend)
    world.close()
    if world.backend != "gymnasium":
        raise UsageError(f"{spec!r}: frames of the backend {world.backend!r} are not stacked")
    name = inner.partition(":")[2] if inner.startswith("gymnasium:") else inner
    make = _gymnasium_with_masks if whole.masks else backends["gymnasium"]
    return make(name, envs, stack=count, called=spec, **kwargs)


def _is_world(spec: Any) -> bool:
    # by hand: isinstance with a runtime protocol would read the property `obs`, which a world has only after a reset
    methods = all(callable(getattr(spec, name, None)) for name in ("reset", "step", "close"))
    return methods and all(hasattr(spec, name) for name in ("name", "backend", "envs", "action_space"))


def _same(world: World, envs: int | None, kwargs: dict[str, Any]) -> World:
    if envs is not None and envs != world.envs:
        raise UsageError(f"world {world.name!r} was made with {world.envs} environments, not {envs}")
    if kwargs:
        raise UsageError(f"world {world.name!r} is made already and takes no {', '.join(kwargs)}")
    return world


def _of_objects(gymnasium: Any, spec: Any, envs: int | None, masks: bool, kwargs: dict[str, Any]) -> World:
    """Of an environment, or a factory of some.  gymnasium: the backend for Gymnasium's."""
    from steepest.worlds.gymnasium_making import Opened
    from steepest.worlds.pettingzoo import is_parallel, make_parallel

    made = is_made(spec)
    given: Any = spec if made or not callable(spec) else Opened(spec, kwargs)
    if not is_parallel(given if given is spec else given.first):
        return gymnasium(given, envs, **kwargs)
    if not made:
        return make_parallel(lambda: given(**kwargs), envs, shows_masks=masks)
    world = make_parallel(lambda: spec, shows_masks=masks, made=True)
    if kwargs or envs not in (None, world.envs):
        what = "takes no more arguments" if kwargs else f"has {world.envs} agents, not {envs}"
        raise UsageError(f"{world.name} is made already and {what}; to make more, give a function that returns one")
    return world


def _gymnasium(spec: Any, envs: int | None, **kwargs: Any) -> World:
    from steepest.worlds.gymnasium_making import make_gymnasium

    return make_gymnasium(spec, envs, **kwargs)


def _gymnasium_with_masks(spec: Any, envs: int | None, **kwargs: Any) -> World:
    from steepest.worlds.gymnasium_making import make_gymnasium

    return make_gymnasium(spec, envs, shows_masks=True, **kwargs)


def _functional_with_masks(spec: Any, envs: int | None, **kwargs: Any) -> World:
    from steepest.worlds.functional.masks import ShowsMask

    return _functional(ShowsMask(spec), envs, **kwargs)


def _functional(spec: Any, envs: int | None, **kwargs: Any) -> World:
    from steepest.worlds.functional.world import FunctionalWorld

    return FunctionalWorld(spec, 1 if envs is None else envs, **kwargs)


def _gymnax(name: str, envs: int | None, **kwargs: Any) -> World:
    from steepest.worlds.functional.gymnax import make_gymnax

    return _functional(make_gymnax(name, **kwargs), envs, backend="gymnax")


def _atari(name: str, envs: int | None, **kwargs: Any) -> World:
    from steepest.worlds.atari import make_atari

    return make_atari(name, envs, **kwargs)


def _envpool(name: str, envs: int | None, **kwargs: Any) -> World:
    from steepest.worlds.envpool import make_envpool

    return make_envpool(name, envs, **kwargs)


def _minigrid(name: str, envs: int | None, **kwargs: Any) -> World:
    from steepest.worlds.minigrid import make_minigrid

    return make_minigrid(name, envs, **kwargs)


def _pettingzoo(name: str, envs: int | None, **kwargs: Any) -> World:
    from steepest.worlds.pettingzoo import make_pettingzoo

    return make_pettingzoo(name, envs, **kwargs)


def _playground(name: str, envs: int | None, **kwargs: Any) -> World:
    from steepest.worlds.functional.playground import make_playground

    return _functional(make_playground(name, **kwargs), envs, backend="playground")


def _mdp(name: str, envs: int | None, **kwargs: Any) -> World:
    from steepest.worlds.finite.generators import MDPS
    from steepest.worlds.functional.finite import FunctionalMDP

    return _functional(FunctionalMDP(MDPS.call(name, **kwargs), name), envs, backend="mdp")


def _lqr(name: str, envs: int | None, **kwargs: Any) -> World:
    from steepest.worlds.functional.linear_quadratic import FunctionalLQR
    from steepest.worlds.lqr.generators import LQRS

    return _functional(FunctionalLQR(LQRS.call(name, **kwargs), name), envs, backend="lqr")


backends.add("gymnasium", _gymnasium)
backends.add("atari", _atari)
backends.add("envpool", _envpool)
backends.add("gymnax", _gymnax)
backends.add("minigrid", _minigrid)
backends.add("pettingzoo", _pettingzoo)
backends.add("playground", _playground)
backends.add("mdp", _mdp)
backends.add("lqr", _lqr)
