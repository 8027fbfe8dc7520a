"""The lecture's experiments in their quick versions: the numbers beside the figures are those of the theory."""

from __future__ import annotations

import functools

import numpy as np
import pytest
from matplotlib.figure import Figure

from steepest.reproduce.experiment import Outcome
from steepest.reproduce.lecture_covariance import apart
from steepest.reproduce.lecture_stationary import closed_form, harvest
from steepest.reproduce.registry import experiment


@functools.cache
def outcome(name: str) -> Outcome:
    """Run once, and what holds of every experiment."""
    what = experiment(name)
    assert what.source == "Kakade & Brantley, Natural Policy Gradient, lecture of CS 6789"
    made = what.run(True)
    assert isinstance(made.figure, Figure)
    for rows in (made.rows, made.table):
        assert len(rows) > 1
        assert all(row.keys() == rows[0].keys() for row in rows)
        for row in rows:
            assert all(np.isfinite(value) for value in row.values() if not isinstance(value, str))
    assert made.differs
    assert "quick version" in made.ours
    return made


@pytest.mark.claim("R5", "R6", "R7", "R8")
def test_gradient_descent_depends_on_a_and_natural_descent_does_not() -> None:
    table = outcome("lecture-gradient-descent").table
    for row in table:
        assert row["error of ∇_φ = Aᵀ∇_θ"] < 1e-13
        assert row["error of the step −ηAAᵀ∇ℓ"] < 1e-12
        assert row["natural: distance in θ from A = I"] < 1e-8
    away = [row["gradient: distance in θ from A = I"] for row in table]
    assert max(away[:3]) < 1e-12  # orthogonal, and b alone
    assert min(away[3:]) > 1


@pytest.mark.claim("R19", "R20", "R21", "N3")
def test_four_methods_have_four_speeds() -> None:
    made = outcome("lecture-two-action")
    speed = {row["method"]: row["last step"] / row["first step"] for row in made.table}
    assert speed["trust-region NPG"] > 100
    assert speed["NPG, fixed rate"] == pytest.approx(1, rel=1e-12)
    assert speed["gradient, normalised"] == pytest.approx(1, rel=1e-12)
    assert speed["gradient, fixed rate"] < 0.95
    assert "needs 19 steps to θ ≥ 30 at δ = 0.01" in made.ours
    assert "θ(1000) = 6.893873" in made.ours


@pytest.mark.claim("R11", "R17")
def test_the_kl_is_the_mean_log_ratio_and_its_model_is_of_first_order() -> None:
    made = outcome("lecture-kl")
    for row in made.table:
        assert row["mean log-ratio"] == pytest.approx(row["all paths, KL/H"], rel=1e-12)
    for name in {row["direction"] for row in made.rows}:
        near = [r for r in made.rows if r["direction"] == name and 1e-4 <= r["length"] <= 1e-2]
        errors = np.log([abs(r["ratio"] - 1) for r in near])
        assert np.polyfit(np.log([r["length"] for r in near]), errors, 1)[0] == pytest.approx(1, abs=0.02)


@pytest.mark.claim("R26b")
def test_the_closed_form_tends_to_the_problem_before_linearising() -> None:
    made = outcome("lecture-trust-region")
    gaps = [abs(row["realised/best"] - 1) for row in made.table]
    assert gaps[0] < 2e-4
    assert np.all(np.diff(gaps) > 0)
    for row in made.table:
        assert row["KL of best/delta"] == pytest.approx(1, abs=1e-6)
        assert row["KKT residual"] < 1e-5
    ends = {row["iterates of"]: row["V"] for row in made.rows}
    assert 7 < ends["closed form"] < ends["problem before linearising"] < 8


@pytest.mark.claim("R4")
def test_the_clock_is_worth_something_and_so_is_a_coin() -> None:
    made = outcome("lecture-stationary")
    for row in made.table:
        assert row["time-dependent"] >= row["stationary stochastic"] - 1e-12
    here = next(row for row in made.table if row["world"] == "harvest, H = 10")
    best = np.max(closed_form(np.linspace(1e-3, 1, 100_000)))
    assert here["stationary stochastic"] == pytest.approx(best, abs=1e-3)
    assert here["stationary deterministic"] == pytest.approx(10, abs=1e-12)
    assert here["time-dependent"] == pytest.approx(17, abs=1e-12)
    table = np.array([[0.7, 0.3], [0.5, 0.5]])
    assert float(harvest().value(table)) == pytest.approx(float(closed_form(np.array(0.3))), rel=1e-13)


@pytest.mark.claim("R8", "R9")
def test_damping_and_truncation_break_what_the_exact_natural_gradient_has() -> None:
    *linear, bent = outcome("lecture-covariance").table
    for row in linear:
        assert row["natural, undamped"] < 1e-12
        assert min(row["gradient"], row["natural, λ = 0.1"], row["natural, one CG iteration"]) > 0.01
    assert 1e-6 < bent["natural, undamped"] < 0.05  # to first order


def test_the_distance_of_curves_does_not_depend_on_their_pace() -> None:
    line = np.linspace([[0.0, 1.0]], [[1.0, 0.0]], 4)
    assert apart(np.linspace([[0.0, 1.0]], [[1.0, 0.0]], 13), line) < 1e-2
    assert apart(line + 0.2, line) == pytest.approx(0.2, abs=1e-2)
