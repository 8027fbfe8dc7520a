"""KB: Kakade's two-state MDP, at the start in fractions, on the way against closed forms and another integrator."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.integrate import solve_ivp

from steepest.reproduce.experiment import Outcome
from steepest.reproduce.kakade_two_state import EXPERIMENT, SETTINGS, WORLD, Setting, at, start, velocity

pytestmark = pytest.mark.usefixtures("x64_off")


@pytest.fixture(scope="module")
def outcome() -> Outcome:
    return EXPERIMENT.run(True)


def closed(theta: np.ndarray) -> tuple[np.float64, np.ndarray, np.ndarray, np.ndarray]:
    """η, ρ, ∇η and the diagonal of F, by hand: D = h(i) − h(j), the difference of the biases, has
    (1 − p_i + 1 − p_j) D = p_i − 2p_j, and Q(stay) − Q(cross) is 1 + D in i and 2 − D in j."""
    stay, leave = 1 / (1 + np.exp(-theta)), 1 / (1 + np.exp(theta))
    rho = leave[::-1] / leave.sum()
    eta = np.sum(rho * stay * [1.0, 2.0])
    bias = (stay[0] - 2 * stay[1]) / leave.sum()
    fisher = rho * stay * leave
    return eta, rho, fisher * np.array([1 + bias, 2 - bias]), fisher


@pytest.mark.claim("KB")
def test_KB_the_start_in_fractions():
    policy = at(start(0.1))
    close = {"rtol": 1e-13, "atol": 0}
    np.testing.assert_allclose(WORLD.state_distribution(policy), np.array([9, 2]) / 11, **close)
    np.testing.assert_allclose(WORLD.value(policy), 38 / 55, **close)
    np.testing.assert_allclose(velocity(start(0.1), None), np.array([2448, 288]) / 12100, **close)
    np.testing.assert_allclose(np.diag(WORLD.fisher(policy)), np.array([0.72, 0.09]) * 2 / 11, **close)
    np.testing.assert_allclose(np.diag(WORLD.fisher(policy)), [0.1309091, 0.0163636], atol=5e-8)
    np.testing.assert_allclose(velocity(start(0.1), 0.0), np.array([17, 16]) / 11, **close)
    assert WORLD.optimal()[0] == 2.0


@pytest.mark.claim("KB")
def test_KB_the_library_is_the_closed_form_also_on_the_plateau():
    for theta in (start(0.2), np.array([13.5, -1.0]), np.array([-3.0, 20.0]), np.array([25.0, 24.0])):
        eta, rho, gradient, fisher = closed(theta)
        policy = at(theta)
        np.testing.assert_allclose(WORLD.value(policy), eta, rtol=1e-14)
        np.testing.assert_allclose(WORLD.state_distribution(policy), rho, rtol=1e-14)
        np.testing.assert_allclose(np.diag(WORLD.fisher(policy)), fisher, rtol=1e-13)
        # a gradient is a difference of values, and has the absolute error of η
        np.testing.assert_allclose(velocity(theta, None), gradient, rtol=1e-11, atol=1e-15)


@pytest.mark.claim("KB")
@pytest.mark.parametrize("one", SETTINGS, ids=lambda one: one.name)
def test_KB_times_and_least_visits_are_those_of_another_integration(outcome: Outcome, one: Setting):
    def rate(_: float, theta: np.ndarray) -> np.ndarray:
        gradient, fisher = closed(theta)[2:]
        return gradient if one.damping is None else gradient / (fisher + one.damping)

    def above(_: float, theta: np.ndarray) -> float:
        return float(closed(theta)[0]) - 1.9

    above.terminal = True  # type: ignore[attr-defined]
    way = solve_ivp(rate, (0, 1e9), start(one.stay_j), "Radau", rtol=1e-9, atol=1e-11, events=above)
    reached = way.t_events[0][0]
    least = min(closed(theta)[1][1] for theta in way.y.T)
    ours = next(row for row in outcome.table if row["flow"] == one.name)
    assert ours["time to η = 1.9"] == pytest.approx(reached, rel=2e-6)
    assert ours["least ρ(j)"] == pytest.approx(least, rel=2e-3)  # between the steps of either integrator
    assert _digits(reached, 4) == one.reference_time
    assert _digits(least, 3) == one.reference_rho


def _digits(value: float, count: int) -> float:
    return round(value, count - 1 - math.floor(math.log10(value)))


@pytest.mark.claim("KB")
def test_KB_the_gradient_sits_on_its_plateau_for_four_orders_of_magnitude(outcome: Outcome):
    ways = {one.name: [row for row in outcome.rows if row["flow"] == one.name] for one in SETTINGS}
    slow, _, damped, exact = (np.array([[row["time"], row["eta"]] for row in way]) for way in ways.values())
    stuck = slow[np.abs(slow[:, 1] - 1) < 0.01, 0]
    assert stuck[-1] / stuck[0] > 1e4
    for natural in (damped, exact):
        assert natural[-1, 0] < 4
    for way in (slow, damped, exact):
        assert np.all(np.diff(way[:, 1]) > -1e-9)  # an ascent


def test_the_experiment_has_rows_of_the_same_columns_and_says_its_numbers(outcome: Outcome):
    assert len({tuple(row) for row in outcome.rows}) == len({tuple(row) for row in outcome.table}) == 1
    assert "|" not in "".join(one.name for one in SETTINGS)  # a name is a cell of a table in Markdown
    for number in ("9/11, 2/11", "38/55", "2448/12100, 288/12100", "17/11, 16/11", "2.684e+06", "306", "2.257"):
        assert number in outcome.ours
