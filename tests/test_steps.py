"""Steps and whole updates: the closed form, the line search, the report, and that a failed step changes nothing."""

from __future__ import annotations

import dataclasses
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import steepest as st
from geometry_problems import POLICIES, Oracle, in_dtype, problem
from steepest import trees
from steepest.algorithms import default_damping
from steepest.geometry import Gradient, linearise, log_probs, mean_kl
from steepest.linear import Dense, Solution, Status
from steepest.parameters import split
from steepest.worlds.finite import random as random_mdp

ALGORITHMS = {"pg": st.pg(), "npg": st.npg(), "trpo": st.trpo()}


def change(before: Any, after: Any) -> np.ndarray:
    return np.asarray(trees.ravel(split(after)[0])[0] - trees.ravel(split(before)[0])[0])


def unchanged(before: Any, after: Any) -> bool:
    return all(
        np.array_equal(np.asarray(x), np.asarray(y))
        for x, y in zip(jax.tree.leaves(split(before)[0]), jax.tree.leaves(split(after)[0]), strict=True)
    )


@pytest.fixture(params=["tabular", "mlp-gaussian"])  # the grid has all policies
def case(request):
    """(policy, batch, F) in float64."""
    with jax.enable_x64(True):
        policy, batch = problem(request.param)
        yield *in_dtype((policy, batch), jnp.float64), Oracle(policy, batch).fisher()


@pytest.mark.claim("R24")
def test_R24_the_constraint_is_tight_and_the_gain_is_the_closed_form(case) -> None:
    policy, batch, dense = case
    g = np.asarray(trees.ravel(st.expected_advantage.gradient(linearise(policy, batch.obs), batch).vector)[0])
    algorithm = st.npg(delta=1e-3, damping=0.0, solver=st.Direct())
    after, _, info = algorithm.update(policy, algorithm.init(policy), batch)
    step = change(policy, after)
    assert 0.5 * step @ dense @ step == pytest.approx(1e-3, rel=1e-9)
    assert float(info.predicted_kl) == pytest.approx(1e-3, rel=1e-9)
    gain = np.sqrt(2 * 1e-3 * g @ np.linalg.pinv(dense, rcond=1e-11) @ g)
    assert g @ step == pytest.approx(gain, rel=1e-6)
    assert float(info.predicted_improvement) == pytest.approx(gain, rel=1e-6)
    # KKT: g = ηFΔ, the gradient of the Lagrangian vanishes
    np.testing.assert_allclose(dense @ step * (g @ step / (2e-3)), g, atol=1e-6 * np.abs(g).max())


def test_the_report_says_what_its_fields_say(case) -> None:
    policy, batch, dense = case
    algorithm = st.npg(delta=1e-3, damping=0.3, solver=st.Direct())
    after, state, info = algorithm.update(policy, algorithm.init(policy), batch)
    g = np.asarray(trees.ravel(st.expected_advantage.gradient(linearise(policy, batch.obs), batch).vector)[0])
    x, step = np.linalg.solve(dense + 0.3 * np.eye(len(g)), g), change(policy, after)
    assert float(info.gradient_norm) == pytest.approx(np.linalg.norm(g), rel=1e-9)
    assert float(info.natural_norm) == pytest.approx(np.sqrt(g @ x), rel=1e-9)
    assert float(info.predicted_kl) == pytest.approx(0.5 * step @ dense @ step, rel=1e-9)  # undamped
    np.testing.assert_allclose(step, float(info.step_size) * x, rtol=1e-6, atol=1e-12)
    entropy = np.asarray(jax.vmap(policy)(batch.obs).entropy())
    assert float(info.entropy) == pytest.approx(np.asarray(batch.weight) @ entropy, rel=1e-12)
    assert float(info.damping) == 0.3
    assert (int(state.updates), int(state.failures)) == (1, 0)


@pytest.mark.claim("R23")
def test_R23_the_lecture_form_is_the_step_of_half_the_delta(case) -> None:
    policy, batch, dense = case
    lecture = st.npg(damping=0.0, step=st.Normalised(1e-3, half=False))
    after, _, _ = lecture.update(policy, lecture.init(policy), batch)
    step = change(policy, after)
    assert step @ dense @ step == pytest.approx(1e-3, rel=1e-9)


@pytest.mark.parametrize("damping", [0.0, 0.1, 10.0])
@pytest.mark.claim("R26")
def test_R26_the_realised_kl_is_delta_whatever_the_damping(case, damping: float) -> None:
    policy, batch, _ = case
    algorithm = st.npg(delta=1e-6, damping=damping)
    _, _, info = algorithm.update(policy, algorithm.init(policy), batch)
    assert float(info.kl) == pytest.approx(1e-6, rel=2e-2)
    damped = st.npg(damping=damping, step=st.Normalised(1e-6, damped_form=True))
    _, _, info = damped.update(policy, damped.init(policy), batch)
    if damping >= 0.1:
        assert float(info.kl) < 0.9e-6  # what the others do: the budget is not used


@pytest.mark.claim("R25")
def test_R25_steps_do_not_see_the_scale_of_the_rewards(case) -> None:
    policy, batch, _ = case
    for algorithm in (*ALGORITHMS.values(), st.npg(step=st.Fixed(1e-3))):
        one, _, _ = algorithm.update(policy, algorithm.init(policy), batch)
        for scale in (2.0**-20, 1024.0):  # a small gradient is a gradient
            scaled = batch._replace(advantage=batch.advantage * scale)
            other, _, _ = algorithm.update(policy, algorithm.init(policy), scaled)
            ratio = np.linalg.norm(change(policy, other)) / np.linalg.norm(change(policy, one))
            assert ratio == pytest.approx(scale if isinstance(algorithm.step, st.Fixed) else 1.0, rel=1e-6)


@pytest.mark.claim("R5")
def test_R5_gradient_ascent_is_the_euclidean_case(case) -> None:
    policy, batch, _ = case
    after, _, info = st.pg(delta=1e-4).update(policy, st.pg().init(policy), batch)
    g = np.asarray(trees.ravel(st.expected_advantage.gradient(linearise(policy, batch.obs), batch).vector)[0])
    np.testing.assert_allclose(change(policy, after), np.sqrt(2e-4) * g / np.linalg.norm(g), rtol=1e-9)
    assert float(info.predicted_kl) == pytest.approx(float(info.kl), rel=0.1)  # also where the metric is Euclidean


@pytest.mark.parametrize("name", ALGORITHMS)
@pytest.mark.claim("R27")
def test_R27_no_gradient_no_step_no_nan(case, name: str) -> None:
    policy, batch, _ = case
    algorithm = ALGORITHMS[name]
    still = batch._replace(advantage=jnp.zeros_like(batch.advantage))
    after, state, info = algorithm.update(policy, algorithm.init(policy), still)
    assert unchanged(policy, after)
    assert st.Reason(int(info.reason)) is st.Reason.NO_GRADIENT
    assert not info.accepted
    assert int(state.failures) == 0
    assert all(np.isfinite(np.asarray(x)).all() for x in jax.tree.leaves(info))


@pytest.mark.parametrize("name", ALGORITHMS)
@pytest.mark.parametrize("kind", POLICIES)
def test_ratio_is_1_and_kl_0_at_theta_old(kind: str, name: str) -> None:
    """A step of length 0 is what the line search measures from: gain and KL are exactly 0, in float32."""
    policy, batch = in_dtype(problem(kind), jnp.float32)

    @jax.jit
    def at_old() -> tuple[Any, Any]:
        local = linearise(policy, batch.obs)
        new = local.predict(local.params)
        return st.expected_advantage.gain(local.distribution, new, batch), mean_kl(
            local.distribution, new, batch.weight
        )

    gain, kl = at_old()
    assert float(gain) == 0.0
    assert float(kl) == 0.0


@dataclasses.dataclass(frozen=True)
class BrokenSolver:
    """Returns what a test wants."""

    value: float
    residual: float = 0.0

    def __call__(self, operator: Any, rhs: Any, dual: Any = None) -> Solution:
        x = jax.tree.map(lambda leaf: jnp.full_like(leaf, self.value), rhs)
        return Solution(x, jnp.array(Status.CONVERGED), jnp.array(self.residual), jnp.array(0))


class TestFailedSteps:
    """Pitfalls 4 and 14: whatever goes wrong, the same arrays come out, and it is said why."""

    @pytest.mark.parametrize("name", ALGORITHMS)
    @pytest.mark.parametrize("bad", [np.nan, np.inf])
    @pytest.mark.parametrize("where", ["advantage", "obs"])
    def test_a_batch_that_is_not_finite(self, name: str, bad: float, where: str) -> None:
        policy, batch = in_dtype(problem("mlp-gaussian"), jnp.float32)
        field = getattr(batch, where)
        spoilt = batch._replace(**{where: field.at[(5,) + (0,) * (field.ndim - 1)].set(bad)})
        algorithm = ALGORITHMS[name]
        after, state, info = algorithm.update(policy, algorithm.init(policy), spoilt)
        assert unchanged(policy, after)
        assert st.Reason(int(info.reason)).failed
        assert int(state.failures) == 1
        assert float(info.kl) == float(info.improvement) == 0.0
        _, state, _ = algorithm.update(after, state, batch)
        assert int(state.failures) == 0

    @pytest.mark.parametrize(
        ("solver", "reason"),
        [
            (BrokenSolver(np.nan), st.Reason.SOLVER),
            (BrokenSolver(0.0), st.Reason.SOLVER),
            (BrokenSolver(1.0, np.nan), st.Reason.SOLVER),
        ],
    )
    def test_a_solver_that_fails(self, solver: Any, reason: st.Reason) -> None:
        policy, batch = in_dtype(problem("mlp-categorical"), jnp.float32)
        for algorithm in (st.npg(solver=solver), st.trpo(solver=solver)):
            after, _, info = algorithm.update(policy, algorithm.init(policy), batch)
            assert unchanged(policy, after)
            assert st.Reason(int(info.reason)) is reason

    @pytest.mark.parametrize("step", [st.Fixed(0.01), st.Normalised(0.01), st.TrustRegion(0.01)])
    def test_pitfall_7_a_direction_that_descends(self, step: Any) -> None:
        """gᵀx < 0 is refused: its absolute value would be a step downhill."""
        theta = jnp.ones(3)
        solution = Solution(-jnp.ones(3), jnp.array(0), jnp.array(0.0), jnp.array(0))
        taken = step(theta, jnp.ones(3), solution, Dense(jnp.eye(3)), lambda t: (jnp.array(1.0), jnp.array(0.0)))
        np.testing.assert_array_equal(taken.params, theta)
        assert st.Reason(int(taken.reason)) is st.Reason.SOLVER

    @pytest.mark.parametrize("scale", [2.0**-60, 1.0, 2.0**60])
    @pytest.mark.parametrize("step", [st.Normalised(0.01), st.TrustRegion(0.01)])
    def test_pitfall_6_the_length_is_right_at_any_scale_of_the_metric(self, step: Any, scale: float) -> None:
        """½β²xᵀMx = δ: a constant added below the root shortens the steps of a flat policy."""
        theta, x = jnp.zeros(3), jnp.ones(3)
        solution = Solution(x, jnp.array(0), jnp.array(0.0), jnp.array(0))
        taken = step(theta, x, solution, Dense(scale * jnp.eye(3)), lambda t: (jnp.array(1.0), jnp.array(0.0)))
        assert float(taken.step_size) == pytest.approx(np.sqrt(2 * 0.01 / (3 * scale)), rel=1e-6)

    @pytest.mark.parametrize("step", [st.Normalised(0.01), st.TrustRegion(0.01)])
    def test_a_metric_without_length(self, step: Any) -> None:
        theta = jnp.ones(3)
        solution = Solution(jnp.ones(3), jnp.array(0), jnp.array(0.0), jnp.array(0))
        for matrix in (jnp.zeros((3, 3)), -jnp.eye(3), jnp.full((3, 3), jnp.nan)):
            taken = step(theta, jnp.ones(3), solution, Dense(matrix), lambda t: (jnp.array(1.0), jnp.array(0.0)))
            np.testing.assert_array_equal(taken.params, theta)
            assert st.Reason(int(taken.reason)) is st.Reason.CURVATURE

    @pytest.mark.parametrize(
        ("trial", "reason"),
        [
            (lambda t: (jnp.array(-1.0), jnp.array(0.0)), st.Reason.LINE_SEARCH),
            (lambda t: (jnp.array(0.0), jnp.array(0.0)), st.Reason.LINE_SEARCH),
            (lambda t: (jnp.array(1.0), jnp.array(1.0)), st.Reason.LINE_SEARCH),
            (lambda t: (jnp.array(jnp.nan), jnp.array(0.0)), st.Reason.NONFINITE_STEP),
            (lambda t: (jnp.array(1.0), jnp.array(jnp.nan)), st.Reason.NONFINITE_STEP),
        ],
    )
    def test_no_acceptable_point_on_the_line(self, trial: Any, reason: st.Reason) -> None:
        """A rejected KL is not reported as realised."""
        theta = jnp.ones(3)
        solution = Solution(jnp.ones(3), jnp.array(0), jnp.array(0.0), jnp.array(0))
        taken = st.TrustRegion(0.01, backtracks=4)(theta, jnp.ones(3), solution, Dense(jnp.eye(3)), trial)
        np.testing.assert_array_equal(taken.params, theta)
        assert st.Reason(int(taken.reason)) is reason
        assert float(taken.kl) == float(taken.gain) == 0.0
        assert int(taken.backtracks) == 4

    @pytest.mark.parametrize("step", [st.Fixed(1e38), st.Normalised(1e38), st.TrustRegion(1e38, backtracks=0)])
    def test_an_overflowing_step(self, step: Any) -> None:
        """Also where gain and KL do not see it."""
        theta = jnp.full(3, 3e38)
        solution = Solution(jnp.full(3, 1e20), jnp.array(0), jnp.array(0.0), jnp.array(0))
        taken = step(
            theta, jnp.ones(3), solution, Dense(2e-38 * jnp.eye(3)), lambda t: (jnp.array(1.0), jnp.array(0.0))
        )
        np.testing.assert_array_equal(taken.params, theta)
        assert st.Reason(int(taken.reason)) is st.Reason.NONFINITE_STEP


class TestLineSearch:
    def test_it_takes_the_first_acceptable_point(self) -> None:
        theta = jnp.zeros(1)
        solution = Solution(jnp.ones(1), jnp.array(0), jnp.array(0.0), jnp.array(0))
        step = st.TrustRegion(0.02, shrink=0.5)  # β₀ = 0.2
        taken = step(
            theta, jnp.ones(1), solution, Dense(jnp.eye(1)), lambda t: (t[0], jnp.where(t[0] > 0.06, 1.0, 0.0))
        )
        assert float(taken.params[0]) == pytest.approx(0.05)
        assert int(taken.backtracks) == 2
        assert float(taken.step_size) == pytest.approx(0.05)

    def test_no_accepted_step_exceeds_delta(self, case) -> None:
        """Pitfalls 4 and 8: the KL in the report is that of the policy returned, over the whole batch."""
        policy, batch, _ = case
        for delta in (1e-4, 1e-2, 0.5):
            algorithm = st.trpo(delta, damping=0.0)
            after, _, info = algorithm.update(policy, algorithm.init(policy), batch)
            assert info.accepted
            assert float(info.kl) <= delta
            assert float(info.improvement) > 0
            local = linearise(policy, batch.obs)
            new = local.predict(split(after)[0])
            assert float(mean_kl(local.distribution, new, batch.weight)) == pytest.approx(float(info.kl), rel=1e-9)

    @pytest.mark.parametrize("case", [kind for kind in POLICIES if kind != "tabular"], indirect=True)
    def test_pitfall_3_the_prediction_is_that_of_the_step_taken(self, case) -> None:
        """gᵀΔ for the Δ that was accepted, not a product of shrink factors over the search."""
        policy, batch, dense = case
        step = st.TrustRegion(4.0, backtracks=30)  # so long that the search has to shrink it, and more than once
        algorithm = st.trpo(damping=0.0, step=step)
        after, _, info = algorithm.update(policy, algorithm.init(policy), batch)
        assert info.accepted
        assert int(info.backtracks) >= 2
        taken = change(policy, after)
        g = np.asarray(trees.ravel(st.expected_advantage.gradient(linearise(policy, batch.obs), batch).vector)[0])
        assert float(info.predicted_improvement) == pytest.approx(g @ taken, rel=1e-9)
        assert float(info.predicted_kl) == pytest.approx(0.5 * taken @ dense @ taken, rel=1e-9)

    def test_its_quadratic_model_is_right_to_first_order(self, case) -> None:
        """R17 and R22: realised/predicted → 1 with error O(‖Δ‖), for the KL and for the improvement."""
        policy, batch, _ = case
        errors = []
        for delta in (1e-7, 1e-9):
            algorithm = st.npg(delta, damping=0.0)
            _, _, info = algorithm.update(policy, algorithm.init(policy), batch)
            errors.append(
                [float(info.kl / info.predicted_kl) - 1, float(info.improvement / info.predicted_improvement) - 1]
            )
        np.testing.assert_allclose(np.abs(errors[1]), np.abs(errors[0]) / 10, rtol=0.35, atol=1e-6)


class TestParts:
    def test_pitfall_13_what_is_trained_is_not_told_by_a_name(self) -> None:
        """What is trained is said by the policy, not by a substring of a name."""

        class Policy(eqx.Module):
            value_weight: jax.Array
            offset: Any

            def __call__(self, obs):
                return st.Categorical(obs @ self.value_weight + self.offset.value)

        policy = Policy(jnp.ones((3, 3)) * 0.1, st.frozen(jnp.arange(3.0)))
        assert [x.shape for x in jax.tree.leaves(split(policy)[0])] == [(3, 3)]
        _, batch = in_dtype(problem("mlp-categorical"), jnp.float32)
        after, _, info = st.npg().update(policy, st.npg().init(policy), batch)
        assert info.accepted
        assert not np.array_equal(after.value_weight, policy.value_weight)
        np.testing.assert_array_equal(after.offset.value, policy.offset.value)

    def test_a_policy_without_parameters_is_refused(self) -> None:
        with pytest.raises(st.UsageError, match="no trainable parameters"):
            st.npg().init(lambda state: st.Categorical(jnp.zeros(2)))

    @pytest.mark.parametrize("metric", [st.fisher, st.empirical_fisher])
    def test_pitfall_7_the_matrix_does_not_change_within_an_update(self, case, metric: Any) -> None:
        """A subsample that is redrawn at every product gives CG another matrix each time: products of one vector are
        equal, and those of two vectors are of one linear map."""
        policy, batch, _ = case
        local = linearise(policy, batch.obs)
        operator = metric.operator(local, batch)
        u, v = local.params, jax.tree.map(lambda x: jnp.cos(9 * x), local.params)
        first, again, other, both = (np.asarray(trees.ravel(operator(x))[0]) for x in (u, u, v, trees.axpy(2.0, u, v)))
        np.testing.assert_array_equal(first, again)
        np.testing.assert_allclose(both, 2 * first + other, rtol=0, atol=1e-12 * np.abs(both).max())

    def test_pitfall_8_gradient_and_line_search_see_the_whole_batch(self, case) -> None:
        """What every entry of the batch adds to gradient, gain and KL is what the equations say, none left out."""
        policy, batch, _ = case
        local = linearise(policy, batch.obs)
        old, new = local.distribution, local.predict(jax.tree.map(lambda x: x + 0.05 * jnp.cos(x * 9), local.params))
        weight = np.asarray(batch.weight)[:, None] * np.asarray(batch.action_weight)

        def gradient(advantage: Any) -> Any:
            return trees.ravel(st.expected_advantage.gradient(local, batch._replace(advantage=advantage)).vector)[0]

        def gain(advantage: Any) -> Any:
            return st.expected_advantage.gain(old, new, batch._replace(advantage=advantage))

        score = Oracle(policy, batch).log_prob_jacobian(np.asarray(batch.action))
        by_entry = np.asarray(jax.jacobian(gradient)(batch.advantage))
        np.testing.assert_allclose(by_entry, np.moveaxis(weight[:, :, None] * score, 2, 0), atol=1e-13)
        ratio = np.exp(np.asarray(log_probs(new, batch.action)) - np.asarray(log_probs(old, batch.action)))
        np.testing.assert_allclose(jax.grad(gain)(batch.advantage), weight * (ratio - 1), atol=1e-13)
        assert float(gain(batch.advantage)) == pytest.approx(np.sum(weight * (ratio - 1) * np.asarray(batch.advantage)))
        by_row = jax.grad(lambda w: mean_kl(old, new, w))(batch.weight)
        np.testing.assert_allclose(by_row, np.where(weight[:, 0] > 0, old.kl(new), 0.0), atol=1e-13)

    def test_pitfall_2_the_kl_of_a_step_is_from_old_to_new(self) -> None:
        """KL(π_old‖π_new) of a long step, by the closed form in NumPy; the other direction is another number."""
        policy, batch = in_dtype(problem("mlp-gaussian"), jnp.float32)
        algorithm = st.npg(delta=0.3)
        after, _, info = algorithm.update(policy, algorithm.init(policy), batch)
        says = [jax.vmap(p)(batch.obs) for p in (policy, after)]
        (m0, s0), (m1, s1) = ((np.asarray(p.mean), np.exp(np.asarray(p.log_std))) for p in says)

        def kl(m0: Any, s0: Any, m1: Any, s1: Any) -> float:
            rows = np.sum(np.log(s1 / s0) + (s0**2 + (m0 - m1) ** 2) / (2 * s1**2) - 0.5, axis=-1)
            return float(np.asarray(batch.weight) @ rows)

        forward, backward = kl(m0, s0, m1, s1), kl(m1, s1, m0, s0)
        assert abs(forward - backward) > 0.01 * forward
        assert float(info.kl) == pytest.approx(forward, rel=1e-4)

    @pytest.mark.parametrize(
        ("make", "message"),
        [
            (lambda: st.trpo(delta=0.0), r"delta > 0, got 0"),
            (lambda: st.npg(delta=-1.0), r"delta > 0, got -1"),
            (lambda: st.pg(delta=float("nan")), r"delta > 0, got nan"),
            (lambda: st.npg(damping=-0.1), r"damping must be .* got -0.1"),
            (lambda: st.TrustRegion(0.1, shrink=1.0), r"shrink"),
            (lambda: st.TrustRegion(0.1, backtracks=-1), r"backtracks"),
            (lambda: st.Fixed(0.0), r"learning_rate > 0"),
        ],
    )
    def test_bad_settings(self, make: Any, message: str) -> None:
        with pytest.raises(st.UsageError, match=message):
            make()

    @pytest.mark.parametrize("method", [st.npg, st.trpo])
    def test_every_part_can_be_exchanged(self, method: Any) -> None:
        parts = {"metric": st.empirical_fisher, "solver": st.SampleSpace(), "damping": 0.3, "step": st.Fixed(0.1)}
        made = method(0.02, **parts)
        assert {name: getattr(made, name) for name in parts} == parts
        assert method(0.02).step == (st.Normalised(0.02) if method is st.npg else st.TrustRegion(0.02))
        assert method().solver == (st.Automatic() if method is st.npg else st.ConjugateGradient(10))
        assert method().metric == st.fisher
        assert method().damping is None

    def test_the_default_damping_is_0_for_small_float64_policies_alone(self) -> None:
        for states, dtype, expected in ((500, jnp.float64, 0.0), (501, jnp.float64, 0.1), (2, jnp.float32, 0.1)):
            with jax.enable_x64(dtype == jnp.float64):
                assert default_damping(jnp.zeros((states, 2), dtype)) == expected
                blocks = 0.0 if dtype == jnp.float64 else 0.1
                assert default_damping(jnp.zeros((states, 2), dtype), st.Blocks()) == blocks

    def test_algorithms_are_values(self) -> None:
        assert st.trpo(0.02) == st.trpo(0.02)
        assert st.trpo(0.02) != st.trpo(0.01)
        assert hash(st.npg()) == hash(st.npg())
        assert dataclasses.replace(st.pg(), name="npg", metric=st.fisher, solver=st.Automatic()) == st.npg()


class TestExact:
    def test_improve_climbs_to_the_optimum(self) -> None:
        mdp = random_mdp(4, 3, 5, 0)
        best, _ = mdp.optimal(stationary=True)
        policies, infos = st.iterate(st.TabularSoftmax(np.zeros((4, 3))), mdp, st.npg(delta=0.05), steps=60)
        values = [float(mdp.value(p)) for p in policies]
        assert len(policies) == 61
        assert len(infos) == 60
        assert values[-1] > values[0] + 0.9 * (best - values[0])
        assert all(isinstance(leaf, np.ndarray) and leaf.dtype == np.float64 for leaf in jax.tree.leaves(policies[-1]))

    def test_iterate_is_improve_again_and_again(self) -> None:
        mdp = random_mdp(3, 2, 4, 1)
        policies, infos = st.iterate(st.TabularSoftmax(np.zeros((3, 2))), mdp, st.npg(delta=0.05), steps=2)
        for before, after, info in zip(policies[:-1], policies[1:], infos, strict=True):
            alone, said = st.improve(before, mdp, st.npg(delta=0.05))
            np.testing.assert_array_equal(after.logits, alone.logits)
            np.testing.assert_array_equal(info.kl, said.kl)

    @pytest.mark.claim("R22")
    def test_R22_the_batch_gradient_is_that_of_the_value_over_the_horizon(self) -> None:
        mdp = random_mdp(3, 3, 4, 1)
        policy = st.TabularSoftmax(np.random.default_rng(0).normal(size=(3, 3)))
        _, info = st.improve(policy, mdp, st.npg(delta=1e-10))
        assert float(info.gradient_norm) == pytest.approx(np.linalg.norm(mdp.gradient(policy).logits) / 4, rel=1e-10)
        before, after = mdp.value(policy), mdp.value(st.improve(policy, mdp, st.npg(delta=1e-10))[0])
        assert 4 * float(info.predicted_improvement) == pytest.approx(after - before, rel=1e-3)

    @pytest.mark.claim("R26")
    def test_R26_the_path_kl_is_h_times_delta(self) -> None:
        mdp = random_mdp(3, 2, 6, 2)
        policy = st.TabularSoftmax(np.zeros((3, 2)))
        after, info = st.improve(policy, mdp, st.npg(delta=1e-7))
        assert float(mdp.trajectory_kl(policy, after)) == pytest.approx(6e-7, rel=1e-2)
        assert float(info.kl) == pytest.approx(float(mdp.trajectory_kl(policy, after)) / 6, rel=1e-9)

    def test_x64_stays_off_outside(self) -> None:
        mdp = random_mdp(3, 2, 4, 3)
        st.improve(st.TabularSoftmax(np.zeros((3, 2))), mdp, st.trpo())
        assert jnp.ones(1).dtype == jnp.float32

    def test_bad_steps(self) -> None:
        with pytest.raises(st.UsageError, match="steps ≥ 1"):
            st.iterate(st.TabularSoftmax(np.zeros((3, 2))), random_mdp(3, 2, 4, 3), st.npg(), steps=0)


def test_an_update_compiles_once() -> None:
    policy, batch = in_dtype(problem("mlp-categorical"), jnp.float32)
    algorithm = st.trpo(delta=0.0123)
    state = algorithm.init(policy)
    jax.clear_caches()
    compilations: list[str] = []

    def listen(event: str, duration_secs: float, **_: Any) -> None:
        if event.endswith("backend_compile_duration"):
            compilations.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)
    for _ in range(4):
        policy, state, _ = algorithm.update(policy, state, batch)
    jax.block_until_ready(policy)
    assert len(compilations) == 1, compilations


def test_a_gradient_carries_three_readings() -> None:
    policy, batch = in_dtype(problem("tabular"), jnp.float32)
    local = linearise(policy, batch.obs)
    gradient = st.expected_advantage.gradient(local, batch)
    assert isinstance(gradient, Gradient)
    np.testing.assert_allclose(
        trees.ravel(local.pull(gradient.cotangent))[0], trees.ravel(gradient.vector)[0], rtol=1e-6
    )
    assert gradient.coefficient is not None
    assert gradient.coefficient.shape == batch.advantage.shape
