"""Conjugate gradients with a preconditioner and from the last solution, and the operators that say more than M."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from steepest import trees
from steepest.linear import (
    ConjugateGradient,
    Dense,
    Diagonal,
    Gram,
    Measured,
    Preconditioned,
    Remembering,
    SampleSpace,
    Status,
)


@pytest.fixture(autouse=True)
def x64():
    with jax.enable_x64(True):
        yield


def stretched(size: int = 40, seed: int = 0) -> tuple[Dense, Diagonal, np.ndarray]:
    """A well-conditioned matrix in units four orders of magnitude apart, its diagonal, and a right-hand side."""
    rng = np.random.default_rng(seed)
    core = np.eye(size) + 0.3 * (lambda a: a @ a.T / size)(rng.normal(size=(size, size)))
    units = np.logspace(0, 4, size)
    matrix = units[:, None] * core * units
    return Dense(jnp.asarray(matrix)), Diagonal(jnp.asarray(np.diag(matrix))), rng.normal(size=size) * units


def test_a_diagonal_is_one_operator_in_all_its_forms() -> None:
    d = Diagonal({"a": jnp.asarray([1.0, 0.0]), "b": jnp.asarray([[2.0]])}, 0.5)
    v = {"a": jnp.asarray([1.0, -1.0]), "b": jnp.asarray([[3.0]])}
    flat, _ = trees.ravel(v)
    np.testing.assert_allclose(trees.ravel(d(v))[0], d.matrix(v) @ flat)
    np.testing.assert_allclose(d.quadratic(v), flat @ d.matrix(v) @ flat)
    np.testing.assert_allclose(trees.ravel(d.solve(d(v)))[0], flat)
    undamped = d.damped(0.0).solve(v)
    np.testing.assert_array_equal(undamped["a"], [1.0, 0.0])  # nothing where the diagonal is 0
    assert d.damped(2.0).damping == 2.0


def test_a_preconditioner_changes_how_fast_not_where_to() -> None:
    matrix, diagonal, b = stretched()
    exact = np.linalg.solve(np.asarray(matrix.entries), b)
    solver = ConjugateGradient(200, tolerance=1e-12)
    plain, helped = solver(matrix, jnp.asarray(b)), solver(Preconditioned(matrix, diagonal), jnp.asarray(b))
    np.testing.assert_allclose(helped.x, exact, rtol=1e-8)
    assert int(helped.status) == Status.CONVERGED
    assert int(helped.iterations) < 30
    assert int(plain.iterations) > 100


def test_the_residual_is_that_of_the_system_not_of_the_preconditioned_one() -> None:
    matrix, diagonal, b = stretched()
    solution = ConjugateGradient(5)(Preconditioned(matrix, diagonal), jnp.asarray(b))
    true = np.linalg.norm(b - np.asarray(matrix.entries) @ np.asarray(solution.x)) / np.linalg.norm(b)
    np.testing.assert_allclose(float(solution.residual), true, rtol=1e-8)


def test_the_preconditioner_is_damped_with_its_operator() -> None:
    matrix, diagonal, _ = stretched()
    pair = Preconditioned(matrix, diagonal).damped(0.7)
    assert (pair.operator.damping, pair.by.damping, pair.damping) == (0.7, 0.7, 0.7)
    v = jnp.ones(40)
    np.testing.assert_allclose(pair.matrix(v) @ v, pair(v))
    np.testing.assert_allclose(pair.quadratic(v), v @ pair(v))


def test_a_preconditioner_within_a_measured_operator_is_used() -> None:
    matrix, diagonal, b = stretched()
    solver = ConjugateGradient(200, tolerance=1e-12)
    direct = solver(Preconditioned(matrix, diagonal), jnp.asarray(b))
    within = solver(Measured(Preconditioned(matrix, diagonal), matrix), jnp.asarray(b))
    assert int(within.iterations) == int(direct.iterations)


@pytest.mark.parametrize("entries", [0.0, -1.0, np.nan, np.inf])
def test_a_useless_preconditioner_gives_a_reason_and_no_nan(entries: float) -> None:
    matrix, _, b = stretched()
    solution = ConjugateGradient(20)(Preconditioned(matrix, Diagonal(jnp.full(40, entries))), jnp.asarray(b))
    assert np.isfinite(solution.x).all()
    assert Status(int(solution.status)) in (Status.CURVATURE, Status.NONFINITE)


class TestWarmStart:
    def test_from_the_solution_itself_there_is_nothing_left_to_do(self) -> None:
        matrix, _, b = stretched()
        x = jnp.asarray(np.linalg.solve(np.asarray(matrix.entries), b))
        solution = ConjugateGradient(200, tolerance=1e-8, warm=True)(matrix, jnp.asarray(b), None, -7.0 * x)
        np.testing.assert_allclose(solution.x, x, rtol=1e-6)
        assert int(solution.iterations) == 1  # the product that found the multiple
        assert int(solution.status) == Status.CONVERGED

    def test_from_a_neighbour_it_takes_fewer_products(self) -> None:
        matrix, _, b = stretched()
        near = b * (1 + 1e-6 * np.random.default_rng(1).normal(size=len(b)))
        last = jnp.asarray(np.linalg.solve(np.asarray(matrix.entries), near))
        cold = ConjugateGradient(400, tolerance=1e-6)(matrix, jnp.asarray(b))
        warm = ConjugateGradient(400, tolerance=1e-6, warm=True)(matrix, jnp.asarray(b), None, last)
        assert int(warm.iterations) < int(cold.iterations) / 2

    @pytest.mark.parametrize("last", [0.0, np.nan, np.inf, 1e300])
    def test_a_last_solution_of_no_use_is_not_used(self, last: float) -> None:
        matrix, _, b = stretched()
        exact = np.linalg.solve(np.asarray(matrix.entries), b)
        solution = ConjugateGradient(400, tolerance=1e-12, warm=True)(matrix, jnp.asarray(b), None, jnp.full(40, last))
        np.testing.assert_allclose(solution.x, exact, rtol=1e-6)

    def test_a_last_solution_in_the_null_space_is_not_used(self) -> None:
        s = jnp.asarray([[1.0, 0.0]])
        operator = Gram(lambda v: s @ v, lambda y: s.T @ y)
        rhs, last = jnp.asarray([2.0, 0.0]), jnp.asarray([0.0, 1.0])
        solution = ConjugateGradient(5, warm=True)(operator, rhs, None, last)
        np.testing.assert_allclose(solution.x, [2.0, 0.0])

    def test_no_gradient_is_solved_by_zero(self) -> None:
        matrix, _, _ = stretched()
        solution = ConjugateGradient(5, warm=True)(matrix, jnp.zeros(40), None, jnp.ones(40))
        np.testing.assert_array_equal(solution.x, 0.0)
        assert int(solution.status) == Status.CONVERGED

    def test_only_who_asks_is_given_the_last_solution(self) -> None:
        assert isinstance(ConjugateGradient(), Remembering)
        assert not ConjugateGradient().remembers
        assert ConjugateGradient(warm=True).remembers
        assert not getattr(SampleSpace(), "remembers", False)
