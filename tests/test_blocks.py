"""The solver of one small system a state: the pseudo-inverse in closed form, as conjugate gradients find it too."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from steepest.algorithms import improve, npg
from steepest.errors import UsageError
from steepest.geometry import Reason, expected_advantage, fisher, linearise
from steepest.linear import Blocks, ConjugateGradient, Dense, Direct, Gram, Identity, Solution, Status
from steepest.policies import LogLinearSoftmax, TabularSoftmax
from steepest.worlds.finite import random as random_mdp
from steepest.worlds.finite.large import random_graph
from steepest.worlds.finite.precision import exact
from steepest.worlds.finite.sparse import SparseMDP

STATES, ACTIONS = 12, 4


def block_matrix(seed: int = 0) -> np.ndarray:
    """[S,A,A]: positive definite blocks whose sizes span ten orders of magnitude."""
    rng = np.random.default_rng(seed)
    root = rng.normal(size=(STATES, ACTIONS, ACTIONS))
    return np.geomspace(1e-10, 1, STATES)[:, None, None] * (np.einsum("sij,skj->sik", root, root) + np.eye(ACTIONS))


def dense(blocks: np.ndarray) -> np.ndarray:
    full = np.zeros((STATES, ACTIONS, STATES, ACTIONS))
    full[np.arange(STATES), :, np.arange(STATES), :] = blocks
    return full.reshape(STATES * ACTIONS, -1)


@exact
def solved(matrix: np.ndarray, rhs: np.ndarray, damping: float = 0.0) -> Any:
    return eqx.filter_jit(lambda m, b: Blocks()(Dense(m, damping), {"table": b}))(jnp.asarray(matrix), jnp.asarray(rhs))


@pytest.mark.parametrize("damping", [0.0, 1e-12, 1e-3])
def test_blocks_solve_each_row_by_itself(damping):
    blocks, b = block_matrix(), np.random.default_rng(1).normal(size=(STATES, ACTIONS))
    solution = solved(dense(blocks), b, damping)
    expected = np.linalg.solve(blocks + damping * np.eye(ACTIONS), b[..., None])[..., 0]
    size = np.linalg.norm(expected, axis=-1, keepdims=True)
    np.testing.assert_allclose(solution.x["table"] / size, expected / size, rtol=0, atol=1e-10)
    assert solution.status == Status.CONVERGED
    assert solution.residual < 1e-10
    assert solution.iterations == ACTIONS


def test_the_rank_is_decided_in_each_block():
    rng = np.random.default_rng(2)
    root = np.geomspace(1e-8, 1, STATES)[:, None, None] * rng.normal(size=(STATES, ACTIONS, 2))
    root[3] = 0.0
    blocks = np.einsum("sij,skj->sik", root, root)
    b = np.einsum("sij,sj->si", blocks, rng.normal(size=(STATES, ACTIONS)))
    solution = solved(dense(blocks), b)
    expected = np.stack([np.linalg.pinv(r @ r.T, rcond=1e-8) @ y for r, y in zip(root, b, strict=True)])
    np.testing.assert_allclose(solution.x["table"], expected, rtol=0, atol=1e-9 * np.max(np.abs(expected)))
    assert solution.residual < 1e-12


def test_an_operator_that_couples_its_rows_is_told_apart_and_no_step_is_taken():
    rng = np.random.default_rng(3)
    root = rng.normal(size=(STATES * ACTIONS, STATES * ACTIONS))
    solution = solved(root @ root.T, rng.normal(size=(STATES, ACTIONS)))
    assert solution.status == Status.STRUCTURE
    assert solution.residual > 0.1
    np.testing.assert_array_equal(solution.x["table"], 0.0)
    slightly = dense(block_matrix())
    slightly[0, -1] = slightly[-1, 0] = 1e-3  # rows 0 and S−1
    assert solved(slightly, rng.normal(size=(STATES, ACTIONS))).status == Status.STRUCTURE


class Shared(eqx.Module):
    """Logits θ_sa + θ_0a: every state depends on the first row."""

    table: Any

    def __call__(self, state: Any) -> Any:
        return TabularSoftmax(self.table + self.table[:1])(state)


def test_a_policy_that_shares_parameters_between_states_is_refused_a_step():
    mdp = random_mdp(4, 3, 5, seed=0)
    policy = Shared(np.random.default_rng(0).normal(size=(4, 3)))
    new, info = improve(policy, mdp, npg(solver=Blocks(), damping=0.0))
    assert info.status == Status.STRUCTURE
    assert not info.accepted
    assert info.reason == Reason.SOLVER
    np.testing.assert_array_equal(new.table, policy.table)


@pytest.mark.parametrize(
    ("rhs", "status"), [(np.nan, Status.NONFINITE), (np.inf, Status.NONFINITE), (0.0, Status.CONVERGED)]
)
def test_nothing_here_returns_nan(rhs, status):
    solution = solved(dense(block_matrix()), np.full((STATES, ACTIONS), rhs))
    assert solution.status == status
    np.testing.assert_array_equal(solution.x["table"], 0.0)
    broken = solved(np.full((STATES * ACTIONS,) * 2, np.nan), np.ones((STATES, ACTIONS)))
    assert broken.status != Status.CONVERGED
    assert np.all(np.isfinite(broken.x["table"]))


def test_blocks_of_more_axes_and_in_float32():
    blocks, b = block_matrix()[-3:], np.random.default_rng(1).normal(size=(3, ACTIONS))

    def forward(v: Any) -> Any:
        return jnp.einsum(
            "sij,sj->si", jnp.asarray(np.linalg.cholesky(blocks).transpose(0, 2, 1), v.dtype), v.reshape(3, -1)
        )

    operator = Gram(forward, lambda y: jax.linear_transpose(forward, jnp.zeros((3, 2, 2), y.dtype))(y)[0])
    with jax.enable_x64(False):
        solution = Blocks()(operator, jnp.asarray(b.reshape(3, 2, 2), jnp.float32))
    assert solution.x.dtype == jnp.float32
    assert solution.status == Status.CONVERGED
    expected = np.linalg.solve(blocks, b[..., None])[..., 0].reshape(3, 2, 2)
    np.testing.assert_allclose(solution.x, expected, rtol=1e-3, atol=1e-3 * np.max(np.abs(expected)))


@pytest.mark.parametrize("rhs", [jnp.ones(3), {"a": jnp.ones((2, 2)), "b": jnp.ones((2, 2))}], ids=["vector", "two"])
def test_what_is_not_one_table_is_refused(rhs):
    with pytest.raises(UsageError, match=r"one array of two axes or more.* use ConjugateGradient"):
        Blocks()(Identity(), rhs)
    with pytest.raises(UsageError, match="tolerance > 0"):
        Blocks(tolerance=0.0)


def test_a_log_linear_policy_is_refused_with_the_way_out():
    policy = LogLinearSoftmax(np.zeros(2), np.ones((4, 3, 2)))
    with pytest.raises(UsageError, match="use ConjugateGradient"):
        improve(policy, random_mdp(4, 3, 5, seed=0), npg(solver=Blocks()))


# On a softmax table


@exact
def directions(world: Any, policy: TabularSoftmax, solvers: list[Any]) -> tuple[list[Solution], list[Any]]:
    """The natural direction x by each of the solvers, λ = 0, and what it does to behaviour, S·x."""
    local = linearise(TabularSoftmax(jnp.asarray(policy.logits, jnp.float64)), np.arange(world.states))
    batch = jax.tree.map(jnp.asarray, world.batch(policy))
    operator, gradient = fisher.operator(local, batch), expected_advantage.gradient(local, batch)
    solutions = [eqx.filter_jit(lambda s=s: s(operator, gradient.vector))() for s in solvers]
    return solutions, [operator.forward(solution.x) for solution in solutions]


@pytest.mark.claim("N1")
def test_N1_the_natural_gradient_of_a_softmax_table_is_the_advantage_centred():
    world = random_mdp(6, 4, 8, seed=1)
    policy = TabularSoftmax(np.random.default_rng(0).normal(size=(6, 4)))
    (blocks, direct), _ = directions(world, policy, [Blocks(), Direct()])
    advantage = world.batch(policy).advantage
    centred = advantage - advantage.mean(axis=-1, keepdims=True)
    np.testing.assert_allclose(blocks.x.logits, centred, rtol=0, atol=1e-12)
    np.testing.assert_allclose(direct.x.logits, centred, rtol=0, atol=1e-12)


@pytest.mark.claim("N6")
def test_N6_blocks_and_conjugate_gradients_agree_on_two_thousand_states():
    world: SparseMDP = random_graph(2_000, 4, successors=5, horizon=50, seed=0)
    policy = TabularSoftmax(np.random.default_rng(0).normal(size=(2_000, 4)))
    (blocks, cg), (ours, theirs) = directions(world, policy, [Blocks(), ConjugateGradient(2_000, tolerance=1e-12)])
    assert blocks.status == cg.status == Status.CONVERGED
    assert blocks.residual < 1e-12
    assert 20 < cg.iterations < 2_000
    assert np.linalg.norm(ours - theirs) < 1e-9 * np.linalg.norm(ours)
    advantage = world.batch(policy).advantage
    np.testing.assert_allclose(
        blocks.x.logits,
        advantage - advantage.mean(axis=-1, keepdims=True),
        rtol=0,
        atol=1e-10 * np.max(np.abs(advantage)),
    )


def test_a_step_along_blocks_realises_delta():
    world = random_graph(2_000, 4, successors=5, horizon=50, seed=0)
    policy = TabularSoftmax(np.zeros((2_000, 4)))
    new, info = improve(policy, world, npg(delta=1e-4, solver=Blocks(), damping=0.0))
    np.testing.assert_allclose(info.predicted_kl, 1e-4, rtol=1e-12)
    np.testing.assert_allclose(info.kl, 1e-4, rtol=0.02)
    np.testing.assert_allclose(world.value(new) - world.value(policy), 50 * info.predicted_improvement, rtol=0.05)
