"""Lanczos and the history of conjugate gradients, against dense linear algebra in float64."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from steepest import trees
from steepest.errors import UsageError
from steepest.linear import ConjugateGradient, Dense, Diagonal, Gram, Measured, Preconditioned
from steepest.linear.lanczos import lanczos, spectral_density
from steepest.linear.residuals import residual_history


def matrix(size: int, rank: int, seed: int = 0, spread: float = 1.0) -> np.ndarray:
    """SᵀS [size,size] of a given rank, its columns scaled by up to 10^±spread."""
    rng = np.random.default_rng(seed)
    s = rng.normal(size=(rank, size)) * 10 ** rng.uniform(-spread, spread, size)
    return s.T @ s


def tree(x: np.ndarray, dtype: type = np.float64) -> dict:
    """{"a": [2,3], "b": [P-6]}: a pytree whose flat order is that of x."""
    return {"a": jnp.asarray(x[:6].reshape(2, 3), dtype), "b": jnp.asarray(x[6:], dtype)}


def test_full_lanczos_gives_all_eigenvalues_and_the_weights_of_the_start():
    m, v = matrix(12, 20), np.random.default_rng(1).normal(size=12)
    values, vectors = np.linalg.eigh(m)
    with jax.enable_x64(True):
        found = lanczos(Dense(jnp.asarray(m)), tree(v), 12)
    np.testing.assert_allclose(found.values, values, rtol=1e-12, atol=1e-12 * values[-1])
    np.testing.assert_allclose(found.weights, (vectors.T @ v) ** 2 / (v @ v), atol=1e-10)
    assert found.bounds.max() < 1e-10 * values[-1]


def test_the_extreme_ritz_values_converge_and_the_bounds_hold():
    m, v = matrix(60, 80, spread=0.5), np.random.default_rng(2).normal(size=60)
    values = np.linalg.eigvalsh(m)
    with jax.enable_x64(True):
        errors = []
        for iterations in (3, 8, 15, 25):
            found = lanczos(Dense(jnp.asarray(m)), tree(v), iterations)
            errors.append(abs(found.values[-1] - values[-1]) / values[-1])
            nearest = np.abs(found.values[:, None] - values).min(axis=1)
            assert np.all(nearest <= found.bounds + 1e-12 * values[-1])
            assert np.all(np.diff(found.values) >= 0)
    assert np.all(np.diff(errors) <= 1e-14)
    assert errors[0] > 1e-3  # the test could fail: three products are not enough
    assert errors[-1] < 1e-10


@pytest.mark.parametrize("iterations", [1, 3, 6])
def test_the_quadrature_is_exact_up_to_degree_2m_minus_1(iterations):
    m, v = matrix(14, 30), np.random.default_rng(3).normal(size=14)
    m /= np.linalg.norm(m, 2)
    with jax.enable_x64(True):
        found = lanczos(Dense(jnp.asarray(m)), tree(v), iterations)
    v /= np.linalg.norm(v)
    moments = [v @ np.linalg.matrix_power(m, k) @ v for k in range(2 * iterations + 1)]
    ours = [found.weights @ found.values**k for k in range(2 * iterations + 1)]
    np.testing.assert_allclose(ours[:-1], moments[:-1], rtol=1e-11)
    assert abs(ours[-1] / moments[-1] - 1) > 1e-9  # exact no further


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("rank", [0, 1, 3])
def test_low_rank_breaks_down_without_a_nan(rank, dtype):
    m = matrix(10, rank).astype(dtype)
    v = np.random.default_rng(4).normal(size=10)
    with jax.enable_x64(dtype is np.float64):
        found = lanczos(Dense(jnp.asarray(m)), tree(v, dtype), 10)
    scale = max(np.linalg.norm(m, 2), 1e-30)
    assert all(np.isfinite(x).all() for x in found)
    np.testing.assert_allclose(found.weights.sum(), 1, rtol=1e-12)
    np.testing.assert_allclose(
        found.weights @ found.values * (v @ v), v @ m @ v, rtol=2e3 * np.finfo(dtype).eps, atol=1e-30
    )
    large = np.sort(found.values[found.values > 1e-4 * scale])
    np.testing.assert_allclose(large, np.linalg.eigvalsh(m.astype(float))[10 - rank :], rtol=1e3 * np.finfo(dtype).eps)
    if dtype is np.float64:
        assert len(found.values) == rank + 1  # the range, and one direction for all of the null space


def test_float32_stays_finite_and_orthogonal_where_plain_lanczos_makes_ghosts():
    values = np.geomspace(1e-6, 1, 80)
    q, _ = np.linalg.qr(np.random.default_rng(5).normal(size=(80, 80)))
    m = jnp.asarray((q * values) @ q.T, jnp.float32)
    found = lanczos(Dense(m), tree(np.random.default_rng(6).normal(size=80), np.float32), 60)
    assert all(np.isfinite(x).all() for x in found)
    # a copy of the largest eigenvalue appears without reorthogonalisation: here it is found once
    assert np.sum(found.values > 0.97) == 1
    np.testing.assert_allclose(found.values[-8:], values[-8:], rtol=1e-4)


def test_lanczos_stops_before_a_product_that_is_not_finite():
    v = tree(np.ones(10), np.float32)
    assert len(lanczos(Dense(jnp.full((10, 10), jnp.nan)), v, 5).values) == 0
    assert all(len(x) == 0 for x in spectral_density(Dense(jnp.full((10, 10), jnp.nan)), v, 5, 2, jax.random.key(0)))
    with pytest.raises(UsageError, match="norm 0"):
        lanczos(Dense(jnp.eye(10)), tree(np.zeros(10), np.float32), 5)
    with pytest.raises(UsageError, match="iterations ≥ 1, got 0"):
        lanczos(Dense(jnp.eye(10)), v, 0)
    with pytest.raises(UsageError, match="probes ≥ 1, got 0"):
        spectral_density(Dense(jnp.eye(10)), v, 5, 0, jax.random.key(0))


def test_the_spectral_density_counts_eigenvalues():
    with jax.enable_x64(True):
        entries = np.concatenate([np.zeros(60), np.full(30, 0.5), np.full(30, 2.0)])
        operator = Diagonal(tree(entries))
        values, weights = spectral_density(operator, tree(entries), 10, 200, jax.random.key(0))
    assert np.all(np.diff(values) >= 0)
    np.testing.assert_allclose(weights.sum(), 1)
    for value, share in ((0.0, 0.5), (0.5, 0.25), (2.0, 0.25)):
        # the standard error of a share s of 120 coordinates is √(2s(1−s)/120/200), ≤ 0.0046
        assert weights[np.abs(values - value) < 1e-8].sum() == pytest.approx(share, abs=0.014)


@pytest.mark.parametrize("kind", ["dense", "damped", "low rank", "preconditioned", "measured"])
def test_the_residual_history_is_that_of_conjugate_gradient(kind):
    m = matrix(12, 4 if kind == "low rank" else 20, spread=0.3)
    b = m @ np.random.default_rng(7).normal(size=12)
    with jax.enable_x64(True):
        operator = Dense(jnp.asarray(m)).damped(0.0 if kind in ("dense", "low rank") else 0.3)
        if kind in ("preconditioned", "measured"):
            operator = Preconditioned(operator, Diagonal(tree(np.diag(m)), 0.3))
        if kind == "measured":
            operator = Measured(operator, Dense(jnp.eye(12)))
        rhs = tree(b)
        history = np.asarray(residual_history(ConjugateGradient(14, tolerance=1e-12), operator, rhs))
        assert history[0] == 1
        for k in range(1, 15):
            x = ConjugateGradient(k, tolerance=1e-12)(operator, rhs).x
            true = float(trees.norm(trees.subtract(rhs, operator(x))) / trees.norm(rhs))
            assert history[k] == pytest.approx(true, rel=1e-9, abs=1e-14)
    assert history[-1] < 1e-8


def test_the_residual_history_of_a_float32_gram_is_the_true_one():
    s = jnp.asarray(np.random.default_rng(8).normal(size=(5, 30)) * np.geomspace(1, 1e-3, 30), jnp.float32)
    operator = Gram(lambda v: s @ v, lambda y: s.T @ y, damping=1e-5)
    b = s.T @ jnp.ones(5)
    history = np.asarray(residual_history(ConjugateGradient(25, tolerance=0.0), operator, b))
    for k in (1, 3, 5, 25):
        solution = ConjugateGradient(k, tolerance=0.0)(operator, b)
        true = float(trees.norm(b - operator(solution.x)) / trees.norm(b))
        assert history[k] == pytest.approx(true, rel=0.05, abs=1e-6)
    assert np.isfinite(history).all()
    assert np.all(np.asarray(residual_history(ConjugateGradient(3), operator, jnp.zeros(30))) == 0)
    assert np.all(np.asarray(residual_history(ConjugateGradient(3), operator, b.at[0].set(jnp.nan))) == np.inf)
