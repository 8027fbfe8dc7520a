"""The grid, of other ways: preconditioners, warm starts, subsamples and Kronecker factors against dense oracles."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from geometry_problems import DAMPINGS, DTYPES, POLICIES, PRODUCTS, SOLUTIONS, in_dtype, oracle, problem, relative
from steepest import trees
from steepest.geometry import (
    Moment,
    Preconditioned,
    Subsampled,
    begun,
    diagonal,
    expected_advantage,
    fisher,
    initial,
    kronecker,
    linearise,
)
from steepest.linear import ConjugateGradient, Direct, Factored, Measured
from steepest.linear import Preconditioned as PreconditionedOperator

SAME = {  # other ways to the Fisher matrix: what they solve is its system
    "diagonal": Preconditioned(fisher, diagonal),
    "factors": Preconditioned(fisher, kronecker),
    "all rows": Subsampled(fisher, 1.0),
}
SAME_OF = [(k, m) for k in POLICIES for m in SAME if m != "factors" or k.startswith("mlp")]  # a table has no layers


def of_this_update(metric: Any, local: Any, batch: Any) -> Any:
    moment = Moment(local, batch, jax.random.key(0), jnp.zeros((), jnp.int32))
    return begun(metric, initial(metric, local.params), moment)[0]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("kind", "metric"), SAME_OF)
def test_grid_of_other_ways_to_the_fisher_matrix(kind: str, metric: str, dtype: str) -> None:
    """A preconditioner, a start and a subsample of all rows change how a solution is found, not which."""
    dense, g = oracle(kind)["fisher"], oracle(kind)["gradient"]
    iterative = {"cold": ConjugateGradient(200, tolerance=1e-13), "warm": ConjugateGradient(200, 1e-13, warm=True)}
    with jax.enable_x64(dtype == "float64"):

        @jax.jit
        def everything(policy: Any, batch: Any) -> Any:
            local = linearise(policy, batch.obs)
            gradient = expected_advantage.gradient(local, batch)
            operator = of_this_update(SAME[metric], local, batch).operator(local, batch)
            assert isinstance(operator, PreconditionedOperator | Measured)
            ones = jax.tree.map(jnp.ones_like, local.params)

            def solve(damping: Any) -> Any:
                damped = operator.damped(damping)
                found = {name: solver(damped, gradient.vector, None, ones) for name, solver in iterative.items()}
                found["direct"] = Direct()(damped, gradient.vector)
                return {name: trees.ravel(solution.x)[0] for name, solution in found.items()}

            dampings = jnp.asarray(DAMPINGS[1:], DTYPES[dtype])
            return operator.matrix(local.params), operator.quadratic(ones), jax.lax.map(solve, dampings)

        matrix, length, flat = everything(*in_dtype(problem(kind), DTYPES[dtype]))
    assert relative(matrix, dense) < PRODUCTS[dtype]
    u = np.ones(len(g))
    flat = {(d, name): np.asarray(x[i], np.float64) for name, x in flat.items() for i, d in enumerate(DAMPINGS[1:])}
    np.testing.assert_allclose(length, u @ dense @ u, rtol=1e-4 if dtype == "float32" else 1e-9, atol=1e-9)
    for (damping, name), x in flat.items():
        expected = np.linalg.solve(dense + damping * np.eye(len(g)), g)
        gap = x - expected
        error = np.sqrt(max(gap @ dense @ gap, 0.0) / (expected @ dense @ expected))
        assert error < SOLUTIONS[dtype, True], (damping, name)
        assert relative(x, expected) < 10 * SOLUTIONS[dtype, True], (damping, name)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", ["mlp-categorical", "mlp-gaussian"])
def test_grid_of_kronecker_factors(kind: str, dtype: str) -> None:
    """The solver inverts exactly what the metric says, whose length is that of the Fisher matrix, whose δ is the KL."""
    damping = 1e-2
    with jax.enable_x64(dtype == "float64"):

        @jax.jit
        def everything(policy: Any, batch: Any) -> Any:
            local = linearise(policy, batch.obs)
            gradient = expected_advantage.gradient(local, batch)
            operator = of_this_update(kronecker, local, batch).operator(local, batch)
            found = Factored()(operator.damped(damping), gradient.vector).x
            by_cg = ConjugateGradient(200, tolerance=1e-13)(operator.damped(damping), gradient.vector).x
            length = operator.quadratic(jax.tree.map(jnp.ones_like, local.params))
            flat = [trees.ravel(x)[0] for x in (gradient.vector, found, by_cg)]
            return operator.matrix(local.params), length, *flat

        said = everything(*in_dtype(problem(kind), DTYPES[dtype]))
    dense, length, g, inverted, iterated = (np.asarray(x, np.float64) for x in said)
    expected = np.linalg.solve(dense + damping * np.eye(len(g)), g)
    assert relative(inverted, expected) < (1e-4 if dtype == "float32" else 1e-11)
    assert relative(iterated, expected) < (1e-2 if dtype == "float32" else 1e-9)
    fisher_matrix = oracle(kind)["fisher"]
    np.testing.assert_allclose(length, fisher_matrix.sum(), rtol=1e-5 if dtype == "float32" else 1e-11)
    apart = np.linalg.norm(dense - fisher_matrix) / np.linalg.norm(fisher_matrix)
    assert 0.01 < apart < 1.0  # it is an approximation, and no wild one
