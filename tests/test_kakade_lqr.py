"""Kakade's LQR experiment: the numbers at the start, and the time that each flow takes under each scaling."""

from __future__ import annotations

import numpy as np
import pytest

from steepest.reproduce.kakade_lqr import METHODS, SCALINGS, TARGET, WORLD, run, start
from steepest.worlds.lqr import LQR

TIMES = {  # scaling: gradient, natural with λ = 1e-3; natural without is .21137 for all
    (1.0, 1.0): (12.21, 0.2236),
    (10.0, 1.0): (8.11, 0.2195),
    (1.0, 10.0): (4.23, 0.2156),
    (0.1, 1.0): (423, 0.632),
    (1.0, 0.1): (811, 1.016),
    (0.1, 0.1): (1221, 1.43),
}


@pytest.fixture(scope="module")
def outcome():
    return run(True)


@pytest.mark.claim("KA")
def test_KA_numbers_at_the_start():
    policy = start((1.0, 1.0))
    assert WORLD.cost(policy) == pytest.approx(33.7836, abs=5e-5)
    assert -WORLD.optimal()[0] == pytest.approx(20.0, rel=1e-12)
    np.testing.assert_allclose(-WORLD.gradient(policy).theta, [7.903488, 8.338646], atol=5e-7)
    np.testing.assert_allclose(
        WORLD.fisher(policy), [[1.784092, -1.002842], [-1.002842, 1.002842]], rtol=0, atol=5.1e-7
    )


@pytest.mark.claim("KA")
def test_KA_stationary_cost_at_the_start():
    """The mean over ever more steps tends to σ²_x = (1 + v)/(1 − (a + k)²) = 1.625/0.96."""
    policy = start((1.0, 1.0))
    steps = [LQR(0.7, 1, 1, 0, 1, h, final_cost=1).cost(policy) for h in (400, 401)]
    assert steps[1] - steps[0] == pytest.approx(1.692708, abs=5e-7)


@pytest.mark.claim("KA")
def test_KA_every_scaling_starts_from_the_same_policy():
    for scaling in SCALINGS:
        law = WORLD.law(start(scaling))
        assert law.gain[0, 0] == pytest.approx(-0.5, rel=1e-14)
        assert np.exp(2 * law.log_std[0]) == pytest.approx(0.625, rel=1e-14)


@pytest.mark.claim("KA")
def test_KA_times_to_cost_22(outcome):
    plain, damped, exact = (f"time to {TARGET:.0f}, {method}" for method in METHODS)
    assert len(outcome.table) == len(TIMES)
    for row in outcome.table:
        gradient, natural = TIMES[row["s1"], row["s2"]]
        assert row[plain] == pytest.approx(gradient, rel=0, abs=0.5 if gradient > 100 else 0.005)
        assert row[damped] == pytest.approx(natural, rel=0, abs=_half_digit(natural))
        assert row[exact] == pytest.approx(0.21137, rel=0, abs=5e-6)


@pytest.mark.claim("KA")
def test_KA_natural_flows_without_damping_coincide(outcome):
    times = [row[f"time to {TARGET:.0f}, natural, λ=0"] for row in outcome.table]
    assert max(times) - min(times) < 1e-6 * min(times)  # the tolerance of the quick integration


def test_rows_are_curves_of_falling_cost_with_the_same_columns(outcome):
    assert {tuple(row) for row in outcome.rows} == {("s1", "s2", "method", "time", "cost")}
    for scaling in SCALINGS:
        for method in METHODS:
            mine = [r for r in outcome.rows if (r["s1"], r["s2"], r["method"]) == (*scaling, method)]
            assert np.all(np.diff([r["time"] for r in mine]) > 0)
            assert np.all(np.diff([r["cost"] for r in mine]) < 1e-4)
            assert mine[0]["cost"] == pytest.approx(33.7836, abs=5e-5)


def _half_digit(printed: float) -> float:
    """Half a unit of the last digit of a number such as .632 or .2236."""
    return 0.5 * 10.0 ** -len(f"{printed}".split(".")[1])
