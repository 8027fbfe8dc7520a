"""The natural gradient as the weights of a critic: of steps, of paths, uncentred; on exact batches and on samples."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

import enumeration as oracle
import steepest as st
from finite_problems import SIZES, Problem, every, flat, problem
from steepest.algorithms import natural_actor_critic, q_npg
from steepest.batch import Batch
from steepest.critics import compatible_weights, path_weights, uncentred_weights
from steepest.parameters import merge, split
from steepest.worlds.finite import random as random_mdp
from steepest.worlds.finite.sampled import sample_paths
from test_exact_meets_sampled import ACTIONS, HORIZON, PATHS, REPEATS, STATES, sampled_batch


def natural_gradient(p: Problem) -> np.ndarray:
    """F⁺∇V/H, by an eigendecomposition of the enumerated F."""
    return (
        np.linalg.pinv(p.mdp.fisher(p.policy), rcond=1e-10, hermitian=True)
        @ flat(p.mdp.gradient(p.policy))
        / (p.mdp.horizon)
    )


def action_values(p: Problem) -> np.ndarray:
    """Σ_h P_h(s) Q_h(s,a) / Σ_h P_h(s), [S,A]: the target of the exact batch, with its baseline."""
    visits = p.mdp.state_distributions(p.policy)
    return np.einsum("hs,hsa->sa", visits, p.mdp.action_values(p.policy)) / visits.sum(axis=0)[:, None]


def moved(policy: Any, step: np.ndarray) -> Any:
    """The policy at θ + Δ, float64."""
    params, rest = split(policy)
    with jax.enable_x64(True):
        theta, unravel = ravel_pytree(jax.tree.map(np.asarray, params))
        return jax.tree.map(np.asarray, merge(unravel(theta + step), rest))


def sizes(values: np.ndarray) -> float:
    return float(np.max(np.abs(values)))


@every
@pytest.mark.claim("K1")
def test_K1_compatible_weights_are_the_natural_gradient(p: Problem) -> None:
    """Whatever function of the state is added to the target, or fitted beside it."""
    batch, expected = p.mdp.batch(p.policy), natural_gradient(p)
    states = p.mdp.states
    baseline = 10.0 * np.random.default_rng(3).normal(size=(states, 1))
    tolerance = 1e-10 * sizes(expected)
    np.testing.assert_allclose(compatible_weights(p.policy, batch), expected, atol=tolerance)
    for target in (action_values(p), action_values(p) - baseline):
        np.testing.assert_allclose(compatible_weights(p.policy, batch, target), expected, atol=tolerance)
        beside = compatible_weights(p.policy, batch, target, np.eye(states))
        np.testing.assert_allclose(beside, expected, atol=tolerance)


@pytest.mark.parametrize("size", SIZES[:2], ids=lambda size: size[-1])
@pytest.mark.claim("K1")
def test_K1_the_actor_critic_steps_along_these_weights(size: tuple) -> None:
    p = problem(*size)
    x, _ = st.improve(p.policy, p.mdp, natural_actor_critic(step=st.Fixed(1.0)))
    step, expected = flat(split(x)[0]) - flat(split(p.policy)[0]), natural_gradient(p)
    np.testing.assert_allclose(step, expected, atol=1e-10 * sizes(expected))


@every
@pytest.mark.claim("K2")
def test_K2_a_long_natural_step_is_greedy_in_the_compatible_critic(p: Problem) -> None:
    """At α = 1e3."""
    natural = natural_gradient(p)
    critic = p.scores @ natural
    assert np.min(np.diff(np.sort(critic, axis=-1)[:, -2:], axis=-1)) > 0.03  # no ties: at α = 1e3, e^-30
    greedy = p.mdp.probabilities(moved(p.policy, 1e3 * natural))
    np.testing.assert_allclose(greedy, np.eye(p.mdp.actions)[critic.argmax(axis=-1)], atol=1e-9)


@pytest.mark.claim("K2")
def test_K2_the_gradient_only_finds_an_action_better_than_the_mean() -> None:
    """From π = (.02, .49, .49) its long step takes the second best action, the natural one the best."""
    mdp = st.FiniteHorizonMDP(np.ones((1, 3, 1)), [[1.0, 0.9, -1.0]], [1.0], 1)
    policy = st.TabularSoftmax(np.log([[0.02, 0.49, 0.49]]))
    gradient = flat(mdp.gradient(policy))
    natural = compatible_weights(policy, mdp.batch(policy))
    np.testing.assert_allclose(mdp.probabilities(moved(policy, 1e3 * gradient)), [[0.0, 1.0, 0.0]], atol=1e-9)
    np.testing.assert_allclose(mdp.probabilities(moved(policy, 1e3 * natural)), [[1.0, 0.0, 0.0]], atol=1e-9)
    assert mdp.advantages(policy)[0, 0, 1] > 0


@every
@pytest.mark.claim("K3")
def test_K3_the_step_scales_each_action_by_its_compatible_advantage(p: Problem) -> None:
    """|π(θ + αω) − π(1 + αf)| falls as α²."""
    natural = natural_gradient(p)
    alphas = np.geomspace(1e-4, 1e-2, 7) / sizes(p.scores @ natural)
    predicted = [p.table * (1.0 + a * (p.scores @ natural)) for a in alphas]
    gaps = [
        sizes(p.mdp.probabilities(moved(p.policy, a * natural)) - to) for a, to in zip(alphas, predicted, strict=True)
    ]
    slope, _ = np.polyfit(np.log(alphas), np.log(gaps), 1)
    assert slope == pytest.approx(2.0, abs=0.02)


@every
@pytest.mark.claim("BS")
def test_BS_the_regression_of_returns_on_path_scores_is_the_natural_gradient(p: Problem) -> None:
    """Over all trajectories with their probabilities; the return may have anything added to it."""
    paths = [x for x in oracle.paths(p.mdp, p.table) if x.probability > 0]
    horizon = p.mdp.horizon
    rows = (len(paths), horizon)
    reward = np.broadcast_to(p.mdp.reward, (horizon, p.mdp.states, p.mdp.actions))
    states, actions = np.array([x.states for x in paths]), np.array([x.actions for x in paths])
    batch = sampled_batch(states, actions, np.zeros(rows))
    batch = batch._replace(weight=np.repeat([x.probability / horizon for x in paths], horizon))
    rewards = reward[np.arange(horizon), states, actions].ravel()
    expected = natural_gradient(p)
    for added in (0.0, 5.0):
        weights = path_weights(p.policy, batch, rewards + added)
        np.testing.assert_allclose(weights, expected, atol=1e-10 * sizes(expected))
    masked = batch._replace(weight=np.where(np.arange(len(batch.weight)) < horizon, 0.0, batch.weight))
    spoilt = np.where(np.arange(len(rewards)) < horizon, np.nan, rewards)
    assert np.isfinite(path_weights(p.policy, masked, spoilt)).all()


@pytest.fixture(scope="module")
def errors() -> dict[str, np.ndarray]:
    """name ↦ root-mean-square error of π(θ + ω) − π(θ + F⁻¹∇V/H) for each N in PATHS, over REPEATS, by regressions on
    sampled paths: of returns to go on steps, of those less a baseline of states, of returns on paths."""
    mdp = random_mdp(STATES, ACTIONS, HORIZON, 4)
    policy = st.TabularSoftmax(np.random.default_rng(5).normal(size=(STATES, ACTIONS)))
    scores = oracle.tabular_scores(oracle.softmax(np.asarray(policy.logits)))
    exact = scores @ compatible_weights(policy, mdp.batch(policy))
    squared: dict[str, np.ndarray] = {}
    for i, paths in enumerate(PATHS[:3]):
        for repeat in range(REPEATS):
            rng = np.random.default_rng([paths, repeat])
            states, actions, rewards = sample_paths(mdp, policy, paths, rng)
            to_go = np.cumsum(rewards[:, ::-1], axis=1)[:, ::-1]
            batch = sampled_batch(states, actions, to_go)
            beside = np.eye(STATES)[batch.obs]
            fits = {
                "steps": compatible_weights(policy, batch),
                "steps, with a baseline": compatible_weights(policy, batch, baseline=beside),
                "paths": path_weights(policy, batch, rewards.ravel()),
            }
            for name, weights in fits.items():
                rows = squared.setdefault(name, np.zeros((3, REPEATS)))
                rows[i, repeat] = np.sum((scores @ weights - exact) ** 2)
    return {name: np.sqrt(rows.mean(axis=1)) for name, rows in squared.items()}


@pytest.mark.claim("K1")
@pytest.mark.claim("BS")
@pytest.mark.parametrize("name", ["steps", "steps, with a baseline", "paths"])
def test_K1_BS_sampled_regressions_converge(errors: dict[str, np.ndarray], name: str) -> None:
    slope, _ = np.polyfit(np.log(PATHS[:3]), np.log(errors[name]), 1)
    assert slope == pytest.approx(-0.5, abs=0.08)


def test_a_baseline_makes_the_sampled_critic_better(errors: dict[str, np.ndarray]) -> None:
    assert (errors["steps, with a baseline"] < errors["steps"]).all()


@pytest.mark.parametrize("size", [SIZES[0], SIZES[2]], ids=lambda size: size[-1])
@pytest.mark.claim("B5")
def test_B5_q_npg_on_a_table_of_logits_is_npg(size: tuple) -> None:
    """Regress A, or Q, on unit vectors and add the weights: the policy that NPG gives."""
    p = problem(*size)
    batch = p.mdp.batch(p.policy)
    npg = p.mdp.probabilities(moved(p.policy, 0.3 * natural_gradient(p)))
    by_q = uncentred_weights(p.policy, batch, action_values(p))
    np.testing.assert_allclose(by_q, action_values(p).ravel(), atol=1e-12)
    x, _ = st.improve(p.policy, p.mdp, q_npg(step=st.Fixed(0.3)))
    for policy in (moved(p.policy, 0.3 * by_q), moved(p.policy, 0.3 * uncentred_weights(p.policy, batch)), x):
        np.testing.assert_allclose(p.mdp.probabilities(policy), npg, atol=1e-12)


@pytest.mark.claim("B5")
def test_B5_a_normalised_step_too() -> None:
    tabular = problem(*SIZES[0])
    ours, expected = (st.improve(tabular.policy, tabular.mdp, method(0.01))[0] for method in (q_npg, st.npg))
    np.testing.assert_allclose(tabular.mdp.probabilities(ours), tabular.mdp.probabilities(expected), atol=1e-12)


def test_features_that_are_not_centred_know_of_the_state() -> None:
    """On a log-linear policy Q-NPG is the regression on ∇z, which is not NPG, and Q and A give two answers."""
    p = problem(*SIZES[1])
    batch = p.mdp.batch(p.policy)
    by_a, by_q = (uncentred_weights(p.policy, batch, target) for target in (None, action_values(p)))
    x, _ = st.improve(p.policy, p.mdp, q_npg(step=st.Fixed(0.3)))
    np.testing.assert_allclose(flat(split(x)[0]), flat(split(p.policy)[0]) + 0.3 * by_a, atol=1e-12)
    assert sizes(by_a - natural_gradient(p)) > 1e-3
    assert sizes(by_q - by_a) > 1e-3


class TestUsage:
    p = problem(2, 2, 4, 0, "tabular")

    def batch(self) -> Batch:
        return self.p.mdp.batch(self.p.policy)

    def test_shapes_that_do_not_fit(self) -> None:
        with pytest.raises(st.UsageError, match=r"target must have shape \[2, 2\], got \[3\]"):
            compatible_weights(self.p.policy, self.batch(), np.zeros(3))
        with pytest.raises(st.UsageError, match=r"baseline must have shape \[2, 1\], got \[3, 1\]"):
            compatible_weights(self.p.policy, self.batch(), None, np.zeros((3, 1)))
        with pytest.raises(st.UsageError, match=r"a path has one action in a state, got 2"):
            path_weights(self.p.policy, self.batch(), np.zeros(2))

    def test_numbers_that_are_none(self) -> None:
        target = np.array(self.batch().advantage)
        target[1, 0] = np.nan
        with pytest.raises(st.UsageError, match=r"target\[1, 0\] is not finite"):
            compatible_weights(self.p.policy, self.batch(), target)
        with pytest.raises(st.UsageError, match=r"baseline must have shape \[2, K\], got \[2\]"):
            compatible_weights(self.p.policy, self.batch(), None, np.zeros(2))
        with pytest.raises(st.UsageError, match=r"baseline\[0, 0\] is not finite"):
            compatible_weights(self.p.policy, self.batch(), None, np.full((2, 1), np.inf))
        with pytest.raises(st.UsageError, match="target must be an array of numbers"):
            compatible_weights(self.p.policy, self.batch(), "Q")

    def test_rows_of_weight_zero_may_be_anything(self) -> None:
        batch = self.batch()
        first = batch._replace(weight=np.array([1.0, 0.0]))
        spoilt = np.array(batch.advantage)
        spoilt[1] = np.nan
        expected = compatible_weights(self.p.policy, first)
        np.testing.assert_array_equal(compatible_weights(self.p.policy, first._replace(advantage=spoilt)), expected)

    def test_a_constant_in_the_return_is_the_intercept_of_the_regression_on_paths(self) -> None:
        """On sampled paths, whose scores do not add up to 0 as those of all paths do."""
        states, actions, rewards = sample_paths(self.p.mdp, self.p.policy, 30, np.random.default_rng(0))
        batch = sampled_batch(states, actions, rewards)
        weights = (path_weights(self.p.policy, batch, rewards.ravel() + c) for c in (0.0, 5.0))
        np.testing.assert_allclose(next(weights), next(weights), atol=1e-10)

    def test_a_policy_without_logits(self) -> None:
        policy = st.MlpGaussian(1, 1, (2,), key=jax.random.key(0))
        column = np.zeros((2, 1))
        rows = Batch(column, np.full(2, 0.5), column[:, None], np.ones((2, 1)), column, np.zeros(2, int))
        with pytest.raises(st.UsageError, match=r"only a Categorical policy has logits, this is a DiagonalGaussian"):
            uncentred_weights(policy, rows)
        algorithm = q_npg()
        with pytest.raises(st.UsageError, match=r"gives a DiagonalGaussian: use natural-actor-critic or npg"):
            algorithm.update(policy, algorithm.init(policy), jax.tree.map(jax.numpy.asarray, rows))
