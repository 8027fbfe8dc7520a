"""The metric on paths: exact, over enumerated trajectories, from samples, in running form; and where paths are cut."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import enumeration as oracle
import steepest as st
from finite_problems import SIZES, Problem, assert_close, every, flat, problem
from steepest.algorithms import covariant
from steepest.batch import Batch
from steepest.geometry import empirical_fisher, linearise, trajectory
from steepest.parameters import split
from steepest.sampling.advantages import batch_from_rollout
from steepest.worlds.finite import random as random_mdp
from steepest.worlds.finite.sampled import sample_paths
from test_exact_meets_sampled import ACTIONS, HORIZON, PATHS, REPEATS, STATES, sampled_batch


def matrices(policy: Any, batch: Batch) -> dict[str, np.ndarray]:
    """The metrics by paths and by steps, dense, float64."""
    with jax.enable_x64(True):
        policy, batch = (jax.tree.map(jnp.asarray, x) for x in (policy, batch))
        local = linearise(policy, batch.obs)
        metrics = {"paths": trajectory, "steps": empirical_fisher}
        return {k: np.asarray(m.operator(local, batch).matrix(local.params)) for k, m in metrics.items()}


@every
@pytest.mark.claim("BS")
def test_BS_exact_metrics_of_paths_and_of_steps_agree(p: Problem) -> None:
    """Per state: by the second moment of the path, by its segments on the exact batch, and over all trajectories."""
    expected = p.mdp.fisher(p.policy)
    assert_close(p.mdp.trajectory_fisher(p.policy) / p.mdp.horizon, expected)
    assert_close(matrices(p.policy, p.mdp.batch(p.policy))["paths"], expected)
    every_path = list(oracle.paths(p.mdp, p.table))
    states, actions = np.array([x.states for x in every_path]), np.array([x.actions for x in every_path])
    batch = sampled_batch(states, actions, np.zeros(states.shape))
    probability = np.array([x.probability for x in every_path])
    batch = batch._replace(weight=np.repeat(probability / p.mdp.horizon, p.mdp.horizon))
    assert_close(matrices(p.policy, batch)["paths"], expected)


@pytest.mark.parametrize("size", SIZES[:2], ids=lambda size: size[-1])
@pytest.mark.claim("BS")
def test_BS_exact_covariant_search_is_exact_npg(size: tuple) -> None:
    """To 1e-10, also where the step is worked out from the second moment of the path."""
    p = problem(*size)
    (ours, info), (theirs, _) = (st.improve(p.policy, p.mdp, method(0.01)) for method in (covariant, st.npg))
    np.testing.assert_allclose(p.mdp.probabilities(ours), p.mdp.probabilities(theirs), atol=1e-10)
    np.testing.assert_allclose(info.predicted_kl, 0.01, rtol=1e-10)
    g, metric = flat(p.mdp.gradient(p.policy)), p.mdp.trajectory_fisher(p.policy) / p.mdp.horizon
    x = np.linalg.pinv(metric, rcond=1e-10, hermitian=True) @ g
    moved = flat(split(ours)[0]) - flat(split(p.policy)[0])
    np.testing.assert_allclose(moved, np.sqrt(0.02 / (x @ metric @ x)) * x, atol=1e-10)


@pytest.mark.claim("BS")
def test_BS_the_running_form_is_the_empirical_fisher_matrix() -> None:
    """ψψᵀ accumulated step by step along paths, as GPOMDP does with its gradient."""
    p = problem(*SIZES[0])
    states, actions, _ = sample_paths(p.mdp, p.policy, 20, np.random.default_rng(0))
    running = np.zeros((p.scores.shape[-1],) * 2)
    for t, (s, a) in enumerate(zip(states.ravel(), actions.ravel(), strict=True)):
        running += (np.outer(p.scores[s, a], p.scores[s, a]) - running) / (t + 1)
    assert_close(matrices(p.policy, sampled_batch(states, actions, np.zeros(states.shape)))["steps"], running)


@pytest.fixture(scope="module")
def estimates() -> dict[str, np.ndarray]:
    """name ↦ estimates of F [sizes, REPEATS, P, P]: by steps, by whole paths, and by pieces of two steps."""
    mdp = random_mdp(STATES, ACTIONS, HORIZON, 4)
    policy = st.TabularSoftmax(np.random.default_rng(5).normal(size=(STATES, ACTIONS)))
    out: dict[str, list[list[np.ndarray]]] = {"steps": [], "paths": [], "pieces": []}
    for paths in PATHS[:3]:
        made: list[dict[str, np.ndarray]] = []
        for repeat in range(REPEATS):
            states, actions, _ = sample_paths(mdp, policy, paths, np.random.default_rng([paths, repeat]))
            batch = sampled_batch(states, actions, np.zeros(states.shape))
            number = np.arange(HORIZON) // 2 + HORIZON * np.arange(paths)[:, None]
            pieces = _matrices(policy, batch._replace(segment=number.ravel()))["paths"]
            made.append({**_matrices(policy, batch), "pieces": pieces})
        for name, rows in out.items():
            rows.append([estimate[name] for estimate in made])
    return {name: np.array(rows) for name, rows in out.items()}


@jax.jit
def _compiled(logits: Any, batch: Batch) -> dict[str, Any]:
    local = linearise(st.TabularSoftmax(logits), batch.obs)
    metrics = {"paths": trajectory, "steps": empirical_fisher}
    return {k: m.operator(local, batch).matrix(local.params) for k, m in metrics.items()}


def _matrices(policy: st.TabularSoftmax, batch: Batch) -> dict[str, np.ndarray]:
    with jax.enable_x64(True):
        return {k: np.asarray(m) for k, m in _compiled(jnp.asarray(policy.logits), batch).items()}


def _exact() -> tuple[np.ndarray, np.ndarray]:
    mdp = random_mdp(STATES, ACTIONS, HORIZON, 4)
    policy = st.TabularSoftmax(np.random.default_rng(5).normal(size=(STATES, ACTIONS)))
    return mdp.fisher(policy), mdp.trajectory_fisher(policy)


@pytest.mark.parametrize("name", ["steps", "paths", "pieces"])
@pytest.mark.claim("R18")
def test_R18_estimates_by_paths_converge_as_one_over_root_n(estimates: dict[str, np.ndarray], name: str) -> None:
    """To F per state and, times H, to the Fisher matrix of the path; a path may be cut anywhere."""
    per_state, of_path = _exact()
    for scale, exact in ((1, per_state), (HORIZON, of_path)):
        errors = np.sqrt(np.mean(np.sum((scale * estimates[name] - exact) ** 2, axis=(2, 3)), axis=1))
        slope, _ = np.polyfit(np.log(PATHS[:3]), np.log(errors), 1)
        assert slope == pytest.approx(-0.5, abs=0.05)


@pytest.mark.claim("R18")
def test_R18_the_longer_the_path_the_larger_the_variance(estimates: dict[str, np.ndarray]) -> None:
    exact, _ = _exact()
    by = {name: np.mean(np.sum((made - exact) ** 2, axis=(2, 3)), axis=1) for name, made in estimates.items()}
    assert (by["paths"] > 1.3 * by["pieces"]).all()
    assert (by["pieces"] > 1.3 * by["steps"]).all()


def test_the_length_of_a_step_is_not_measured_by_the_paths_that_chose_it() -> None:
    """Three paths, nine parameters: the direction is where the paths see little, and the KL is δ all the same."""
    mdp = random_mdp(STATES, ACTIONS, HORIZON, 4)
    policy = st.TabularSoftmax(np.random.default_rng(5).normal(size=(STATES, ACTIONS)))
    states, actions, rewards = sample_paths(mdp, policy, 3, np.random.default_rng(1))
    with jax.enable_x64(True):
        batch = jax.tree.map(jnp.asarray, sampled_batch(states, actions, rewards - rewards.mean()))
        logits = st.TabularSoftmax(jnp.asarray(policy.logits))
        algorithm = covariant(1e-6, damping=1e-3)
        after, _, info = algorithm.update(logits, algorithm.init(logits), batch)
        assert info.accepted
        assert float(info.kl) == pytest.approx(1e-6, rel=0.01)
        local = linearise(logits, batch.obs)
        operator = trajectory.operator(local, batch)
        step = np.asarray(after.logits - logits.logits).ravel()
        by_paths = 0.5 * step @ np.asarray(operator.matrix(local.params)) @ step
        assert by_paths < 0.5e-6
        assert operator.damped(0.1).damping == 0.1


def test_paths_may_have_any_labels() -> None:
    p = problem(2, 2, 3, 0, "tabular")
    batch = p.mdp.batch(p.policy)
    expected = matrices(p.policy, batch)["paths"]
    np.testing.assert_array_equal(matrices(p.policy, batch._replace(segment=batch.segment + 1000))["paths"], expected)


def test_rows_of_weight_zero_are_on_no_path() -> None:
    p = problem(*SIZES[0])
    states, actions, _ = sample_paths(p.mdp, p.policy, 6, np.random.default_rng(0))
    batch = sampled_batch(states, actions, np.zeros(states.shape))
    weight = batch.weight.copy()
    weight[4:8] = 0.0
    spoilt = batch.segment.copy()
    spoilt[4:8] = 5
    for segment in (batch.segment, spoilt):
        made = matrices(p.policy, batch._replace(weight=weight, segment=segment))["paths"]
        assert_close(made, matrices(p.policy, batch._replace(weight=weight))["paths"])


@pytest.mark.parametrize("longest", [None, 1, 3, 5, 50])
def test_paths_are_cut_at_the_end_of_an_episode_and_every_so_many_steps(longest: int | None) -> None:
    rng = np.random.default_rng(0)
    steps, envs = 23, 4
    done = rng.random((steps, envs)) < 0.15
    done[-1, 0] = True
    column = np.zeros((steps, envs), np.float32)
    batch = batch_from_rollout(column, column, column, np.ones((steps, envs), bool), done, segment=longest)
    segment = np.asarray(batch.segment).reshape(steps, envs)
    for b in range(envs):
        number, length = b * steps, 0
        for t in range(steps):
            if t and (done[t - 1, b] or length == longest):
                number, length = number + 1, 0
            assert segment[t, b] == number
            length += 1
    assert segment.max() < steps * envs
