"""Rules for λ: Levenberg–Marquardt by the agreement of the last step, and λ relative to the mean diagonal."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import steepest as st
from geometry_problems import in_dtype, problem
from steepest.algorithms.algorithm import Algorithm
from steepest.algorithms.damping import Agreement, Damping
from steepest.geometry import Fixed, Normalised, Reason, TrustRegion, expected_advantage, fisher
from steepest.linear import Dense, Direct


def agreement(ratio: float, *, accepted: bool = True, tried: bool = True) -> Agreement:
    return Agreement(jnp.asarray(2.0), jnp.asarray(2.0 * ratio), jnp.asarray(accepted), jnp.asarray(tried))


class TestLevenbergMarquardt:
    rule = st.LevenbergMarquardt(initial=0.1, least=0.01, most=1.0, growth=2.0)

    @pytest.mark.parametrize(
        ("seen", "expected"),
        [
            (agreement(0.9), 0.05),  # the model holds
            (agreement(0.5), 0.1),
            (agreement(0.1), 0.2),
            (agreement(-3.0), 0.2),
            (agreement(np.nan), 0.2),
            (agreement(0.0, accepted=False), 0.2),  # no step: more of the gradient's direction
            (agreement(0.0, accepted=False, tried=False), 0.1),  # no gradient: nothing is learnt about λ
            (Agreement(jnp.asarray(-1.0), jnp.asarray(-1.0), jnp.asarray(True), jnp.asarray(True)), 0.1),  # recovering
        ],
    )
    @pytest.mark.claim("LM")
    def test_LM_by_the_agreement(self, seen: Agreement, expected: float) -> None:
        np.testing.assert_allclose(self.rule.after(jnp.asarray(0.1), seen), expected, rtol=1e-6)

    @pytest.mark.claim("LM")
    def test_LM_stays_within_its_bounds(self) -> None:
        low = high = jnp.asarray(0.1)
        for _ in range(20):
            low, high = self.rule.after(low, agreement(1.0)), self.rule.after(high, agreement(0.0))
        np.testing.assert_allclose([low, high], [0.01, 1.0], rtol=1e-6)

    @pytest.mark.claim("LM")
    def test_LM_in_the_trust_report_of_updates(self) -> None:
        """The λ reported is the one that was used: x solves (F + λI)x = g; and it falls while the model holds."""
        with jax.enable_x64(True):
            policy, batch = in_dtype(problem("mlp-categorical"), jnp.float64)
            algorithm = st.npg(1e-6, solver=Direct(), damping=self.rule)
            state = algorithm.init(policy)
            seen = []
            for _ in range(3):
                policy, state, info = algorithm.update(policy, state, batch)
                seen.append(float(info.damping))
                assert float(info.improvement / info.predicted_improvement) > 0.75
            np.testing.assert_allclose(seen, [0.1, 0.05, 0.025])
            fixed = st.npg(1e-6, solver=Direct(), damping=0.0125)
            again, _, expected = fixed.update(policy, fixed.init(policy), batch)
            adapted, _, info = algorithm.update(policy, state, batch)
            np.testing.assert_allclose(info.natural_norm, expected.natural_norm, rtol=1e-10)
            for a, b in zip(jax.tree.leaves(adapted), jax.tree.leaves(again), strict=True):
                np.testing.assert_allclose(a, b, rtol=1e-10)

    @pytest.mark.claim("LM")
    def test_LM_grows_where_steps_are_too_long_for_the_model(self) -> None:
        with jax.enable_x64(True):
            policy, batch = in_dtype(problem("mlp-categorical"), jnp.float64)
            rule = st.LevenbergMarquardt(initial=1e-3, least=1e-4, most=10.0, growth=3.0)
            algorithm = st.npg(damping=rule, solver=Direct(), step=Fixed(3e3))
            state = algorithm.init(policy)
            for _ in range(3):
                _, state, info = algorithm.update(policy, state, batch)
                assert float(info.improvement) < 0.25 * float(info.predicted_improvement)
            np.testing.assert_allclose(state.damping, 1e-3 * 27)

    @pytest.mark.parametrize(
        "settings",
        [{"initial": 0.0}, {"least": 0.2}, {"most": 0.01}, {"growth": 1.0}, {"growth": np.inf}, {"most": np.inf}],
    )
    def test_contradictions_are_refused(self, settings: dict) -> None:
        with pytest.raises(st.UsageError, match="LevenbergMarquardt needs"):
            st.LevenbergMarquardt(**settings)


class TestRelative:
    def test_it_is_a_fraction_of_the_mean_diagonal(self) -> None:
        matrix = Dense(jnp.diag(jnp.asarray([1.0, 3.0, 8.0])))  # signs see a diagonal exactly
        rule = st.RelativeDamping(0.5, probes=1)
        found = rule.value(jnp.zeros(()), matrix, jnp.zeros(3), jax.random.key(0))
        np.testing.assert_allclose(found, 0.5 * 4.0)

    def test_the_estimate_is_unbiased(self) -> None:
        rng = np.random.default_rng(0)
        root = rng.normal(size=(6, 6))
        matrix = Dense(jnp.asarray(root @ root.T))
        rule = st.RelativeDamping(1.0, probes=4000)
        found = rule.value(jnp.zeros(()), matrix, jnp.zeros(6), jax.random.key(1))
        np.testing.assert_allclose(found, np.trace(root @ root.T) / 6, rtol=0.03)

    def test_the_direction_does_not_see_the_units_of_the_parameters(self) -> None:
        """θ = cφ multiplies F by c² and the step by 1/c: with a relative λ the step in policy space stays."""
        with jax.enable_x64(True):
            policy, batch = in_dtype(problem("tabular"), jnp.float64)
            steps = {}
            for c in (1.0, 100.0):
                scaled = st.reparameterise(policy, c * jnp.eye(policy.logits.size), jnp.zeros(policy.logits.size))
                for name, damping in (("relative", st.RelativeDamping(0.3)), ("absolute", 0.01)):
                    algorithm = Algorithm("npg", expected_advantage, fisher, Direct(), Normalised(1e-4), damping)
                    new, _, _ = algorithm.update(scaled, algorithm.init(scaled), batch)
                    says: Any = jax.vmap(new)(batch.obs)
                    steps[name, c] = np.asarray(says.probs)
            np.testing.assert_allclose(steps["relative", 100.0], steps["relative", 1.0], rtol=1e-10)
            assert np.abs(steps["absolute", 100.0] - steps["absolute", 1.0]).max() > 1e-5

    @pytest.mark.parametrize("entries", [0.0, np.nan, np.inf])
    def test_a_metric_without_a_scale_gives_a_number_all_the_same(self, entries: float) -> None:
        found = st.RelativeDamping().value(
            jnp.zeros(()), Dense(jnp.full((2, 2), entries)), jnp.zeros(2), jax.random.key(0)
        )
        assert float(found) == 1.0

    @pytest.mark.parametrize("settings", [{"fraction": 0.0}, {"fraction": np.inf}, {"probes": 0}])
    def test_bad_settings(self, settings: dict) -> None:
        with pytest.raises(st.UsageError, match="RelativeDamping needs"):
            st.RelativeDamping(**settings)


@pytest.mark.parametrize("rule", [st.LevenbergMarquardt(), st.RelativeDamping()])
def test_a_rule_is_a_damping_and_compiles_once(rule: Damping) -> None:
    assert isinstance(rule, Damping)
    from steepest.algorithms import algorithm

    room: Any = algorithm

    policy, batch = in_dtype(problem("mlp-categorical"), jnp.float32)
    method = st.trpo(damping=rule)
    state, before = method.init(policy), room._update._cached._cache_size()
    for _ in range(4):
        policy, state, info = method.update(policy, state, batch)
        assert Reason(int(info.reason)) in (Reason.ACCEPTED, Reason.LINE_SEARCH)
    assert room._update._cached._cache_size() == before + 1


def test_what_is_no_damping_is_refused() -> None:
    with pytest.raises(st.UsageError, match="a number ≥ 0 or a rule such as"):
        Algorithm("x", expected_advantage, fisher, Direct(), TrustRegion(0.01), "much")  # pyright: ignore
