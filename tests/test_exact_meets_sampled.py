"""Exact meets sampled: what is estimated from rollouts of a finite MDP converges to what is enumerated, as N^-½.

The very functions that train are run on batches of sampled paths, with exact advantages A_h or with returns to go.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import steepest as st
from steepest import trees
from steepest.batch import Batch
from steepest.geometry import linearise
from steepest.worlds.finite import random as random_mdp
from steepest.worlds.finite.sampled import sample_paths

PATHS = (32, 320, 3_200, 32_000)
REPEATS = 24
STATES, ACTIONS, HORIZON = 3, 3, 5


def sampled_batch(states: np.ndarray, actions: np.ndarray, advantage: np.ndarray) -> Batch:
    """A rollout's batch: one row for each step of each path."""
    rows = states.size
    return Batch(
        obs=states.reshape(rows),
        weight=np.full(rows, 1.0 / rows),
        action=actions.reshape(rows, 1),
        action_weight=np.ones((rows, 1)),
        advantage=advantage.reshape(rows, 1),
        segment=np.repeat(np.arange(len(states)), states.shape[1]),
    )


@jax.jit
def estimates(logits: Any, batch: Batch) -> tuple[Any, Any, Any]:
    """Gradient, expected Fisher and empirical Fisher of a batch, by the code that trains."""
    local = linearise(st.TabularSoftmax(logits), batch.obs)
    gradient = st.expected_advantage.gradient(local, batch)
    expected = st.fisher.operator(local, batch).matrix(local.params)
    empirical = st.empirical_fisher.operator(local, batch).matrix(local.params)
    return trees.ravel(gradient.vector)[0], expected, empirical


@pytest.fixture(scope="module")
def errors() -> dict[str, np.ndarray]:
    """name ↦ root-mean-square error for each N in PATHS, over REPEATS."""
    mdp = random_mdp(STATES, ACTIONS, HORIZON, 4)
    policy = st.TabularSoftmax(np.random.default_rng(5).normal(size=(STATES, ACTIONS)))
    exact_gradient = np.asarray(mdp.gradient(policy).logits).ravel() / HORIZON
    exact_fisher = mdp.fisher(policy)
    advantages = mdp.advantages(policy)
    squared: dict[str, list[list[float]]] = {}
    with jax.enable_x64(True):
        logits = jnp.asarray(policy.logits)
        for paths in PATHS:
            row: dict[str, list[float]] = {}
            for repeat in range(REPEATS):
                rng = np.random.default_rng([paths, repeat])
                states, actions, rewards = sample_paths(mdp, policy, paths, rng)
                exact = advantages[np.arange(HORIZON), states, actions]
                to_go = np.cumsum(rewards[:, ::-1], axis=1)[:, ::-1]
                for name, advantage in (("exact A_h", exact), ("returns to go", to_go)):
                    g, f, e = estimates(logits, sampled_batch(states, actions, advantage))
                    row.setdefault(f"gradient, {name}", []).append(float(np.sum((g - exact_gradient) ** 2)))
                row.setdefault("expected Fisher", []).append(float(np.sum((f - exact_fisher) ** 2)))
                row.setdefault("empirical Fisher", []).append(float(np.sum((e - exact_fisher) ** 2)))
            for name, values in row.items():
                squared.setdefault(name, []).append(values)
    return {name: np.sqrt(np.mean(values, axis=1)) for name, values in squared.items()}


@pytest.mark.parametrize(
    "name", ["gradient, exact A_h", "gradient, returns to go", "expected Fisher", "empirical Fisher"]
)
@pytest.mark.claim("R18")
def test_R18_the_error_shrinks_as_one_over_root_n(errors: dict[str, np.ndarray], name: str) -> None:
    slope, _ = np.polyfit(np.log(PATHS), np.log(errors[name]), 1)
    assert slope == pytest.approx(-0.5, abs=0.05)


def test_returns_to_go_and_sampled_actions_are_the_noisier_estimates(errors: dict[str, np.ndarray]) -> None:
    assert (errors["gradient, returns to go"] > errors["gradient, exact A_h"]).all()
    assert (errors["empirical Fisher"] > errors["expected Fisher"]).all()


def test_the_exact_batch_has_no_error() -> None:
    mdp = random_mdp(STATES, ACTIONS, HORIZON, 4)
    policy = st.TabularSoftmax(np.random.default_rng(5).normal(size=(STATES, ACTIONS)))
    with jax.enable_x64(True):
        batch = jax.tree.map(jnp.asarray, mdp.batch(policy))
        g, expected, empirical = estimates(jnp.asarray(policy.logits), batch)
        np.testing.assert_allclose(g, np.asarray(mdp.gradient(policy).logits).ravel() / HORIZON, atol=1e-14)
        np.testing.assert_allclose(expected, mdp.fisher(policy), atol=1e-14)
        np.testing.assert_allclose(empirical, mdp.fisher(policy), atol=1e-14)
