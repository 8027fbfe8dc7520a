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

from geometry_problems import (
    DAMPINGS,
    DTYPES,
    POLICIES,
    PRODUCT_POLICIES,
    PRODUCTS,
    SOLUTIONS,
    UNLIKE,
    in_dtype,
    oracle,
    problem,
    relative,
)
from steepest import trees
from steepest.geometry import (
    empirical_fisher,
    expected_advantage,
    fisher,
    linearise,
    trajectory,
    uncentred,
)
from steepest.linear import ConjugateGradient, Direct, Measured, SampleSpace, Status

METRICS = {"fisher": fisher, "empirical": empirical_fisher, "trajectory": trajectory, "uncentred": uncentred}
SOLVERS = {"direct": Direct(), "cg": ConjugateGradient(200, tolerance=1e-13), "sample-space": SampleSpace()}
EVERY = (*POLICIES, *PRODUCT_POLICIES)
LATER = PRODUCT_POLICIES
"""Of the parts of others, but for Beta, whose float32 has tests of its own."""
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

SINGULAR_FLOAT32 = {"direct": 2e-2, "sample-space": 2e-2, "cg": 2e-1}


@pytest.mark.parametrize(
    "kind", [pytest.param(k, marks=[pytest.mark.slow] if k in ("mlp-product", "mlp-masked") else []) for k in EVERY]
)
@pytest.mark.claim("R15")
def test_R15_both_oracles_of_the_fisher_matrix_agree(kind: str) -> None:
    assert relative(oracle(kind)["fisher"], oracle(kind)["kl_hessian"]) < 1e-12


@functools.cache
def dense_forms(kind: str, dtype: str) -> dict[str, Any]:
    """What the metrics of a policy say, in one program: the gradient; of each metric the way back from its dual, its
    matrix and factor, and ‖Sv‖² beside vᵀSᵀSv; of one that is measured by another the matrix of that."""
    metrics = {m: METRICS[m] for k, m in PRODUCTS_OF if k == kind}

    @jax.jit
    def everything(policy: Any, batch: Any) -> dict[str, Any]:
        local = linearise(policy, batch.obs)
        gradient = expected_advantage.gradient(local, batch)
        said: dict[str, Any] = {"gradient": trees.ravel(gradient.vector)[0]}
        v = trees.ravel(local.params)[1](jnp.arange(said["gradient"].size, dtype=DTYPES[dtype]))
        for name, metric in metrics.items():
            operator: Any = metric.operator(local, batch)
            y = metric.dual(local, batch, gradient)
            said[name] = {} if y is None else {"back": trees.ravel(operator.transpose(y))[0]}
            if isinstance(operator, Measured):
                said[name]["length"] = operator.length.matrix(local.params)
                operator = operator.direction
            u = operator.forward(v)
            said[name] |= {
                "matrix": operator.matrix(local.params),
                "factor": operator.factor(local.params),
                "both": (jnp.vdot(u, u), trees.dot(v, operator.transpose(u))),
            }
        return said

    with jax.enable_x64(dtype == "float64"):
        return jax.tree.map(np.asarray, everything(*in_dtype(problem(kind), DTYPES[dtype])))


@pytest.mark.parametrize(
    ("kind", "dtype"), [(k, d) for k in POLICIES for d in DTYPES] + [(k, "float64") for k in PRODUCT_POLICIES]
)
def test_gradient_and_duals(kind: str, dtype: str) -> None:
    """g is Σ w v A ∇ln π, and every metric's dual y has Sᵀy = g."""
    said = dense_forms(kind, dtype)
    assert said["gradient"].dtype == DTYPES[dtype]
    assert relative(said["gradient"], oracle(kind)["gradient"]) < PRODUCTS[dtype]
    for metric in (m for k, m in PRODUCTS_OF if k == kind):
        assert ("back" in said[metric]) == (metric != "trajectory")
        if metric != "trajectory":
            assert relative(said[metric]["back"], oracle(kind)["gradient"]) < PRODUCTS[dtype]


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
    said, expected = dense_forms(kind, dtype)[metric], oracle(kind)[metric]
    limit = 10 * PRODUCTS[dtype] if kind == "mlp-beta" else PRODUCTS[dtype]  # polygammas have fewer digits
    assert ("length" in said) == (metric == "trajectory")
    if metric == "trajectory":
        assert relative(said["length"], oracle(kind)["fisher"]) < limit
    assert relative(said["matrix"], expected) < limit
    factor = np.asarray(said["factor"], np.float64)
    assert relative(factor.T @ factor, expected) < limit
    np.testing.assert_allclose(*said["both"], rtol=1e-4 if dtype == "float32" else 1e-12)


@functools.cache
def solutions(kind: str, metric: str, dtype: str) -> dict[tuple[str, float], Any]:
    """(solver, λ) ↦ its solution, all in one program; λ = 0 is a number, the others are traced."""
    solvers = [s for s in SOLVERS if any(each[:4] == (kind, metric, s, dtype) for each in SOLUTIONS_OF)]

    @jax.jit
    def everything(policy: Any, batch: Any) -> dict[str, Any]:
        local = linearise(policy, batch.obs)
        gradient = expected_advantage.gradient(local, batch)
        operator, dual = METRICS[metric].operator(local, batch), METRICS[metric].dual(local, batch, gradient)

        def solve(solver: str, damping: Any) -> Any:
            solution = SOLVERS[solver](operator.damped(damping), gradient.vector, dual)
            return trees.ravel(solution.x)[0], solution.status

        damped = jnp.asarray(DAMPINGS[1:], DTYPES[dtype])
        return {
            s: (solve(s, 0.0) if undamped(s) else None, jax.lax.map(functools.partial(solve, s), damped))
            for s in solvers
        }

    def undamped(solver: str) -> bool:
        return (kind, metric, solver, dtype, 0.0) in SOLUTIONS_OF

    with jax.enable_x64(dtype == "float64"):
        found = jax.tree.map(np.asarray, everything(*in_dtype(problem(kind), DTYPES[dtype])))
    by_damping = {(s, d): (found[s][1][0][i], found[s][1][1][i]) for s in solvers for i, d in enumerate(DAMPINGS[1:])}
    return by_damping | {(s, 0.0): found[s][0] for s in solvers}


@pytest.mark.parametrize(("kind", "metric", "solver", "dtype", "damping"), SOLUTIONS_OF)
def test_grid(kind: str, metric: str, solver: str, dtype: str, damping: float) -> None:
    dense, g = oracle(kind)[metric], oracle(kind)["gradient"]
    if damping:
        expected = np.linalg.solve(dense + damping * np.eye(len(g)), g)
    else:
        values, vectors = np.linalg.eigh(dense)
        keep = values > 1e-11 * values[-1]
        expected = vectors[:, keep] @ ((vectors[:, keep].T @ g) / values[keep])
    x, status = solutions(kind, metric, dtype)[solver, damping]
    assert x.dtype == DTYPES[dtype]
    x = np.asarray(x, np.float64)
    assert np.isfinite(x).all()
    assert Status(int(status)) not in (Status.NONFINITE, Status.SINGULAR)

    def length(v: np.ndarray) -> float:
        return float(np.sqrt(max(v @ dense @ v, 0.0)))

    error = length(x - expected) / length(expected)
    tolerance = SOLUTIONS.get((dtype, damping > 0), SINGULAR_FLOAT32[solver])
    assert error < tolerance
    if damping or (dtype == "float64" and solver != "cg"):
        assert relative(x, expected) < 10 * tolerance  # of least norm, where the metric is singular


@pytest.mark.parametrize("kind", POLICIES)
@pytest.mark.claim("N6")
def test_N6_conjugate_gradients_need_rank_many_products(kind: str) -> None:
    dense, g = oracle(kind)["fisher"], oracle(kind)["gradient"]
    rank = np.linalg.matrix_rank(dense, tol=1e-10)
    with jax.enable_x64(True):

        @jax.jit
        def few(policy: Any, batch: Any) -> Any:
            local = linearise(policy, batch.obs)
            gradient = expected_advantage.gradient(local, batch)
            solution = ConjugateGradient(int(rank), tolerance=0.0)(fisher.operator(local, batch), gradient.vector)
            return trees.ravel(solution.x)[0]

        x = np.asarray(few(*in_dtype(problem(kind), jnp.float64)))
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

        @jax.jit
        def solved(
            policy: Any, batch: Any, metrics: Any = tuple(METRICS[m] for k, m in PRODUCTS_OF if k == kind)
        ) -> Any:
            local = linearise(policy, batch.obs)
            gradient = expected_advantage.gradient(local, batch).vector
            operators = [metric.operator(local, batch).damped(0.1) for metric in metrics]
            return [trees.ravel(ConjugateGradient(5)(each, gradient).x)[0] for each in operators]

        for clean, other in zip(solved(policy, batch), solved(policy, spoilt), strict=True):
            np.testing.assert_allclose(other, clean, rtol=1e-5)
