"""The trust region on the largest KL of any state: never exceeded, and what its line gains of the exact optimum."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import minimize

import steepest as st
from geometry_problems import in_dtype, problem
from steepest.algorithms.improvement_bound import divergence
from steepest.geometry import Decaying, MaxKL, MirrorDescent, Penalised, linearise, max_kl, mean_kl
from steepest.linear import Dense, Solution
from steepest.parameters import split
from steepest.worlds.finite import random as random_mdp
from steepest.worlds.finite.ensemble import log_softmax

MDP = random_mdp(4, 3, 6, 3).discounted(0.9)
LOGS = log_softmax(np.random.default_rng(0).normal(size=(4, 3)))
POLICY = st.TabularSoftmax(LOGS)


def said(info: Any, name: str) -> float:
    """What the step rule reports by this name."""
    return float(info.details[name])


def step_by(delta: float) -> tuple[np.ndarray, Any]:
    """(ln π' [S,A], the report)."""
    after, info = st.improve(POLICY, MDP, st.npg(step=MaxKL(delta), solver=st.Direct(), damping=0.0))
    return log_softmax(np.asarray(after.logits)), info


def best_gain(delta: float) -> float:
    """max L(π') s.t. KL(π‖π')(s) ≤ δ in every state, by SLSQP over the logits, L = Σ_s d(s) Σ_a π'A."""
    d, a, p = MDP.state_distribution(POLICY)[:, None], MDP.advantages(POLICY), np.exp(LOGS)
    scale, spread = np.sqrt(delta), np.sqrt(np.sum(np.exp(LOGS) * a**2, axis=1, keepdims=True))

    def table(z: np.ndarray) -> np.ndarray:
        return np.exp(log_softmax(LOGS + scale * z.reshape(LOGS.shape)))

    def slope(z: np.ndarray) -> np.ndarray:
        q = table(z)
        return np.ravel(d * q * (a - np.sum(q * a, axis=1, keepdims=True)))

    def room(z: np.ndarray) -> np.ndarray:
        return 1 - divergence(LOGS, np.log(table(z))) / delta

    def room_slope(z: np.ndarray) -> np.ndarray:
        rows = np.zeros((4, 4, 3))
        rows[np.arange(4), np.arange(4)] = (p - table(z)) * scale / delta
        return rows.reshape(4, 12)

    found = minimize(
        lambda z: -np.sum(d * table(z) * a) / scale,
        np.ravel(np.sqrt(2) * 0.9 * a / spread),
        jac=lambda z: -slope(z),
        constraints={"type": "ineq", "fun": room, "jac": room_slope},
        method="SLSQP",
        options={"ftol": 1e-14, "maxiter": 500},
    )
    assert np.all(room(found.x) > -1e-6)
    return float(np.sum(d * table(found.x) * a))


@pytest.mark.claim("MAXKL1")
def test_MAXKL1_the_first_point_is_that_of_the_worst_state_and_the_report_has_both() -> None:
    logs, info = step_by(1e-8)
    in_states = divergence(LOGS, logs)
    assert in_states.max() == pytest.approx(1e-8, rel=1e-3)
    assert int(info.backtracks) <= 1
    assert said(info, "max_kl") == pytest.approx(in_states.max(), rel=1e-6)
    assert float(info.kl) == pytest.approx(MDP.state_distribution(POLICY) @ in_states, rel=1e-6)
    assert float(info.kl) < 0.9 * in_states.max()


@pytest.mark.claim("MAXKL1")
def test_MAXKL1_never_more_than_delta_in_any_state() -> None:
    with jax.enable_x64(True):
        for kind in ("tabular", "mlp-gaussian"):
            policy, batch = in_dtype(problem(kind), jnp.float64)
            local = linearise(policy, batch.obs)
            for delta in (1e-3, 1.0):
                algorithm = st.trpo(step=MaxKL(delta, backtracks=30), damping=0.0)
                after, _, info = algorithm.update(policy, algorithm.init(policy), batch)
                assert info.accepted
                new = local.predict(split(after)[0])
                largest = float(np.max(np.where(batch.weight > 0, local.distribution.kl(new), 0)))
                assert 0.3 * delta < largest <= delta
                assert said(info, "max_kl") == pytest.approx(largest, rel=1e-9)
                assert float(info.kl) == pytest.approx(float(mean_kl(local.distribution, new, batch.weight)), rel=1e-9)
                assert float(info.improvement) > 0


@pytest.mark.claim("MAXKL1")
def test_MAXKL1_what_the_line_gains_of_the_optimum() -> None:
    """As δ → 0 the optimum steps by √(2δ)/a_s·A in state s, a_s the deviation of A, the line by √(2δ)/max a·A."""
    d, a = MDP.state_distribution(POLICY), np.sqrt(np.sum(np.exp(LOGS) * MDP.advantages(POLICY) ** 2, axis=1))
    limit = d @ a**2 / (a.max() * (d @ a))
    assert 0.5 < limit < 0.95
    assert best_gain(1e-8) == pytest.approx(np.sqrt(2e-8) * (d @ a), rel=1e-3)
    errors = []
    for delta in (1e-4, 1e-6):
        logs, info = step_by(delta)
        gain = float(info.improvement)
        assert gain == pytest.approx(d @ np.sum(np.exp(logs) * MDP.advantages(POLICY), axis=1), rel=1e-9)
        errors.append(abs(gain / (best_gain(delta) * 0.8 ** int(info.backtracks)) - limit))
    assert errors[1] < 2e-3
    assert errors[1] < 0.2 * errors[0] or errors[0] < 1e-4


def test_the_largest_kl_is_over_the_rows_with_weight() -> None:
    with jax.enable_x64(True):
        logits = jnp.array(np.random.default_rng(0).normal(size=(3, 2)))
        old, new = st.Categorical(logits), st.Categorical(2 * logits.at[2].set(jnp.nan))
        both = divergence(*(np.asarray(x.log_probs)[:2] for x in (old, new)))
        assert float(max_kl(old, new, jnp.array([0.9, 0.1, 0.0]))) == pytest.approx(both.max(), rel=1e-12)
        assert float(max_kl(old, old, jnp.ones(3) / 3)) == 0.0
        assert float(max_kl(old, new, jnp.zeros(3))) == 0.0
        assert np.isnan(max_kl(old, new, jnp.ones(3)))


@pytest.mark.parametrize("bad", [0.0, np.nan])
def test_no_gradient_or_none_that_is_finite_keeps_theta(bad: float) -> None:
    policy, batch = in_dtype(problem("mlp-categorical"), jnp.float32)
    algorithm = st.trpo(step=MaxKL(0.01))
    after, _, info = algorithm.update(
        policy, algorithm.init(policy), batch._replace(advantage=bad * jnp.ones_like(batch.advantage))
    )
    for x, y in zip(jax.tree.leaves(policy), jax.tree.leaves(after), strict=True):
        np.testing.assert_array_equal(x, y)
    assert st.Reason(int(info.reason)) is (st.Reason.NO_GRADIENT if bad == 0 else st.Reason.NONFINITE_GRADIENT)
    assert float(info.kl) == said(info, "max_kl") == 0.0


def test_masked_and_certain_actions() -> None:
    """A state of one certain action, where the Fisher matrix is 0, has no say in the length."""
    logits = jnp.array([[0.3, -jnp.inf, 0.1], [0.0, -1e4, -1e4], [0.2, 0.4, -0.5]])
    batch = st.Batch(jnp.arange(3), jnp.array([0.5, 0.5, 0.0]), jnp.array([[0], [0], [1]]), jnp.ones((3, 1)),
                     jnp.array([[1.0], [2.0], [np.nan]]), jnp.arange(3))  # fmt: skip
    policy, algorithm = st.TabularSoftmax(logits), st.trpo(step=MaxKL(0.01), damping=0.1)
    after, _, info = algorithm.update(policy, algorithm.init(policy), batch)
    assert info.accepted
    assert all(np.isfinite(np.asarray(x)).all() for x in jax.tree.leaves(info))
    assert 0.003 < said(info, "max_kl") <= 0.01
    assert after.logits[0, 1] == -jnp.inf
    np.testing.assert_array_equal(after.logits[1:], logits[1:])


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"delta": 0.0}, "MaxKL needs a finite delta > 0"), ({"delta": 0.1, "shrink": 1.0}, "shrink")],
)
def test_bad_settings(settings: Any, message: str) -> None:
    with pytest.raises(st.UsageError, match=message):
        MaxKL(**settings)


def test_a_step_that_no_update_has_begun_says_so() -> None:
    x = jnp.ones(3)
    solution = Solution(x, jnp.array(0), jnp.array(0.0), jnp.array(0))
    for step in (MaxKL(0.1), Penalised(1.0), MirrorDescent(0.1), Decaying(st.Fixed(0.1), over=2)):
        with pytest.raises(st.UsageError, match="begin first"):
            step(x, x, solution, Dense(jnp.eye(3)), lambda t: (jnp.array(1.0), jnp.array(0.0)))
