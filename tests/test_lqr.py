"""The exact LQR against a brute-force oracle: the whole path as one affine map of its independent noises."""

from __future__ import annotations

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from steepest import parameters
from steepest.algorithms import covariant, improve, iterate, natural_actor_critic, npg, pg, trpo
from steepest.distributions import DiagonalGaussian
from steepest.geometry import Fixed, empirical_fisher, expected_advantage, fisher, linearise, log_probs
from steepest.policies.linear_gaussian import LinearGaussian
from steepest.worlds.lqr import LQR

EXACT = 1e-11


class Path(NamedTuple):
    """States [H+1,n], actions [H,m]."""

    states: np.ndarray
    actions: np.ndarray


class Nonlinear(eqx.Module):
    """K, c and ln σ are nonlinear functions of one θ [7]."""

    theta: Any

    def __call__(self, x) -> DiagonalGaussian:
        theta = jnp.asarray(self.theta)
        gain = jnp.sin(theta[:4]).reshape(2, 2) * jnp.exp(theta[4])
        log_std = jnp.stack([theta[0] * theta[5], jnp.tanh(theta[6])])
        return DiagonalGaussian(gain @ x + theta[4:6] ** 2, log_std)


class Proportional(eqx.Module):
    """u ~ N(Kx, 1)."""

    gain: Any

    def __call__(self, x) -> DiagonalGaussian:
        return DiagonalGaussian(jnp.asarray(self.gain) @ x, jnp.zeros(1))


def positive(rng: np.random.Generator, size: int) -> np.ndarray:
    root = rng.normal(size=(size, size))
    return root @ root.T / size + 0.1 * np.eye(size)


@pytest.fixture(scope="module")
def world() -> LQR:
    rng = np.random.default_rng(1)
    return LQR(
        0.5 * rng.normal(size=(2, 2)),
        rng.normal(size=(2, 2)),
        positive(rng, 2),
        positive(rng, 2),
        positive(rng, 2),
        4,
        initial_mean=rng.normal(size=2),
        initial_covariance=positive(rng, 2),
        final_cost=positive(rng, 2),
    )


@pytest.fixture(scope="module")
def policies() -> list:
    rng = np.random.default_rng(2)
    linear = LinearGaussian(0.4 * rng.normal(size=(2, 2)), [-0.3, 0.2], [0.5, -0.4])
    return [linear, Nonlinear(0.5 * rng.normal(size=7))]


def gains(world: LQR, policy) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """K, c, σ by asking the policy at 0 and the unit vectors, in float64."""
    with jax.enable_x64(True):
        said = [policy(jnp.asarray(x)) for x in (np.zeros(world.states), *np.eye(world.states))]
    offset = np.asarray(said[0].mean)
    return np.stack([np.asarray(d.mean) - offset for d in said[1:]], 1), offset, np.exp(np.asarray(said[0].log_std))


def walk(world: LQR, laws, noises: np.ndarray) -> Path:
    """The path of unit noises (x_0, e_0, ε_0, e_1, …) under laws[h] = (K, c, σ): a loop, no moments."""
    p, n, m = world.problem, world.states, world.actions
    root = np.linalg.cholesky(np.asarray(p.noise))
    x, rest = p.mean + np.linalg.cholesky(p.covariance) @ noises[:n], noises[n:]
    states, actions = [x], []
    for gain, offset, sigma in laws:
        u = gain @ x + offset + sigma * rest[:m]
        x = p.dynamics @ x + p.control @ u + root @ rest[m : m + n]
        rest = rest[m + n :]
        states.append(x)
        actions.append(u)
    return Path(np.stack(states), np.stack(actions))


def cost_of(world: LQR, path: Path) -> float:
    p = world.problem
    running = np.einsum("hi,ij,hj->", path.states[:-1], p.state_cost, path.states[:-1])
    acting = np.einsum("hi,ij,hj->", path.actions, p.control_cost, path.actions)
    return float(running + acting + path.states[-1] @ p.final_cost @ path.states[-1])


def brute_cost(world: LQR, laws) -> float:
    """E[cost] exactly: the path is b + Σ_i ξ_i ℓ_i and the cost c is a quadratic form, so E = c(b) + Σ_i c(ℓ_i)."""
    size = world.states + world.horizon * (world.states + world.actions)
    base = walk(world, laws, np.zeros(size))
    lines = (walk(world, laws, e) for e in np.eye(size))
    return cost_of(world, base) + sum(
        cost_of(world, Path(line.states - base.states, line.actions - base.actions)) for line in lines
    )


def flat(tree) -> np.ndarray:
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)])


def test_the_cost_is_that_of_the_path_as_one_gaussian_and_of_simulation(world, policies):
    rng = np.random.default_rng(3)
    for policy in policies:
        laws = [gains(world, policy)] * world.horizon
        assert world.cost(policy) == pytest.approx(brute_cost(world, laws), rel=EXACT)
        assert world.value(policy) == -world.cost(policy)
        draws = rng.normal(size=(4_000, world.states + world.horizon * (world.states + world.actions)))
        sampled = np.array([cost_of(world, walk(world, laws, row)) for row in draws])
        assert abs(sampled.mean() - world.cost(policy)) < 4 * sampled.std() / np.sqrt(len(sampled))


@pytest.mark.claim("R22")
def test_R22_the_gradient_by_autodiff_is_that_of_the_quadrature_and_of_differences(world, policies):
    for policy in policies:
        batch = world.batch(policy)
        with jax.enable_x64(True):
            local = linearise(parameters.cast(policy, jnp.float64), jnp.asarray(batch.obs))
            theorem = expected_advantage.gradient(local, jax.tree.map(jnp.asarray, batch)).vector
            theorem = world.horizon * flat(theorem)
            params, rest = parameters.split(parameters.cast(policy, jnp.float64))
            theta, unravel = ravel_pytree(params)
            theta = np.asarray(theta)
        gradient = flat(world.gradient(policy))
        np.testing.assert_allclose(theorem, gradient, rtol=1e-10, atol=1e-11)

        def value(point: np.ndarray, unravel=unravel, rest=rest) -> float:
            with jax.enable_x64(True):
                moved = parameters.merge(unravel(jnp.asarray(point)), rest)
            return -brute_cost(world, [gains(world, moved)] * world.horizon)

        step = 1e-5 * np.eye(len(theta))
        differences = [(value(theta + e) - value(theta - e)) / 2e-5 for e in step]
        np.testing.assert_allclose(gradient, differences, rtol=1e-6, atol=1e-6)


@pytest.mark.claim("R15")
def test_R15_fisher_is_the_geometry_s_is_outer_products_is_the_hessian_of_the_path_kl(world, policies):
    for policy in policies:
        exact = world.fisher(policy)
        batch = world.batch(policy)
        with jax.enable_x64(True):
            local = linearise(parameters.cast(policy, jnp.float64), jnp.asarray(batch.obs))
            asked = jax.tree.map(jnp.asarray, batch)
            for metric in (fisher, empirical_fisher):
                operator = metric.operator(local, asked)
                theta, unravel = ravel_pytree(local.params)
                dense = [ravel_pytree(operator(unravel(e)))[0] for e in jnp.eye(len(theta))]
                np.testing.assert_allclose(np.stack(dense), exact, rtol=1e-10, atol=1e-11)
            rest = parameters.split(policy)[1]
            along = np.random.default_rng(5).normal(size=len(theta))
            ahead, behind = (parameters.merge(unravel(theta + t * along), rest) for t in (1e-3, -1e-3))
        # the odd terms cancel: KL(θ+tv) + KL(θ−tv) = t² vᵀGv + O(t⁴), G = H·F
        both = world.trajectory_kl(policy, ahead) + world.trajectory_kl(policy, behind)
        assert both / 1e-6 == pytest.approx(world.horizon * along @ exact @ along, rel=1e-4)


@pytest.mark.claim("R10", "R11")
def test_R11_path_kl_is_the_mean_log_ratio_over_the_nodes(world, policies):
    p, q = policies
    batch = world.batch(p)
    with jax.enable_x64(True):
        mine, other = (jax.vmap(parameters.cast(x, jnp.float64))(jnp.asarray(batch.obs)) for x in (p, q))
        action = jnp.asarray(batch.action)
        ratio = np.asarray(log_probs(mine, action) - log_probs(other, action))
    mean = np.sum(batch.weight[:, None] * batch.action_weight * ratio)
    assert world.trajectory_kl(p, q) == pytest.approx(world.horizon * mean, rel=EXACT)
    assert world.trajectory_kl(p, p) == 0.0


def test_the_batch_is_a_distribution_with_the_moments_of_the_states(world, policies):
    policy = policies[0]
    batch = world.batch(policy)
    assert batch.obs.shape == (4 * 9, 2)
    assert batch.action.shape == (36, 9, 2)
    assert batch.weight.sum() == pytest.approx(1.0, abs=EXACT)
    np.testing.assert_allclose(batch.action_weight.sum(axis=1), 1.0, atol=EXACT)
    np.testing.assert_allclose(np.sum(batch.action_weight * batch.advantage, axis=1), 0.0, atol=1e-10)
    mean, covariance = world.moments(policy)
    for h in range(world.horizon):
        rows = slice(9 * h, 9 * h + 9)
        weight, obs = world.horizon * batch.weight[rows], batch.obs[rows]
        np.testing.assert_allclose(weight @ obs, mean[h], atol=EXACT)
        np.testing.assert_allclose((weight * obs.T) @ obs - np.outer(mean[h], mean[h]), covariance[h], atol=1e-10)
    assert {np.asarray(leaf).dtype for leaf in jax.tree.leaves(batch)} == {np.dtype(np.float64), np.dtype(np.int32)}


def test_advantages_are_what_one_action_changes_of_the_cost(world, policies):
    """Q_h(x,u) = xᵀQx + uᵀRu + the cost of an LQR of H − h − 1 steps that starts in N(Ax + Bu, W)."""
    problem, policy = world.problem, policies[0]
    batch = world.batch(policy)
    for row in (0, 7, 13, 25):
        steps = world.horizon - row // 9 - 1
        now = np.einsum("i,ij,j->", batch.obs[row], problem.state_cost, batch.obs[row])

        def action_cost(u: np.ndarray, row=row, steps=steps, now=now) -> float:
            after = LQR(
                problem.dynamics,
                problem.control,
                problem.state_cost,
                problem.control_cost,
                problem.noise,
                steps,
                initial_mean=problem.dynamics @ batch.obs[row] + problem.control @ u,
                initial_covariance=problem.noise,
                final_cost=problem.final_cost,
            )
            return now + u @ problem.control_cost @ u + after.cost(policy)

        q = -np.array([action_cost(u) for u in batch.action[row]])
        np.testing.assert_allclose(batch.advantage[row], q - batch.action_weight[row] @ q, rtol=1e-9, atol=1e-9)


def test_a_known_state_with_singular_covariance_has_nodes_too():
    world = LQR(0.7, 1, 1, 0, 1, 3, final_cost=1)
    batch = world.batch(LinearGaussian([[-0.5]], [0.0]))
    np.testing.assert_array_equal(batch.obs[:3], 0.0)
    assert np.all(np.isfinite(batch.advantage))


def test_the_riccati_gains_attain_the_optimal_value_and_no_others_do(world):
    best, plan = world.optimal()
    silent = [(gain, np.zeros(2), np.zeros(2)) for gain in plan]
    assert -brute_cost(world, silent) == pytest.approx(best, rel=EXACT)
    rng = np.random.default_rng(4)
    for size in (1e-4, 1e-2, 1.0):
        other = [(gain + size * rng.normal(size=(2, 2)), c, s) for gain, c, s in silent]
        assert -brute_cost(world, other) < best


@pytest.mark.claim("N4")
def test_N4_stationary_riccati_solution():
    world = LQR(0.7, 1, 1, 1, 1, 200)
    p, gain = world.optimal_stationary()
    assert p[0, 0] == pytest.approx(1.2745752, abs=5e-8)
    assert abs(gain[0, 0]) == pytest.approx(0.3922502, abs=5e-8)
    # P = q + a²P − (abP)²/(r + b²P), and the recursion from P_H = 0 gets there
    value = p[0, 0]
    assert value == pytest.approx(1 + 0.49 * value - (0.7 * value) ** 2 / (1 + value), rel=EXACT)
    assert world.optimal()[1][0] == pytest.approx(gain, rel=EXACT)
    assert LQR(0.7, 1, 1, 1, 1, 201).optimal()[0] - world.optimal()[0] == pytest.approx(-value, rel=EXACT)


@pytest.mark.parametrize(
    "algorithm",
    [pg(1e-5), npg(1e-5), npg(1e-5, metric=empirical_fisher), covariant(1e-5), natural_actor_critic(1e-5), trpo(1e-5)],
    ids=["pg", "npg", "npg-empirical", "covariant", "natural-actor-critic", "trpo"],
)
def test_every_method_improves_through_the_exact_batch(world, policies, algorithm):
    policy = policies[1]
    better, info = improve(policy, world, algorithm)
    change = world.value(better) - world.value(policy)
    assert bool(info.accepted)
    assert change > 0
    assert world.horizon * info.predicted_improvement == pytest.approx(change, rel=0.05)
    assert info.kl == pytest.approx(world.trajectory_kl(policy, better) / world.horizon, rel=1e-9)


def test_natural_steps_reach_the_best_gain():
    world = LQR(0.7, 1, 1, 1, 1, 20, initial_covariance=1)
    found, _ = iterate(Proportional(np.array([[0.2]])), world, npg(step=Fixed(0.1)), steps=80)
    assert np.all(np.diff([world.value(policy) for policy in found]) > -1e-12)
    slope = [world.gradient(LinearGaussian([[found[-1].gain[0, 0] + e]], [0.0])).gain[0, 0] for e in (-1e-6, 1e-6)]
    assert slope[0] > 0 > slope[1]


def test_the_surrogate_converges_as_nodes_are_added(world, policies):
    policy = policies[0]
    other = improve(policy, world, npg(0.02))[0]
    gains_by_nodes = []
    for nodes in (3, 7, 15):
        batch = world.batch(policy, nodes=nodes)
        with jax.enable_x64(True):
            old, new = (jax.vmap(parameters.cast(x, jnp.float64))(jnp.asarray(batch.obs)) for x in (policy, other))
            gains_by_nodes.append(float(expected_advantage.gain(old, new, jax.tree.map(jnp.asarray, batch))))
    few, some, many = gains_by_nodes
    assert abs(some - many) < min(abs(few - many), 1e-4 * many)
