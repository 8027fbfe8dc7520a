"""SPRING, the solver in sample space that remembers; what it refuses; and when the automatic rule takes it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import steepest as st
from steepest import trees
from steepest.batch import Batch
from steepest.errors import UsageError
from steepest.geometry import Reason, expected_advantage, linearise
from steepest.linear import Automatic, ConjugateGradient, Gram, SampleSpace


def gram(s: Any, damping: Any = 0.0) -> Gram:
    matrix = jnp.asarray(s)
    return Gram(lambda v: matrix @ v, lambda y: matrix.T @ y, damping)


def spring(s: np.ndarray, y: np.ndarray, damping: float, momentum: float, last: np.ndarray) -> np.ndarray:
    """μφ + (SᵀS + λI)⁻¹Sᵀ(y − μSφ), dense; by the pseudo-inverse for λ = 0."""
    left = y - momentum * s @ last
    change = np.linalg.solve(s.T @ s + damping * np.eye(len(last)), s.T @ left) if damping else np.linalg.pinv(s) @ left
    return momentum * last + change


@pytest.mark.parametrize("damping", [0.0, 0.3])
def test_spring_is_its_recursion(damping: float) -> None:
    """Over five problems of its own each, x and the residual of (SᵀS + λI)x = Sᵀy + λμφ."""
    rng = np.random.default_rng(0)
    solver = SampleSpace(momentum=0.9)
    assert solver.remembers
    with jax.enable_x64(True):
        x, expected = jnp.zeros(7), np.zeros(7)
        for _ in range(5):
            s, y = rng.normal(size=(4, 7)), rng.normal(size=4)
            solution = solver(gram(s, damping), jnp.asarray(s.T @ y), jnp.asarray(y), x)
            x, expected = solution.x, spring(s, y, damping, 0.9, expected)
            np.testing.assert_allclose(x, expected, rtol=0, atol=1e-13 * np.abs(expected).max())
            assert float(solution.residual) < 1e-13


def test_without_momentum_nothing_is_remembered() -> None:
    rng = np.random.default_rng(1)
    s, y = rng.normal(size=(4, 7)).astype(np.float32), rng.normal(size=4).astype(np.float32)
    solver = SampleSpace(momentum=0.0)
    assert not solver.remembers
    assert st.npg(solver=solver).init(st.TabularSoftmax(np.zeros((2, 2)))).last is None
    plain = SampleSpace()(gram(s, 0.3), jnp.asarray(s.T @ y), jnp.asarray(y))
    given = solver(gram(s, 0.3), jnp.asarray(s.T @ y), jnp.asarray(y), jnp.full(7, 1e3))
    for a, b in zip(jax.tree.leaves(plain), jax.tree.leaves(given), strict=True):
        np.testing.assert_array_equal(a, b)


def test_spring_is_faster_where_a_batch_says_little() -> None:
    """Consistent least squares in 40 unknowns, columns falling over two decades, 8 of 80 rows a step, 200 steps: with
    μ = 0.99 and steps of 0.1 the error is below two thirds of the best that μ = 0 reaches with steps of 0.1 to 1."""
    rng = np.random.default_rng(2)
    s = rng.normal(size=(80, 40)) * np.logspace(0, -2, 40)
    target = rng.normal(size=40)
    rows = np.array([rng.choice(80, 8, replace=False) for _ in range(200)])

    def error(momentum: float, rate: float) -> float:
        solver = SampleSpace(momentum=momentum)

        def step(carry: Any, chosen: Any) -> Any:
            theta, last = carry
            part = jnp.asarray(s)[chosen]
            y = part @ (target - theta)
            x = solver(gram(part, 1e-3), part.T @ y, y, last).x
            return (theta + rate * x, x), None

        (theta, _), _ = jax.lax.scan(step, (jnp.zeros(40), jnp.zeros(40)), jnp.asarray(rows))
        return float(np.linalg.norm(s @ (np.asarray(theta) - target)) / np.linalg.norm(s @ target))

    with jax.enable_x64(True):
        assert error(0.99, 0.1) < 2 / 3 * min(error(0.0, rate) for rate in (0.1, 0.3, 1.0))


def test_a_direction_that_contradicts_the_gradient_is_refused_and_forgotten() -> None:
    """Where λ is large beside M, x still points to the last advantages when they turn round: bᵀx < 0, θ is kept, and
    φ goes on from there, so that within a few updates steps are taken again."""
    policy = st.MlpCategorical(3, 2, (4,), key=jax.random.key(0))
    rng = np.random.default_rng(3)
    one = np.ones((6, 1), np.float32)
    action = np.array([[0], [1]] * 3)
    obs = rng.normal(size=(6, 3)).astype(np.float32)
    up = Batch(obs, one[:, 0] / 6, action, one, np.where(action == 0, 1.0, -1.0).astype(np.float32), np.arange(6))
    down = up._replace(advantage=-up.advantage)
    solver = SampleSpace(momentum=0.9)
    algorithm = st.npg(1e-6, metric=st.empirical_fisher, solver=solver, damping=10.0)
    state = algorithm.init(policy)
    reasons = []
    for batch in [up] * 8 + [down] * 8:
        before = policy
        policy, state, info = algorithm.update(policy, state, batch)
        reasons.append(Reason(int(info.reason)))
        if reasons[-1] is Reason.SOLVER:
            assert all(bool((a == b).all()) for a, b in zip(*map(jax.tree.leaves, (before, policy)), strict=True))
        assert float(trees.norm(state.last)) > 0
    assert reasons[:8] == [Reason.ACCEPTED] * 8
    refused = reasons[8:].index(Reason.ACCEPTED)
    assert 1 <= refused <= 6
    assert reasons[8:] == [Reason.SOLVER] * refused + [Reason.ACCEPTED] * (8 - refused)
    assert int(state.failures) == 0


def test_on_one_problem_spring_tends_to_a_smaller_damping() -> None:
    """(SᵀS + (1 − μ)λI)x = Sᵀy: bᵀx > 0 in the end, whatever it started from."""
    rng = np.random.default_rng(4)
    s, y = rng.normal(size=(4, 7)), rng.normal(size=4)
    with jax.enable_x64(True):
        rhs, solver = jnp.asarray(s.T @ y), SampleSpace(momentum=0.9)
        again = lambda x, _: (solver(gram(s, 0.3), rhs, jnp.asarray(y), x).x, None)  # noqa: E731
        x, _ = jax.lax.scan(again, -10 * rhs, length=300)
        expected = np.linalg.solve(s.T @ s + 0.03 * np.eye(7), s.T @ y)
        np.testing.assert_allclose(x, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("hidden", "n", "metric", "damping", "expected"),
    [
        (330, 64, st.empirical_fisher, 0.1, SampleSpace()),  # 110 000 parameters and more
        (330, 64, st.empirical_fisher, 0.0, ConjugateGradient(7)),
        (330, 15, st.fisher, 0.1, SampleSpace()),  # k = 8 of them: 120 · 8 ≤ 3√P = 1 002
        (330, 16, st.fisher, 0.1, ConjugateGradient(7)),
        (330, 1_010, st.empirical_fisher, 0.1, ConjugateGradient(7)),
        (330, 64, st.trajectory, 0.1, ConjugateGradient(7)),  # no dual
        (64, 64, st.empirical_fisher, 0.1, ConjugateGradient(7)),
    ],
)
def test_the_automatic_rule(hidden: int, n: int, metric: Any, damping: float, expected: Any) -> None:
    policy = st.MlpGaussian(3, 4, (hidden, hidden), key=jax.random.key(0))
    one = jnp.ones((n, 1))
    batch = Batch(jnp.ones((n, 3)), one[:, 0] / n, jnp.zeros((n, 1, 4)), one, one, jnp.arange(n))
    chosen = []

    def look() -> None:
        local = linearise(policy, batch.obs)
        gradient = expected_advantage.gradient(local, batch)
        operator = metric.operator(local, batch).damped(damping)
        chosen.append(Automatic(7).choice(operator, gradient.vector, metric.dual(local, batch, gradient)))

    jax.eval_shape(look)  # nothing is computed
    assert chosen == [expected]


def test_what_cannot_be_followed_goes_to_conjugate_gradients() -> None:
    size = 110_000
    operator = Gram(lambda v: v[:4], lambda y: jnp.pad(y, (0, size - 4)), 0.1)
    for products in (None, lambda: None):
        chosen = Automatic(7).choice(replace(operator, products=products), jnp.zeros(size), jnp.zeros(4))
        assert chosen == ConjugateGradient(7)


def test_what_it_refuses() -> None:
    for momentum in (-0.1, 1.0, float("nan")):
        with pytest.raises(UsageError, match="momentum"):
            SampleSpace(momentum=momentum)
    size = 2**14
    wide = Gram(lambda v: v[:4097], lambda y: jnp.pad(y, (0, size - 4097)))
    with pytest.raises(UsageError, match=r"4097×16384 factor.*give a damping"):
        SampleSpace()(wide, jnp.zeros(size), jnp.zeros(4097))
