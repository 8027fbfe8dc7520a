"""Vine: exact where every action is there with its exact value, unbiased where it samples; and its objective."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from geometry_problems import POLICIES, in_dtype, problem
from steepest import trees
from steepest.errors import UsageError
from steepest.geometry import (
    Metric,
    empirical_fisher,
    expected_advantage,
    fisher,
    linearise,
    self_normalised,
)
from steepest.policies import TabularSoftmax
from steepest.sampling.vine import Vine, action_values, batch_from_branches
from steepest.worlds.finite import FiniteHorizonMDP
from steepest.worlds.finite import random as random_mdp


def _benchmark() -> Any:
    spec = importlib.util.spec_from_file_location("benchmark_vine", Path(__file__).parent.parent / "benchmarks/vine.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["benchmark_vine"] = module
    spec.loader.exec_module(module)
    return module


bench = _benchmark()


# Exact


@pytest.mark.claim("VINE2")
def test_VINE2_every_action_with_its_exact_value_gives_the_exact_surrogate_and_gradient() -> None:
    """The rollout set is every state at every step with its probability, Q̂ is Q_h: float64, to rounding."""
    mdp = random_mdp(4, 3, 5, 1)
    policy = TabularSoftmax(np.random.default_rng(2).normal(size=(4, 3)))
    other = TabularSoftmax(np.random.default_rng(3).normal(size=(4, 3)))
    steps, states, actions = mdp.action_values(policy).shape
    rows = steps * states
    obs = np.tile(np.arange(states), steps)
    weight = mdp.state_distributions(policy).ravel() / steps
    table, action = mdp.probabilities(policy), np.tile(np.arange(actions), (rows, 1))
    q = mdp.action_values(policy).reshape(rows, actions)
    with jax.enable_x64(True):
        batch = batch_from_branches(obs, action, table[obs], q, np.ones(rows, bool), exhaustive=True)
        batch = jax.tree.map(jnp.asarray, batch._replace(weight=weight))
        local = linearise(in_dtype(policy, jnp.float64), batch.obs)
        new = linearise(in_dtype(other, jnp.float64), batch.obs).distribution
        exact = np.asarray(mdp.gradient(policy).logits) / steps
        advantage = q - np.sum(table[obs] * q, axis=1, keepdims=True)
        surrogate = np.sum(weight[:, None] * mdp.probabilities(other)[obs] * advantage)
        for objective in (expected_advantage, self_normalised):
            gradient = objective.gradient(local, batch)
            np.testing.assert_allclose(gradient.vector.logits, exact, atol=1e-15)
            assert abs(objective.gain(local.distribution, new, batch) - surrogate) < 1e-15


@pytest.mark.claim("VINE2")
def test_VINE2_branches_to_the_end_are_unbiased_for_the_action_values() -> None:
    """By the very code that trains, on tables that depend on time: each state, step and action within 4 s.e. of Q_h."""
    rng = np.random.default_rng(0)
    tables = rng.dirichlet(np.ones(3), size=(4, 3, 2)), rng.normal(size=(4, 3, 2))
    p = bench.Problem("clock", FiniteHorizonMDP(*tables, np.ones(3) / 3, 4))
    paths = 3000
    for gamma, length in ((1.0, 4), (1.0, 2), (1.0, 1)):
        vine = Vine(4 * paths, 2, length, gamma)
        trunk, branches, steps = bench.grow(p, vine, paths, np.random.default_rng(length), exhaustive=True)
        h, state = trunk.row // paths, branches.obs
        late = np.minimum(h + length, 3)
        q = action_values(branches, p.v[late[:, None], branches.last_obs])
        assert sorted(trunk.row) == list(range(4 * paths))
        assert steps == 4 * paths + 2 * paths * sum(min(length, 4 - k) for k in range(4))
        worst = 0.0
        for k in range(4):
            for s in range(3):
                found = q[(h == k) & (state == s)]
                error = np.maximum(found.std(axis=0, ddof=1) / np.sqrt(len(found)), 1e-7)
                worst = max(worst, np.abs((found.mean(axis=0) - p.q[k, s]) / error).max())
        assert worst < 4


@pytest.mark.claim("VINE2")
@pytest.mark.claim("VINE3")
def test_VINE2_VINE3_the_gradient_is_unbiased_and_what_it_costs() -> None:
    """Small version of benchmarks/vine.py: less variance for as many states, more for as many simulator steps."""
    names = [
        "single path, to the end, less V", "vine, every action, to the end", "vine, every action, independent numbers",
        "vine, 4 drawn actions, to the end",
    ]  # fmt: skip
    rows = bench.spreads(bench.problems()[0], budget=800, repeats=80, only=names)
    for row in rows:
        assert row.bias < 3 * row.bias_error, row
        assert row.steps <= 1.1 * 800
    path, vine, independent, drawn = rows
    assert vine.per_state < drawn.per_state < 0.5 * path.per_state
    assert drawn.per_step > vine.per_step > path.per_step
    assert vine.variance < 0.5 * independent.variance


# The self-normalised objective


@pytest.mark.claim("VINE3")
@pytest.mark.parametrize("kind", POLICIES)
def test_VINE3_a_constant_added_to_the_values_of_a_state_changes_nothing(kind: str) -> None:
    policy, batch = problem(kind)
    shift = 50 * np.random.default_rng(0).normal(size=(len(batch.weight), 1))
    with jax.enable_x64(True):
        batch, theta = in_dtype(batch, jnp.float64), in_dtype(policy, jnp.float64)
        moved = batch._replace(advantage=batch.advantage + shift)
        local = linearise(theta, batch.obs)
        new = linearise(jax.tree.map(lambda x: x + 0.1, theta), batch.obs).distribution
        old = local.distribution
        one, other = (trees.ravel(self_normalised.gradient(local, b).vector)[0] for b in (batch, moved))
        np.testing.assert_allclose(one, other, atol=1e-12)
        assert abs(self_normalised.gain(old, new, batch) - self_normalised.gain(old, new, moved)) < 1e-12
        sampled = trees.ravel(expected_advantage.gradient(local, moved).vector)[0]
        assert np.abs(sampled - one).max() > 0.1  # the expected advantage needs a baseline


@pytest.mark.parametrize("kind", POLICIES)
def test_the_self_normalised_gradient_is_the_derivative_of_its_gain_and_has_duals(kind: str) -> None:
    policy, batch = problem(kind)
    with jax.enable_x64(True):
        batch = in_dtype(batch, jnp.float64)
        local = linearise(in_dtype(policy, jnp.float64), batch.obs)
        old = local.distribution

        def literal(theta: Any) -> Any:
            """Σ_n w_n Σ_k v r Q / Σ_k v r, as it is printed."""
            said, before = local.predict(theta), old
            log = [jax.vmap(lambda d, a: jax.vmap(d.log_prob)(a))(d, batch.action) for d in (said, before)]
            share = batch.action_weight * jnp.exp(log[0] - log[1])
            return jnp.sum(batch.weight * jnp.sum(share * batch.advantage, axis=1) / jnp.sum(share, axis=1))

        gradient = self_normalised.gradient(local, batch)
        g = trees.ravel(gradient.vector)[0]
        np.testing.assert_allclose(g, trees.ravel(jax.grad(literal)(local.params))[0], atol=1e-13)
        theta = jax.tree.map(lambda x: x + 0.05, local.params)
        new = local.predict(theta)
        expected = literal(theta) - literal(local.params)
        assert abs(self_normalised.gain(old, new, batch) - expected) < 1e-14
        assert self_normalised.gain(old, old, batch) == 0.0
        metrics: tuple[Metric, ...] = (fisher, empirical_fisher)
        for metric in metrics:
            operator: Any = metric.operator(local, batch)
            np.testing.assert_allclose(
                trees.ravel(operator.transpose(metric.dual(local, batch, gradient)))[0], g, atol=1e-13
            )


def test_rows_and_actions_without_weight_take_no_part_whatever_they_hold() -> None:
    policy, batch = problem("mlp-gaussian")
    masked = np.asarray(batch.weight) == 0
    poisoned = batch._replace(advantage=np.where(masked[:, None], np.nan, batch.advantage))
    share = np.array(batch.action_weight)
    share[0], share[1] = [1.0, 0.0], [0.0, 1.0]
    local = linearise(policy, jnp.asarray(batch.obs))
    for given in (batch, poisoned):
        given = in_dtype(given._replace(action_weight=share), jnp.float32)
        assert np.isfinite(trees.ravel(self_normalised.gradient(local, given).vector)[0]).all()


def test_one_action_a_state_is_refused() -> None:
    policy, batch = problem("tabular")
    one = batch._replace(action=batch.action[:, :1], action_weight=np.ones((10, 1)), advantage=batch.advantage[:, :1])
    with pytest.raises(UsageError, match=r"one a state, as a single path has; use expected_advantage"):
        self_normalised.gradient(linearise(policy, jnp.asarray(batch.obs)), in_dtype(one, jnp.float32))
