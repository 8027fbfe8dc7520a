"""Dict and Tuple spaces as flat vectors: there and back, as records, and what is not supported by its name."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, Discrete, Graph, MultiBinary, MultiDiscrete, Sequence, Text, Tuple
from gymnasium.vector.utils import batch_space

from steepest import spaces
from steepest.errors import UsageError

NESTED = Dict(
    move=Tuple((Box(-1.0, 2.0, (2,), np.float64), Discrete(3, start=-1))),
    fire=MultiBinary(2),
    gear=MultiDiscrete([2, 4], start=[1, 0]),
    turn=Box(-np.inf, np.inf, (2, 2), np.float32),
)


def described(space: Any) -> spaces.Joint:
    joint = spaces.describe(space, "action")
    assert isinstance(joint, spaces.Joint)
    return joint


def same(a: Any, b: Any) -> bool:
    if isinstance(a, dict | tuple):
        keys = a if isinstance(a, dict) else range(len(a))
        return type(a) is type(b) and len(a) == len(b) and all(same(a[key], b[key]) for key in keys)
    return np.array_equal(a, b) and np.asarray(a).dtype == np.asarray(b).dtype


def test_there_and_back_for_one_and_for_many() -> None:
    joint = described(NESTED)
    assert joint.shape == (2 + 2 + 2 + 1 + 4,)
    NESTED.seed(0)
    one = NESTED.sample()
    flat = joint.from_environment(one)
    assert flat.dtype == np.float32
    assert flat.shape == joint.shape
    again = joint.to_environment(flat)
    assert NESTED.contains(again)
    assert NESTED.contains(joint.to_environment(np.full(joint.shape, 0.0)))
    many_of = batch_space(NESTED, 5)
    many_of.seed(1)
    many = many_of.sample()
    flat = joint.from_environment(many)
    assert flat.shape == (5, *joint.shape)
    rounded = dict(many, move=(many["move"][0].astype(np.float32).astype(np.float64), many["move"][1]))
    assert same(dict(joint.to_environment(flat)), rounded)


def test_whole_numbers_count_from_0_and_bounds_hold() -> None:
    joint = described(Tuple((Discrete(3, start=5), Box(0.0, 1.0, (1,)))))
    np.testing.assert_array_equal(joint.from_environment((7, [0.5])), [2.0, 0.5])
    assert joint.to_environment(np.array([2.0, 7.0])) == (7, np.array([1.0], np.float32))
    np.testing.assert_array_equal(joint.counts, [3, np.inf])


def test_pieces_of_a_jax_array() -> None:
    joint = described(NESTED)
    pieces = joint.split(jnp.arange(3 * 11.0).reshape(3, 11))
    assert [piece.shape for piece in pieces] == [(3, *part.shape) for part in joint.parts]
    np.testing.assert_array_equal(jnp.concatenate([piece.reshape(3, -1) for piece in pieces], axis=1)[1], range(11, 22))


def test_records_come_back() -> None:
    joint = described(NESTED)
    again = spaces.from_record(spaces.to_record(joint))
    assert spaces.to_record(again) == spaces.to_record(joint)
    assert spaces.fits(again, joint)
    assert spaces.brief(again).startswith("Dict(move: Tuple(Box(2,), Discrete(3)), fire: MultiBinary(2), gear: Multi")
    other = spaces.describe(Dict({**NESTED.spaces, "fire": MultiBinary(3)}), "action")
    assert not spaces.fits(other, joint)
    swapped = [
        spaces.describe(Tuple(each), "action") for each in ((Discrete(2), Discrete(3)), (Discrete(3), Discrete(2)))
    ]
    assert not spaces.fits(*swapped)


BIT: Any = {"kind": "multi-binary", "n": 1}
OBJECT: Any = {"kind": "box", "shape": [], "dtype": "O", "low": [0], "high": [1]}


@pytest.mark.parametrize(
    "wrong",
    [
        {"kind": "joint", "names": None, "parts": []},
        {"kind": "joint", "names": None, "parts": {}},
        {"kind": "joint", "names": None, "parts": [1]},
        {"kind": "joint", "names": ["a"], "parts": [BIT, BIT]},
        {"kind": "joint", "names": ["a", "a"], "parts": [BIT, BIT]},
        {"kind": "joint", "names": [1], "parts": [BIT]},
        {"kind": "joint", "names": "a", "parts": [BIT]},
        {"kind": "joint", "parts": [BIT]},
        {"kind": "joint", "names": None, "parts": [{"kind": "multi-binary", "n": 2**30}]},
        {
            "kind": "joint",
            "names": None,
            "parts": [OBJECT],
        },
    ],
)
def test_a_record_that_is_none_is_refused(wrong: Any) -> None:
    with pytest.raises(UsageError, match=r"not the record of a space|may have 16777216 entries"):
        spaces.from_record(wrong)


def test_a_record_of_joints_within_joints_without_end_is_refused() -> None:
    record = BIT
    for _ in range(50):
        record = {"kind": "joint", "names": None, "parts": [record]}
    with pytest.raises(UsageError, match="too deep"):
        spaces.from_record(record)


@pytest.mark.parametrize(
    ("space", "part"),
    [
        (Dict(camera=Text(3), x=Discrete(2)), r"Dict\['camera'\]\.Text"),
        (Dict(arm=Tuple((Discrete(2), Graph(Discrete(2), None)))), r"Dict\['arm'\]\.Tuple\[1\]\.Graph"),
        (Tuple((Sequence(Discrete(2)),)), r"Tuple\[0\]\.Sequence"),
        (Dict(x=Box(0, 9, (2,), np.int32)), r"Dict\['x'\]\.Box; supported: .*floats"),
        (Dict(x=MultiDiscrete(np.array([[2, 3], [2, 3]]))), r"Dict\['x'\]\.MultiDiscrete"),
        (Dict(x=Dict()), r"Dict\['x'\]\.Dict; it has no parts"),
    ],
)
def test_the_part_that_is_not_supported_is_named(space: Any, part: str) -> None:
    with pytest.raises(UsageError, match=part):
        spaces.describe(space, "action")


def test_too_many_values_for_a_float32_are_refused() -> None:
    with pytest.raises(UsageError, match="16777216 values"):
        spaces.describe(Tuple((Discrete(2**25), Discrete(2))), "action")
