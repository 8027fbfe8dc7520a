"""Small finite MDPs with a policy on each whose table and scores are written by hand, and how near is exact."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import numpy as np
import pytest

import enumeration as oracle
from steepest.policies import LogLinearSoftmax, TabularSoftmax
from steepest.worlds.finite import FiniteHorizonMDP
from steepest.worlds.finite import random as random_mdp

EXACT = 1e-12


class Problem(NamedTuple):
    """An MDP, a policy on it, and by hand: π [S,A] and ψ [S,A,P]; `other` is a policy far away, `far` its table."""

    mdp: FiniteHorizonMDP
    policy: Any
    table: np.ndarray
    scores: np.ndarray
    other: Any
    far: np.ndarray


@functools.cache
def problem(states: int, actions: int, horizon: int, seed: int, kind: str) -> Problem:
    rng = np.random.default_rng(seed)
    mdp = random_mdp(states, actions, horizon, seed)
    if kind == "clock":  # everything depends on the step
        transition = rng.dirichlet(np.ones(states), size=(horizon, states, actions))
        mdp = FiniteHorizonMDP(transition, rng.normal(size=(horizon, states, actions)), mdp.initial, horizon)
    if kind == "log-linear":
        features = rng.normal(size=(states, actions, 3))
        theta, far = rng.normal(size=3), 6.0 * rng.normal(size=3)
        table, away = oracle.softmax(features @ theta), oracle.softmax(features @ far)
        scores = oracle.log_linear_scores(table, features)
        return Problem(mdp, LogLinearSoftmax(theta, features), table, scores, LogLinearSoftmax(far, features), away)
    logits, far = rng.normal(size=(states, actions)), 6.0 * rng.normal(size=(states, actions))
    table = oracle.softmax(logits)
    scores = oracle.tabular_scores(table)
    return Problem(mdp, TabularSoftmax(logits), table, scores, TabularSoftmax(far), oracle.softmax(far))


SIZES = [(2, 2, 4, 0, "tabular"), (3, 2, 3, 1, "log-linear"), (2, 3, 3, 2, "clock"), (3, 3, 3, 3, "tabular")]
every = pytest.mark.parametrize("p", [problem(*size) for size in SIZES], ids=lambda p: repr(p.mdp))


def assert_close(actual: Any, expected: Any, rtol: float = EXACT) -> None:
    """‖actual − expected‖_∞ ≤ rtol·‖expected‖_∞, in float64."""
    actual, expected = np.asarray(actual), np.asarray(expected)
    assert actual.dtype == np.float64
    assert actual.shape == expected.shape
    np.testing.assert_allclose(actual, expected, rtol=0, atol=rtol * np.max(np.abs(expected)))


def flat(tree: Any) -> np.ndarray:
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)])
