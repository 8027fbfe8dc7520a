"""Mirror descent with parameters: the closed form on a table, a stationary point elsewhere, and no unsafe step."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import steepest as st
from geometry_problems import in_dtype, problem
from steepest.algorithms import mirror_descent as tabular
from steepest.algorithms.methods import mirror_descent
from steepest.geometry import MirrorDescent, linearise, mean_kl
from steepest.parameters import split
from steepest.worlds.finite import random as random_mdp
from steepest.worlds.finite.ensemble import log_softmax

MDP = random_mdp(4, 3, 6, 3).discounted(0.9)
LOGS = log_softmax(np.random.default_rng(0).normal(size=(4, 3)))
DIRECT = st.Direct()


def said(info: Any, name: str) -> float:
    """What the step rule reports by this name."""
    return float(info.details[name])


def logs_of(policy: Any) -> np.ndarray:
    return log_softmax(np.asarray(policy.logits))


@pytest.mark.claim("MD1")
@pytest.mark.parametrize("eta", [0.1, 5.0])
def test_MD1_on_a_table_it_is_the_closed_form(eta: float) -> None:
    """π·e^{ηA}/Z. One climb is there, and the others stay."""
    policy = st.TabularSoftmax(LOGS)
    expected = tabular.mirror_descent(LOGS, MDP.advantages(policy), step=eta)
    step = MirrorDescent(eta, iterations=4, solver=DIRECT, limit=np.inf)
    algorithm = st.npg(step=step, solver=DIRECT, damping=0.0)
    after, info = st.improve(policy, MDP, algorithm)
    assert info.accepted
    # what is rare is known to rounding divided by its probability, whatever the processor
    assert (np.abs(logs_of(after) - expected) <= 1e-10 + 1e-15 * np.exp(-expected)).all()
    assert np.abs(expected - LOGS).max() > 0.05


@pytest.mark.claim("MD1")
def test_MD1_climbs_undo_what_damping_and_few_products_do_to_the_direction() -> None:
    policy, eta = st.TabularSoftmax(LOGS), 1.0
    expected = tabular.mirror_descent(LOGS, MDP.advantages(policy), step=eta)
    gaps = []
    for count in (1, 100):
        algorithm = mirror_descent(learning_rate=eta, iterations=count, solver=st.ConjugateGradient(3), damping=0.02)
        after, info = st.improve(policy, MDP, algorithm)
        assert info.accepted
        gaps.append(np.abs(logs_of(after) - expected).max())
    assert gaps[0] > 1e-2
    assert gaps[1] < 1e-6


@pytest.mark.claim("MD1")
@pytest.mark.parametrize(("kind", "climbs", "left"), [("log-linear", 10, 1e-6), ("mlp-gaussian", 25, 1e-3)])
def test_MD1_elsewhere_it_ends_where_the_gradient_vanishes(kind: str, climbs: int, left: float) -> None:
    """∇(L − KL(π'‖π)/η) → 0 as climbs go on, with gain − KL/η larger than after the first."""
    with jax.enable_x64(True):
        policy, batch = in_dtype(problem(kind), jnp.float64)
        local = linearise(policy, batch.obs)

        def height(theta: Any, eta: Any) -> jax.Array:
            new = local.predict(theta)
            gain = st.expected_advantage.gain(local.distribution, new, batch)
            return gain - mean_kl(new, local.distribution, jnp.asarray(batch.weight)) / eta

        slope = jax.jit(jax.value_and_grad(height))
        norms, heights = [], []
        for iterations in (1, climbs):
            algorithm = mirror_descent(1e-4, iterations=iterations, solver=DIRECT, damping=1e-6)
            after, _, info = algorithm.update(policy, algorithm.init(policy), batch)
            assert info.accepted
            value, g = slope(split(after)[0], said(info, "learning_rate"))
            heights.append(float(value))
            norms.append(np.linalg.norm(np.concatenate([np.ravel(x) for x in jax.tree.leaves(g)])))
            reverse = said(info, "reverse_kl")
            assert value == pytest.approx(float(info.improvement) - reverse / said(info, "learning_rate"))
        assert heights[1] > heights[0] > 0
        assert norms[1] < left * norms[0]


@pytest.mark.claim("MD1")
def test_MD1_the_direction_of_the_kl_matters() -> None:
    """The maximum with KL(π‖π') in place of KL(π'‖π) is another policy: p·m/(c − A)."""
    policy, eta = st.TabularSoftmax(LOGS), 2.0
    a, p = MDP.advantages(policy), np.exp(LOGS)
    low, high = a.max(axis=1) + 1e-9, a.max(axis=1) + 1 / eta + 1e-6
    for _ in range(200):  # Σ p/(η(c − A)) = 1, by bisection for c in each state
        c = (low + high) / 2
        more = np.sum(p / (eta * (c[:, None] - a)), axis=1) > 1
        low, high = np.where(more, c, low), np.where(more, high, c)
    other = p / (eta * (low[:, None] - a))
    np.testing.assert_allclose(other.sum(axis=1), 1.0, atol=1e-6)
    after, _ = st.improve(policy, MDP, mirror_descent(learning_rate=eta, solver=DIRECT, damping=0.0))
    assert np.abs(np.exp(logs_of(after)) - other).max() > 5e-3


def test_with_delta_the_rate_is_that_of_the_natural_step_and_no_unit_matters() -> None:
    with jax.enable_x64(True):
        policy, batch = in_dtype(problem("mlp-gaussian"), jnp.float64)
        ends = []
        for scale in (1.0, 1000.0):
            scaled = batch._replace(advantage=scale * batch.advantage)
            algorithm = mirror_descent(1e-5, iterations=2, damping=0.1)
            after, _, info = algorithm.update(policy, algorithm.init(policy), scaled)
            natural = st.npg(1e-5, solver=st.ConjugateGradient(10), damping=0.1)
            _, _, first = natural.update(policy, natural.init(policy), scaled)
            assert said(info, "learning_rate") == pytest.approx(float(first.step_size), rel=1e-12)
            assert 1e-5 < float(info.kl) < 1.3e-5  # the second climb undoes some of the damping
            assert float(info.predicted_kl) == pytest.approx(float(info.kl), rel=0.05)  # of the whole Δ
            ends.append(np.concatenate([np.ravel(x) for x in jax.tree.leaves(after)]))
        np.testing.assert_allclose(ends[1], ends[0], rtol=1e-6)  # other units round otherwise


class TestSafe:
    @pytest.mark.parametrize("bad", [0.0, np.nan])
    def test_no_gradient_or_none_that_is_finite(self, bad: float) -> None:
        policy, batch = in_dtype(problem("mlp-categorical"), jnp.float32)
        algorithm = mirror_descent()
        after, state, info = algorithm.update(
            policy, algorithm.init(policy), batch._replace(advantage=bad * jnp.ones_like(batch.advantage))
        )
        self.kept(policy, after, info)
        assert st.Reason(int(info.reason)) is (st.Reason.NO_GRADIENT if bad == 0 else st.Reason.NONFINITE_GRADIENT)
        assert int(state.failures) == (bad != 0)

    @pytest.mark.parametrize("limit", [1e-3, 1e-12])
    def test_no_climb_goes_beyond_the_limit(self, limit: float) -> None:
        """Where not even the shortest is within it, θ is kept."""
        policy, batch = in_dtype(problem("mlp-categorical"), jnp.float32)
        algorithm = mirror_descent(learning_rate=10.0, limit=limit)
        after, _, info = algorithm.update(policy, algorithm.init(policy), batch)
        if limit == 1e-3:
            assert info.accepted
            assert 1e-5 < float(info.kl) <= limit
        else:
            assert st.Reason(int(info.reason)) is st.Reason.LINE_SEARCH
            self.kept(policy, after, info)

    def test_masked_and_certain_actions(self) -> None:
        logits = jnp.array([[0.3, -jnp.inf, 0.1], [0.0, -1e4, -1e4], [0.2, 0.4, -0.5]])
        batch = st.Batch(jnp.arange(3), jnp.array([0.5, 0.5, 0.0]), jnp.array([[0], [0], [1]]), jnp.ones((3, 1)),
                         jnp.array([[1.0], [2.0], [np.nan]]), jnp.arange(3))  # fmt: skip
        policy, algorithm = st.TabularSoftmax(logits), mirror_descent(0.01, damping=0.1)
        after, _, info = algorithm.update(policy, algorithm.init(policy), batch)
        assert info.accepted
        assert all(np.isfinite(np.asarray(x)).all() for x in jax.tree.leaves(info))
        assert after.logits[0, 1] == -jnp.inf
        assert after.logits[0, 0] > logits[0, 0]
        np.testing.assert_array_equal(after.logits[1:], logits[1:])

    @pytest.mark.parametrize(
        ("make", "message"),
        [
            (lambda: MirrorDescent(), "one of the two, got learning_rate=None and delta=None"),
            (lambda: MirrorDescent(0.1, 0.1), "one of the two"),
            (lambda: MirrorDescent(0.0), "learning_rate > 0, got 0"),
            (lambda: MirrorDescent(delta=-1.0), "delta > 0, got -1"),
            (lambda: MirrorDescent(0.1, iterations=0), "iterations ≥ 1, got 0"),
            (lambda: MirrorDescent(0.1, limit=0.0), "limit > 0, got 0"),
        ],
    )
    def test_bad_settings(self, make: Any, message: str) -> None:
        with pytest.raises(st.UsageError, match=message):
            make()

    def kept(self, before: Any, after: Any, info: Any) -> None:
        for x, y in zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True):
            np.testing.assert_array_equal(x, y)
        assert not info.accepted
        assert float(info.kl) == float(info.improvement) == said(info, "reverse_kl") == 0.0
