"""The operator of Kronecker blocks against dense matrices, in float64, and the solver that takes its inverse."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from steepest import trees
from steepest.errors import UsageError
from steepest.linear import (
    Block,
    ConjugateGradient,
    Diagonal,
    Direct,
    Factored,
    Gram,
    Identity,
    KroneckerBlocks,
    Measured,
    Operator,
    Preconditioned,
    Status,
    factor,
)

# a conv without bias, a bias on its own, a dense layer; leaves are numbered in the order of their names
SHAPES = {"a": (2, 2, 1, 3), "b": (4,), "c": (2, 3), "d": (3,)}
LAYERS = ((0, None, 4, 3), (None, 1, 1, 4), (2, 3, 3, 3))  # weight, bias, rows, out


@pytest.fixture(autouse=True, scope="module")
def x64() -> Iterator[None]:
    with jax.enable_x64(True):
        yield


def covariance(n: int, seed: int, rank: int | None = None) -> np.ndarray:
    rows = np.random.default_rng(seed).normal(size=(n if rank is None else rank, n))
    return rows.T @ rows


def blocks(rank: int | None = None) -> tuple[KroneckerBlocks, np.ndarray]:
    """The operator, and its matrix by `numpy.kron`."""
    made, dense = [], np.zeros((25, 25))
    at = {0: 0, 1: 12, 2: 16, 3: 22}
    for weight, bias, rows, out in LAYERS:
        a, g = covariance(rows, rows, rank and min(rank, rows)), covariance(out, 10 + out, rank and min(rank, out))
        made.append(Block(weight, bias, factor(jnp.asarray(a)), factor(jnp.asarray(g))))
        start = at[
            min(n for n in (weight, bias) if n is not None)
        ]  # weight and bias lie side by side in the flat vector
        dense[start : start + rows * out, start : start + rows * out] = np.kron(a, g)
    return KroneckerBlocks(tuple(made)), dense


def vector(seed: int = 0) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    return {name: jnp.asarray(rng.normal(size=shape)) for name, shape in SHAPES.items()}


def flat(v: Any) -> np.ndarray:
    return np.asarray(trees.ravel(v)[0])


@pytest.mark.parametrize("damping", [0.0, 1e-6, 0.3])
def test_operator_is_the_kronecker_product(damping: float) -> None:
    operator, dense = blocks()
    operator, dense = operator.damped(damping), dense + damping * np.eye(25)
    v = vector()
    assert isinstance(operator, Operator)
    np.testing.assert_allclose(flat(operator(v)), dense @ flat(v), rtol=1e-12, atol=1e-11)
    np.testing.assert_allclose(operator.matrix(v), dense, rtol=1e-12, atol=1e-11)
    np.testing.assert_allclose(operator.quadratic(v), flat(v) @ dense @ flat(v), rtol=1e-12)


@pytest.mark.parametrize("damping", [1e-6, 1e-3, 0.1, 10.0])
def test_solve_is_the_dense_solve_for_every_damping(damping: float) -> None:
    operator, dense = blocks()
    b = vector(1)
    expected = np.linalg.solve(dense + damping * np.eye(25), flat(b))
    np.testing.assert_allclose(flat(operator.damped(damping).solve(b)), expected, rtol=1e-9, atol=1e-11)
    traced = jax.jit(lambda value: operator.damped(value).solve(b))(damping)
    np.testing.assert_allclose(flat(traced), expected, rtol=1e-9, atol=1e-11)


def test_undamped_solve_is_the_pseudo_inverse() -> None:
    operator, dense = blocks(rank=2)
    b = vector(2)
    expected = np.linalg.pinv(dense, rcond=1e-12) @ flat(b)
    np.testing.assert_allclose(flat(operator.solve(b)), expected, rtol=1e-8, atol=1e-10)
    traced = jax.jit(lambda value: operator.damped(value).solve(b))(0.0)
    np.testing.assert_allclose(flat(traced), expected, rtol=1e-8, atol=1e-10)


def test_leaf_in_no_block_is_zero_in_M() -> None:
    operator = KroneckerBlocks(blocks()[0].blocks[:1])
    v = vector()
    assert not flat({**operator(v), "a": v["a"] * 0}).any()
    np.testing.assert_allclose(operator.damped(0.5).solve(v)["d"], v["d"] / 0.5)
    assert not np.asarray(operator.solve(v)["d"]).any()


def test_factored_solves_through_measured_and_reports_its_residual() -> None:
    operator, dense = blocks()
    b = vector(3)
    for wrapped in (operator, Measured(operator, Identity()), Measured(Measured(operator, Identity()), Identity())):
        solution = Factored()(wrapped.damped(0.1), b)
        assert solution.status == Status.CONVERGED
        assert solution.residual < 1e-13
        np.testing.assert_allclose(flat(solution.x), np.linalg.solve(dense + 0.1 * np.eye(25), flat(b)), rtol=1e-9)
    entries = jax.tree.map(jnp.abs, vector(4))
    np.testing.assert_allclose(flat(Factored()(Diagonal(entries, 0.1), b).x), flat(b) / (flat(entries) + 0.1))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -1.0])
def test_factor_that_is_no_covariance_gives_no_step(bad: float) -> None:
    matrix = jnp.asarray(covariance(4, 0)).at[1, 1].set(bad)
    good = factor(jnp.asarray(covariance(3, 1)))
    operator = KroneckerBlocks((Block(0, None, factor(matrix), good),), 0.1)
    b = vector()
    solution = Factored()(operator, b)
    assert solution.status == Status.SINGULAR
    assert not flat(solution.x).any()
    assert np.isinf(solution.residual)
    spoilt = ConjugateGradient(5)(Preconditioned(Identity(0.1), operator), b)
    assert spoilt.status == Status.NONFINITE
    assert not flat(spoilt.x).any()


def test_right_hand_side_that_is_not_finite_is_refused() -> None:
    b = vector()
    solution = Factored()(blocks()[0].damped(0.1), {**b, "d": b["d"] * np.nan})
    assert solution.status == Status.NONFINITE
    assert not flat(solution.x).any()
    assert np.isinf(solution.residual)


def test_rounding_below_zero_is_zero() -> None:
    exact = jnp.asarray(np.outer([1.0, 2.0, 3.0], [1.0, 2.0, 3.0]))
    values = factor(exact).values
    assert np.all(np.asarray(values) >= 0)
    np.testing.assert_allclose(values, [0, 0, 14], atol=1e-14)


@pytest.mark.parametrize("operator", [Identity(), Gram(lambda v: v["d"], lambda y: {"d": y})])
def test_factored_refuses_what_has_no_inverse_of_its_own(operator: Operator) -> None:
    with pytest.raises(UsageError, match=f"{type(operator).__name__}.*ConjugateGradient"):
        Factored()(operator, {"d": jnp.ones(3)})


def test_direct_and_conjugate_gradients_agree_with_factored() -> None:
    operator = blocks()[0].damped(0.2)
    b = vector(5)
    x = flat(Factored()(operator, b).x)
    np.testing.assert_allclose(flat(Direct()(operator, b).x), x, rtol=1e-9)
    np.testing.assert_allclose(flat(ConjugateGradient(200, 1e-13)(operator, b).x), x, rtol=1e-8)
    one = ConjugateGradient(5, 1e-10)(Preconditioned(operator, operator), b)
    assert one.iterations == 1  # its own preconditioner: N⁻¹M = I
    np.testing.assert_allclose(flat(one.x), x, rtol=1e-9)
