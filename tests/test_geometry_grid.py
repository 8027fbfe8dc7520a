"""The grid: metric × solver × policy × dtype × λ against dense float64 oracles.

The oracle of the expected Fisher matrix is built twice: from enumerated outer products of scores, and as the automatic
Hessian of the mean KL. Solutions are compared in policy space, by ‖S(x − x*)‖/‖Sx*‖: there a singular metric has one
answer.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from geometry_problems import POLICIES, PRODUCT_POLICIES, Oracle, in_dtype, problem
from steepest import trees
from steepest.geometry import (
    Moment,
    Preconditioned,
    Subsampled,
    begun,
    diagonal,
    empirical_fisher,
    expected_advantage,
    fisher,
    initial,
    kronecker,
    linearise,
    trajectory,
    uncentred,
)
from steepest.linear import ConjugateGradient, Direct, Factored, Measured, SampleSpace, Status
from steepest.linear import Preconditioned as PreconditionedOperator

METRICS = {"fisher": fisher, "empirical": empirical_fisher, "trajectory": trajectory, "uncentred": uncentred}
SAME = {  # other ways to the Fisher matrix: what they solve is its system
    "diagonal": Preconditioned(fisher, diagonal),
    "factors": Preconditioned(fisher, kronecker),
    "all rows": Subsampled(fisher, 1.0),
}
SOLVERS = {"direct": Direct(), "cg": ConjugateGradient(200, tolerance=1e-13), "sample-space": SampleSpace()}
SAME_OF = [(k, m) for k in POLICIES for m in SAME if m != "factors" or k.startswith("mlp")]  # a table has no layers
DTYPES = {"float32": jnp.float32, "float64": jnp.float64}
DAMPINGS = [0.0, 1e-3, 0.1]
EVERY = (*POLICIES, *PRODUCT_POLICIES)
LATER = PRODUCT_POLICIES
"""Of the parts of others, but for Beta, whose float32 has tests of its own."""
UNLIKE = ("mlp-gaussian", *PRODUCT_POLICIES)
"""Whose actions are no single index: the uncentred form is of a categorical."""
PRODUCTS_OF = [(k, m) for k in EVERY for m in METRICS if not (k in UNLIKE and m == "uncentred")]
SOLUTIONS_OF = [  # without a dual there is no solving in sample space; M itself has no root in float32 where λ = 0
    (kind, metric, solver, dtype, damping)
    for kind, metric in PRODUCTS_OF
    if kind in POLICIES
    for solver in SOLVERS
    for dtype in DTYPES
    for damping in DAMPINGS
    if metric in ("fisher", "empirical")
    or (
        kind.startswith("mlp")
        and (metric != "trajectory" or (solver != "sample-space" and (damping, dtype) != (0, "float32")))
    )
]

# dtype ↦ what is asked of the gradient and the products; (dtype, λ > 0) ↦ what is asked of a solution. With λ = 0 in
# float32 the smallest eigenvalues of F are below its rounding, so conjugate gradients cannot see those directions.
PRODUCTS = {"float32": 2e-6, "float64": 1e-13}
SOLUTIONS = {("float64", True): 1e-9, ("float64", False): 1e-6, ("float32", True): 2e-3}
SINGULAR_FLOAT32 = {"direct": 2e-2, "sample-space": 2e-2, "cg": 2e-1}


@functools.cache
def oracle(kind: str) -> dict[str, np.ndarray]:
    with jax.enable_x64(True):
        dense = Oracle(*problem(kind))
        uncentred = {} if kind in UNLIKE else {"uncentred": dense.uncentred_fisher()}
        return {
            **uncentred,
            "trajectory": dense.trajectory_fisher(),
            "gradient": dense.gradient(),
            "fisher": dense.fisher(),
            "kl_hessian": dense.kl_hessian(),
            "empirical": dense.empirical_fisher(),
        }


def relative(a: Any, b: np.ndarray) -> float:
    return float(np.linalg.norm(np.asarray(a, np.float64) - b) / np.linalg.norm(b))


@pytest.mark.parametrize(
    "kind", [pytest.param(k, marks=[pytest.mark.slow] if k in ("mlp-product", "mlp-masked") else []) for k in EVERY]
)
@pytest.mark.claim("R15")
def test_R15_both_oracles_of_the_fisher_matrix_agree(kind: str) -> None:
    assert relative(oracle(kind)["fisher"], oracle(kind)["kl_hessian"]) < 1e-12


@pytest.mark.parametrize(
    ("kind", "dtype"), [(k, d) for k in POLICIES for d in DTYPES] + [(k, "float64") for k in PRODUCT_POLICIES]
)
def test_gradient_and_duals(kind: str, dtype: str) -> None:
    """g is Σ w v A ∇ln π, and every metric's dual y has Sᵀy = g."""
    with jax.enable_x64(dtype == "float64"):
        policy, batch = in_dtype(problem(kind), DTYPES[dtype])
        local = linearise(policy, batch.obs)
        gradient = expected_advantage.gradient(local, batch)
        flat, _ = trees.ravel(gradient.vector)
        assert flat.dtype == DTYPES[dtype]
        assert relative(flat, oracle(kind)["gradient"]) < PRODUCTS[dtype]
        for metric in (METRICS[m] for k, m in PRODUCTS_OF if k == kind):
            y = metric.dual(local, batch, gradient)
            if y is None:
                assert metric is trajectory
                continue
            back, _ = trees.ravel(metric.operator(local, batch).transpose(y))
            assert relative(back, oracle(kind)["gradient"]) < PRODUCTS[dtype]


@pytest.mark.parametrize(
    ("kind", "metric", "dtype"),
    [
        pytest.param(*each, dtype, marks=[pytest.mark.slow] if each[0] in LATER and dtype == "float32" else [])
        for each in PRODUCTS_OF
        for dtype in DTYPES
    ],
)
@pytest.mark.claim("N6")
def test_N6_products(kind: str, metric: str, dtype: str) -> None:
    """SᵀS is the dense Fisher matrix, and S and Sᵀ are transposes of each other."""
    with jax.enable_x64(dtype == "float64"):
        policy, batch = in_dtype(problem(kind), DTYPES[dtype])
        local = linearise(policy, batch.obs)
        operator: Any = METRICS[metric].operator(local, batch)
        expected = oracle(kind)[metric]
        limit = 10 * PRODUCTS[dtype] if kind == "mlp-beta" else PRODUCTS[dtype]  # polygammas have fewer digits
        if isinstance(operator, Measured):
            assert relative(operator.length.matrix(local.params), oracle(kind)["fisher"]) < limit
            operator = operator.direction
        assert relative(operator.matrix(local.params), expected) < limit
        factor = np.asarray(operator.factor(local.params), np.float64)
        assert relative(factor.T @ factor, expected) < limit
        v = trees.ravel(local.params)[1](jnp.arange(len(expected), dtype=DTYPES[dtype]))
        u = operator.forward(v)
        np.testing.assert_allclose(
            jnp.vdot(u, u), trees.dot(v, operator.transpose(u)), rtol=1e-4 if dtype == "float32" else 1e-12
        )


@pytest.mark.parametrize(
    ("kind", "metric", "solver", "dtype", "damping"),
    [pytest.param(*each, marks=[pytest.mark.slow] if each[-1] == DAMPINGS[1] else []) for each in SOLUTIONS_OF],
)
def test_grid(kind: str, metric: str, solver: str, dtype: str, damping: float) -> None:
    dense, g = oracle(kind)[metric], oracle(kind)["gradient"]
    if damping:
        expected = np.linalg.solve(dense + damping * np.eye(len(g)), g)
    else:
        values, vectors = np.linalg.eigh(dense)
        keep = values > 1e-11 * values[-1]
        expected = vectors[:, keep] @ ((vectors[:, keep].T @ g) / values[keep])
    with jax.enable_x64(dtype == "float64"):
        policy, batch = in_dtype(problem(kind), DTYPES[dtype])
        local = linearise(policy, batch.obs)
        gradient = expected_advantage.gradient(local, batch)
        operator = METRICS[metric].operator(local, batch).damped(damping)
        dual = METRICS[metric].dual(local, batch, gradient)
        solution = jax.jit(lambda: SOLVERS[solver](operator, gradient.vector, dual))()
        x = np.asarray(trees.ravel(solution.x)[0], np.float64)
    assert np.isfinite(x).all()
    assert Status(int(solution.status)) not in (Status.NONFINITE, Status.SINGULAR)

    def length(v: np.ndarray) -> float:
        return float(np.sqrt(max(v @ dense @ v, 0.0)))

    error = length(x - expected) / length(expected)
    tolerance = SOLUTIONS.get((dtype, damping > 0), SINGULAR_FLOAT32[solver])
    assert error < tolerance
    if damping or (dtype == "float64" and solver != "cg"):
        assert relative(x, expected) < 10 * tolerance  # of least norm, where the metric is singular


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
        policy, batch = in_dtype(problem(kind), DTYPES[dtype])
        local = linearise(policy, batch.obs)
        gradient = expected_advantage.gradient(local, batch)
        last = jax.tree.map(jnp.ones_like, gradient.vector)

        @jax.jit
        def solve(damping: Any) -> Any:
            operator = of_this_update(SAME[metric], local, batch).operator(local, batch).damped(damping)
            found = {name: solver(operator, gradient.vector, None, last) for name, solver in iterative.items()}
            return found | {"direct": Direct()(operator, gradient.vector)}

        solutions = {damping: solve(damping) for damping in (1e-3, 0.1)}
        operator = of_this_update(SAME[metric], local, batch).operator(local, batch)
        assert isinstance(operator, PreconditionedOperator | Measured)
        assert relative(operator.matrix(local.params), dense) < PRODUCTS[dtype]
        v = jax.tree.map(jnp.ones_like, local.params)
        u = np.asarray(trees.ravel(v)[0], np.float64)
        length = float(operator.quadratic(v))
        flat = {
            (d, name): np.asarray(trees.ravel(s.x)[0], np.float64)
            for d in solutions
            for name, s in solutions[d].items()
        }
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
        policy, batch = in_dtype(problem(kind), DTYPES[dtype])
        local = linearise(policy, batch.obs)
        gradient = expected_advantage.gradient(local, batch)
        operator = of_this_update(kronecker, local, batch).operator(local, batch)
        dense = np.asarray(operator.matrix(local.params), np.float64)
        g = np.asarray(trees.ravel(gradient.vector)[0], np.float64)
        expected = np.linalg.solve(dense + damping * np.eye(len(g)), g)
        found = Factored()(operator.damped(damping), gradient.vector)
        by_cg = ConjugateGradient(200, tolerance=1e-13)(operator.damped(damping), gradient.vector)
        v = jax.tree.map(jnp.ones_like, local.params)
        length = float(operator.quadratic(v))
        inverted, iterated = (np.asarray(trees.ravel(s.x)[0], np.float64) for s in (found, by_cg))
    assert relative(inverted, expected) < (1e-4 if dtype == "float32" else 1e-11)
    assert relative(iterated, expected) < (1e-2 if dtype == "float32" else 1e-9)
    fisher_matrix = oracle(kind)["fisher"]
    np.testing.assert_allclose(length, fisher_matrix.sum(), rtol=1e-5 if dtype == "float32" else 1e-11)
    apart = np.linalg.norm(dense - fisher_matrix) / np.linalg.norm(fisher_matrix)
    assert 0.01 < apart < 1.0  # it is an approximation, and no wild one


@pytest.mark.parametrize("kind", POLICIES)
@pytest.mark.claim("N6")
def test_N6_conjugate_gradients_need_rank_many_products(kind: str) -> None:
    dense, g = oracle(kind)["fisher"], oracle(kind)["gradient"]
    rank = np.linalg.matrix_rank(dense, tol=1e-10)
    with jax.enable_x64(True):
        policy, batch = in_dtype(problem(kind), jnp.float64)
        local = linearise(policy, batch.obs)
        gradient = expected_advantage.gradient(local, batch)
        operator = fisher.operator(local, batch)
        few = ConjugateGradient(int(rank), tolerance=0.0)(operator, gradient.vector)
        x = np.asarray(trees.ravel(few.x)[0])
    expected = np.linalg.pinv(dense, rcond=1e-11) @ g
    gap = x - expected
    limit = 1e-6 if kind in ("tabular", "log-linear") else 0.2  # rounding spoils conjugacy where cond(F) is 1e4
    assert np.sqrt(gap @ dense @ gap) < limit * np.sqrt(expected @ dense @ expected)


def test_rows_of_weight_zero_take_no_part() -> None:
    """A masked row may hold anything: a ghost row's observation, and an advantage that is not a number."""
    for kind in POLICIES:
        policy, batch = in_dtype(problem(kind), jnp.float32)
        spoilt = batch._replace(
            advantage=batch.advantage.at[3].set(jnp.nan), action=batch.action.at[3].set(0), obs=batch.obs.at[3].set(1)
        )
        for metric in (METRICS[m] for k, m in PRODUCTS_OF if k == kind):
            results = []
            for b in (batch, spoilt):
                local = linearise(policy, b.obs)
                gradient = expected_advantage.gradient(local, b)
                x = ConjugateGradient(5)(metric.operator(local, b).damped(0.1), gradient.vector).x
                results.append(trees.ravel(x)[0])
            np.testing.assert_allclose(results[1], results[0], rtol=1e-5)
