"""Natural steps do not see coordinates: in policy space they agree for every θ = Aφ + b, as long as nothing is added.

    F_φ = AᵀF_θA        S_φ = S_θA        x_φ = F_φ⁺Aᵀg        S_φ·x_φ = S_θ·x_θ

F = SᵀS of a tabular softmax is singular: what agrees there is SΔ, the step of the behaviour, not Δ.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import enumeration as oracle
import steepest as st
from finite_problems import assert_close, flat
from steepest.algorithms import policy_path
from steepest.geometry import reparameterise
from steepest.worlds.finite import random as random_mdp
from test_reparameterise import mixing

MDP = random_mdp(4, 3, 6, 0)
RNG = np.random.default_rng(3)
LOGITS = RNG.normal(size=(4, 3))
TABULAR = st.TabularSoftmax(LOGITS)
THETA, FEATURES = RNG.normal(size=3), RNG.normal(size=(4, 3, 3))
LINEAR = st.LogLinearSoftmax(THETA, FEATURES)
DELTA = 1e-3
NPG, TRPO = st.npg(DELTA), st.trpo(DELTA, damping=0.0, solver=st.Direct())


def coordinates(size: int) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """A and b: everything mixed, at the condition number that is promised; scales alone; b alone."""
    offset = np.random.default_rng(8).normal(size=size)
    scales = np.diag(np.geomspace(1e-2, 1e1, size))
    return {"mixed": (mixing(size, 1e3), offset), "scales": (scales, 0 * offset), "b alone": (np.eye(size), offset)}


def factor(policy: Any, scores: np.ndarray) -> np.ndarray:
    """S [SA, P], by hand: rows √d(s,a) ψ_sa."""
    return (np.sqrt(MDP.occupancy(policy))[:, :, None] * scores).reshape(-1, scores.shape[2])


def far_apart(actual: np.ndarray, expected: np.ndarray) -> float:
    return float(np.linalg.norm(actual - expected) / np.linalg.norm(expected))


@pytest.mark.claim("R8")
def test_R8_the_fisher_matrix_in_phi_is_that_in_theta_between_a_and_its_transpose() -> None:
    for policy in (LINEAR, TABULAR):
        fisher = MDP.fisher(policy)
        for a, b in coordinates(len(fisher)).values():
            assert_close(MDP.fisher(reparameterise(policy, a, b)), a.T @ fisher @ a, rtol=1e-11)


@pytest.mark.parametrize("algorithm", [NPG, TRPO], ids=["npg", "trpo"])
@pytest.mark.claim("R8")
def test_R8_steps_in_theta_agree_where_the_fisher_matrix_is_not_singular(algorithm: st.Algorithm) -> None:
    assert np.linalg.cond(MDP.fisher(LINEAR)) < 1e4
    plain = flat(st.improve(LINEAR, MDP, algorithm)[0].theta) - THETA
    for a, b in coordinates(3).values():
        policy = reparameterise(LINEAR, a, b)
        after, info = st.improve(policy, MDP, algorithm)
        assert info.accepted
        assert_close(a @ (after.phi - policy.phi), plain, rtol=1e-10)


@pytest.mark.parametrize("algorithm", [NPG, TRPO], ids=["npg", "trpo"])
@pytest.mark.claim("R8")
def test_R8_steps_of_the_behaviour_agree_where_it_is_singular(algorithm: st.Algorithm) -> None:
    s = factor(TABULAR, oracle.tabular_scores(oracle.softmax(LOGITS)))
    plain = s @ (flat(st.improve(TABULAR, MDP, algorithm)[0]) - LOGITS.ravel())
    for a, b in coordinates(12).values():
        policy = reparameterise(TABULAR, a, b)
        after, info = st.improve(policy, MDP, algorithm)
        assert info.accepted
        assert_close(s @ (a @ (after.phi - policy.phi)), plain, rtol=1e-10)


@pytest.mark.claim("R8")
def test_R8_the_pseudo_inverse_is_not_covariant_in_theta() -> None:
    """The step of least norm in φ, seen in θ, is another one: the two differ within the null space alone."""
    a, b = coordinates(12)["mixed"]
    policy = reparameterise(TABULAR, a, b)
    plain = flat(st.improve(TABULAR, MDP, NPG)[0]) - LOGITS.ravel()
    seen = a @ (st.improve(policy, MDP, NPG)[0].phi - policy.phi)
    assert far_apart(seen, plain) > 0.5
    gap = (seen - plain).reshape(4, 3)
    assert_close(gap, np.tile(gap.mean(axis=1, keepdims=True), 3), rtol=1e-9)  # the same for all actions: a null vector


@pytest.mark.claim("R8")
def test_R8_paths_in_policy_space_agree_and_those_of_the_gradient_do_not() -> None:
    a, b = coordinates(12)["mixed"]
    policies = TABULAR, reparameterise(TABULAR, a, b)
    for algorithm, same in ((st.npg(0.05), True), (st.pg(0.05), False)):
        plain, other = (policy_path(st.iterate(p, MDP, algorithm, steps=8)[0], MDP) for p in policies)
        assert plain.shape == (9, 4, 3)
        gap = np.max(np.abs(plain - other), axis=(1, 2))
        assert gap[0] < 1e-13
        assert np.all(gap < 1e-10) if same else np.all(gap[1:] > 0.1)


@pytest.mark.claim("R8")
def test_R8_damping_breaks_it_as_it_is_another_matrix_in_theta() -> None:
    """λI in φ is λ(AAᵀ)⁻¹ in θ: the step is exactly that of this metric, and no more that of θ."""
    damping, (a, b) = 0.1, coordinates(12)["mixed"]
    policy = reparameterise(TABULAR, a, b)
    damped = st.npg(DELTA, damping=damping)
    plain = flat(st.improve(TABULAR, MDP, damped)[0]) - LOGITS.ravel()
    seen = a @ (st.improve(policy, MDP, damped)[0].phi - policy.phi)
    fisher, g = MDP.fisher(TABULAR), flat(MDP.gradient(TABULAR))
    for matrix, step in ((np.eye(12), plain), (np.linalg.inv(a @ a.T), seen)):
        x = np.linalg.solve(fisher + damping * matrix, g)
        assert_close(step, np.sqrt(2 * DELTA / (x @ fisher @ x)) * x, rtol=1e-8)
    s = factor(TABULAR, oracle.tabular_scores(oracle.softmax(LOGITS)))
    assert far_apart(s @ seen, s @ plain) > 0.1


@pytest.mark.claim("R8")
def test_R8_truncated_conjugate_gradients_break_it_and_whole_ones_do_not() -> None:
    a, b = mixing(3, 10.0), np.ones(3)
    policy = reparameterise(LINEAR, a, b)
    for iterations in (2, 3):
        algorithm = st.npg(DELTA, damping=0.0, solver=st.ConjugateGradient(iterations))
        plain = flat(st.improve(LINEAR, MDP, algorithm)[0].theta) - THETA
        seen = a @ (st.improve(policy, MDP, algorithm)[0].phi - policy.phi)
        if iterations < 3:  # F has rank 3
            assert far_apart(seen, plain) > 0.05
        else:
            assert_close(seen, plain, rtol=1e-9)


@pytest.mark.claim("R8")
def test_R8_a_rare_state_moves_as_any_other_where_a_global_cut_off_would_freeze_it() -> None:
    """One step, so that d = ρ and A = r: the natural step in a state does not see how rare it is."""
    reward = [[1.0, 0.0], [1.0, 0.0]]
    mdp = st.FiniteHorizonMDP(np.full((2, 2, 2), 0.5), reward, [1.0 - 1e-20, 1e-20], horizon=1)
    policy = st.TabularSoftmax(np.zeros((2, 2)))
    step = flat(st.improve(policy, mdp, NPG)[0]).reshape(2, 2)
    assert_close(step[1], step[0])
    fisher, g = mdp.fisher(policy), flat(mdp.gradient(policy))
    assert g[2] > 0
    frozen = np.linalg.pinv(fisher, rcond=1e-15, hermitian=True) @ g
    np.testing.assert_allclose(frozen, [0.5, -0.5, 0.0, 0.0], rtol=0, atol=1e-12)


@pytest.mark.claim("R28")
def test_R28_one_null_direction_for_each_state_and_the_exact_gradient_has_no_part_in_them() -> None:
    fisher, g = MDP.fisher(TABULAR), flat(MDP.gradient(TABULAR))
    values, vectors = np.linalg.eigh(fisher)
    assert np.all(np.abs(values[:4]) < 1e-16)
    assert values[4] > 1e-4 * values[-1]
    ones = np.kron(np.eye(4), np.ones((1, 3))) / np.sqrt(3)  # one number added to all logits of a state
    assert_close(vectors[:, :4] @ vectors[:, :4].T, ones.T @ ones)
    assert np.linalg.norm(ones @ g) < 1e-15 * np.linalg.norm(g)


@pytest.mark.claim("R28")
def test_R28_a_sampled_gradient_need_not_lie_in_the_range_of_a_sampled_fisher_matrix() -> None:
    """It does for the matrix of its own samples; for that of other samples, as of a subsample, damping is needed."""
    rng = np.random.default_rng(0)
    scores = oracle.tabular_scores(oracle.softmax(LOGITS))
    drawn = rng.choice(12, size=5, p=MDP.occupancy(TABULAR).ravel())
    psi = scores.reshape(12, 12)[drawn]
    g = rng.normal(size=5) @ psi / 5
    own, other = psi.T @ psi / 5, psi[:2].T @ psi[:2] / 2
    assert _outside(own, g) < 1e-12
    assert _outside(MDP.fisher(TABULAR), g) < 1e-12  # the exact one has every score in its range
    assert _outside(other, g) > 0.1
    x = np.linalg.solve(other + 1e-3 * np.eye(12), g)
    assert_close(other @ x + 1e-3 * x, g, rtol=1e-10)


def _outside(matrix: np.ndarray, g: np.ndarray) -> float:
    """The part of g outside the range of `matrix`, relative."""
    x = np.linalg.pinv(matrix, rcond=1e-12, hermitian=True) @ g
    return float(np.linalg.norm(matrix @ x - g) / np.linalg.norm(g))
