"""What the discounted and average-reward readings of a finite MDP refuse, and that their tables cannot be changed."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import steepest as st
from steepest.errors import UsageError
from steepest.policies import LogLinearSoftmax, MlpCategorical, TabularSoftmax
from steepest.worlds.finite import AverageMDP, DiscountedMDP, FiniteMDP, two_state
from steepest.worlds.finite import random as random_mdp

GOOD: dict[str, Any] = {
    "transition": np.full((2, 3, 2), 0.5),
    "reward": np.zeros((2, 3)),
    "initial": np.array([1.0, 0.0]),
    "gamma": 0.9,
}
SPLIT = TabularSoftmax(np.array([[0.0, -np.inf], [0.0, -np.inf]]))  # stays where it is, in both states
both = pytest.mark.parametrize(
    "mdp", [DiscountedMDP(**GOOD), AverageMDP(GOOD["transition"], GOOD["reward"])], ids=lambda mdp: type(mdp).__name__
)


def changed(name: str, index: tuple[int, ...], value: float) -> dict[str, Any]:
    array = GOOD[name].copy()
    array[index] = value
    return {name: array}


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (changed("transition", (1, 2, 0), 0.6), r"transition\[1, 2, :\] sums to 1.1"),
        (changed("transition", (0, 1, 1), -0.5), r"transition\[0, 1, 1\] is -0.5; probabilities cannot be negative"),
        (changed("reward", (1, 0), np.inf), r"reward\[1, 0\] is inf"),
        ({"transition": np.full((2, 3, 3), 1 / 3)}, r"transition must have shape \[2, 3, 2\] .*got \[2, 3, 3\]"),
        ({"transition": np.full((4, 2, 3, 2), 0.5)}, r"transition must have shape \[2, 3, 2\] .*got \[4, 2, 3, 2\]"),
        ({"reward": np.zeros((4, 2, 3))}, r"reward must have shape \[S,A\] with S, A ≥ 1, got \[4, 2, 3\]"),
        ({"reward": np.zeros((2, 0))}, r"reward must have shape \[S,A\]"),
        ({"reward": [["a", "b"], ["c", "d"]]}, "reward must be an array of real numbers"),
        (changed("initial", (0,), 0.5), r"initial\[:\] sums to 0.5"),
        ({"initial": np.ones(3) / 3}, r"initial must have shape \[2\] \(S=2 from reward\), got \[3\]"),
        ({"gamma": 1.0}, r"gamma must be one number in \[0, 1\), got 1.0; for γ = 1 there is the average reward"),
        ({"gamma": -0.1}, "gamma must be .*got -0.1"),
        ({"gamma": np.nan}, "gamma must be .*got nan"),
        ({"gamma": [0.5, 0.6]}, "gamma must be one number"),
        ({"gamma": "high"}, "gamma must be an array of real numbers"),
    ],
)
def test_bad_tables_are_refused_with_the_first_offending_index(bad: dict[str, Any], message: str):
    tables = GOOD | bad
    with pytest.raises(UsageError, match=message):
        DiscountedMDP(**tables)
    if bad.keys() <= {"transition", "reward"}:
        with pytest.raises(UsageError, match=message):
            AverageMDP(tables["transition"], tables["reward"])


@both
@pytest.mark.parametrize(
    ("policy", "message"),
    [
        (TabularSoftmax(np.zeros((3, 3))), r"logits has shape \[3, 3\].*S=2 states and A=3 actions"),
        (LogLinearSoftmax(np.zeros(2), np.zeros((1, 3, 2))), r"features has shape \[1, 3, 2\].*\[2, 3, 2\]"),
        (MlpCategorical(1, 2, (2,), key=jax.random.key(0)), r"logits of shape \[2\].*A=3"),
        (lambda state: jnp.zeros(3), "st.Categorical, got "),
        (TabularSoftmax(np.full((2, 3), np.nan)), "probabilities in state 0 are .*not finite"),
    ],
)
def test_a_policy_that_does_not_fit_is_refused_by_every_method(mdp: Any, policy: Any, message: str):
    for method in (mdp.value, mdp.occupancy, mdp.state_distribution, mdp.gradient, mdp.fisher, mdp.batch):
        with pytest.raises(UsageError, match=message):
            method(policy)


@both
@pytest.mark.parametrize(
    ("table", "message"),
    [
        (np.full((4, 2, 3), 1 / 3), r"must have shape \[2, 3\], got \[4, 2, 3\]"),
        (np.full((2, 3), 0.5), r"policy\[0, :\] sums to 1.5"),
        (np.zeros((4, 2), int), r"action indices \(integers\) must have shape \[2\], got \[4, 2\]"),
        (np.array([0, 3]), r"policy\[1\] is action 3; the actions are 0 … 2"),
    ],
)
def test_a_table_that_is_no_stationary_policy_is_refused(mdp: FiniteMDP, table: np.ndarray, message: str):
    with pytest.raises(UsageError, match=message):
        mdp.value(table)


def test_a_policy_with_several_recurrent_classes_has_no_average():
    mdp = two_state().average()
    message = r"2 recurrent classes, among them the states \{0\} and \{1\}.*one recurrent class was expected"
    for method in (mdp.value, mdp.occupancy, mdp.state_distribution, mdp.action_values, mdp.advantages):
        with pytest.raises(UsageError, match=message):
            method(SPLIT)
    for method in (mdp.gradient, mdp.fisher, mdp.batch):
        with pytest.raises(UsageError, match=message):
            method(SPLIT)
    assert two_state().discounted(0.9).value(SPLIT) == pytest.approx(10.0, rel=1e-12)  # which starts somewhere


def test_an_optimal_average_that_depends_on_the_start_is_refused():
    apart = AverageMDP(np.eye(2)[:, None, :], [[1.0], [3.0]])
    with pytest.raises(UsageError, match="depends on the start: 1 from state 0, 3 from state 1"):
        apart.optimal()


def test_tables_that_depend_on_time_have_no_endless_reading():
    mdp = random_mdp(2, 2, 3, 0)
    clock = st.FiniteHorizonMDP(np.stack([mdp.transition] * 3), mdp.reward, mdp.initial, 3)
    paid = st.FiniteHorizonMDP(mdp.transition, np.stack([mdp.reward] * 3), mdp.initial, 3)
    with pytest.raises(UsageError, match=r"average\(\) needs a transition that does not depend on time, got \[3, 2, 2"):
        clock.average()
    with pytest.raises(UsageError, match=r"discounted\(\) needs a reward that does not depend on time, got \[3, 2, 2"):
        paid.discounted(0.9)


def test_what_is_too_large_is_refused():
    big = MlpCategorical(1, 3, (1250,), key=jax.random.key(0))
    for mdp in (DiscountedMDP(**GOOD), AverageMDP(GOOD["transition"], GOOD["reward"])):
        with pytest.raises(UsageError, match=r"P = 6253 parameters.* at most 5000"):
            mdp.fisher(big)


def test_tables_are_read_only_copies():
    given = GOOD["transition"].copy()
    mdp = DiscountedMDP(given, GOOD["reward"], GOOD["initial"], 0.5)
    given[:] = 0.0
    assert mdp.transition[0, 0, 0] == 0.5
    for table in (mdp.transition, mdp.reward, mdp.initial, two_state().average().transition):
        with pytest.raises(ValueError, match="read-only"):
            table[0] = 0.0
    assert (mdp.states, mdp.actions, mdp.gamma, repr(mdp)) == (2, 3, 0.5, "DiscountedMDP(S=2, A=3, γ=0.5)")
    assert repr(two_state().average()) == "AverageMDP(S=2, A=2)"
