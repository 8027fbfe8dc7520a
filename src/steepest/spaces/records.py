"""Spaces as JSON. A record is data, and may be a stranger's: it is looked at before anything is built of it."""

from __future__ import annotations

from typing import Any

import numpy as np

from steepest.errors import UsageError
from steepest.spaces.joint import EXACT, Joint, Masked, Space
from steepest.spaces.plain import Box, Discrete, MultiBinary, MultiDiscrete

_LARGEST = 2**53
"""Up to here a reader that has but floats has a whole number exactly."""
_DEEPEST = 8
"""Joints within each other."""
DTYPES = {"float16", "float32", "float64", "bool", *(f"{k}{bits}" for k in ("int", "uint") for bits in (8, 16, 32, 64))}
"""Of a Box; NumPy takes much else for the name of one."""


def to_record(space: Space) -> dict[str, Any]:
    """JSON of a space; an infinite bound is null."""
    if isinstance(space, Discrete):
        return {"kind": "discrete", "n": space.n, "start": space.start}
    if isinstance(space, MultiDiscrete):
        return {"kind": "multi-discrete", "sizes": list(space.sizes), "starts": list(space.starts)}
    if isinstance(space, MultiBinary):
        return {"kind": "multi-binary", "n": space.n}
    if isinstance(space, Joint):
        names = None if space.names is None else list(space.names)
        return {"kind": "joint", "names": names, "parts": [to_record(part) for part in space.parts]}
    if isinstance(space, Masked):
        return {"kind": "masked", "observation": to_record(space.observation), "mask": space.mask}
    bound = {
        name: [float(x) if np.isfinite(x) else None for x in array.ravel()]
        for name, array in (("low", space.low), ("high", space.high))
    }
    squashed = {"squashed": True} if space.squashed else {}
    return {"kind": "box", "shape": list(space.shape), "dtype": space.dtype, **bound, **squashed}


def from_record(record: dict[str, Any]) -> Space:
    """The space of a JSON record. Raises UsageError for one that `to_record` did not write."""
    try:
        return _built(record, _DEEPEST)
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError) as error:
        raise UsageError(f"not the record of a space: {record!r:.200} ({error})") from error


def _built(record: dict[str, Any], depth: int) -> Space:
    if record["kind"] == "discrete":
        return Discrete(_whole(record["n"], 1), _whole(record["start"]))
    if record["kind"] == "multi-discrete":
        sizes, starts = tuple(_whole(n, 1) for n in record["sizes"]), tuple(map(_whole, record["starts"]))
        if len(sizes) != len(starts) or not sizes:
            raise ValueError(f"{len(sizes)} sizes and {len(starts)} starts")
        return MultiDiscrete(sizes, starts)
    if record["kind"] == "multi-binary":
        return MultiBinary(_whole(record["n"], 1))
    if record["kind"] == "joint":
        return _joint(record, depth)
    if record["kind"] == "masked":
        return _masked(record, depth)
    if record["kind"] != "box":
        raise ValueError(record["kind"])
    shape, dtype = tuple(int(n) for n in record["shape"]), record["dtype"]
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise ValueError(f"its dtype is {dtype!r:.40}")
    low, high = (
        np.array([missing if x is None else float(x) for x in record[name]], np.float64).reshape(shape)
        for name, missing in (("low", -np.inf), ("high", np.inf))
    )
    squashed = record.get("squashed", False)
    if squashed is not False and (squashed is not True or not np.isfinite([low, high]).all()):
        raise ValueError(f"squashed {squashed!r:.40} within {low!r:.40} and {high!r:.40}")
    return Box(low, high, dtype, squashed)


def _joint(record: dict[str, Any], depth: int) -> Joint:
    names, parts = record["names"], record["parts"]
    if not depth or not isinstance(parts, list) or not parts:
        raise ValueError("too deep" if not depth else "it has no parts")
    if names is not None:
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise TypeError("its names are no strings")
        if len(set(names)) != len(parts) or len(names) != len(parts):
            raise ValueError(f"{len(names)} names, some of them twice perhaps, for {len(parts)} parts")
    return Joint(tuple(_built(part, depth - 1) for part in parts), None if names is None else tuple(names))


def _masked(record: dict[str, Any], depth: int) -> Masked:
    if depth < _DEEPEST:
        raise ValueError("a mask belongs to the whole of an observation")
    mask = _whole(record["mask"], 1)
    if mask > EXACT:
        raise ValueError(f"a mask of {mask}")
    return Masked(_built(record["observation"], depth - 1), mask)


def _whole(value: Any, least: int = -_LARGEST) -> int:
    if not least <= int(value) <= _LARGEST:
        raise ValueError(f"{value!r:.40} is out of range")
    return int(value)
