"""The experiment on published rates: what its table counts and what its figure draws."""

from __future__ import annotations

import numpy as np
import pytest

from steepest.algorithms.convergence import Trace
from steepest.reproduce.experiment import Outcome
from steepest.reproduce.rates import COUNT, EXPERIMENT, METHODS, ratios


@pytest.fixture(scope="module")
def outcome() -> Outcome:
    return EXPERIMENT.run(True)


@pytest.mark.claim("N5")
def test_N5_no_gap_exceeds_its_bound_and_no_value_falls(outcome):
    assert [row["method"] for row in outcome.table] == [method.name for method in METHODS]
    for row, method in zip(outcome.table, METHODS, strict=True):
        assert row["violations"] == 0
        assert row["compared"] > 0.8 * COUNT * 100 * len(method.settings)
        assert 0.3 < row["largest gap/bound"] <= 1.0
        assert row["largest fall"] < 1e-11
    assert f"of {sum(row['compared'] for row in outcome.table)} gaps, 0 exceed" in outcome.ours


def test_rows_are_the_curves_of_the_figure(outcome):
    assert {tuple(row) for row in outcome.rows} == {tuple(outcome.rows[0])}
    for method in METHODS:
        rows = [row for row in outcome.rows if row["method"] == method.name]
        assert rows[0]["updates"] == 1
        assert rows[-1]["updates"] == (300 if method.log else 120)
        assert all(row["smallest gap"] <= row["largest gap"] for row in rows)
        assert rows[-1]["largest gap"] < 0.8 * rows[0]["largest gap"]


def test_ratios_leave_out_the_first_policy_and_what_rounding_blurs():
    gap = np.array([[1.0, 0.5, 2.0, 1e-13]])
    trace = Trace(np.arange(4), gap, np.array([[1.0, 1.0, 1.0, 1e-12]]), np.zeros((1, 4)))
    np.testing.assert_array_equal(ratios(trace, 1.0), [[np.nan, 0.5, 2.0, np.nan]])
