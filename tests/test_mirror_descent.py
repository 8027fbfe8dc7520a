"""The published rates of tabular methods: never violated in 50 random MDPs, at any iteration, for any step allowed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from steepest.algorithms import convergence, iterate, npg
from steepest.algorithms import mirror_descent as updates
from steepest.algorithms.convergence import Trace
from steepest.errors import UsageError
from steepest.geometry import Fixed
from steepest.linear import Direct
from steepest.policies import TabularSoftmax
from steepest.worlds.finite import DiscountedMDP, ensemble
from steepest.worlds.finite.ensemble import Ensemble, log_softmax, random_ensemble

COUNT, STATES, ACTIONS, UPDATES = 50, 5, 3, 150
DISCOUNTS = (0.5, 0.9, 0.99)
STEPS = (0.01, 0.1, 1.0, 10.0)
HORIZONS = (1, 5, 20)
ROUNDING = 1e-12  # relative to the largest value there is, 1/(1−γ) or H, with 1/(1−γ) for the solve's condition


@pytest.fixture(scope="module")
def worlds() -> Ensemble:
    return random_ensemble(COUNT, STATES, ACTIONS, seed=1)


def worst(trace: Trace, rounding: float) -> float:
    """The largest gap/bound at any iteration after the first policy; fails where one exceeds 1 by more than rounding,
    where the methods' value falls, or where nothing is measured."""
    assert trace.gap.shape == trace.bound.shape == trace.change.shape == (COUNT, len(trace.updates))
    assert np.all(trace.gap <= trace.bound + rounding)
    assert np.all(trace.change >= -rounding)
    learning = (trace.bound > 1e3 * rounding) & (trace.updates > 0)
    return float(np.max(trace.gap[learning] / trace.bound[learning]))


def rounding(discount: float) -> float:
    return ROUNDING / (1 - discount) ** 2


# The theorems


@pytest.mark.claim("B1", "N5")
def test_B1_multiplicative_weights_converge_as_1_over_T_and_never_get_worse(worlds):
    ratios = [
        worst(convergence.multiplicative_weights(worlds, discount, step, UPDATES), rounding(discount))
        for discount in DISCOUNTS
        for step in STEPS
    ]
    assert 0.2 < max(ratios) < 0.5  # the largest: small steps, where ln|A|/(ηT) is most of the bound


@pytest.mark.claim("B2", "N5")
def test_B2_mirror_descent_with_a_constant_step_converges_as_1_over_k(worlds):
    ratios = [
        worst(convergence.constant_mirror_descent(worlds, discount, step, UPDATES), rounding(discount))
        for discount in DISCOUNTS
        for step in STEPS
    ]
    assert 0.2 < max(ratios) < 0.5


@pytest.mark.claim("B2", "N5")
def test_B2_mirror_descent_with_growing_steps_converges_linearly(worlds):
    ratios = [
        worst(convergence.growing_mirror_descent(worlds, discount, first, UPDATES), rounding(discount))
        for discount in DISCOUNTS
        for first in STEPS
    ]
    assert 0.3 < max(ratios) < 1.0  # the bound starts at the gap itself: tight at the first updates
    fast = convergence.growing_mirror_descent(worlds, 0.9, 1.0, UPDATES)
    slow = convergence.constant_mirror_descent(worlds, 0.9, 0.01, UPDATES)
    assert np.all(fast.gap[:, -1] < 1e-10)
    assert np.all(slow.gap[:, -1] > 1e-2)


@pytest.mark.claim("B3", "N5")
def test_B3_entropy_regularised_npg_converges_linearly_at_every_step_allowed(worlds):
    ratios = []
    for discount in DISCOUNTS:
        for temperature in (0.01, 0.1, 1.0):
            for part in (0.1, 0.5, 1.0):
                step = part * (1 - discount) / temperature
                traces = convergence.regularised(worlds, discount, temperature, step, UPDATES)
                slack = 10 * rounding(discount), 10 * rounding(discount) / temperature
                ratios.append([worst(t, s) for t, s in zip(traces, slack, strict=True)])
    of_q, of_policy = np.max(ratios, axis=0)
    assert 0.3 < of_q < 1.0
    assert 0.1 < of_policy < 1.0


@pytest.mark.claim("B4", "N5")
def test_B4_a_softmax_for_each_step_of_a_finite_horizon_converges_as_1_over_T(worlds):
    ratios = [
        worst(convergence.stepwise(worlds, horizon, exponent, UPDATES), ROUNDING * horizon)
        for horizon in HORIZONS
        for exponent in STEPS
    ]
    assert 0.2 < max(ratios) < 0.6


@pytest.mark.claim("N5")
def test_N5_the_bounds_can_fail_they_do_for_a_policy_that_stands_still(worlds, monkeypatch):
    def stay(log_policy: np.ndarray, values: np.ndarray, **_: Any) -> np.ndarray:
        return log_policy

    for update in ("multiplicative_weights", "mirror_descent", "regularised", "stepwise"):
        monkeypatch.setattr(updates, update, stay)
    for trace in (
        convergence.multiplicative_weights(worlds, 0.5, 10.0, UPDATES),
        convergence.constant_mirror_descent(worlds, 0.5, 10.0, UPDATES),
        convergence.growing_mirror_descent(worlds, 0.5, 10.0, UPDATES),
        *convergence.regularised(worlds, 0.5, 0.1, 2.5, UPDATES),
        convergence.stepwise(worlds, 5, 10.0, UPDATES),
    ):
        assert np.mean(trace.gap[:, -1] > trace.bound[:, -1]) > 0.8


# B1 is the natural policy gradient


@pytest.mark.claim("B1")
def test_B1_multiplicative_weights_is_npg_with_a_fixed_step_and_the_pseudo_inverse(worlds):
    discount, eta, count = 0.9, 0.05, 20
    mdp = DiscountedMDP(worlds.transition[0], worlds.reward[0], worlds.initial[0], discount)
    natural = npg(step=Fixed(eta / (1 - discount)), solver=Direct(), damping=0.0)
    policies, infos = iterate(TabularSoftmax(np.zeros((STATES, ACTIONS))), mdp, natural, count)
    assert all(info.accepted for info in infos)
    logs = log_softmax(np.zeros((STATES, ACTIONS)))
    for policy in policies:
        np.testing.assert_allclose(log_softmax(np.asarray(policy.logits)), logs, rtol=0, atol=1e-11)
        logs = updates.multiplicative_weights(logs, mdp.action_values(np.exp(logs)), step=eta, discount=discount)
    assert np.max(np.abs(logs - log_softmax(0 * logs))) > 0.5  # it went somewhere


@pytest.mark.claim("B3")
def test_B3_without_an_entropy_bonus_the_regularised_update_is_multiplicative_weights():
    q, logs = np.random.default_rng(0).normal(size=(2, 4, 3))
    logs = log_softmax(logs)
    plain = updates.multiplicative_weights(logs, q, step=0.1, discount=0.9)
    nearly = updates.regularised(logs, q, step=0.1, temperature=1e-13, discount=0.9)
    np.testing.assert_allclose(nearly, plain, rtol=0, atol=1e-11)


def test_updates_multiply_the_policy_by_the_exponential_that_their_formula_says():
    rng = np.random.default_rng(1)
    logs, q = log_softmax(rng.normal(size=(2, 4, 3))), rng.normal(size=(2, 4, 3))
    p = np.exp(logs)
    for new, expected in (
        (updates.multiplicative_weights(logs, q, step=0.2, discount=0.9), p * np.exp(2 * q)),
        (updates.mirror_descent(logs, q, step=0.2), p * np.exp(0.2 * q)),
        (updates.regularised(logs, q, step=0.2, temperature=0.1, discount=0.9), p**0.8 * np.exp(2 * q)),
        (updates.stepwise(logs, q, exponent=0.2), p * np.exp(0.2 * q)),
    ):
        np.testing.assert_allclose(np.exp(new), expected / expected.sum(axis=-1, keepdims=True), rtol=1e-13)


# What they are measured against


def test_optima_of_the_ensemble_are_fixed_points(worlds):
    value, policy = ensemble.optimal(worlds, 0.9)
    q = worlds.reward + 0.9 * np.einsum("nsat,nt->nsa", worlds.transition, value)
    np.testing.assert_allclose(value, q.max(axis=-1), rtol=1e-13)
    np.testing.assert_array_equal(np.argmax(policy, axis=-1), np.argmax(q, axis=-1))
    soft, logs = ensemble.soft_optimal(worlds, 0.9, 0.1)
    value = 0.1 * np.log(np.sum(np.exp(soft / 0.1), axis=-1))
    np.testing.assert_allclose(
        soft, worlds.reward + 0.9 * np.einsum("nsat,nt->nsa", worlds.transition, value), rtol=1e-12
    )
    np.testing.assert_allclose(np.sum(np.exp(logs), axis=-1), 1.0, rtol=1e-13)


def test_visits_are_discounted_occupancies(worlds):
    policy = np.full(worlds.reward.shape, 1 / ACTIONS)
    d = ensemble.visits(worlds, policy, 0.9)
    np.testing.assert_allclose(d.sum(axis=-1), 1.0, rtol=1e-13)
    earned = np.sum(d * np.mean(worlds.reward, axis=-1), axis=-1) / (1 - 0.9)
    logs = np.log(policy)
    value = ensemble.state_values(logs, ensemble.action_values(worlds, logs, 0.9))
    np.testing.assert_allclose(earned, np.sum(worlds.initial * value, axis=-1), rtol=1e-13)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda x: updates.mirror_descent(x, x, step=0.0), "step must be a finite number > 0, got 0.0"),
        (
            lambda x: updates.multiplicative_weights(x, x, step=1.0, discount=1.0),
            r"discount must be in \[0, 1\), got 1.0",
        ),
        (
            lambda x: updates.regularised(x, x, step=2.0, temperature=0.1, discount=0.9),
            r"at most \(1−γ\)/τ = 1, got 2.0",
        ),
        (lambda x: updates.growing_step(1, first=1.0, discount=0.0), "grow by 1/γ need a discount > 0"),
        (lambda x: updates.stepwise(x, x, exponent=np.inf), "exponent must be a finite number > 0"),
        (lambda x: random_ensemble(0), "at least one MDP"),
    ],
)
def test_steps_outside_the_theorems_are_refused(call, said):
    with pytest.raises(UsageError, match=said):
        call(np.log(np.full((2, 2), 0.5)))


@pytest.mark.claim("B4")
def test_B4_its_bound_is_the_formula():
    bound = updates.stepwise_bound(np.array([1.0, 10.0]), horizon=3, actions=2, exponent=0.5)
    np.testing.assert_allclose(bound, (3 * np.log(2) / 0.5 + 3 * 4 / 2) / np.array([1.0, 10.0]), rtol=1e-14)
