"""Reparameterised policies: what they are, what is refused, and how gradients and gradient descent see coordinates."""

from __future__ import annotations

import itertools
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import steepest as st
from finite_problems import assert_close, flat
from steepest import parameters, trees
from steepest.algorithms import policy_path
from steepest.geometry import reparameterise, reparameterise_by
from steepest.policies import MlpGaussian
from steepest.worlds.finite import random as random_mdp

MDP = random_mdp(3, 2, 4, 0)
RNG = np.random.default_rng(5)
THETA = RNG.normal(size=6)
TABLE = st.TabularSoftmax(THETA.reshape(3, 2))
OFFSET = RNG.normal(size=6)


def mixing(size: int, condition: float, seed: int = 1) -> np.ndarray:
    """A dense matrix with singular values from `condition` to 1, which mixes the parameters of all states."""
    u, _, vt = np.linalg.svd(np.random.default_rng(seed).normal(size=(size, size)))
    return u @ np.diag(np.geomspace(condition, 1.0, size)) @ vt


MATRIX = mixing(6, 10.0)


class TestContract:
    def test_the_behaviour_is_the_same_and_phi_is_the_inverse_image(self) -> None:
        policy = reparameterise(TABLE, MATRIX, OFFSET)
        assert_close(policy.phi, np.linalg.solve(MATRIX, THETA - OFFSET), rtol=1e-13)
        assert_close(MDP.probabilities(policy), MDP.probabilities(TABLE), rtol=1e-14)
        assert [leaf.shape for leaf in jax.tree.leaves(parameters.split(policy)[0])] == [(6,)]  # A and b are frozen
        assert np.asarray(policy.phi).dtype == np.float64

    def test_in_theta_is_the_policy_that_it_was(self) -> None:
        policy = reparameterise(TABLE, MATRIX, OFFSET)
        with jax.enable_x64(True):
            seen = policy.in_theta()
        assert type(seen) is st.TabularSoftmax
        assert_close(np.asarray(seen.logits), TABLE.logits, rtol=1e-14)

    def test_fewer_and_more_coordinates_than_parameters(self) -> None:
        line = reparameterise(TABLE, [[1.0], [0.0], [2.0], [0.0], [0.0], [0.0]], THETA)
        assert line.phi.tolist() == [0.0]
        assert_close(MDP.gradient(line).phi, MDP.gradient(TABLE).logits.ravel()[[0, 2]] @ [[1.0], [2.0]], rtol=1e-12)
        twice = reparameterise(TABLE, np.hstack([np.eye(6), np.eye(6)]))
        assert_close(twice.phi, np.concatenate([THETA, THETA]) / 2, rtol=1e-14)
        steps = [policy_path([st.improve(p, MDP, st.npg())[0]], MDP) for p in (twice, TABLE)]
        assert_close(steps[0], steps[1], rtol=1e-12)

    def test_what_is_not_theta_stays_and_any_policy_will_do(self) -> None:
        features = RNG.normal(size=(3, 2, 2))
        linear = st.LogLinearSoftmax(np.array([0.3, -0.7]), features)
        assert_close(MDP.value(reparameterise(linear, 3.0 * np.eye(2))), MDP.value(linear), rtol=1e-14)
        network = MlpGaussian(3, 2, (4,), key=jax.random.key(0))
        size = trees.size(parameters.split(network)[0])
        again = reparameterise(network, mixing(size, 2.0), np.ones(size))
        assert again.phi.dtype == np.float32
        obs = jnp.ones((5, 3))
        says, said = jax.jit(jax.vmap(again))(obs), jax.vmap(network)(obs)
        assert said.mean.shape == (5, 2)
        np.testing.assert_allclose(says.mean, said.mean, atol=1e-6)

    def test_a_map_is_frozen_also_if_it_has_arrays(self) -> None:
        policy = reparameterise_by(TABLE, st.geometry.Affine(np.eye(6), OFFSET), THETA - OFFSET)
        assert len(jax.tree.leaves(parameters.split(policy)[0])) == 1
        assert_close(MDP.value(policy), MDP.value(TABLE), rtol=1e-14)

    def test_a_table_that_does_not_fit_the_world_is_refused(self) -> None:
        small = reparameterise(st.TabularSoftmax(np.zeros((2, 2))), np.eye(4))
        with pytest.raises(st.UsageError, match=r"shape \[2, 2\].*S=3 states"):
            MDP.value(small)
        with pytest.raises(AttributeError, match="nothing"):
            _ = small.nothing

    @pytest.mark.parametrize(
        ("matrix", "offset", "message"),
        [
            (np.eye(5), None, r"\[P, P'\] with P = 6, as θ has; got \[5, 5\]"),
            (np.ones(6), None, r"got \[6\]"),
            (np.eye(6), np.zeros(5), r"offset must have shape \[6\]"),
            (np.ones((6, 6)), None, "full rank 6.*singular"),
            (np.zeros((6, 6)), None, "full rank 6"),
            (np.where(np.eye(6) > 0, np.nan, 0.0), None, r"matrix\[0, 0\] is nan"),
            (np.eye(6), np.array([0, 0, np.inf, 0, 0, 0]), r"offset\[2\] is inf"),
            ("A", None, "matrix must be an array of real numbers"),
            (np.eye(6)[:, :3], None, r"not in the range of Aφ \+ b: entry 3 is 0"),
        ],
    )
    def test_what_is_no_change_of_coordinates_is_refused(self, matrix: Any, offset: Any, message: str) -> None:
        with pytest.raises(st.UsageError, match=message):
            reparameterise(TABLE, matrix, offset)

    @pytest.mark.parametrize(
        ("map", "start", "message"),
        [
            (np.eye(6), THETA, "function φ ↦ θ, got ndarray"),
            (jnp.tanh, THETA.reshape(3, 2), r"start must have shape \[P'\]"),
            (jnp.sum, THETA, r"must give shape \[6\]"),
            (jnp.sinh, THETA, r"map\(start\) is not the policy's θ: entry 0"),
            (jnp.log, -np.ones(6), r"not the policy's θ: entry 0 is nan"),
            (jnp.sinh, [np.nan] * 6, r"start\[0\] is nan"),
        ],
    )
    def test_what_is_no_map_or_no_start_is_refused(self, map: Any, start: Any, message: str) -> None:
        with pytest.raises(st.UsageError, match=message):
            reparameterise_by(TABLE, map, start)

    def test_a_policy_without_parameters_and_a_path_without_policies_are_refused(self) -> None:
        for nothing in (st.frozen(TABLE), lambda state: None):
            with pytest.raises(st.UsageError, match="nothing to reparameterise"):
                reparameterise(nothing, np.eye(6))
        with pytest.raises(st.UsageError, match="at least one policy"):
            policy_path([], MDP)


@pytest.mark.claim("R5")
def test_R5_no_step_in_the_ball_descends_more() -> None:
    """argmin ∇ℓᵀΔ over ‖Δ‖² ≤ δ is −√δ∇ℓ/‖∇ℓ‖; st.pg ascends V with ½‖Δ‖² ≤ δ, the same with 2δ."""
    g, delta = flat(MDP.gradient(TABLE)), 1e-3
    after, _ = st.improve(TABLE, MDP, st.pg(delta=delta / 2))
    step = flat(after) - THETA
    assert_close(step, np.sqrt(delta) * g / np.linalg.norm(g), rtol=1e-11)
    others = np.random.default_rng(0).normal(size=(1000, 6))
    others *= np.sqrt(delta) / np.linalg.norm(others, axis=1, keepdims=True)
    assert np.max(others @ g) < g @ step


@pytest.mark.claim("R6")
def test_R6_the_gradient_in_phi_is_the_transpose_times_that_in_theta() -> None:
    policy = reparameterise(TABLE, MATRIX, OFFSET)
    assert_close(MDP.gradient(policy).phi, MATRIX.T @ flat(MDP.gradient(TABLE)))
    bent = reparameterise_by(TABLE, jnp.sinh, np.arcsinh(THETA))
    assert_close(MDP.gradient(bent).phi, np.sqrt(1 + THETA**2) * flat(MDP.gradient(TABLE)))


def ascent(policy: Any, steps: int, rate: float = 0.3) -> np.ndarray:
    """θ_t of gradient ascent at a fixed rate in the policy's own coordinates, [steps+1,6]."""
    policies, _ = st.iterate(policy, MDP, st.pg(step=st.Fixed(rate)), steps)
    with jax.enable_x64(True):
        return np.stack([np.ravel(getattr(p, "in_theta", lambda p=p: p)().logits) for p in policies])


@pytest.mark.claim("R7")
def test_R7_descent_in_phi_moves_theta_along_a_a_transposed_times_the_gradient() -> None:
    theta = ascent(reparameterise(TABLE, MATRIX, OFFSET), steps=3)
    for now, later in itertools.pairwise(theta):
        g = flat(MDP.gradient(st.TabularSoftmax(now.reshape(3, 2)))) / MDP.horizon
        assert_close(later - now, 0.3 * MATRIX @ MATRIX.T @ g, rtol=1e-10)


@pytest.mark.claim("R7")
def test_R7_only_an_orthogonal_matrix_leaves_descent_as_it_was_and_b_never_matters() -> None:
    plain = ascent(TABLE, steps=5)
    orthogonal = np.linalg.qr(np.random.default_rng(2).normal(size=(6, 6)))[0]
    assert_close(ascent(reparameterise(TABLE, orthogonal), steps=5), plain)
    assert_close(ascent(reparameterise(TABLE, np.eye(6), OFFSET), steps=5), plain)
    assert_close(ascent(reparameterise(TABLE, MATRIX, OFFSET), steps=5), ascent(reparameterise(TABLE, MATRIX), steps=5))
    for matrix in (MATRIX, 1.01 * np.eye(6)):
        away = ascent(reparameterise(TABLE, matrix), steps=5) - plain
        assert np.max(np.abs(away)) > 1e-3


@pytest.mark.claim("R9")
def test_R9_for_a_nonlinear_map_the_gap_falls_as_the_square_of_the_step() -> None:
    """In θ, as the Fisher matrix of this log-linear policy is not singular, and in policy space."""
    rng = np.random.default_rng(4)
    theta = rng.normal(size=3)
    plain: Any = st.LogLinearSoftmax(theta, rng.normal(size=(3, 2, 3)))
    phi = _root(theta)
    bent: Any = reparameterise_by(plain, lambda phi: jnp.sinh(phi) + 0.3 * jnp.flip(phi) ** 2, phi)
    natural = st.npg(step=st.Fixed(1.0))
    x, y = st.improve(plain, MDP, natural)[0].theta - theta, st.improve(bent, MDP, natural)[0].phi - phi
    parameter_gaps, policy_gaps, rates = [], [], np.array([1e-1, 1e-2, 1e-3])
    for rate in rates:
        straight = eqx.tree_at(lambda p: p.theta, plain, theta + rate * x)
        curved = eqx.tree_at(lambda p: p.phi, bent, phi + rate * y)
        there = policy_path([straight, curved], MDP)
        policy_gaps.append(np.linalg.norm(there[1] - there[0]))
        with jax.enable_x64(True):
            parameter_gaps.append(np.linalg.norm(np.asarray(curved.in_theta().theta) - straight.theta))
    for gaps in (parameter_gaps, policy_gaps):
        slope = np.diff(np.log(gaps)) / np.diff(np.log(rates))
        np.testing.assert_allclose(slope, 2.0, atol=0.05)


def _root(theta: np.ndarray) -> np.ndarray:
    """φ with sinh φ + 0.3 (reversed φ)² = θ, by Newton's method."""
    phi = np.arcsinh(theta)
    for _ in range(50):
        slope = np.diag(np.cosh(phi)) + np.fliplr(np.diag(0.6 * phi[::-1]))
        phi = phi - np.linalg.solve(slope, np.sinh(phi) + 0.3 * phi[::-1] ** 2 - theta)
    return phi
