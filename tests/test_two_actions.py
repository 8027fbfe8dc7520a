"""Two actions, one state, one step: π(0) = σ(θ) and r = (1, 0), where everything has a closed form.

V = σ(θ)        ∇V = F = e^θ/(1 + e^θ)² = 1/(2 cosh(θ/2))²
"""

from __future__ import annotations

import functools
import itertools

import numpy as np
import pytest
from scipy.integrate import solve_ivp

import steepest as st

BANDIT = st.FiniteHorizonMDP(np.ones((1, 2, 1)), [[1.0, 0.0]], [1.0], horizon=1)


def softmax(theta: float) -> st.LogLinearSoftmax:
    """Logits (θ, 0)."""
    return st.LogLinearSoftmax(np.array([theta]), np.array([[[1.0], [0.0]]]))


@functools.cache
def path(algorithm: st.Algorithm, steps: int) -> np.ndarray:
    """θ_0 = 0, θ_1, …"""
    return np.array([float(p.theta[0]) for p in st.iterate(softmax(0.0), BANDIT, algorithm, steps)[0]])


def trust_region(delta: float) -> st.Algorithm:
    """The lecture's ΔᵀFΔ ≤ δ, as far as it goes: the last steps leave where the quadratic model holds."""
    return st.npg(step=st.Normalised(delta, half=False, limit=np.inf))


@pytest.mark.claim("R19")
def test_R19_the_fisher_information_is_a_quarter_at_0_and_vanishes_at_both_ends() -> None:
    thetas = np.array([-300.0, -30.0, -3.0, -0.5, 0.0, 0.5, 3.0, 30.0, 300.0])
    fisher = np.array([BANDIT.fisher(softmax(theta))[0, 0] for theta in thetas])
    small = np.exp(-np.abs(thetas))
    # relative to F itself also where π(0) is 1 in float64, as π(1) is not 0
    np.testing.assert_allclose(fisher, small / (1 + small) ** 2, rtol=1e-12)
    assert fisher[4] == np.max(fisher) == 0.25
    assert np.all(np.diff(fisher)[:4] > 0)
    assert np.all(np.diff(fisher)[4:] < 0)
    assert 0 < fisher[-1] < 1e-130


@pytest.mark.claim("R20")
def test_R20_the_radius_that_delta_allows_grows_without_bound() -> None:
    delta, thetas = 1e-2, [0.0, 5.0, 20.0, 80.0]
    algorithm = trust_region(delta)
    radii = [float(st.improve(softmax(theta), BANDIT, algorithm)[0].theta[0]) - theta for theta in thetas]
    np.testing.assert_allclose(radii, 2 * np.sqrt(delta) * np.cosh(np.array(thetas) / 2), rtol=1e-10)
    assert radii[-1] > 1e16


@pytest.mark.claim("R21")
def test_R21_the_four_speeds() -> None:
    delta, rate = 1e-4, 0.1
    accelerating, now = np.diff(path(trust_region(delta), 162)), path(trust_region(delta), 162)[:-1]
    np.testing.assert_allclose(accelerating, 2 * np.sqrt(delta) * np.cosh(now / 2), rtol=1e-9)
    assert np.all(np.diff(accelerating) > 0)
    constant = np.diff(path(st.npg(step=st.Fixed(rate)), 60))
    np.testing.assert_allclose(constant, rate, rtol=1e-12)
    normalised = np.diff(path(st.pg(step=st.Normalised(delta, half=False)), 60))
    np.testing.assert_allclose(normalised, np.sqrt(delta), rtol=1e-12)
    plain = np.diff(path(st.pg(step=st.Fixed(rate)), 60))
    np.testing.assert_allclose(
        plain, rate / (2 * np.cosh(path(st.pg(step=st.Fixed(rate)), 60)[:-1] / 2)) ** 2, rtol=1e-12
    )
    assert np.all(np.diff(plain) < 0)


@pytest.mark.claim("R21", "N3")
def test_R21_the_exact_gradient_flow_has_the_closed_form() -> None:
    """2 sinh θ + 2θ = ηt + c, c from the start; N3: θ(1000) = 6.893873 from θ = 0 with η = 1."""

    def speed(_: float, theta: np.ndarray, rate: float) -> np.ndarray:
        return rate * np.asarray(BANDIT.gradient(softmax(theta[0])).theta)

    for start, rate, end in ((0.0, 1.0, 1000.0), (-4.0, 0.5, 400.0)):
        flow = solve_ivp(speed, (0, end), [start], "LSODA", args=(rate,), rtol=1e-10, atol=1e-12)
        reached = 2 * np.sinh(flow.y[0]) + 2 * flow.y[0]
        np.testing.assert_allclose(reached - reached[0], rate * flow.t, rtol=1e-7, atol=1e-6)
        if start == 0:
            assert flow.y[0, -1] == pytest.approx(6.893873, abs=5e-7)


@pytest.mark.parametrize(("delta", "steps"), [(1e-4, 161), (1e-2, 19)])
@pytest.mark.claim("N3")
def test_N3_the_trust_region_path_reaches_infinity_in_length_pi_over_2(delta: float, steps: int) -> None:
    theta = path(trust_region(delta), steps + 1)
    assert np.argmax(theta >= 30) == steps
    # the length √δ·t against its integral ∫dθ/(2 cosh(θ/2)) = 2 atan(tanh(θ/4)) → π/2
    assert 2 * np.arctan(np.tanh(theta[-1] / 4)) == pytest.approx(np.pi / 2, abs=1e-12)
    shortfall = np.sqrt(delta) * np.arange(len(theta)) - 2 * np.arctan(np.tanh(theta / 4))
    assert np.all(np.diff(shortfall[:-1]) > 0)  # a step of an accelerating path is always too short
    assert shortfall[steps // 2] < 2 * np.sqrt(delta)


@pytest.mark.claim("R25")
def test_R25_the_scale_of_the_reward_is_seen_by_a_fixed_rate_alone() -> None:
    scaled = st.FiniteHorizonMDP(np.ones((1, 2, 1)), [[1000.0, 0.0]], [1.0], horizon=1)
    for algorithm, factor in (
        (trust_region(1e-4), 1.0),
        (st.pg(step=st.Normalised(1e-4, half=False)), 1.0),
        (st.npg(step=st.Fixed(0.1)), 1000.0),
        (st.pg(step=st.Fixed(0.1)), 1000.0),
    ):
        first = [float(st.improve(softmax(0.0), world, algorithm)[0].theta[0]) for world in (BANDIT, scaled)]
        assert first[1] == pytest.approx(factor * first[0], rel=1e-12)
    for one, two in itertools.pairwise(
        st.iterate(softmax(0.0), world, trust_region(1e-4), steps=5)[0] for world in (BANDIT, scaled)
    ):
        np.testing.assert_allclose([p.theta for p in one], [p.theta for p in two], rtol=1e-12)
