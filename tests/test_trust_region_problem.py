"""The trust-region problem: its expansion, its optimum, and the closed form as the limit of that for δ → 0."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize

import steepest as st
from finite_problems import assert_close, flat
from steepest.reproduce.lecture_trust_region import compare, constrained_optimum
from steepest.worlds.finite import random as random_mdp

MDP = random_mdp(3, 2, 4, 1)
POLICY = st.TabularSoftmax(np.random.default_rng(0).normal(size=(3, 2)))
G, F = flat(MDP.gradient(POLICY)), MDP.fisher(POLICY)


def natural(delta: float) -> np.ndarray:
    """The step of st.npg, [P]."""
    return flat(st.improve(POLICY, MDP, st.npg(delta))[0]) - flat(POLICY)


@pytest.mark.claim("R17")
def test_R17_the_quadratic_model_of_the_kl_is_right_to_first_order() -> None:
    directions = [natural(1e-2), *np.random.default_rng(1).normal(size=(2, 6))]
    for direction in directions:
        scales = np.array([1e-2, 1e-3, 1e-4]) / np.linalg.norm(direction)
        errors = []
        for scale in scales:
            step = scale * direction
            moved = st.TabularSoftmax(POLICY.logits + step.reshape(3, 2))
            loss = float(MDP.trajectory_kl(POLICY, moved)) / MDP.horizon
            errors.append(abs(loss / (0.5 * step @ F @ step) - 1))
        np.testing.assert_allclose(np.diff(np.log(errors)) / np.diff(np.log(scales)), 1.0, atol=0.05)


@pytest.mark.claim("R24")
def test_R24_the_step_satisfies_the_kkt_conditions_and_no_other_does_better() -> None:
    """∇(gᵀΔ) = μ∇(½ΔᵀFΔ), μ ≥ 0, ½ΔᵀFΔ = δ; the problem is convex, so this is its optimum."""
    delta = 1e-2
    step = natural(delta)
    multiplier = np.sqrt(G @ np.linalg.pinv(F, hermitian=True, rcond=1e-12) @ G / (2 * delta))
    assert multiplier > 0
    assert_close(multiplier * F @ step, G, rtol=1e-10)
    assert 0.5 * step @ F @ step == pytest.approx(delta, rel=1e-12)
    assert G @ step == pytest.approx(2 * delta * multiplier, rel=1e-12)
    found = minimize(
        lambda z: -G @ z,
        0.1 * np.ones(6) * np.array([1, -1] * 3),
        jac=lambda z: -G,
        constraints={"type": "ineq", "fun": lambda z: 1 - 0.5 * z @ F @ z / delta, "jac": lambda z: -F @ z / delta},
        method="SLSQP",
        options={"ftol": 1e-14, "maxiter": 200},
    )
    assert -found.fun == pytest.approx(G @ step, rel=1e-8)
    others = np.random.default_rng(2).normal(size=(1000, 6))
    others *= np.sqrt(2 * delta / np.einsum("np,pq,nq->n", others, F, others))[:, None]
    assert np.max(others @ G) < G @ step


@pytest.mark.claim("R26b", "R26")
def test_R26b_the_closed_form_gains_what_can_be_gained_as_delta_goes_to_0() -> None:
    deltas = np.array([1e-2, 1e-4, 1e-6])
    compared = [compare(MDP, POLICY, float(d)) for d in deltas]
    for key in ("predicted/best", "realised/best", "KL of closed form/delta"):
        errors = [abs(c[key] - 1) for c in compared]
        assert errors[-1] < 2e-3
        np.testing.assert_allclose(np.diff(np.log(errors)) / np.diff(np.log(deltas)), 0.5, atol=0.1)
    for c in compared:
        assert c["KL of best/delta"] == pytest.approx(1.0, abs=1e-7)  # before linearising it is tight too
        assert c["KKT residual"] < 1e-5


@pytest.mark.claim("R26b")
def test_R26b_the_optimum_before_linearising_is_one() -> None:
    """No policy on the boundary of the trust region is better than what the constrained optimiser finds."""
    delta = 1e-2
    best = constrained_optimum(MDP, POLICY, delta)
    assert best.multiplier > 0
    rng = np.random.default_rng(3)
    for direction in rng.normal(size=(20, 3, 2)):
        low, high = 0.0, 3.0
        for _ in range(40):  # bisect for the boundary along the direction
            middle = (low + high) / 2
            moved = st.TabularSoftmax(POLICY.logits + middle * direction)
            inside = MDP.trajectory_kl(POLICY, moved) <= MDP.horizon * delta
            low, high = (middle, high) if inside else (low, middle)
        assert MDP.value(st.TabularSoftmax(POLICY.logits + low * direction)) - MDP.value(POLICY) < best.gain


@pytest.mark.claim("R25")
def test_R25_the_closed_form_and_the_optimum_do_not_see_the_scale_of_the_rewards() -> None:
    scaled = st.FiniteHorizonMDP(MDP.transition, 100.0 * MDP.reward, MDP.initial, MDP.horizon)
    closed = [flat(st.improve(POLICY, mdp, st.npg(1e-2))[0]) for mdp in (MDP, scaled)]
    assert_close(closed[1], closed[0])
    best = [constrained_optimum(mdp, POLICY, 1e-2).gain for mdp in (MDP, scaled)]
    assert best[1] == pytest.approx(100 * best[0], rel=1e-7)
