"""Solvers against NumPy on small dense problems, and what they do where there is no good answer."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as hs

from steepest import trees
from steepest.errors import UsageError
from steepest.linear import Automatic, ConjugateGradient, Dense, Direct, Gram, Identity, SampleSpace, Status


def gram(s: np.ndarray) -> Gram:
    """SᵀS on vectors {"a": [1], "b": [P-1]}: a pytree whose flat order is that of S's columns."""
    matrix = jnp.asarray(s)
    return Gram(
        lambda v: matrix @ jnp.concatenate([v["a"], v["b"]]),
        lambda y: {"a": (matrix.T @ y)[:1], "b": (matrix.T @ y)[1:]},
    )


def tree(x: np.ndarray) -> dict:
    return {"a": jnp.asarray(x[:1]), "b": jnp.asarray(x[1:])}


def flat(x: dict) -> np.ndarray:
    return np.asarray(trees.ravel(x)[0])


def problem(rows: int, columns: int, rank: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(rows, rank)) @ rng.normal(size=(rank, columns)), rng.normal(size=rows)


@pytest.mark.parametrize("rank", [3, 6])
@pytest.mark.parametrize("rows", [4, 9])
@settings(max_examples=8, deadline=None)
@given(seed=hs.integers(0, 2**31))
def test_every_solver_agrees_with_the_pseudo_inverse(rows: int, rank: int, seed: int) -> None:
    s, y = problem(rows, 6, min(rank, rows), seed)
    sigma = np.linalg.svd(s, compute_uv=False)[: min(rank, rows)]
    if sigma[-1] < 1e-2 * sigma[0]:
        return  # conjugate gradients need more than rank(S) products there: Hypothesis finds such S
    b = s.T @ y
    expected = np.linalg.pinv(s.T @ s, rcond=1e-10) @ b
    with jax.enable_x64(True):
        for solver in (Direct(), SampleSpace(), ConjugateGradient(12, tolerance=1e-14)):
            solution = solver(gram(s), tree(b), jnp.asarray(y))
            np.testing.assert_allclose(flat(solution.x), expected, rtol=1e-7, atol=1e-8 * np.abs(expected).max())
            assert float(solution.residual) < 1e-9
        dense = Direct()(Dense(jnp.asarray(s.T @ s)), tree(b))
        np.testing.assert_allclose(flat(dense.x), expected, rtol=1e-6, atol=1e-7 * np.abs(expected).max())


@settings(max_examples=8, deadline=None)
@given(seed=hs.integers(0, 2**31), damping=hs.sampled_from([1e-3, 0.1, 10.0]))
def test_damped_solvers_agree_with_numpy(seed: int, damping: float) -> None:
    s, y = problem(4, 6, 4, seed)
    b = s.T @ y
    expected = np.linalg.solve(s.T @ s + damping * np.eye(6), b)
    with jax.enable_x64(True):
        for solver in (Direct(), SampleSpace(), ConjugateGradient(30, tolerance=1e-14)):
            solution = solver(gram(s).damped(damping), tree(b), jnp.asarray(y))
            np.testing.assert_allclose(flat(solution.x), expected, rtol=1e-7, atol=1e-9)


def test_dense_forms_are_the_products() -> None:
    s, _ = problem(4, 6, 4, 0)
    with jax.enable_x64(True):
        operator = gram(s).damped(0.5)
        like = tree(np.zeros(6))
        np.testing.assert_allclose(operator.matrix(like), s.T @ s + 0.5 * np.eye(6), atol=1e-12)
        np.testing.assert_allclose(operator.kernel(like), s @ s.T + 0.5 * np.eye(4), atol=1e-12)
        np.testing.assert_allclose(operator.factor(like), s, atol=1e-12)
        v = np.arange(6.0)
        np.testing.assert_allclose(float(operator.quadratic(tree(v))), v @ (s.T @ s) @ v + 0.5 * v @ v)
        np.testing.assert_allclose(Identity(0.5).matrix(like), 1.5 * np.eye(6))


def test_the_automatic_solver_is_direct_up_to_1000_parameters_and_hands_on_what_it_was_given() -> None:
    """Its rule, λ = 0 and the dual: with one, the null space of S is not asked what b was."""
    s, y = problem(3, 6, 3, 1)
    with jax.enable_x64(True):
        small = Automatic(7)(gram(s), tree(s.T @ y), jnp.asarray(y))
        np.testing.assert_array_equal(flat(small.x), flat(Direct()(gram(s), tree(s.T @ y), jnp.asarray(y)).x))
        assert int(small.iterations) == 0
        values = jnp.linspace(0.1, 1.0, 1001)
        operator = Gram(lambda v: jnp.sqrt(values) * v, lambda y: jnp.sqrt(values) * y)
        assert int(Automatic(7)(operator, jnp.ones(1001)).iterations) == 7
        head = Gram(lambda v: jnp.sqrt(values[:1000]) * v, lambda y: jnp.sqrt(values[:1000]) * y)
        assert int(Automatic(7)(head, jnp.ones(1000)).iterations) == 0


def test_direct_solvers_report_the_residual_of_the_damped_system() -> None:
    s, y = problem(4, 6, 4, 0)
    with jax.enable_x64(True):
        for solver in (Direct(), SampleSpace()):
            assert float(solver(gram(s).damped(10.0), tree(s.T @ y), jnp.asarray(y)).residual) < 1e-12


def test_every_operator_is_one_matrix_in_all_its_forms() -> None:
    """Product, quadratic form and matrix, with λ; another λ replaces the first."""
    s, _ = problem(4, 6, 4, 0)
    v = np.arange(1.0, 7.0)
    with jax.enable_x64(True):
        for operator, bare in ((Identity(), np.eye(6)), (Dense(jnp.asarray(s.T @ s)), s.T @ s), (gram(s), s.T @ s)):
            for damped, dense in (
                (operator, bare),
                (operator.damped(0.5), bare + 0.5 * np.eye(6)),
                (operator.damped(3.0).damped(0.5), bare + 0.5 * np.eye(6)),
            ):
                np.testing.assert_allclose(flat(damped(tree(v))), dense @ v, rtol=1e-12)
                np.testing.assert_allclose(float(damped.quadratic(tree(v))), v @ dense @ v, rtol=1e-12)
                np.testing.assert_allclose(damped.matrix(tree(v)), dense, atol=1e-12)


@pytest.mark.parametrize("root", [1e-7, 1e-20])
def test_a_rare_state_is_not_cut_off(root: float) -> None:
    """Two blocks, one of weight root², below a global cut-off in SᵀS, and for 1e-20 in S: both are solved, null
    directions at 0."""
    block = np.array([[1.0, -1.0], [-1.0, 1.0]])
    s = np.block([[block, np.zeros((2, 2))], [np.zeros((2, 2)), root * block]])
    y = np.array([1.0, -1.0, 1.0, -1.0])
    with jax.enable_x64(True):
        for dual in (None, jnp.asarray(y)):
            x = flat(Direct()(gram(s), tree(s.T @ y), dual).x)
            np.testing.assert_allclose(x, [0.5, -0.5, 0.5 / root, -0.5 / root], rtol=1e-6)


class TestConjugateGradient:
    def test_it_takes_rank_many_products(self) -> None:
        """Pitfall 6: from another start than 0, or with a constant added to a denominator, it would take more."""
        s, y = problem(9, 6, 3, 1)
        with jax.enable_x64(True):
            solution = ConjugateGradient(50, tolerance=1e-9)(gram(s), tree(s.T @ y))
        assert int(solution.iterations) <= 4
        assert Status(int(solution.status)) is Status.CONVERGED

    def test_zero_right_hand_side_is_solved_by_zero(self) -> None:
        """Pitfall 6: started from noise, a peer turns g ≈ 0 into a full step."""
        solution = ConjugateGradient()(gram(np.eye(6)), tree(np.zeros(6)))
        assert Status(int(solution.status)) is Status.CONVERGED
        assert int(solution.iterations) == 0
        assert not flat(solution.x).any()

    def test_arguments_are_not_written_into(self) -> None:
        """Pitfall 6: aliasing in place."""
        s, y = problem(9, 6, 6, 2)
        b = (s.T @ y).astype(np.float32)
        kept = b.copy()
        ConjugateGradient()(gram(s.astype(np.float32)), {"a": b[:1], "b": b[1:]})
        np.testing.assert_array_equal(b, kept)

    def test_negative_curvature_stops_it_and_is_reported(self) -> None:
        """Pitfall 7: abs() around a quadratic form hides it."""
        operator = Dense(jnp.diag(jnp.array([2.0, -1.0, 1.0])))
        solution = ConjugateGradient(10)(operator, jnp.array([1.0, 0.5, 1.0]))
        assert Status(int(solution.status)) is Status.CURVATURE
        assert np.isfinite(np.asarray(solution.x)).all()
        first = ConjugateGradient(10)(operator, jnp.array([0.0, 1.0, 0.0]))
        assert Status(int(first.status)) is Status.CURVATURE
        assert not np.asarray(first.x).any()

    @pytest.mark.parametrize("scale", [2.0**-60, 1.0, 2.0**60])
    def test_float32_at_any_scale_of_g(self, scale: float) -> None:
        """Pitfall 6: a constant added to denominators makes the answer depend on the units of the reward."""
        s, y = problem(20, 6, 6, 3)
        s = s.astype(np.float32)
        b = s.T @ y.astype(np.float32)
        one = ConjugateGradient(6)(gram(s), tree(b))
        other = ConjugateGradient(6)(gram(s), tree((b * np.float32(scale)).astype(np.float32)))
        np.testing.assert_allclose(flat(other.x) / scale, flat(one.x), rtol=1e-6)

    @pytest.mark.parametrize("scale", [2.0**-60, 1.0, 2.0**60])
    def test_pitfall_6_any_scale_of_the_matrix(self, scale: float) -> None:
        """A constant added to pᵀMp shortens the step wherever curvature is small."""
        b = jnp.array([3.0, -1.0, 2.0])
        solution = ConjugateGradient(3)(Dense(scale * jnp.eye(3)), b)
        np.testing.assert_allclose(solution.x * scale, b, rtol=1e-6)

    def test_the_residual_and_the_tolerance_are_norms_not_squares(self) -> None:
        s, y = problem(9, 6, 6, 4)
        b = s.T @ y
        with jax.enable_x64(True):
            for iterations in (1, 3):
                solution = ConjugateGradient(iterations, tolerance=0.0)(gram(s), tree(b))
                assert int(solution.iterations) == iterations
                assert Status(int(solution.status)) is Status.ITERATIONS
                left = np.linalg.norm(b - s.T @ (s @ flat(solution.x))) / np.linalg.norm(b)
                assert float(solution.residual) == pytest.approx(left, rel=1e-9)
            loose = ConjugateGradient(50, tolerance=1e-6)(gram(s), tree(b))
            assert float(loose.residual) <= 1e-6

    @pytest.mark.parametrize("seed", range(4))
    def test_a_singular_matrix_is_not_walked_along_its_null_space(self, seed: int) -> None:
        """Rounding leaves a little curvature where there is none: an absolute test of it lets x grow by 1e7."""
        s, y = problem(20, 6, 3, seed)
        s = s.astype(np.float32)
        b = s.T @ y.astype(np.float32)
        solution = ConjugateGradient(50, tolerance=0.0)(gram(s), tree(b))
        assert Status(int(solution.status)) is Status.CURVATURE
        expected = np.linalg.pinv(np.float64(s).T @ s, rcond=1e-6) @ b
        error = flat(solution.x) - expected
        assert np.linalg.norm(s @ error) < 1e-3 * np.linalg.norm(s @ expected)
        assert np.linalg.norm(error) < 0.05 * np.linalg.norm(expected)

    def test_many_parameters_in_float32(self) -> None:
        """40 000 eigenvalues in [.1, 1], where an absolute curvature test gives up."""
        values = jnp.linspace(0.1, 1.0, 40_000)
        b = jax.random.normal(jax.random.key(0), values.shape)
        operator = Gram(lambda v: jnp.sqrt(values) * v, lambda y: jnp.sqrt(values) * y)
        solution = ConjugateGradient(60, tolerance=1e-6)(operator, b)
        assert Status(int(solution.status)) is Status.CONVERGED
        np.testing.assert_allclose(solution.x, b / values, rtol=2e-4, atol=2e-4)

    @pytest.mark.parametrize("bad", [np.nan, np.inf])
    def test_nothing_returns_nan(self, bad: float) -> None:
        b = jnp.array([1.0, bad, 1.0])
        for solver in (ConjugateGradient(), Direct()):
            solution = solver(Dense(jnp.eye(3)), b)
            assert Status(int(solution.status)) is Status.NONFINITE
            assert np.isfinite(np.asarray(solution.x)).all()
        broken = ConjugateGradient()(Dense(jnp.full((3, 3), bad)), jnp.ones(3))
        assert Status(int(broken.status)) is Status.NONFINITE
        assert np.isfinite(np.asarray(broken.x)).all()

    def test_bad_settings(self) -> None:
        with pytest.raises(UsageError, match="iterations ≥ 1, got 0"):
            ConjugateGradient(0)
        with pytest.raises(UsageError, match="tolerance"):
            ConjugateGradient(tolerance=-1.0)


def test_an_indefinite_matrix_is_said_to_be_singular() -> None:
    solution = Direct()(Dense(jnp.diag(jnp.array([1.0, -3.0])), damping=0.5), jnp.ones(2))
    assert Status(int(solution.status)) is Status.SINGULAR
    assert not np.asarray(solution.x).any()


def test_sample_space_says_what_to_use_instead() -> None:
    solver = SampleSpace(rows=3)
    with pytest.raises(UsageError, match="use ConjugateGradient"):
        solver(Identity(), jnp.ones(3))
    with pytest.raises(UsageError, match=r"dual.*use ConjugateGradient"):
        solver(gram(np.eye(6)), tree(np.ones(6)))
    with pytest.raises(UsageError, match=r"6×6.*use ConjugateGradient"):
        solver(gram(np.eye(6)), tree(np.ones(6)), jnp.ones(6))


def test_the_dual_keeps_float32_accurate() -> None:
    """Sample space at λ = 1e-5 of the mean diagonal, far fewer rows than parameters."""
    rng = np.random.default_rng(5)
    s, y = rng.normal(size=(20, 200)), rng.normal(size=20)
    damping = 1e-5 * float(np.mean(np.sum(s * s, axis=0)))
    expected = s.T @ np.linalg.solve(s @ s.T + damping * np.eye(20), y)
    single = gram(s.astype(np.float32)).damped(damping)
    solution = SampleSpace()(single, tree((s.T @ y).astype(np.float32)), jnp.asarray(y, jnp.float32))
    assert np.linalg.norm(flat(solution.x) - expected) < 1e-5 * np.linalg.norm(expected)
