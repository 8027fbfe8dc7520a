"""The discounted and average-reward readings of a finite MDP, against series, eigenvectors and differences."""

from __future__ import annotations

import itertools
from typing import Any

import jax
import numpy as np
import pytest

import enumeration as oracle
import steepest as st
from finite_problems import EXACT, assert_close, flat
from steepest.worlds.finite import AverageMDP, DiscountedMDP, FiniteMDP, chains, information, two_state
from steepest.worlds.finite import random as random_mdp

pytestmark = pytest.mark.usefixtures("x64_off")

GAMMA, S, A = 0.9, 4, 3
RNG = np.random.default_rng(7)
FEATURES, THETA = RNG.normal(size=(S, A, 3)), RNG.normal(size=3)
WORLD = random_mdp(S, A, 5, 11)
POLICY = st.LogLinearSoftmax(THETA, FEATURES)
TABLE = oracle.softmax(FEATURES @ THETA)
SCORES = oracle.log_linear_scores(TABLE, FEATURES)
DISCOUNTED, AVERAGE = WORLD.discounted(GAMMA), WORLD.average()
both = pytest.mark.parametrize("mdp", [DISCOUNTED, AVERAGE], ids=repr)


@pytest.mark.parametrize("rare", [1e-6, 1e-12, 1e-15, 1e-17])
def test_the_batch_keeps_its_digits_where_the_chain_hardly_ever_leaves_a_state(rare: float) -> None:
    """Σ w v A ∇ln π = ∇η, with ∇η by differentiating the elimination."""
    world = two_state().average()
    policy = st.TabularSoftmax(np.array([[0.0, np.log(rare)], [0.0, np.log(rare / 3)]]))
    batch = world.batch(policy)
    weight, table = batch.weight[:, None] * batch.action_weight, batch.action_weight
    by_batch = weight * batch.advantage - table * np.sum(weight * batch.advantage, axis=1, keepdims=True)
    np.testing.assert_allclose(by_batch[:, 1], flat(world.gradient(policy)).reshape(2, 2)[:, 1], rtol=1e-9)


def chain_of(table: np.ndarray) -> np.ndarray:
    return np.einsum("sa,sat->st", table, WORLD.transition)


def stationary(table: np.ndarray) -> np.ndarray:
    """The left eigenvector of the eigenvalue 1."""
    values, vectors = np.linalg.eig(chain_of(table).T)
    vector = np.real(vectors[:, np.argmin(np.abs(values - 1))])
    return vector / vector.sum()


def discounted_value(theta: np.ndarray) -> float:
    """Σ_t γᵗ E[r_t], term by term until the terms vanish."""
    table = oracle.softmax(FEATURES @ theta)
    now, total = WORLD.initial, 0.0
    for t in range(400):
        total += GAMMA**t * np.sum(now[:, None] * table * WORLD.reward)
        now = now @ chain_of(table)
    return total


def average_value(theta: np.ndarray) -> float:
    table = oracle.softmax(FEATURES @ theta)
    return float(np.sum(stationary(table)[:, None] * table * WORLD.reward))


def differences(function: Any, theta: np.ndarray) -> np.ndarray:
    """The gradient by central differences of fourth order, error about 1e-11."""
    step = 1e-3
    out = []
    for e in np.eye(theta.size):
        near, far = (function(theta + k * step * e) - function(theta - k * step * e) for k in (1, 2))
        out.append((8 * near - far) / (12 * step))
    return np.array(out)


# The discounted reading


def test_discounted_visits_and_values_are_the_series():
    visits, now = np.zeros(S), WORLD.initial
    for t in range(400):
        visits += (1 - GAMMA) * GAMMA**t * now
        now = now @ chain_of(TABLE)
    assert_close(DISCOUNTED.state_distribution(POLICY), visits)
    assert_close(DISCOUNTED.occupancy(POLICY), visits[:, None] * TABLE)
    assert_close(DISCOUNTED.value(POLICY), discounted_value(THETA))
    assert_close(np.sum(DISCOUNTED.occupancy(POLICY) * WORLD.reward) / (1 - GAMMA), DISCOUNTED.value(POLICY))
    q = WORLD.reward.copy()
    for _ in range(400):  # value iteration at a fixed policy
        q = WORLD.reward + GAMMA * WORLD.transition @ np.sum(TABLE * q, axis=1)
    assert_close(DISCOUNTED.action_values(POLICY), q)
    assert_close(DISCOUNTED.advantages(POLICY), q - np.sum(TABLE * q, axis=1, keepdims=True))


def test_a_discount_of_zero_is_the_first_reward():
    assert_close(WORLD.discounted(0).value(POLICY), np.sum(WORLD.initial[:, None] * TABLE * WORLD.reward))
    assert_close(WORLD.discounted(0).state_distribution(POLICY), WORLD.initial)


@pytest.mark.claim("R22")
def test_R22_discounted_gradient_is_that_of_the_series_and_of_the_batch():
    gradient = flat(DISCOUNTED.gradient(POLICY))
    assert_close(gradient, differences(discounted_value, THETA), rtol=1e-9)
    assert_close(surrogate(DISCOUNTED), (1 - GAMMA) * gradient)


@pytest.mark.claim("R16")
def test_R16_discounted_fisher_is_that_of_a_path_that_may_end_after_every_step():
    # G of the path that goes on with probability γ, the end being an absorbing state without a score
    horizon = 350
    transition = np.zeros((S + 1, A, S + 1))
    transition[:S, :, :S], transition[:S, :, S], transition[S, :, S] = GAMMA * WORLD.transition, 1 - GAMMA, 1.0
    reward = np.concatenate([WORLD.reward, np.zeros((1, A))])
    ending = st.FiniteHorizonMDP(transition, reward, [*WORLD.initial, 0.0], horizon)
    features = np.concatenate([FEATURES, np.zeros((1, A, 3))])
    policy = st.LogLinearSoftmax(THETA, features)
    assert_close(DISCOUNTED.fisher(POLICY) / (1 - GAMMA), ending.trajectory_fisher(policy))
    assert_close(flat(DISCOUNTED.gradient(POLICY)), flat(ending.gradient(policy)))


# The average reward


def test_average_value_and_visits_are_those_of_the_eigenvector():
    rho = stationary(TABLE)
    assert_close(AVERAGE.state_distribution(POLICY), rho)
    assert_close(AVERAGE.occupancy(POLICY), rho[:, None] * TABLE)
    assert_close(AVERAGE.value(POLICY), average_value(THETA))


def test_average_action_values_are_the_limit_of_sums_above_the_average():
    q = AVERAGE.action_values(POLICY)
    steps = 200
    long = st.FiniteHorizonMDP(WORLD.transition, WORLD.reward, WORLD.initial, steps).action_values(POLICY)[0]
    above = long - steps * AVERAGE.value(POLICY)
    assert_close(above, q, rtol=1e-11)  # the chain forgets in far fewer than 200 steps
    assert abs(np.sum(AVERAGE.occupancy(POLICY) * q)) < EXACT


@pytest.mark.claim("R22")
def test_R22_average_gradient_is_that_of_the_eigenvector_and_of_the_batch():
    gradient = flat(AVERAGE.gradient(POLICY))
    assert_close(gradient, differences(average_value, THETA), rtol=1e-9)
    assert_close(surrogate(AVERAGE), gradient)


@pytest.mark.claim("R16")
def test_R16_average_fisher_is_the_limit_of_the_path_fisher_per_step():
    errors = []
    for horizon in (50, 500):
        path = st.FiniteHorizonMDP(WORLD.transition, WORLD.reward, WORLD.initial, horizon)
        errors.append(np.abs(path.trajectory_fisher(POLICY) / horizon - AVERAGE.fisher(POLICY)).max())
    assert errors[0] / errors[1] == pytest.approx(10, rel=1e-6)
    assert_close(AVERAGE.fisher(POLICY), np.einsum("sa,sap,saq->pq", AVERAGE.occupancy(POLICY), SCORES, SCORES))


def test_the_discounted_reading_tends_to_the_average():
    near, nearer = (WORLD.discounted(gamma) for gamma in (0.999, 0.9999))
    errors = [abs((1 - mdp.gamma) * mdp.value(POLICY) - AVERAGE.value(POLICY)) for mdp in (near, nearer)]
    assert errors[0] / errors[1] == pytest.approx(10, rel=1e-2)


def test_a_state_that_is_hardly_visited_has_all_its_digits():
    leave = np.array([1e-14, 0.25])  # from state 0 and from state 1
    table = np.stack([1 - leave, leave], axis=1)
    rare = two_state().average().state_distribution(table)[1]
    assert rare == pytest.approx(leave[0] / leave.sum(), rel=4e-16)


def test_transient_states_are_visited_never_and_need_no_place_of_their_own():
    for last in range(3):  # the one recurrent state is each in turn
        transition = np.full((3, 1, 3), 1 / 3)
        transition[last] = np.eye(3)[last]
        mdp = AverageMDP(transition, np.arange(3.0)[:, None])
        assert np.array_equal(mdp.state_distribution(np.ones((3, 1))), np.eye(3)[last])
        assert mdp.value(np.ones((3, 1))) == last


# Both


def surrogate(mdp: FiniteMDP) -> np.ndarray:
    batch = mdp.batch(POLICY)
    assert batch.obs.dtype == batch.action.dtype == np.int32
    return np.einsum("s,sa,sa,sap->p", batch.weight, batch.action_weight, batch.advantage, SCORES)


@both
def test_the_natural_step_is_exact(mdp: FiniteMDP):
    policy, info = st.improve(POLICY, mdp, st.npg(delta=1e-8))
    gradient, fisher = flat(mdp.gradient(POLICY)), mdp.fisher(POLICY)
    natural = np.linalg.solve(fisher, gradient)
    assert_close(policy.theta - THETA, np.sqrt(2e-8 / (gradient @ natural)) * natural, rtol=1e-7)  # of θ's own rounding
    assert info.kl == pytest.approx(1e-8, rel=1e-3)
    assert mdp.value(policy) > mdp.value(POLICY)


@both
def test_policy_iteration_finds_the_best_of_all_plans(mdp: FiniteMDP):
    best, plan = mdp.optimal()
    every = [mdp.value(np.array(p)) for p in itertools.product(range(A), repeat=S)]
    assert_close(best, max(every))
    assert_close(mdp.value(plan), best)
    assert plan.shape == (S,)


def test_policy_iteration_passes_through_plans_with_several_recurrent_classes():
    # it starts with the plan that stays in both states, whose average depends on the start
    best, plan = two_state().average().optimal()
    assert (best, plan.tolist()) == (2.0, [1, 0])
    assert two_state().average().value(plan) == 2.0
    best, plan = two_state().discounted(0.5).optimal()  # γ = ½: stay in i for 2, or cross for ½·4
    assert best == pytest.approx(2.0, abs=EXACT)


def test_policy_iteration_does_not_see_the_scale_of_the_rewards():
    for scale in (1e-12, 1e12):
        for make in (AverageMDP, lambda p, r: DiscountedMDP(p, r, WORLD.initial, GAMMA)):
            plan, same = (make(WORLD.transition, c * WORLD.reward).optimal()[1] for c in (1.0, scale))
            assert np.array_equal(plan, same)


def test_the_limit_of_a_chain_with_several_classes_is_the_mean_of_its_powers():
    chain = np.array(
        [[0.2, 0.3, 0.5, 0, 0], [0, 0, 1, 0, 0], [0, 1, 0, 0, 0], [0.5, 0, 0, 0.25, 0.25], [0, 0, 0, 0, 1]]
    )
    power, mean, steps = np.eye(5), np.zeros((5, 5)), 1000
    for _ in range(steps):
        mean += power / steps
        power = power @ chain
    assert np.abs(chains.limit(chain) - mean).max() < 2 / steps
    assert_close(chains.limit(chain) @ chain, chains.limit(chain))
    assert [c.tolist() for c in chains.recurrent_classes(chain)] == [[1, 2], [4]]


@both
def test_values_are_float64_and_the_same_whatever_the_switch(mdp: FiniteMDP):
    def results() -> list[Any]:
        batch = mdp.batch(POLICY)
        return [
            mdp.value(POLICY),
            mdp.action_values(POLICY),
            mdp.fisher(POLICY),
            flat(mdp.gradient(POLICY)),
            *jax.tree.leaves(batch),
        ]

    off = results()
    with jax.enable_x64(True):
        on = results()
    for x, y in zip(off, on, strict=True):
        assert np.array_equal(x, y)
        assert isinstance(x, np.ndarray | np.float64)
        assert x.dtype in (np.float64, np.int32)


def test_another_discount_compiles_nothing():
    traced = []

    def value(model: Any, table: Any) -> Any:
        traced.append(model)
        return table.sum()

    with jax.enable_x64(True):
        for gamma in (0.1, 0.2):
            information.gradient(value, WORLD.discounted(gamma).tables, POLICY)
    assert len(traced) == 1
