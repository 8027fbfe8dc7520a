"""What a checkpoint says beside its arrays, looked at before it is believed: a file is data, and may be a stranger's.

Whoever writes a file also writes its checksum, which proves it whole and no more. So every number is of its kind and in
its range, and sizes are those of the arrays that are there, before anything is built of them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from steepest import spaces
from steepest.errors import RunError, UsageError
from steepest.normaliser import Normaliser
from steepest.policies.specification import PolicySpec
from steepest.sampling.cost_meter import Sums
from steepest.spaces import Box, Space
from steepest.training.config import LONGEST

_LARGEST = 2**53
"""Of a counter: up to here a reader that has but floats has it exactly."""
RECENT = 100
"""Returns that are remembered, of the episodes that ended last."""


class Progress(NamedTuple):
    """Counters of a run. failures: updates in all that kept θ because something went wrong. faults: of environments."""

    iteration: int = 0
    steps: int = 0
    episodes: int = 0
    failures: int = 0
    seconds: float = 0.0
    resumed: int = 0
    evaluated_at: int = 0
    best: float | None = None
    faults: int = 0


class Ended(NamedTuple):
    """Why a run was over, in words, and whether that is a failure."""

    why: str
    failed: bool


def ended_of(info: dict[str, Any]) -> Ended | None:
    """That the run was over at the checkpoint, if it was."""
    ended = info.get("ended")
    if ended is None:
        return None
    if not isinstance(ended, list) or [type(x) for x in ended] != [str, bool] or not ended[0].isprintable():
        raise RunError(f"the checkpoint is damaged: it ended {ended!r:.80}")
    return Ended(*ended)


def progress_of(info: dict[str, Any]) -> Progress:
    """The counters in a checkpoint. Raises RunError for one that is unknown or cannot be."""
    record = _object(info, "progress")
    if unknown := record.keys() - set(Progress._fields):
        raise RunError(f"the checkpoint's counters are damaged: there is no {min(unknown)!r:.80}")
    for name, value in record.items():
        whole = type(value) is int and 0 <= value <= _LARGEST
        real = _is_real(value)
        if not {"seconds": real and value >= 0, "best": real or value is None}.get(name, whole):
            raise RunError(f"the checkpoint's counters are damaged: {name} is {value!r:.80}")
    return Progress(**record)


def logs_of(info: dict[str, Any]) -> dict[str, int]:
    """{"metrics": …, "episodes": …, "faults": …}: the bytes of each log at the checkpoint."""
    record = {"faults": 0, **_object(info, "logs")}  # a run that was begun before there were faults has no such log
    for name in ("metrics", "episodes", "faults"):
        value = record.get(name)
        if type(value) is not int or not 0 <= value <= _LARGEST:
            raise RunError(f"the checkpoint is damaged: the length of its {name} is {value!r:.80}")
    return record


def update_of(info: dict[str, Any]) -> dict[str, Any] | None:
    """What is said of the update that failed after this moment, in a file of one."""
    update = info.get("update")
    if update is None:
        return None
    if not isinstance(update, dict) or set(update) != {"report", "exhaustive", "ahead"}:
        raise RunError(f"the update is damaged: {update!r:.80}")
    report, plain = update["report"], (str, int, float, bool, type(None))
    fits = isinstance(report, dict) and all(isinstance(value, plain) for value in report.values())
    ahead = update["ahead"]
    fits = fits and (ahead is None or (type(ahead) is int and 0 <= ahead < 10**6))
    if not fits or not isinstance(update["exhaustive"], bool | None):
        raise RunError(f"the update is damaged: {update!r:.80}")
    return update


def recent_of(info: dict[str, Any]) -> tuple[float, ...]:
    """The returns of the episodes that ended last."""
    recent = info.get("recent", [])  # one of an earlier version has none
    if not isinstance(recent, list) or not all(_is_real(x) for x in recent) or len(recent) > RECENT:
        raise RunError(f"the checkpoint is damaged: its recent returns are {recent!r:.80}")
    return tuple(map(float, recent))


def worlds_of(info: dict[str, Any]) -> Any:
    """What the checkpoint says of where the environments stood, beside arrays; None where it does not."""
    worlds = info.get("worlds")
    if worlds is not None and (not isinstance(worlds, dict) or set(worlds) != {"record"}):
        raise RunError(f"the checkpoint is damaged: its worlds are {worlds!r:.80}")
    return None if worlds is None else worlds["record"]


def running_of(arrays: dict[str, np.ndarray], prefix: str, envs: int) -> np.ndarray:
    """[B] the discounted sums of the episodes under way; 0 where the checkpoint has none."""
    running = arrays.get(f"{prefix}.running", np.zeros(envs))
    if running.shape != (envs,) or running.dtype != np.float64 or not np.isfinite(running).all():
        has = f"{running.dtype.name}{list(running.shape)}"
        raise RunError(f"the checkpoint's statistics are damaged: {prefix}.running is {has} for {envs} environments")
    return running.copy()


def objects_of(info: dict[str, Any]) -> Sequence[str]:
    """Which of "env" and "algorithm" were given to the run as objects."""
    objects = info.get("objects", [])
    if not isinstance(objects, list) or not all(isinstance(name, str) for name in objects):
        raise RunError(f"the checkpoint is damaged: its objects are {objects!r:.80}")
    return objects


def costs_of(info: dict[str, Any]) -> list[Sums]:
    """Costs, steps and episodes: of the whole run, then of the last rollouts."""
    record = field(info, "costs")
    if not isinstance(record, list) or not record or not all(_is_sums(each) for each in record):
        raise RunError(f"the checkpoint's costs are damaged: {record!r:.80}")
    return [Sums(float(cost), steps, episodes) for cost, steps, episodes in record]


def _is_real(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_sums(each: Any) -> bool:
    if not isinstance(each, list) or len(each) != 3 or not isinstance(each[0], int | float):
        return False
    return math.isfinite(each[0]) and all(type(n) is int and 0 <= n <= _LARGEST for n in each[1:])


def space_of(info: dict[str, Any], name: str) -> Space:
    """The space `name` of a checkpoint."""
    record = _object(info, name)
    if record.get("kind") not in ("box", "discrete", "multi-discrete", "multi-binary", "joint", "masked"):
        raise RunError(f"the checkpoint's {name} space is damaged: its kind is {record.get('kind')!r:.80}")
    try:
        space = spaces.from_record(record)
    except UsageError as error:
        raise RunError(f"the checkpoint's {name} space is damaged: {error!s:.300}") from error
    return space


def spec_of(info: dict[str, Any], arrays: dict[str, np.ndarray]) -> PolicySpec | None:
    """The built-in policy in a checkpoint, None for a module of the user's.

    Raises RunError for one that does not fit its spaces, or is larger than all arrays of the file together.
    """
    if info.get("policy") is None:
        return None
    try:
        observation, action = space_of(info, "observation"), space_of(info, "action")
        spec = PolicySpec.from_record(_object(info, "policy"), observation, action)
        sizes = (spec.inputs, *spec.hidden, spec.actions)
        fits = min(sizes) >= 1 and math.isfinite(spec.initial_log_std)
        fits = fits and (not isinstance(action, Box) or len(action.shape) == 1)
        form: Any = {"distribution": spec.distribution, "state_dependent_std": spec.state_dependent_std}
        form |= {"network": spec.network, "channels": spec.channels, "memory": spec.memory}
        own = PolicySpec.for_spaces(observation, action, **form)
        fits = fits and spec.memory_units >= 1 and (spec.memory_span is None or 2 <= spec.memory_span <= LONGEST)
        fits = fits and all(
            getattr(spec, name) == getattr(own, name) for name in ("kind", "inputs", "actions", "parts")
        )
    except (UsageError, OverflowError) as error:
        raise RunError(f"the checkpoint's policy is damaged: {error!s:.300}") from error
    if not fits:
        raise RunError(f"the checkpoint's policy is damaged: {spec!r:.200} does not fit its spaces")
    if spec.memory != "none":
        sizes = (*sizes[:-1], spec.memory_units, spec.memory_units, spec.actions)
    check_size(sizes, arrays, "policy")
    if spec.kind == "network":
        check_weights(spec.weights(), arrays, "policy")
    return spec


def check_size(sizes: Sequence[int], arrays: dict[str, np.ndarray], what: str) -> None:
    """Raise RunError for a network with layers of these sizes that has more weights than the file has numbers."""
    check_weights(sum(a * b for a, b in pairwise(sizes)), arrays, what)


def check_weights(weights: int, arrays: dict[str, np.ndarray], what: str) -> None:
    """Raise RunError for a network of more weights than the file has numbers."""
    held = sum(array.size for array in arrays.values())
    if weights > held:
        raise RunError(f"the checkpoint's {what} is damaged: it would have {weights} weights, the file has {held}")


def normaliser_of(arrays: dict[str, np.ndarray], prefix: str, shape: tuple[int, ...]) -> Normaliser | None:
    """The statistics `prefix` of numbers of that shape; None where the run keeps none."""
    names = [f"{prefix}.{part}" for part in ("count", "mean", "m2")]
    if names[0] not in arrays:
        return None
    for name, expected in zip(names, ((), shape, shape), strict=True):
        array = arrays.get(name)
        if array is None or array.shape != expected or array.dtype != np.float64:
            has = "missing" if array is None else f"{array.dtype.name}{list(array.shape)}"
            wanted = f"float64{list(expected)}"
            raise RunError(f"the checkpoint's statistics are damaged: {name} is {has}, {wanted} expected")
    count, mean, m2 = (arrays[name] for name in names)
    finite = all(np.isfinite(array).all() for array in (count, mean, m2))
    if not finite or count < 0 or (m2 < 0).any():
        raise RunError(f"the checkpoint's statistics are damaged: {prefix} has numbers that no data give")
    return Normaliser(float(count), mean, m2)


def field(info: dict[str, Any], name: str) -> Any:
    """info[name]. Raises RunError where it is not there."""
    if name not in info:
        raise RunError(f"the checkpoint is damaged: it has no {name!r}")
    return info[name]


def _object(info: dict[str, Any], name: str) -> dict[str, Any]:
    value = field(info, name)
    if not isinstance(value, dict):
        raise RunError(f"the checkpoint is damaged: its {name} is {value!r:.80}")
    return value
