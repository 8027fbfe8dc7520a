"""Preconditioners and Kronecker factors inside updates: the diagonal, the solution, averages, compilation, ACKTR."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from geometry_problems import POLICIES, in_dtype, problem
from steepest import trees
from steepest.algorithms import Algorithm, LevenbergMarquardt, acktr, npg, trpo
from steepest.batch import Batch
from steepest.errors import UsageError
from steepest.geometry import (
    Kronecker,
    Moment,
    Normalised,
    Preconditioned,
    Probes,
    Reason,
    Subsampled,
    diagonal,
    expected_advantage,
    fisher,
    kronecker,
    linearise,
)
from steepest.layers import Conv, Dense
from steepest.linear import ConjugateGradient, Direct, Factored, Status
from steepest.policies import LinearGaussian
from test_kronecker import ConvNet, batch_of, doubled, matrices, normal


@pytest.fixture(autouse=True, scope="module")
def x64() -> Iterator[None]:
    with jax.enable_x64(True):
        yield


def problem64(kind: str = "mlp-categorical") -> tuple[Any, Batch]:
    return in_dtype(problem(kind), jnp.float64)


@eqx.filter_jit
def entries(policy: Any, batch: Batch) -> Any:
    direction: Any = diagonal.operator(linearise(policy, batch.obs), batch).direction
    return direction.entries


def flat(tree: Any) -> np.ndarray:
    return np.asarray(trees.ravel(tree)[0])


def conv_problem() -> tuple[Any, Batch]:
    policy = doubled(ConvNet(Conv(1, 2, 3, key=jax.random.key(0)), Dense(8, 3, key=jax.random.key(1))))
    return policy, batch_of(normal(70, 4, 4, 1))  # more rows than are taken at a time, and not a multiple of those


def linear_problem() -> tuple[Any, Batch]:
    return LinearGaussian(normal(2, 3), normal(2)), batch_of(normal(5, 3))


@pytest.mark.parametrize("kind", [*POLICIES, "conv", "linear"])
def test_diagonal_is_the_diagonal_of_F(kind: str) -> None:
    made = {"conv": conv_problem, "linear": linear_problem}
    policy, batch = in_dtype(made[kind](), jnp.float64) if kind in made else problem64(kind)
    local = linearise(policy, batch.obs)
    ours = flat(entries(policy, batch))
    f = np.diag(np.asarray(fisher.operator(local, batch).matrix(local.params)))
    np.testing.assert_allclose(ours, f, rtol=1e-11, atol=1e-15)


def test_diagonal_does_not_see_masked_rows() -> None:
    for policy, batch in (problem64(), conv_problem()):
        masked = batch._replace(weight=batch.weight.at[3].set(0.0))
        spoilt = masked._replace(obs=batch.obs.at[3].set(jnp.nan))
        np.testing.assert_array_equal(flat(entries(policy, spoilt)), flat(entries(policy, masked)))


@pytest.mark.claim("KF3")
@pytest.mark.parametrize("by", [diagonal, kronecker])
def test_preconditioned_conjugate_gradients_give_the_same_solution(by: Any) -> None:
    policy, batch = problem64("mlp-gaussian")

    @eqx.filter_jit
    def solve(damping: Any) -> tuple[Any, ...]:
        local = linearise(policy, batch.obs)
        g = expected_advantage.gradient(local, batch).vector
        operator = Preconditioned(fisher, by=by).operator(local, batch).damped(damping)
        plain = fisher.operator(local, batch).damped(damping)
        solution, exact = ConjugateGradient(100, 1e-12)(operator, g), Direct()(plain, g)
        return solution, exact.x, operator.quadratic(g), plain.quadratic(g)

    solution, exact, length, plain = solve(1e-3)
    assert solution.status == Status.CONVERGED
    np.testing.assert_allclose(flat(solution.x), flat(exact), rtol=1e-8, atol=1e-10)
    assert length == plain


def test_preconditioner_that_cannot_be_inverted_is_refused() -> None:
    policy, batch = problem64()
    with pytest.raises(UsageError, match=r"cheap to invert.*by="):
        Preconditioned(fisher, by=fisher).operator(linearise(policy, batch.obs), batch)


def test_factors_and_preconditioners_go_with_subsampling() -> None:
    policy, batch = problem64()
    probes = Kronecker(rows=Probes(2), decay=0.9, every=2)
    metrics = (
        Subsampled(probes, 0.5),
        Preconditioned(Subsampled(fisher, 0.5), by=Subsampled(kronecker, 0.5)),
        Subsampled(Preconditioned(fisher, by=probes), 0.5),
    )
    for metric in metrics:
        solver = Factored() if metric is metrics[0] else ConjugateGradient(10)
        algorithm = npg(1e-4, metric=metric, solver=solver, damping=1e-2)
        moved, _, info = algorithm.update(policy, algorithm.init(policy), batch)
        assert info.accepted
        np.testing.assert_allclose(info.predicted_kl, 1e-4, rtol=1e-10)  # by F on all rows
        assert abs(float(info.kl) / 1e-4 - 1) < 0.2
        assert not np.array_equal(flat(moved), flat(policy))


def test_acktr_steps_of_delta_by_F_itself() -> None:
    policy, batch = problem64("mlp-gaussian")
    algorithm = acktr(1e-6, damping=0.1)
    moved, _, info = algorithm.update(policy, algorithm.init(policy), batch)
    assert info.reason == Reason.ACCEPTED
    assert info.status == Status.CONVERGED
    assert info.iterations == 0
    np.testing.assert_allclose(info.predicted_kl, 1e-6, rtol=1e-10)
    np.testing.assert_allclose(info.kl, 1e-6, rtol=1e-2)
    blocks, f = matrices(policy, batch)
    step = flat(moved) - flat(policy)
    np.testing.assert_allclose(0.5 * step @ f @ step, 1e-6, rtol=1e-8)
    g = flat(expected_advantage.gradient(linearise(policy, batch.obs), batch).vector)
    x = np.linalg.solve(blocks + 0.1 * np.eye(len(g)), g)
    np.testing.assert_allclose(step / np.linalg.norm(step), x / np.linalg.norm(x), rtol=1e-7, atol=1e-9)


def test_longest_bounds_the_step() -> None:
    policy, batch = problem64()
    free, bound = acktr(1e-2, damping=0.1), acktr(1e-2, damping=0.1, longest=1e-3)
    far, near = (algorithm.update(policy, algorithm.init(policy), batch)[2] for algorithm in (free, bound))
    assert far.step_size > 1e-3
    np.testing.assert_allclose(near.step_size, 1e-3)
    np.testing.assert_allclose(near.predicted_kl, far.predicted_kl * (1e-3 / far.step_size) ** 2, rtol=1e-8)
    with pytest.raises(UsageError, match="longest"):
        Normalised(0.01, longest=0.0)


@pytest.mark.parametrize("kind", ["mlp-categorical", "mlp-gaussian"])
def test_averages_are_those_of_the_factors_and_decomposed_when_due(kind: str) -> None:
    policy, batch = problem64(kind)
    metric = Kronecker(decay=0.7, every=3)
    carried = metric.init(linearise(policy, batch.obs).params)

    @eqx.filter_jit
    def begin(carried: Any, weight: Any, update: Any) -> tuple[Any, Any, Any]:
        now = batch._replace(weight=weight)
        local = linearise(policy, batch.obs)
        begun, carried = metric.begin(carried, Moment(local, now, jax.random.key(0), update))
        direction: Any = kronecker.operator(local, now).direction
        ours, fresh = ([(_dense(b.inputs), _dense(b.outputs)) for b in o.blocks] for o in (begun.blocks, direction))
        return ours, fresh, carried

    rng = np.random.default_rng(0)
    totals, mass, held = None, 0.0, None
    for update in range(5):
        weight = jnp.asarray(rng.dirichlet(np.ones(len(batch.weight))))
        if update == 2:
            weight = weight.at[0].set(jnp.nan)  # is not averaged in
        ours, fresh, carried = begin(carried, weight, jnp.asarray(update))
        if update != 2:
            old = jax.tree.map(jnp.zeros_like, fresh) if totals is None else totals
            totals = jax.tree.map(lambda o, n: 0.7 * o + 0.3 * n, old, fresh)
            mass = 0.7 * mass + 0.3
        if update % 3 == 0:
            held = jax.tree.map(lambda s, m=mass: s / m, totals)
        jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-9, atol=1e-12), ours, held)


def _dense(factor: Any) -> Any:
    return (factor.vectors * factor.values) @ factor.vectors.T


def test_nothing_finite_yet_gives_no_step_and_recovers() -> None:
    policy, batch = problem64()
    algorithm = acktr(1e-3, metric=Kronecker(decay=0.5, every=10), damping=0.1)
    state = algorithm.init(policy)
    huge = batch._replace(obs=batch.obs.at[0].set(jnp.inf))
    same, state, info = algorithm.update(policy, state, huge)
    assert not info.accepted
    np.testing.assert_array_equal(flat(same), flat(policy))
    _, _, info = algorithm.update(policy, state, batch)  # the second of ten, and decomposes all the same
    assert info.accepted


def test_traced_damping_and_every_compile_once_and_state_goes_round() -> None:
    policy, batch = problem64()
    algorithm = acktr(
        1e-3, metric=Kronecker(rows=Probes(2), decay=0.9, every=3), damping=LevenbergMarquardt(initial=0.1)
    )
    compiled = 0

    @eqx.filter_jit
    def update(policy: Any, state: Any, key: Any) -> tuple[Any, Any, Any]:
        nonlocal compiled
        compiled += 1
        return algorithm.update(policy, state, batch, key)

    keys = list(jax.random.split(jax.random.key(0), 7))
    state, dampings, gain = algorithm.init(policy), [], 0.0
    middle = None
    for i, key in enumerate(keys):
        if i == 4:
            leaves, structure = jax.tree.flatten((policy, state))
            middle = jax.tree.unflatten(structure, [jnp.asarray(np.asarray(x).copy()) for x in leaves])
        policy, state, info = update(policy, state, key)
        assert info.accepted
        dampings.append(float(info.damping))
        gain += float(info.improvement)
    assert compiled == 1
    assert len(set(dampings)) > 1
    assert gain > 0
    assert middle is not None
    other, kept = middle
    for key in keys[4:]:
        other, kept, _ = update(other, kept, key)
    jax.tree.map(np.testing.assert_array_equal, (other, kept), (policy, state))


def test_state_of_no_memory_is_empty() -> None:
    policy, _ = problem64()
    assert isinstance(acktr(), Algorithm)
    assert acktr().init(policy).parts["metric"] == ()
    assert acktr().name == "acktr"


def test_trust_region_takes_a_preconditioner() -> None:
    policy, batch = problem64()
    infos = []
    for metric in (fisher, Preconditioned(fisher, by=kronecker)):
        algorithm = trpo(1e-3, metric=metric, damping=1e-3, solver=ConjugateGradient(3))
        infos.append(algorithm.update(policy, algorithm.init(policy), batch)[2])
    assert all(info.accepted for info in infos)
    assert infos[1].residual < infos[0].residual
