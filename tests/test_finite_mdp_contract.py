"""What the finite MDP promises besides its numbers: float64, any policy, no recompilation, and what it refuses."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from finite_problems import assert_close, flat, problem
from steepest.distributions import Categorical
from steepest.errors import UsageError
from steepest.parameters import frozen
from steepest.policies import LogLinearSoftmax, MlpCategorical, TabularSoftmax
from steepest.worlds.finite import (
    FiniteHorizonMDP,
)
from steepest.worlds.finite import random as random_mdp

pytestmark = pytest.mark.usefixtures("x64_off")


# Precision: what is masked, cast and switched


def test_masked_actions_contribute_nothing_and_no_nan():
    mdp = random_mdp(3, 3, 4, 0)
    logits = np.random.default_rng(0).normal(size=(3, 3))
    logits[:, 1] = -np.inf
    kept = [0, 2]
    small = FiniteHorizonMDP(mdp.transition[:, kept], mdp.reward[:, kept], mdp.initial, 4)
    masked, free = TabularSoftmax(logits), TabularSoftmax(logits[:, kept])
    rows = np.ravel(np.arange(9).reshape(3, 3)[:, kept])
    assert_close(mdp.value(masked), small.value(free))
    for ours, theirs in ((mdp.fisher, small.fisher), (mdp.trajectory_fisher, small.trajectory_fisher)):
        full = ours(masked)
        assert np.all(np.isfinite(full))
        assert_close(full[np.ix_(rows, rows)], theirs(free))
        assert np.count_nonzero(full) == np.count_nonzero(full[np.ix_(rows, rows)])
    assert_close(mdp.gradient(masked).logits[:, kept], small.gradient(free).logits)
    assert np.all(mdp.gradient(masked).logits[:, 1] == 0.0)
    uniform = TabularSoftmax(np.zeros((3, 3)))
    assert_close(
        mdp.trajectory_kl(masked, uniform),
        small.trajectory_kl(free, TabularSoftmax(np.zeros((3, 2)))) + 4 * np.log(1.5),
    )
    assert mdp.trajectory_kl(uniform, masked) == np.inf


def results(mdp: FiniteHorizonMDP, policy: Any) -> list[np.ndarray]:
    batch = mdp.batch(policy)
    return [
        mdp.value(policy),
        mdp.occupancy(policy),
        mdp.state_distributions(policy),
        mdp.action_values(policy),
        mdp.advantages(policy),
        mdp.probabilities(policy),
        mdp.trajectory_kl(policy, policy),
        flat(mdp.gradient(policy)),
        mdp.fisher(policy),
        mdp.trajectory_fisher(policy),
        batch.weight,
        batch.advantage,
    ]


def test_values_are_the_same_whatever_the_switch_and_stay_float64():
    p = problem(3, 2, 3, 1, "log-linear")
    off = results(p.mdp, p.policy)
    with jax.enable_x64(True):
        on = results(p.mdp, p.policy)
    assert jnp.ones(1).dtype == jnp.float32  # nothing leaked
    for x, y in zip(off, on, strict=True):
        assert np.array_equal(x, y)
        assert isinstance(x, np.ndarray | np.float64)
        assert (2 * x + np.sum(x) / 3).dtype == np.float64


def test_a_float32_policy_is_cast_before_it_is_differentiated():
    p = problem(3, 3, 3, 3, "tabular")
    single = TabularSoftmax(jnp.asarray(p.policy.logits, jnp.float32))
    double = TabularSoftmax(np.asarray(single.logits, np.float64))
    for x, y in zip(results(p.mdp, single), results(p.mdp, double), strict=True):
        assert np.array_equal(x, y)


class Net(eqx.Module):
    """A module of somebody's own, with an embedding that is not trained."""

    net: MlpCategorical
    embedding: Any

    def __call__(self, state: jax.Array) -> Categorical:
        return self.net(self.embedding.value[state])


def test_any_module_is_a_policy_and_frozen_arrays_are_no_parameters():
    embedding = np.random.default_rng(0).normal(size=(3, 2))
    policy = Net(MlpCategorical(2, 3, (4,), key=jax.random.key(0)), frozen(embedding))
    mdp = random_mdp(3, 3, 5, 0)
    count = 2 * 4 + 4 + 4 * 3 + 3
    assert mdp.fisher(policy).shape == (count, count)
    assert mdp.gradient(policy).embedding.inner is None
    assert_close(mdp.trajectory_fisher(policy), 5 * mdp.fisher(policy))


def test_a_second_call_of_the_same_shapes_compiles_nothing():
    traced, counts = [], []

    class Counted(TabularSoftmax):
        def __call__(self, state: Any) -> Categorical:
            traced.append(state)
            return super().__call__(state)

    mdp = random_mdp(2, 2, 3, 0)
    for k in range(4):
        policy = Counted(jnp.full((2, 2), float(k)))
        results(mdp, policy)
        counts.append(len(traced))
    assert counts[0] > 0
    assert counts == counts[:1] * 4


# What is refused

GOOD: dict[str, Any] = {
    "transition": np.full((2, 3, 2), 0.5),
    "reward": np.zeros((2, 3)),
    "initial": np.array([1.0, 0.0]),
    "horizon": 4,
}


def changed(name: str, index: tuple[int, ...], value: float) -> dict[str, Any]:
    array = GOOD[name].copy()
    array[index] = value
    return {name: array}


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (changed("transition", (1, 2, 0), 0.6), r"transition\[1, 2, :\] sums to 1.1"),
        (changed("transition", (1, 2, 0), 0.5 + 1e-7), r"transition\[1, 2, :\] sums to 1.00000009"),
        (changed("transition", (0, 1, 1), -0.5), r"transition\[0, 1, 1\] is -0.5; probabilities cannot be negative"),
        (changed("transition", (0, 1, 1), np.nan), r"transition\[0, 1, 1\] is nan"),
        (changed("reward", (1, 0), np.inf), r"reward\[1, 0\] is inf"),
        (changed("initial", (0,), 0.5), r"initial\[:\] sums to 0.5"),
        (
            {"transition": np.full((2, 3, 3), 1 / 3)},
            r"transition must have shape \[2, 3, 2\] or \[4, 2, 3, 2\] .*got \[2",
        ),
        ({"transition": np.full((3, 2, 3, 2), 0.5)}, r"or \[4, 2, 3, 2\] .* got \[3, 2, 3, 2\]"),
        ({"reward": np.zeros((3, 2))}, r"reward must have shape \[2, 2\] or \[4, 2, 2\] .* got \[3, 2\]"),
        ({"reward": np.zeros(2)}, r"reward must have shape \[S,A\]"),
        ({"reward": [["a", "b"], ["c", "d"]]}, "reward must be an array of real numbers"),
        ({"reward": [[1.0], [2.0, 3.0]]}, "reward must be an array of real numbers"),
        ({"initial": np.ones((1, 1))}, r"initial must have shape \[S\]"),
        ({"horizon": 0}, "horizon must be an integer ≥ 1, got 0"),
        ({"horizon": 2.0}, "horizon must be an integer ≥ 1, got 2.0"),
    ],
)
def test_tables_that_are_no_mdp_are_refused_by_name_and_index(bad: dict[str, Any], message: str):
    with pytest.raises(UsageError, match=message):
        FiniteHorizonMDP(**{**GOOD, **bad})


def test_tables_are_copies_that_cannot_be_written():
    reward = np.zeros((2, 3))
    mdp = FiniteHorizonMDP(**{**GOOD, "reward": reward})
    reward[0, 0] = 5.0
    assert mdp.reward[0, 0] == 0.0
    with pytest.raises(ValueError, match="read-only"):
        mdp.reward[0, 0] = 1.0


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        (TabularSoftmax(np.zeros((1, 3))), r"TabularSoftmax.logits has shape \[1, 3\].*\[2, 3\] was expected"),
        (TabularSoftmax(np.zeros((3, 3))), r"S=2 states and A=3 actions"),
        (LogLinearSoftmax(np.zeros(2), np.zeros((1, 3, 2))), r"features has shape \[1, 3, 2\].*\[2, 3, 2\]"),
        (MlpCategorical(1, 2, (2,), key=jax.random.key(0)), r"logits of shape \[2\].*A=3"),
        (lambda state: jnp.zeros(3), "st.Categorical, got "),
        (TabularSoftmax(np.full((2, 3), np.nan)), "probabilities in state 0 are .*not finite"),
    ],
)
def test_a_policy_that_does_not_fit_is_refused_by_every_method(policy: Any, message: str):
    mdp = FiniteHorizonMDP(**GOOD)
    for method in (mdp.value, mdp.occupancy, mdp.gradient, mdp.fisher, mdp.trajectory_fisher, mdp.batch):
        with pytest.raises(UsageError, match=message):
            method(policy)
    with pytest.raises(UsageError, match=message):
        mdp.trajectory_kl(TabularSoftmax(np.zeros((2, 3))), policy)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (np.full((3, 2), 0.5), r"must have shape \[2, 3\] or \[4, 2, 3\], got \[3, 2\]"),
        (np.full((2, 3), 0.5), r"policy\[0, :\] sums to 1.5"),
        (np.zeros((3, 2), int), r"action indices \(integers\) must have shape \[2\] or \[4, 2\]"),
        (np.array([0, 3]), r"policy\[1\] is action 3; the actions are 0 … 2"),
    ],
)
def test_a_table_that_is_no_policy_is_refused(table: np.ndarray, message: str):
    with pytest.raises(UsageError, match=message):
        FiniteHorizonMDP(**GOOD).value(table)


def test_what_is_too_large_is_refused_before_it_is_computed():
    wide = random_mdp(2, 3, 2, 0)
    big = MlpCategorical(1, 3, (1250,), key=jax.random.key(0))  # P = 2·1250 + 3·1250 + 3
    with pytest.raises(UsageError, match=r"P = 6253 parameters.* at most 5000"):
        wide.fisher(big)
    with pytest.raises(UsageError, match="P = 6253"):
        wide.trajectory_fisher(big)
    with pytest.raises(UsageError, match=r"2\^20 is over 1000000"):
        random_mdp(20, 2, 2, 0).optimal(stationary=True)
    with pytest.raises(UsageError, match="depends on time"):
        wide.batch(np.full((2, 2, 3), 1 / 3))
    with pytest.raises(UsageError, match="callable with a state index, got ndarray"):
        wide.fisher(np.full((2, 3), 1 / 3))
