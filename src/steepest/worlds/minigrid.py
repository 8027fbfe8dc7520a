"""MiniGrid's environments: `MiniGrid-DoorKey-5x5-v0`, `minigrid:DoorKey-5x5-v0`, as a policy can learn from them.

    MiniGrid's own                            here
    image      [h,w,3] bytes: object,         [h,w,20] of 0 and 1: 11 objects, 6 colours, 3 states of doors, as
               colour and state by number     MiniGrid's OneHotPartialObsWrapper
    direction  Discrete(4)                    the same
    mission    a text                         which of its words stands in each place, a MultiDiscrete; left out where
                                              there is only one mission

All else in the observation stays. `gymnasium:MiniGrid-DoorKey-5x5-v0` is the bare environment.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from steepest.errors import UsageError
from steepest.names import unknown
from steepest.worlds.gymnasium import GymnasiumWorld, name_of
from steepest.worlds.gymnasium_making import make_gymnasium
from steepest.worlds.missing import missing

PREFIXES = ("MiniGrid-", "BabyAI-")
"""Of the ids that MiniGrid registers."""
OBJECTS, COLOURS, STATES = 11, 6, 3
MISSIONS = 10_000
"""So many texts are told apart at most."""


def make_minigrid(name: str, envs: int | None = None, **kwargs: Any) -> GymnasiumWorld:
    """`envs` environments, as of `make_gymnasium`.

    name: the id, with or without "MiniGrid-".  kwargs: for the constructor of the environment.

    Raises UsageError where minigrid is not installed, for an unknown id, and for missions that cannot be counted.
    """
    register(name)
    identifier = name if name.startswith(PREFIXES) else f"MiniGrid-{name}"
    if identifier not in gymnasium.registry:
        raise unknown("MiniGrid environment", identifier, [id for id in gymnasium.registry if id.startswith(PREFIXES)])
    return make_gymnasium(identifier, envs, wrappers=[_seen], **kwargs)


def register(name: str) -> None:
    """Make MiniGrid's ids known to Gymnasium.  name: as the user said, for the error where it is not installed."""
    try:
        import minigrid  # noqa: F401  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise missing(name, error, "minigrid") from error


def _seen(env: Any) -> Any:
    """An environment of such an id; somebody's own may show something else than MiniGrid's."""
    parts = getattr(env.observation_space, "spaces", {})
    return OneHotGrid(env) if "image" in parts and "mission" in parts else env


class OneHotGrid(gymnasium.Wrapper):
    """An environment with MiniGrid's observations, as above.

    missions: all that there are, where the environment's own space does not say; each is then a number.

    Raises UsageError for observations that are not MiniGrid's, and for missions that cannot be counted.
    """

    def __init__(self, env: Any, missions: Sequence[str] | None = None):
        super().__init__(env)
        space = env.observation_space
        parts = dict(space.spaces) if isinstance(space, spaces.Dict) else {}
        image = parts.get("image")
        if not isinstance(image, spaces.Box) or len(image.shape) != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
            raise UsageError(
                f"{name_of(env)}: observations of MiniGrid are a Dict with an image [h,w,3] of bytes, not {space}"
            )
        shape = (*image.shape[:2], OBJECTS + COLOURS + STATES)
        parts["image"] = spaces.Box(0.0, 1.0, shape, np.float32)
        self._words: dict[str, NDArray[np.int64]] = {}
        if "mission" in parts:
            counts, self._words = _numbered(name_of(env), parts.pop("mission"), missions)
            if counts:
                parts["mission"] = spaces.MultiDiscrete(counts)
        self._mission = "mission" in parts
        self.observation_space = spaces.Dict(parts)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        obs, info = self.env.reset(seed=seed, options=options)
        return self._shown(obs), info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        obs, reward, terminated, truncated, info = self.env.step(action)
        return self._shown(obs), reward, terminated, truncated, info

    def _shown(self, obs: dict[str, Any]) -> dict[str, Any]:
        shown = {**obs, "image": one_hot(obs["image"])}
        mission = shown.pop("mission", None)
        if self._mission:
            if mission not in self._words:
                raise ValueError(f"the mission {mission!r} is none of the {len(self._words)} of its space")
            shown["mission"] = self._words[mission]
        return shown


def one_hot(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """[h,w,3] numbers of object, colour and state ↦ [h,w,20] of 0 and 1. IndexError for a number that is none."""
    planes = (np.eye(n, dtype=np.float32)[image[..., k]] for k, n in enumerate((OBJECTS, COLOURS, STATES)))
    return np.concatenate(list(planes), axis=-1)


def _numbered(name: str, space: Any, missions: Sequence[str] | None) -> tuple[list[int], dict[str, NDArray[np.int64]]]:
    """How many words each place of a mission has, and of each mission which of them. One that can be put together in
    several ways is the first of them.  name: of the environment, for errors.  missions: as of `OneHotGrid`."""
    if missions is not None:
        places, say = [list(missions)], lambda mission: mission
    else:
        places, say = _places(name, space)
    counts = [len(words) for words in places]
    if math.prod(counts) > MISSIONS:
        raise _refusal(name, space, f"it has {math.prod(counts)} missions, more than {MISSIONS}")
    several = [k for k, n in enumerate(counts) if n > 1]
    known: dict[str, NDArray[np.int64]] = {}
    for chosen in itertools.product(*map(range, counts)):
        mission = say(*(words[k] for words, k in zip(places, chosen, strict=True)))
        known.setdefault(mission, np.array(chosen, np.int64)[several])
    return [counts[k] for k in several], known


def _places(name: str, space: Any) -> tuple[Sequence[Sequence[str]], Callable[..., str]]:
    """The words for each place, and what makes a mission of one for each."""
    if type(space).__name__ != "MissionSpace":  # not of BabyAI's, which says nothing of its sentences
        raise _refusal(name, space, "its missions cannot be listed")
    return space.ordered_placeholders or (), space.mission_func


def _refusal(name: str, space: Any, why: str) -> UsageError:
    return UsageError(
        f"{name}: the observation space is not supported because of its Dict['mission'].{type(space).__name__}: {why}; "
        "give a function that makes steepest.worlds.minigrid.OneHotGrid(env, missions=[…]) with those that come up"
    )
