"""Snapshots of environments as JSON and arrays: back to the bit and of the same types, and nothing else comes back."""

from __future__ import annotations

import contextlib
import copy
import json
from collections import deque
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some
from hypothesis.extra import numpy as arrays_of

from steepest.errors import RunError
from steepest.runs.strict_json import parse_json
from steepest.worlds.state_record import GeneratorState, from_record, to_record

dtypes = arrays_of.scalar_dtypes().filter(lambda d: d.kind in "biuf" and d.isnative and d.itemsize <= 8)
arrays = dtypes.flatmap(lambda d: arrays_of.arrays(d, arrays_of.array_shapes(min_dims=0, max_side=4, min_side=0)))
hashable = some.none() | some.booleans() | some.integers() | some.floats(allow_nan=False) | some.text(max_size=5)
plain = some.recursive(
    hashable
    | some.binary(max_size=5)
    | some.complex_numbers()
    | some.floats()
    | arrays
    | arrays.map(lambda a: a.sum()),
    lambda inner: (
        some.lists(inner, max_size=3)
        | some.lists(inner, max_size=3).map(tuple)
        | some.lists(inner, max_size=3).map(lambda x: deque(x, 5))
        | some.dictionaries(hashable, inner, max_size=3)
        | some.frozensets(hashable, max_size=3)
        | some.sets(hashable, max_size=3)
    ),
    max_leaves=12,
)


def through_a_file(value: Any) -> Any:
    record, parts = to_record(value)
    return from_record(parse_json(json.dumps(record, allow_nan=False)), parts)


def form(value: Any) -> Any:
    """What `value` is, types and bits."""
    if isinstance(value, np.ndarray | np.generic):
        return type(value).__name__, np.asarray(value).dtype.str, np.shape(value), np.asarray(value).tobytes()
    if isinstance(value, dict):
        return "dict", [(form(k), form(v)) for k, v in value.items()]
    if isinstance(value, set | frozenset):
        return type(value).__name__, sorted(map(repr, value))
    if isinstance(value, list | tuple | deque):
        return type(value).__name__, getattr(value, "maxlen", None), [form(x) for x in value]
    return type(value).__name__, repr(value)


@given(plain)
def test_plain_data_come_back(value: Any) -> None:
    assert form(through_a_file(value)) == form(value)


@pytest.mark.parametrize("kind", ["PCG64", "PCG64DXSM", "SFC64"])
def test_a_generator_goes_on(kind: str) -> None:
    generator = np.random.Generator(getattr(np.random, kind)(5))
    generator.random(7)
    generator.integers(3, dtype=np.uint32)  # half of a number is kept back
    other = np.random.Generator(getattr(np.random, kind)(6))
    state = through_a_file(GeneratorState(dict(generator.bit_generator.state)))
    other.bit_generator.state = state.state
    np.testing.assert_array_equal(generator.random(9), other.random(9))
    assert generator.integers(3, dtype=np.uint32) == other.integers(3, dtype=np.uint32)


@pytest.mark.parametrize(
    ("value", "what"),
    [
        (object(), "object"),
        ([lambda: 0], "function"),
        (np.array([object()]), "array of object"),
        (np.array(["a"]), "array of <U1"),
        (GeneratorState(dict(np.random.MT19937(0).state)), "generator with MT19937"),
        (np.zeros(200_000_000, np.uint8), "more than can be kept"),
        ([0] * 100_001, "more than can be kept"),
    ],
    ids=lambda x: x if isinstance(x, str) else "",
)
def test_what_no_file_holds_is_said(value: Any, what: str) -> None:
    with pytest.raises(TypeError, match=what):
        to_record(value)


GOOD = ({"a": [1, (2.5, np.arange(6.0).reshape(2, 3)), {3}, deque([1], 4), 2**80, b"x", np.float32(1)]},
        GeneratorState(dict(np.random.PCG64(1).state)))  # fmt: skip
junk = some.recursive(
    hashable.filter(lambda x: not isinstance(x, float) or np.isfinite(x))
    | some.sampled_from(["array", "tuple", "dict", "PCG64", "float64", "0x", "nan"]),
    lambda inner: (
        some.lists(inner, max_size=3)
        | some.dictionaries(
            some.sampled_from(["array", "scalar", "generator", "int", "float", "complex", "bytes", "dict", "deque",
                               "tuple", "set", "frozenset", "other"]), inner, max_size=2)
    ),
    max_leaves=8,
)  # fmt: skip


@given(some.data())
def test_a_record_that_is_none_is_refused_and_nothing_else_happens(data: some.DataObject) -> None:
    record, parts = to_record(GOOD)
    record = copy.deepcopy(record)
    places: list[tuple[Any, Any]] = []

    def walk(node: Any) -> None:
        for key in range(len(node)) if isinstance(node, list) else list(node) if isinstance(node, dict) else ():
            places.append((node, key))
            walk(node[key])

    walk(record)
    node, key = data.draw(some.sampled_from(places))
    node[key] = data.draw(junk)
    with contextlib.suppress(RunError):
        to_record(from_record(record, parts))  # plain data, whatever it says


def test_a_record_takes_no_more_memory_than_the_file() -> None:
    twice = [{"array": ["float64", [4], 0]}, {"array": ["float64", [4], 2]}]
    with pytest.raises(RunError, match="damaged"):
        from_record(twice, {"float64": np.zeros(6)})
    with pytest.raises(RunError, match="damaged"):
        from_record({"scalar": ["float64", [2], 0]}, {"float64": np.zeros(6)})
    for where in (["float64", [10**9], 0], ["float64", [-1], 0], ["float64", [2], 5], ["float64", [2], -1],
                  ["int8", [1], 0], ["object", [1], 0], ["float64", [2.0], 0]):  # fmt: skip
        with pytest.raises(RunError, match="damaged"):
            from_record({"array": where}, {"float64": np.zeros(6)})
