"""The exact finite MDP against enumeration of all trajectories, with JAX's 64-bit switch off, as a script has it."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.flatten_util import ravel_pytree

import enumeration as oracle
from finite_problems import EXACT, Problem, assert_close, every, flat, problem
from steepest import parameters
from steepest.policies import LogLinearSoftmax, TabularSoftmax
from steepest.worlds.finite import (
    FiniteHorizonMDP,
    chain,
    information,
    planning,
    sample_paths,
    two_state,
)
from steepest.worlds.finite import random as random_mdp

pytestmark = pytest.mark.usefixtures("x64_off")


# Occupancy, paths and value


@every
@pytest.mark.claim("R1")
def test_R1_occupancy_is_the_mean_over_steps_and_sums_to_one(p: Problem):
    occupancy = p.mdp.occupancy(p.policy)
    by_definition = sum(row[:, None] * p.table for row in p.mdp.state_distributions(p.policy)) / p.mdp.horizon
    assert_close(occupancy, by_definition)
    assert abs(occupancy.sum() - 1.0) < EXACT


@every
@pytest.mark.claim("R2")
def test_R2_forward_recursion_is_enumeration(p: Problem):
    assert_close(p.mdp.state_distributions(p.policy), oracle.state_distributions(p.mdp, p.table))
    assert_close(p.mdp.occupancy(p.policy), oracle.occupancy(p.mdp, p.table))


@pytest.mark.claim("R2")
def test_R2_forward_recursion_is_enumeration_of_the_largest_world_tried():
    p = problem(3, 3, 4, 4, "tabular")
    assert_close(p.mdp.occupancy(p.policy), oracle.occupancy(p.mdp, p.table))


@pytest.mark.claim("R2")
def test_R2_monte_carlo_error_shrinks_as_the_root_of_the_paths():
    p = problem(3, 3, 4, 4, "tabular")
    exact, rng, repeats = p.mdp.occupancy(p.policy), np.random.default_rng(0), 64
    counts = [128, 512, 2048, 8192]
    errors = []
    for count in counts:
        squares = []
        for _ in range(repeats):
            states, actions, _ = sample_paths(p.mdp, p.policy, count, rng)
            seen = np.bincount((states * 3 + actions).ravel(), minlength=9).reshape(3, 3) / states.size
            squares.append(np.sum((seen - exact) ** 2))
        errors.append(np.sqrt(np.mean(squares)))
    slope = np.polyfit(np.log(counts), np.log(errors), 1)[0]
    assert abs(slope + 0.5) < 0.05


@every
@pytest.mark.claim("R3")
def test_R3_path_probabilities_sum_to_one_and_are_those_of_the_sampler(p: Problem):
    every_path = list(oracle.paths(p.mdp, p.table))
    probability = np.array([path.probability for path in every_path])
    assert abs(probability.sum() - 1.0) < EXACT
    count = 20_000
    states, actions, rewards = sample_paths(p.mdp, p.policy, count, np.random.default_rng(1))
    assert states.shape == actions.shape == rewards.shape == (count, p.mdp.horizon)
    index = {(path.states, path.actions): k for k, path in enumerate(every_path)}
    seen = np.zeros(len(every_path))
    for s, a in zip(states.tolist(), actions.tolist(), strict=True):
        seen[index[tuple(s), tuple(a)]] += 1
    z = (seen - count * probability) / np.sqrt(count * probability * (1 - probability) + 1)
    assert np.max(np.abs(z)) < 5.0
    total = np.array([path.total for path in every_path])
    assert abs(rewards.sum() - seen @ total) < 1e-8 * count


@every
@pytest.mark.claim("R4")
def test_R4_value_is_enumeration_and_horizon_times_the_mean_reward(p: Problem):
    value = p.mdp.value(p.policy)
    assert_close(value, oracle.value(p.mdp, p.table))
    visits = p.mdp.state_distributions(p.policy)[:, :, None] * p.table
    assert_close(value, np.sum(visits * p.mdp.reward))
    if p.mdp.reward.ndim == 2:
        assert_close(value, p.mdp.horizon * np.sum(p.mdp.occupancy(p.policy) * p.mdp.reward))


@every
@pytest.mark.claim("R4")
def test_R4_action_values_are_conditional_means_of_enumerated_paths(p: Problem):
    q = p.mdp.action_values(p.policy)
    assert_close(q, oracle.action_values(p.mdp, p.table))
    assert_close(p.mdp.advantages(p.policy), q - np.sum(q * p.table, axis=-1, keepdims=True))


@every
@pytest.mark.claim("R4")
def test_R4_optimal_value_bounds_every_policy_and_is_attained(p: Problem):
    best, plan = p.mdp.optimal()
    assert_close(p.mdp.value(plan), best)
    assert plan.shape == (p.mdp.horizon, p.mdp.states)
    rng = np.random.default_rng(0)
    for _ in range(20):
        table = rng.dirichlet(np.full(p.mdp.actions, 0.3), size=(p.mdp.horizon, p.mdp.states))
        assert p.mdp.value(table) <= best + EXACT
    assert p.mdp.value(p.policy) <= best


@pytest.mark.claim("R4")
def test_R4_optimal_value_is_the_best_of_all_enumerated_plans():
    p = problem(2, 2, 4, 0, "tabular")
    plans = [np.reshape(plan, (4, 2)) for plan in itertools.product(range(2), repeat=8)]
    assert_close(p.mdp.optimal()[0], max(p.mdp.value(plan) for plan in plans))


@every
@pytest.mark.claim("R4")
def test_R4_best_stationary_policy_is_that_of_enumeration(p: Problem):
    best, plan = p.mdp.optimal(stationary=True)
    values = {
        actions: oracle.value(p.mdp, np.eye(p.mdp.actions)[list(actions)])
        for actions in itertools.product(range(p.mdp.actions), repeat=p.mdp.states)
    }
    assert tuple(plan) == max(values, key=lambda actions: values[actions])
    assert_close(best, values[tuple(plan)])
    assert_close(p.mdp.value(plan), best)


@pytest.mark.claim("R4")
def test_R4_the_enumeration_of_stationary_policies_goes_in_chunks(monkeypatch: pytest.MonkeyPatch):
    mdp = problem(3, 3, 3, 3, "tabular").mdp
    best, plan = mdp.optimal(stationary=True)
    monkeypatch.setattr(planning, "_CHUNK_ENTRIES", 45)  # 5 policies at a time, of 27
    chunked, same = mdp.optimal(stationary=True)
    assert_close(chunked, best)
    assert np.array_equal(same, plan)


def investment(horizon: int) -> FiniteHorizonMDP:
    """State 0: take 1, or invest: nothing now, 3 in the next step. An investment in the last step is lost."""
    transition = np.zeros((2, 2, 2))
    transition[0, 0, 0] = transition[0, 1, 1] = transition[1, :, 0] = 1.0
    return FiniteHorizonMDP(transition, [[1.0, 0.0], [3.0, 3.0]], [1.0, 0.0], horizon)


@pytest.mark.claim("R4")
def test_R4_a_stationary_policy_is_a_restriction_in_a_finite_horizon():
    assert investment(5).optimal()[0] == 7.0  # 0 3 0 3 1
    assert investment(5).optimal(stationary=True)[0] == 6.0  # 0 3 0 3 0


@pytest.mark.claim("R4")
def test_R4_an_optimal_plan_knows_what_time_it_is():
    best, plan = investment(4).optimal()
    assert plan[:, 0].tolist() == [1, 0, 1, 0]
    assert investment(4).value(plan) == best == 6.0


# KL between paths


@every
@pytest.mark.claim("R10")
def test_R10_initial_and_transition_cancel_in_the_log_ratio(p: Problem):
    far = oracle.paths(p.mdp, p.far)
    for x, y in zip(oracle.paths(p.mdp, p.table), far, strict=True):
        steps = sum(np.log(p.table[s, a] / p.far[s, a]) for s, a in zip(x.states, x.actions, strict=True))
        assert abs(np.log(x.probability / y.probability) - steps) < EXACT * (1 + abs(steps))


@every
@pytest.mark.claim("R11")
def test_R11_path_kl_is_horizon_times_the_mean_log_ratio_also_far_away(p: Problem):
    kl = p.mdp.trajectory_kl(p.policy, p.other)
    assert kl > 0.5
    assert_close(kl, oracle.path_kl(p.mdp, p.table, p.far))
    mean = np.sum(p.mdp.occupancy(p.policy) * np.log(p.table / p.far))
    assert_close(kl / p.mdp.horizon, mean)


@every
@pytest.mark.claim("R12")
def test_R12_path_kl_is_zero_at_itself_and_positive_elsewhere(p: Problem):
    assert p.mdp.trajectory_kl(p.policy, p.policy) == 0.0
    assert p.mdp.trajectory_kl(p.other, p.policy) > 0.0


@pytest.mark.claim("R12")
def test_R12_path_kl_keeps_its_digits_when_it_is_small():
    p = problem(3, 3, 3, 3, "tabular")
    direction = np.random.default_rng(0).normal(size=(3, 3))
    quadratic = 0.5 * direction.ravel() @ p.mdp.trajectory_fisher(p.policy) @ direction.ravel()
    near = TabularSoftmax(p.policy.logits + 1e-7 * direction)
    assert_close(p.mdp.trajectory_kl(p.policy, near) / 1e-14, quadratic, rtol=1e-5)


def loss(p: Problem):
    """ℓ(θ) = KL(Pr^{θ0}‖Pr^θ)/H as a traceable function of the flat θ, and θ0; call it under x64."""
    base = parameters.cast(p.policy, jnp.float64)
    params, rest = parameters.split(base)
    theta, unravel = ravel_pytree(params)

    def ell(theta: jax.Array) -> jax.Array:
        policy = parameters.merge(unravel(theta), rest)
        return information.trajectory_kl(p.mdp.tables, base, policy) / p.mdp.horizon

    def logits(theta: jax.Array) -> jax.Array:
        return jax.vmap(parameters.merge(unravel(theta), rest))(jnp.arange(p.mdp.states)).logits

    return ell, logits, theta


@every
@pytest.mark.claim("R13")
def test_R13_gradient_of_path_kl_is_zero_and_the_score_has_mean_zero(p: Problem):
    with jax.enable_x64(True):
        ell, logits, theta = loss(p)
        slope = jax.jit(jax.grad(ell))(theta)
        score = jax.jit(jax.jacobian(lambda t: jax.nn.log_softmax(logits(t))))(theta)
        mean = np.einsum("sa,sap->sp", p.table, score)
    assert np.max(np.abs(slope)) < 1e-14
    assert np.max(np.abs(mean)) < 1e-14
    assert_close(score, p.scores)


@every
@pytest.mark.claim("R14")
def test_R14_second_derivatives_of_probabilities_sum_to_zero(p: Problem):
    with jax.enable_x64(True):
        _, logits, theta = loss(p)
        pi = np.asarray(jax.nn.softmax(logits(theta)))[..., None, None]
        first = np.asarray(jax.jit(jax.jacobian(lambda t: jax.nn.softmax(logits(t))))(theta))
        second = np.asarray(jax.jit(jax.hessian(lambda t: jax.nn.softmax(logits(t))))(theta))
        log_second = np.asarray(jax.jit(jax.hessian(lambda t: jax.nn.log_softmax(logits(t))))(theta))
    assert np.max(np.abs(second.sum(axis=1))) < 1e-14
    assert_close(log_second, second / pi - first[..., :, None] * first[..., None, :] / pi**2)


@every
@pytest.mark.claim("R15")
def test_R15_hessian_of_path_kl_is_the_fisher_in_four_ways(p: Problem):
    fisher = p.mdp.fisher(p.policy)
    outer = np.einsum("sa,sap,saq->pq", oracle.occupancy(p.mdp, p.table), p.scores, p.scores)
    assert_close(fisher, outer)
    with jax.enable_x64(True):
        ell, logits, theta = loss(p)
        hessian = np.asarray(jax.jit(jax.hessian(ell))(theta))
        jacobian = np.asarray(jax.jit(jax.jacobian(logits))(theta))
        slope = jax.jit(jax.grad(ell))
        step = 1e-5 * np.eye(theta.size)
        differences = np.stack([np.asarray(slope(theta + e) - slope(theta - e)) / 2e-5 for e in step])
    assert_close(hessian, fisher)
    inner = np.eye(p.mdp.actions) * p.table[:, None] - p.table[:, :, None] * p.table[:, None]
    weight = p.mdp.occupancy(p.policy).sum(axis=1)
    assert_close(np.einsum("s,sip,sij,sjq->pq", weight, jacobian, inner, jacobian), fisher)
    assert_close(differences, fisher, rtol=1e-8)


# Fisher of the path


@every
@pytest.mark.claim("R16")
def test_R16_path_fisher_is_the_second_moment_of_enumerated_scores(p: Problem):
    probability, _, score = oracle.path_scores(p.mdp, p.table, p.scores)
    assert_close(p.mdp.trajectory_fisher(p.policy), np.einsum("n,np,nq->pq", probability, score, score))


@every
@pytest.mark.claim("R16")
def test_R16_path_fisher_is_horizon_times_fisher(p: Problem):
    assert_close(p.mdp.trajectory_fisher(p.policy), p.mdp.horizon * p.mdp.fisher(p.policy))


@pytest.mark.claim("R16")
def test_R16_the_path_recursion_carries_the_cross_terms_that_vanish():
    # "scores" that are no scores (their mean is not zero) have cross terms, and they are counted
    p = problem(2, 2, 4, 0, "tabular")
    false = p.scores + 0.3
    probability, _, total = oracle.path_scores(p.mdp, p.table, false)
    second = np.einsum("n,np,nq->pq", probability, total, total)
    with jax.enable_x64(True):
        assert_close(information.second_moment(p.mdp.tables, jnp.asarray(p.table), jnp.asarray(false)), second)


@pytest.mark.claim("R16")
def test_R16_discounted_start_state_reading():
    # every step survives with probability γ; an absorbing state without a score stands for the end
    gamma, rng = 0.6, np.random.default_rng(0)
    alive = random_mdp(3, 2, 80, 0)
    transition = np.zeros((4, 2, 4))
    transition[:3, :, :3], transition[:3, :, 3], transition[3, :, 3] = gamma * alive.transition, 1 - gamma, 1.0
    features = np.zeros((4, 2, 3))
    features[:3] = rng.normal(size=(3, 2, 3))
    mdp = FiniteHorizonMDP(transition, np.zeros((4, 2)), [*alive.initial, 0.0], 80)
    theta = rng.normal(size=3)
    policy = oracle.softmax(features @ theta)
    chain_matrix = np.einsum("sa,sat->st", policy[:3], alive.transition)
    discounted = (1 - gamma) * alive.initial @ np.linalg.inv(np.eye(3) - gamma * chain_matrix)
    scores = oracle.log_linear_scores(policy, features)[:3]
    fisher = np.einsum("s,sa,sap,saq->pq", discounted, policy[:3], scores, scores)
    assert_close(mdp.trajectory_fisher(LogLinearSoftmax(theta, features)), fisher / (1 - gamma))


def sigmoid_policy() -> LogLinearSoftmax:
    """One parameter a state, π(stay) = .8 in i and .1 in j: the start of Kakade's second experiment."""
    features = np.zeros((2, 2, 2))
    features[0, 0, 0] = features[1, 0, 1] = 1.0
    return LogLinearSoftmax(np.log([0.8 / 0.2, 0.1 / 0.9]), features)


@pytest.mark.claim("R16")
def test_R16_path_fisher_per_step_tends_to_kakades_average():
    kakade = np.diag([0.72, 0.09]) * 2 / 11  # = diag(.1309091, .0163636), of the stationary ρ = (9/11, 2/11)
    policy = sigmoid_policy()
    stationary = two_state(7, initial=(9 / 11, 2 / 11))
    assert_close(stationary.fisher(policy), kakade)
    assert_close(stationary.value(policy) / 7, 38 / 55)
    errors = [np.abs(two_state(t).trajectory_fisher(policy) / t - kakade).max() for t in (20, 200)]
    assert 9.5 < errors[0] / errors[1] < 10.5


# Gradient and batch


@every
@pytest.mark.claim("R22")
def test_R22_gradient_is_the_mean_of_return_times_score(p: Problem):
    gradient = p.mdp.gradient(p.policy)
    assert all(leaf.dtype == np.float64 for leaf in jax.tree.leaves(gradient))
    assert jax.tree.structure(gradient) == jax.tree.structure(parameters.split(p.policy)[0])
    probability, total, score = oracle.path_scores(p.mdp, p.table, p.scores)
    assert_close(flat(gradient), np.einsum("n,n,np->p", probability, total, score))


@every
@pytest.mark.claim("R22")
def test_R22_batch_weights_give_the_gradient_over_the_horizon(p: Problem):
    batch = p.mdp.batch(p.policy)
    assert_close(batch.weight[:, None] * batch.action_weight, p.mdp.occupancy(p.policy))
    assert batch.advantage.dtype == batch.weight.dtype == batch.action_weight.dtype == np.float64
    assert batch.obs.dtype == batch.action.dtype == np.int32
    assert batch.action.shape == batch.advantage.shape == (p.mdp.states, p.mdp.actions)
    surrogate = np.einsum("s,sa,sa,sap->p", batch.weight, batch.action_weight, batch.advantage, p.scores)
    assert_close(surrogate, flat(p.mdp.gradient(p.policy)) / p.mdp.horizon)


def test_batch_gives_states_that_are_never_visited_no_weight_and_no_advantage():
    batch = chain(4, 2).batch(TabularSoftmax(np.zeros((4, 2))))
    assert batch.weight[2:].tolist() == [0.0, 0.0]
    assert np.all(batch.advantage[2:] == 0.0)


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
@pytest.mark.claim("R2", "R4", "R11", "R16")
def test_R2_R4_R11_R16_hold_for_any_seed(seed: int):
    p = problem(2, 2, 3, seed, "tabular")
    assert_close(p.mdp.occupancy(p.policy), oracle.occupancy(p.mdp, p.table))
    assert abs(p.mdp.value(p.policy) - oracle.value(p.mdp, p.table)) < EXACT * (1 + np.abs(p.mdp.reward).max())
    assert_close(p.mdp.trajectory_kl(p.policy, p.other), oracle.path_kl(p.mdp, p.table, p.far), rtol=1e-11)
    assert_close(p.mdp.trajectory_fisher(p.policy), 3 * p.mdp.fisher(p.policy))
