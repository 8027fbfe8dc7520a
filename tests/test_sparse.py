"""The sparse finite MDP: the dense one's numbers and errors, and a step on thousands of states."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
import pytest
import scipy.sparse

from finite_problems import assert_close
from steepest.algorithms import improve, npg, trpo
from steepest.errors import UsageError
from steepest.linear import Blocks, Status
from steepest.policies import LogLinearSoftmax, TabularSoftmax
from steepest.worlds.finite import FiniteHorizonMDP
from steepest.worlds.finite import random as random_mdp
from steepest.worlds.finite.large import random_graph, sparse_grid
from steepest.worlds.finite.sparse import SparseMDP

SIZES = [(1, 1, 1), (2, 2, 4), (5, 3, 7), (8, 4, 20)]


def thin(states: int, actions: int, horizon: int) -> FiniteHorizonMDP:
    """A random MDP, most of whose transitions are 0, and a state that is never visited."""
    rng = np.random.default_rng(states)
    mdp = random_mdp(states, actions, horizon, seed=states)
    transition = mdp.transition * (rng.uniform(size=mdp.transition.shape) < 0.5)
    transition[:, :, 0] += 1e-3
    initial = mdp.initial.copy()
    if states > 1:
        transition[:, :, -1] = initial[-1] = 0.0
    transition /= transition.sum(axis=-1, keepdims=True)
    return FiniteHorizonMDP(transition, mdp.reward, initial / initial.sum(), horizon)


def sparse(mdp: FiniteHorizonMDP, kind: Any = scipy.sparse.csr_array) -> SparseMDP:
    return SparseMDP(kind(mdp.transition.reshape(-1, mdp.states)), mdp.reward, mdp.initial, mdp.horizon)


@pytest.mark.parametrize("size", SIZES)
def test_sparse_is_the_dense_mdp(size):
    dense = thin(*size)
    world = sparse(dense, scipy.sparse.coo_matrix)
    rng = np.random.default_rng(0)
    policy = TabularSoftmax(rng.normal(size=size[:2]))
    clock = rng.dirichlet(np.ones(size[1]), size=(size[2], size[0]))
    for table in (policy, dense.probabilities(policy), clock, dense.optimal()[1]):
        assert_close(world.value(table), dense.value(table))
        assert_close(world.occupancy(table), dense.occupancy(table))
        assert_close(world.state_distributions(table), dense.state_distributions(table))
        assert_close(world.action_values(table), dense.action_values(table))
    value, plan = world.optimal()
    assert_close(value, dense.optimal()[0])
    np.testing.assert_array_equal(plan, dense.optimal()[1])
    scale = np.max(np.abs(dense.action_values(policy)))
    for ours, theirs in zip(*map(jax.tree.leaves, (world.batch(policy), dense.batch(policy))), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-12 * scale)
        assert ours.dtype == theirs.dtype


@pytest.mark.parametrize("size", SIZES[1:])
def test_gradients_are_those_of_the_dense_mdp_for_any_policy(size):
    dense, rng = thin(*size), np.random.default_rng(1)
    world = sparse(dense)
    for policy in (
        TabularSoftmax(rng.normal(size=size[:2])),
        LogLinearSoftmax(rng.normal(size=3), rng.normal(size=(*size[:2], 3))),
    ):
        ours, theirs = jax.tree.leaves(world.gradient(policy)), jax.tree.leaves(dense.gradient(policy))
        assert len(ours) == len(theirs) == 1
        assert_close(ours[0], theirs[0])


@pytest.mark.parametrize("algorithm", [npg(solver=Blocks(), damping=0.0), trpo()], ids=["npg", "trpo"])
def test_an_exact_step_is_that_on_the_dense_mdp(algorithm):
    dense = thin(5, 3, 7)
    policy = TabularSoftmax(np.random.default_rng(2).normal(size=(5, 3)))
    (ours, said), (theirs, expected) = (improve(policy, world, algorithm) for world in (sparse(dense), dense))
    np.testing.assert_allclose(np.asarray(ours.logits), np.asarray(theirs.logits), rtol=0, atol=1e-11)
    np.testing.assert_allclose(said.kl, expected.kl, rtol=1e-10)
    assert said.accepted


def broken(where: Any, value: float) -> tuple[np.ndarray, ...]:
    mdp = random_mdp(3, 2, 4, seed=0)
    transition, reward, initial = mdp.transition.copy(), mdp.reward.copy(), mdp.initial.copy()
    {"P": transition, "r": reward, "rho": initial}[where[0]][where[1]] = value
    return transition, reward, initial


@pytest.mark.parametrize(
    ("where", "value"),
    [
        (("P", (1, 0, 2)), np.nan),
        (("P", (1, 1, 0)), -0.25),
        (("P", (2, 0, 1)), 0.75),
        (("r", (2, 1)), np.inf),
        (("rho", 1), -0.5),
        (("rho", 2), 0.9),
    ],
)
def test_bad_tables_are_refused_as_the_dense_mdp_refuses_them(where, value):
    transition, reward, initial = broken(where, value)
    with pytest.raises(UsageError) as dense:
        FiniteHorizonMDP(transition, reward, initial, 4)
    with pytest.raises(UsageError) as ours:
        SparseMDP(scipy.sparse.csc_matrix(transition.reshape(6, 3)), reward, initial, 4)
    assert str(ours.value) == str(dense.value)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"transition": np.eye(6, 3)}, "must be a scipy.sparse matrix .* got ndarray; FiniteHorizonMDP takes"),
        ({"transition": scipy.sparse.eye(5, 3)}, r"shape \[6, 3\], .* \(S=3 and A=2 from reward\), got \[5, 3\]"),
        ({"transition": 1j * scipy.sparse.eye(6, 3)}, "real numbers, got entries of type complex128"),
        ({"reward": np.zeros(3)}, r"reward must have shape \[S,A\] with S, A ≥ 1, got \[3\]"),
        ({"initial": np.ones(2) / 2}, r"initial must have shape \[3\] \(S=3 from reward\), got \[2\]"),
        ({"horizon": 0}, "horizon must be an integer ≥ 1, got 0"),
    ],
)
def test_what_does_not_fit_is_refused(change, said):
    mdp = random_mdp(3, 2, 4, seed=0)
    given = {"transition": sparse(mdp).transition, "reward": mdp.reward, "initial": mdp.initial, "horizon": 4}
    with pytest.raises(UsageError, match=said):
        SparseMDP(**{**given, **change})
    world = SparseMDP(**given)
    with pytest.raises(UsageError, match=r"this MDP has S=3 states and A=2 actions"):
        world.value(TabularSoftmax(np.zeros((2, 2))))
    with pytest.raises(UsageError, match="depends on time"):
        world.batch(np.full((4, 3, 2), 0.5))


def test_tables_are_copied_and_read_only():
    mdp = random_mdp(3, 2, 4, seed=0)
    given = scipy.sparse.csr_array(mdp.transition.reshape(6, 3))
    world = SparseMDP(given, mdp.reward, mdp.initial, 4)
    given.data[:] = 0.0
    assert_close(world.transition.toarray(), mdp.transition.reshape(6, 3))
    for array in (world.transition.data, world.reward, world.initial):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1.0


# The generators


def test_a_random_graph_has_few_successors_and_is_the_same_for_a_seed():
    world = random_graph(200, 3, successors=4, horizon=5, seed=1)
    assert np.max(np.diff(world.transition.indptr)) <= 4
    assert world.transition.nnz > 0.95 * 200 * 3 * 4
    same, other = (random_graph(200, 3, successors=4, horizon=5, seed=seed) for seed in (1, 2))
    assert abs(same.transition - world.transition).max() == 0
    assert abs(other.transition - world.transition).max() > 0


def test_the_optimal_walk_on_a_grid_that_is_not_slippery_is_the_shortest():
    world = sparse_grid(width=4, height=3, slip=0.0, horizon=10)
    value, plan = world.optimal()
    assert value == 10 - 5  # five moves to the corner, then one reward a step
    assert world.value(plan) == value
    visits = sparse_grid(width=30, height=30, horizon=10).state_distributions(np.full((900, 4), 0.25))
    reached = np.flatnonzero(visits.sum(axis=0))
    assert np.max(reached // 30 + reached % 30) == 9


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: random_graph(0), "at least one state, action and successor"),
        (lambda: sparse_grid(slip=1.5), r"slip in \[0, 1\], got 100, 100 and 1.5"),
        (lambda: sparse_grid(4, 3, goal=(3, 3)), r"a cell \(x,y\) of the grid, x < 4 and y < 3, got \(3, 3\)"),
    ],
)
def test_generators_refuse_what_makes_no_world(make, said):
    with pytest.raises(UsageError, match=said):
        make()


def test_states_that_are_never_visited_keep_their_policy():
    world = sparse_grid(width=20, height=20, horizon=15, goal=(2, 3))
    policy = TabularSoftmax(np.random.default_rng(0).normal(size=(400, 4)))
    new, info = improve(policy, world, npg(solver=Blocks(), damping=0.0))
    assert info.accepted
    assert info.status == Status.CONVERGED
    never = world.batch(policy).weight == 0
    assert never.sum() > 100
    np.testing.assert_array_equal(np.asarray(new.logits)[never], np.asarray(policy.logits)[never])
