"""TRPO's own comparison, on runs so short that they show only that it compares what it says."""

from __future__ import annotations

import numpy as np
import pytest

from steepest.reproduce import trpo_locomotion as room
from steepest.reproduce.trpo_locomotion import FIXED, METHODS, Curve, Task


@pytest.fixture(scope="module")
def outcome():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(room, "QUICK", (Task("CartPole-v1", 4096, 1, (8,)),))
        patch.setattr(room, "METHODS", {name: METHODS[name] for name in ("single path", "vine")})
        yield room.run(quick=True)


@pytest.mark.slow
@pytest.mark.claim("VINE1")
def test_every_method_has_its_curve_and_its_row(outcome) -> None:
    assert [row["method"] for row in outcome.table] == ["single path", "vine", FIXED]
    assert all(row["broke"] == "0 of 1" for row in outcome.table)
    for row in outcome.table:
        own = [r for r in outcome.rows if r["method"] == row["method"]]
        assert row["final return"] == f"{own[-1]['return']:.1f}"  # one seed has no interval
        assert row["mean over the run"] == f"{np.mean([r['return'] for r in own]):.1f}"
        assert all(1 <= r["return"] <= 500 for r in own)
        assert 0 < own[0]["steps"] < own[-1]["steps"]
        assert own[-1]["steps"] >= 4096  # simulator steps, those of branches too
    assert all(f"{name} " in outcome.ours for name in ("single path", "vine", FIXED))


def test_runs_of_different_steps_are_compared_at_common_ones() -> None:
    nothing = np.zeros(0)
    steps, returns = room._grid(
        [
            Curve(np.array([10.0, 20.0, 30.0]), np.array([1.0, 2.0, 3.0]), nothing, False),
            Curve(np.array([15.0, 30.0]), np.array([5.0, 6.0]), nothing, False),
            Curve(nothing, nothing, nothing, True),
        ]
    )
    np.testing.assert_array_equal(steps, [10, 20, 30])
    np.testing.assert_array_equal(returns, [[1, 2, 3], [np.nan, 5, 6], [np.nan] * 3])


def test_a_run_that_broke_is_said_to_have() -> None:
    task = Task("CartPole-v1", 100, 2, (8,))
    fine = Curve(np.array([100.0]), np.array([7.0]), np.array([0.1]), False)
    row = room._summary(task, FIXED, [fine, fine._replace(broke=True)])
    assert row["broke"] == "1 of 2"
    said = room._ours([task], [row], {"CartPole-v1": 0.5}, True, ["Hopper-v5"])
    assert "fixed rate broke in 1 of 2 (an action that was not finite)" in said
    assert "Hopper-v5 was left out" in said
