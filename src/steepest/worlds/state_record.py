"""What an environment's snapshot is made of, as a file can hold it: JSON, and the arrays beside it, by dtype.

    record, arrays = to_record(value)          {"tuple": [1, {"array": ["float64", [3], 0]}]}, {"float64": [3] flat}
    value = from_record(record, arrays)

Numbers, strings, containers, arrays and random generators, each to the bit and of its type. A file may be a stranger's:
what comes of it is plain data, no larger than what it holds.
"""

from __future__ import annotations

import math
from collections import deque
from typing import Any, NamedTuple

import numpy as np

from steepest.errors import RunError

Arrays = dict[str, np.ndarray]

MOST = 100_000
"""Parts of a run's state, and kilobytes of it: half of what is read (`runs/strict_json.py`)."""
_EXACT = 2**53
"""Whole numbers below it are what they are in every reader of JSON."""
_BIT_GENERATORS = {"PCG64", "PCG64DXSM", "SFC64"}
"""Their state has no index into memory that a file could set out of bounds."""
_DTYPES = {"bool", "float16", "float32", "float64"}.union(
    f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)
)
_CONTAINERS: dict[str, Any] = {"tuple": tuple, "set": set, "frozenset": frozenset}


class GeneratorState(NamedTuple):
    """Of a `numpy.random.Generator`: its bit generator's state."""

    state: dict[str, Any]

    @property
    def kind(self) -> str:
        """The bit generator's name."""
        return self.state["bit_generator"]


def to_record(value: Any, most: int = MOST) -> tuple[Any, Arrays]:
    """(record, arrays) of plain data.  most: parts of it, and kilobytes of the arrays.

    Raises TypeError for what is not plain, with the name of its type, and for what is more.
    """
    parts = _Parts(most)
    record = _encode(value, parts)
    return record, {dtype: np.concatenate(each) for dtype, each in parts.flat.items()}


def from_record(record: Any, arrays: Arrays) -> Any:
    """The plain data. Raises RunError for a record that `to_record` does not make."""
    try:
        return _decode(record, _Source(arrays))
    except (ValueError, TypeError, KeyError, IndexError, OverflowError, RecursionError) as error:
        raise RunError(f"the checkpoint's environments are damaged: {error!s:.200}") from error


class _Parts:
    """The arrays so far, flat, by dtype; and how much more there may be."""

    def __init__(self, most: int):
        self.flat: dict[str, list[np.ndarray]] = {}
        self._sizes: dict[str, int] = {}
        self._most, self._bytes = most, 1000 * most

    def count(self, text: int = 0) -> None:
        """One part more, with a text of so many characters."""
        self._most -= 1
        self._bytes -= text
        if self._most < 0 or self._bytes < 0:
            raise TypeError("state of more than can be kept")

    def put(self, array: np.ndarray) -> list[Any]:
        """[dtype, shape, where it begins among those of its dtype]."""
        dtype = array.dtype.name
        if dtype not in _DTYPES or not array.dtype.isnative:
            raise TypeError(f"array of {array.dtype}")
        self.count(array.nbytes)
        begin = self._sizes.get(dtype, 0)
        self.flat.setdefault(dtype, []).append(array.ravel())
        self._sizes[dtype] = begin + array.size
        return [dtype, list(array.shape), begin]


def _encode(value: Any, parts: _Parts) -> Any:
    parts.count(len(value) if type(value) in (str, bytes) else 0)
    if isinstance(value, np.ndarray | np.generic):
        return {"scalar" if isinstance(value, np.generic) else "array": parts.put(np.asarray(value))}
    if isinstance(value, GeneratorState):
        if value.kind not in _BIT_GENERATORS:
            raise TypeError(f"generator with {value.kind}")
        return {"generator": _encode(value.state, parts)}
    if isinstance(value, tuple):  # a named one is its values
        return {"tuple": [_encode(each, parts) for each in value]}
    kind = type(value)
    if value is None or kind in (bool, str):
        return value
    if kind is int:
        return value if abs(value) < _EXACT else {"int": hex(value)}
    if kind is float:
        return value if math.isfinite(value) else {"float": str(value)}
    if kind is complex:
        return {"complex": [_encode(value.real, parts), _encode(value.imag, parts)]}
    if kind is bytes:
        return {"bytes": value.hex()}
    if kind is list:
        return [_encode(each, parts) for each in value]
    if kind is dict:
        return {"dict": [[_encode(k, parts), _encode(v, parts)] for k, v in value.items()]}
    if kind is deque:
        return {"deque": [value.maxlen, [_encode(each, parts) for each in value]]}
    for name, container in _CONTAINERS.items():
        if kind is container:
            return {name: [_encode(each, parts) for each in value]}
    raise TypeError(kind.__name__)


class _Source:
    """The arrays, each number of which is given away once."""

    def __init__(self, arrays: Arrays):
        self._arrays, self._left = arrays, {dtype: flat.size for dtype, flat in arrays.items()}

    def get(self, where: Any) -> np.ndarray:
        dtype, shape, begin = where
        if not all(type(n) is int and n >= 0 for n in (*shape, begin)):
            raise ValueError(f"an array of shape {shape!r:.40} at {begin!r:.40}")
        size, flat = math.prod(shape), self._arrays[dtype]
        self._left[dtype] -= size
        if begin + size > flat.size or self._left[dtype] < 0 or flat.ndim != 1 or flat.dtype.name != dtype:
            raise ValueError(f"an array of {size} numbers at {begin} of {flat.size}")
        return flat[begin : begin + size].reshape(shape)


def _decode(record: Any, arrays: _Source) -> Any:
    if record is None or isinstance(record, bool | int | float | str):
        return record
    if isinstance(record, list):
        return [_decode(each, arrays) for each in record]
    ((kind, of),) = record.items()
    if kind == "array":
        return arrays.get(of).copy()
    if kind == "scalar" and of[1] == []:
        return arrays.get(of)[()]
    if kind == "generator":
        return _generator(_decode(of, arrays))
    if kind == "int":
        return int(_short(of), 16)
    if kind == "float":
        return float(_short(of))
    if kind == "complex":
        return complex(*(float(_decode(each, arrays)) for each in of))
    if kind == "bytes":
        return bytes.fromhex(of)
    if kind == "dict":
        return {_decode(k, arrays): _decode(v, arrays) for k, v in of}
    if kind == "deque":
        longest, items = of
        return deque((_decode(each, arrays) for each in items), longest)
    if kind in _CONTAINERS and isinstance(of, list):
        return _CONTAINERS[kind](_decode(each, arrays) for each in of)
    raise ValueError(f"there is no {kind!r:.40}")


def _generator(state: Any) -> GeneratorState:
    """The state, tried on a generator of its own."""
    if not isinstance(state, dict) or state.get("bit_generator") not in _BIT_GENERATORS:
        raise ValueError("a generator of an unknown kind")
    getattr(np.random, state["bit_generator"])(0).state = state
    return GeneratorState(state)


def _short(text: Any) -> str:
    if not isinstance(text, str) or len(text) > 80:
        raise ValueError("a number that is none")
    return text
