"""The penalised step: it improves the policy in 200 of 200 MDPs, every time, and hardly."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import steepest as st
from geometry_problems import in_dtype, problem
from steepest.algorithms.improvement_bound import improvement, penalty
from steepest.algorithms.penalty_coefficient import penalty_coefficient
from steepest.geometry import Penalised, TheoreticalPenalty
from steepest.geometry.divergences import mean
from steepest.worlds.finite import two_state
from steepest.worlds.finite.ensemble import Ensemble, log_softmax, random_ensemble

COUNT, STATES, ACTIONS, GAMMA, ROUNDS = 200, 4, 3, 0.9, 3
WORLDS = random_ensemble(COUNT, STATES, ACTIONS, seed=2)
STARTS = log_softmax(np.random.default_rng(0).normal(size=(COUNT, STATES, ACTIONS)))
ALGORITHM = st.npg(step=Penalised(TheoreticalPenalty(GAMMA)), solver=st.Direct(), damping=0.0)


def said(info: Any, name: str) -> float:
    """What the step rule reports by this name."""
    return float(info.details[name])


def world(n: int) -> st.DiscountedMDP:
    return st.DiscountedMDP(WORLDS.transition[n], WORLDS.reward[n], WORLDS.initial[n], GAMMA)


def only(n: int) -> Ensemble:
    return Ensemble(*(x[n : n + 1] for x in WORLDS))


def logs_of(policy: Any) -> np.ndarray:
    return log_softmax(np.asarray(policy.logits))


@pytest.mark.claim("PEN1", "B6")
def test_PEN1_the_value_improves_by_at_least_what_the_step_promises_in_200_of_200() -> None:
    kl, share = [], []
    for n in range(COUNT):
        mdp = world(n)
        policies, infos = st.iterate(st.TabularSoftmax(STARTS[n]), mdp, ALGORITHM, steps=ROUNDS)
        values = [float(mdp.value(p)) for p in policies]
        for k, info in enumerate(infos):
            assert info.accepted
            promised = said(info, "penalised") / (1 - GAMMA)
            assert promised > 0
            assert values[k + 1] - values[k] >= promised
            kl.append(float(info.kl))
        share.append((values[1] - values[0]) / (mdp.optimal()[0] - values[0]))
        assert said(infos[0], "penalty") == pytest.approx(
            penalty_coefficient(mdp, st.TabularSoftmax(STARTS[n])), rel=1e-12
        )
    assert max(kl) < 1e-3  # of the 0.01 that a trust region has
    assert 1e-6 < np.median(kl) < 1e-3
    assert np.median(share) < 0.01


@pytest.mark.claim("PEN1", "B6")
def test_PEN1_what_is_promised_is_the_bound_of_the_theorem() -> None:
    policy = st.TabularSoftmax(STARTS[0])
    after, info = st.improve(policy, world(0), ALGORITHM)
    step = improvement(only(0), logs_of(policy)[None], logs_of(after)[None], GAMMA)
    bound = step.surrogate - penalty(step.advantage, step.divergence, GAMMA) - step.before
    assert said(info, "penalised") / (1 - GAMMA) == pytest.approx(float(bound[0]), rel=1e-9)


@pytest.mark.claim("PEN1")
def test_PEN1_a_price_far_below_the_theory_s_can_make_the_policy_worse() -> None:
    """Or improvement would say nothing of the price."""
    cheap = st.npg(step=Penalised(1e-3), solver=st.Direct(), damping=0.0)
    changes = []
    for n in range(20):
        mdp, policy = world(n), st.TabularSoftmax(STARTS[n])
        after, info = st.improve(policy, mdp, cheap)
        assert info.accepted
        changes.append(float(info.improvement) / (1 - GAMMA) - float(mdp.value(after) - mdp.value(policy)))
    assert max(changes) > 0.05  # what the surrogate promised too much


def test_with_the_mean_kl_the_first_point_is_one_over_the_price() -> None:
    with jax.enable_x64(True):
        policy, batch = in_dtype(problem("log-linear"), jnp.float64)
        algorithm = st.npg(step=Penalised(500.0, over=mean), solver=st.Direct(), damping=0.0)
        _, _, info = algorithm.update(policy, algorithm.init(policy), batch)
        assert int(info.backtracks) == 0
        assert float(info.step_size) == pytest.approx(1 / 500, rel=1e-9)
        assert said(info, "penalised") == pytest.approx(float(info.improvement - 500 * info.kl), rel=1e-9)


@pytest.mark.parametrize("bad", [0.0, np.nan])
def test_no_gradient_or_none_that_is_finite_keeps_theta(bad: float) -> None:
    """Without advantages the price of the theory is 0 too."""
    policy, batch = in_dtype(problem("mlp-categorical"), jnp.float32)
    algorithm = st.trpo(step=Penalised(TheoreticalPenalty(0.9)))
    after, _, info = algorithm.update(
        policy, algorithm.init(policy), batch._replace(advantage=bad * jnp.ones_like(batch.advantage))
    )
    for x, y in zip(jax.tree.leaves(policy), jax.tree.leaves(after), strict=True):
        np.testing.assert_array_equal(x, y)
    assert st.Reason(int(info.reason)) is (st.Reason.NO_GRADIENT if bad == 0 else st.Reason.NONFINITE_GRADIENT)
    assert float(info.kl) == said(info, "penalised") == 0.0


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Penalised(0.0), "coefficient > 0, got 0"),
        (lambda: Penalised(1.0, shrink=0.0), "0 < shrink < 1"),
        (lambda: Penalised(1.0, backtracks=-1), "backtracks ≥ 0"),
        (lambda: TheoreticalPenalty(1.0), r"discount in \(0, 1\), got 1"),
        (lambda: penalty_coefficient(two_state(), [0, 0]), "that of a discounted MDP"),
    ],
)
def test_bad_settings(make: Any, message: str) -> None:
    with pytest.raises(st.UsageError, match=message):
        make()
