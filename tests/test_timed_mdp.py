"""Policies that look at the clock are the stationary policies of `mdp.timed()`; and the gridworld."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import enumeration as oracle
import steepest as st
from finite_problems import EXACT, assert_close, flat, problem
from steepest.errors import UsageError
from steepest.worlds.finite import FiniteHorizonMDP, grid
from steepest.worlds.finite.sampled import make_mdp

pytestmark = pytest.mark.usefixtures("x64_off")

H, S, A = 3, 2, 2
CLOCK = problem(S, A, H, 2, "clock").mdp  # transition and reward depend on the step
STILL = problem(S, A, H, 0, "tabular").mdp  # neither does
LOGITS = np.random.default_rng(8).normal(size=(H * S, A))
POLICY, TABLE = st.TabularSoftmax(LOGITS), oracle.softmax(LOGITS).reshape(H, S, A)
both = pytest.mark.parametrize("mdp", [CLOCK, STILL], ids=["clock", "still"])


def path_scores(mdp: FiniteHorizonMDP) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(probability [N], return [N], Ψ [N,H·S·A]) of all paths of the time-dependent policy."""
    paths = list(oracle.paths(mdp, TABLE))
    total = np.zeros((len(paths), H, S, A))
    for n, path in enumerate(paths):
        for h, (s, a) in enumerate(zip(path.states, path.actions, strict=True)):
            total[n, h, s] += np.eye(A)[a] - TABLE[h, s]
    return np.array([x.probability for x in paths]), np.array([x.total for x in paths]), total.reshape(len(paths), -1)


@both
@pytest.mark.claim("R4")
def test_R4_a_policy_of_the_clock_is_worth_what_its_table_is(mdp: FiniteHorizonMDP):
    timed = mdp.timed()
    assert (timed.states, timed.actions, timed.horizon) == (H * S, A, H)
    assert_close(timed.value(POLICY), oracle.value(mdp, TABLE))
    assert_close(timed.value(POLICY), mdp.value(TABLE))
    visits = mdp.state_distributions(TABLE)
    assert_close(timed.occupancy(POLICY), (visits[:, :, None] * TABLE).reshape(H * S, A) / H)
    assert_close(timed.occupancy(POLICY).reshape(H, S, A).sum(axis=0), oracle.occupancy(mdp, TABLE))
    # Q of (h, s) at step h is Q_h(s); at other steps (h, s) is never visited
    q = timed.action_values(POLICY).reshape(H, H, S, A)
    assert_close(q[np.arange(H), np.arange(H)], mdp.action_values(TABLE))
    batch = timed.batch(POLICY)
    assert_close(batch.weight, visits.ravel() / H)
    assert_close(batch.advantage.reshape(H, S, A), mdp.advantages(TABLE))


@both
@pytest.mark.claim("R4")
def test_R4_with_the_clock_the_best_stationary_policy_is_the_best_there_is(mdp: FiniteHorizonMDP):
    best, plan = mdp.optimal()
    timed, stationary = mdp.timed().optimal(stationary=True)
    assert_close(timed, best)
    assert np.array_equal(stationary.reshape(H, S), plan)
    assert_close(mdp.timed().optimal()[0], best)
    plans = itertools.product(range(A), repeat=H * S)
    assert_close(best, max(oracle.value(mdp, np.eye(A)[np.reshape(p, (H, S))]) for p in plans))


@both
@pytest.mark.claim("R16", "R22")
def test_R16_R22_gradient_and_fisher_of_a_policy_of_the_clock_are_those_of_its_paths(mdp: FiniteHorizonMDP):
    probability, total, score = path_scores(mdp)
    timed = mdp.timed()
    assert_close(flat(timed.gradient(POLICY)), np.einsum("n,n,np->p", probability, total, score))
    second = np.einsum("n,np,nq->pq", probability, score, score)
    assert_close(timed.trajectory_fisher(POLICY), second)
    assert_close(H * timed.fisher(POLICY), second)


def test_a_stationary_policy_is_one_that_ignores_the_clock():
    stationary = st.TabularSoftmax(LOGITS[:S])
    repeated = st.TabularSoftmax(np.tile(LOGITS[:S], (H, 1)))
    assert_close(CLOCK.timed().value(repeated), CLOCK.value(stationary))
    other = st.TabularSoftmax(LOGITS[S : 2 * S])
    again = st.TabularSoftmax(np.tile(LOGITS[S : 2 * S], (H, 1)))
    assert_close(CLOCK.timed().trajectory_kl(repeated, again), CLOCK.trajectory_kl(stationary, other))


# The gridworld


def test_the_grid_is_worth_the_steps_that_are_left_at_its_end():
    for rows, columns, horizon in ((4, 4, 20), (2, 3, 3), (2, 3, 2), (1, 1, 5), (1, 6, 9)):
        best, plan = grid(rows, columns, horizon).optimal()
        assert best == max(0, horizon - (rows + columns - 2))
        assert grid(rows, columns, horizon).value(plan) == best


def test_the_grid_moves_as_its_actions_say_and_slips_to_the_sides():
    mdp = grid(3, 3, slip=0.2)
    up, right, down, left = mdp.transition[4]  # the cell in the middle: 1 above, 5 right, 7 below, 3 left
    for row, ahead, sides in ((up, 1, (3, 5)), (right, 5, (1, 7)), (down, 7, (3, 5)), (left, 3, (1, 7))):
        expected = np.zeros(9)
        expected[ahead], expected[list(sides)] = 0.8, 0.1
        assert_close(row, expected)
    assert mdp.transition[0, 0].tolist() == [
        0.9,
        0.1,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
    ]  # up: the wall; slips right, or left: a wall
    assert np.all(mdp.transition[8] == np.eye(9)[8])
    assert mdp.reward.sum() == mdp.reward[8].sum() == 4.0
    assert grid(3, 3, slip=0.2).optimal()[0] < grid(3, 3).optimal()[0] - EXACT


def test_the_grid_is_a_world_to_sample_from_and_refuses_what_is_none():
    assert make_mdp("grid", 2, rows=3, horizon=5).mdp.states == 12
    with pytest.raises(UsageError, match="at least one row and one column, got 0 and 4"):
        grid(0)
    with pytest.raises(UsageError, match=r"slip is a probability, got 1.5"):
        grid(slip=1.5)
