"""The constrained MDP: its batch, and the linear programme that every constrained method is measured by."""

from __future__ import annotations

import jax
import numpy as np
import pytest

import steepest as st
from constrained_problems import problem
from finite_problems import assert_close, flat
from steepest.errors import UsageError
from steepest.geometry import expected_advantage, linearise
from steepest.worlds.finite import ConstrainedMDP, two_state
from steepest.worlds.finite import random as random_mdp


def two(limit: float) -> ConstrainedMDP:
    """From i: staying earns 1; to be in j, which earns 2, costs 1 a step."""
    mdp = two_state().discounted(0.8)
    return ConstrainedMDP(mdp, [[0.0, 0.0], [1.0, 0.0]], limit)


@pytest.mark.claim("CPO3")
def test_CPO3_the_linear_programme_is_the_best_of_a_grid_of_policies() -> None:
    world = two(1.5)
    best = world.optimal()
    p = np.linspace(0, 1, 201)
    values, costs = np.zeros((2, 201, 201))
    for i, stay in enumerate(p):
        for j, remain in enumerate(p):
            table = np.array([[stay, 1 - stay], [remain, 1 - remain]])
            system = np.eye(2) - 0.8 * np.array([[stay, 1 - stay], [1 - remain, remain]])
            values[i, j], costs[i, j] = (np.linalg.solve(system, r)[0] for r in ([stay, 2 * remain], [0, remain]))
            if i % 100 == j % 100 == 0:
                assert_close(values[i, j], world.value(table))
                assert_close(costs[i, j] + 1, world.cost(table) + 1)
    admissible = values[costs <= 1.5]
    assert admissible.max() <= best.value + 1e-9
    assert admissible.max() > best.value - 0.05
    assert best.cost == pytest.approx(1.5, abs=1e-9)
    assert world.value(best.policy) == pytest.approx(best.value, abs=1e-9)
    assert world.cost(best.policy) == pytest.approx(1.5, abs=1e-9)


@pytest.mark.claim("CPO3")
@pytest.mark.parametrize("gamma", [0.9, None])
def test_CPO3_the_multiplier_is_the_price_of_the_limit(gamma: float | None) -> None:
    world = problem(2, gamma).world
    best = world.optimal()
    assert best.multiplier > 0.1
    step = 1e-5
    values = [ConstrainedMDP(world.mdp, world.costs.reward, world.limit + d).optimal().value for d in (step, -step)]
    assert (values[0] - values[1]) / (2 * step) == pytest.approx(best.multiplier, rel=1e-5)


@pytest.mark.claim("CPO3")
def test_CPO3_with_room_enough_it_is_the_optimum_without_a_limit() -> None:
    mdp = random_mdp(4, 3, 5, 3)
    cost = np.random.default_rng(3).uniform(size=(5, 4, 3))
    for each, costs in ((mdp, cost), (mdp.discounted(0.9), cost[0])):
        best = ConstrainedMDP(each, costs, 1e3).optimal()
        assert best.value == pytest.approx(each.optimal()[0], rel=1e-9)
        assert best.multiplier == 0
    best = ConstrainedMDP(mdp, cost, 1.5).optimal()
    assert best.policy.shape == (5, 4, 3)
    assert_close(best.policy.sum(axis=-1), np.ones((5, 4)))
    assert mdp.value(best.policy) == pytest.approx(best.value, abs=1e-8)
    assert ConstrainedMDP(mdp, cost, 1.5).cost(best.policy) == pytest.approx(best.cost, abs=1e-8)


def test_the_cost_of_a_batch_has_the_gradient_and_the_unit_of_the_cost() -> None:
    mdp = random_mdp(4, 3, 5, 3)
    cost = np.random.default_rng(3).uniform(size=(4, 3))
    policy = st.TabularSoftmax(np.random.default_rng(4).normal(size=(4, 3)))
    for each, share in ((mdp, 1 / 5), (mdp.discounted(0.9), 0.1)):
        world = ConstrainedMDP(each, cost, 2.0)
        batch = world.batch(policy)
        assert batch.cost is not None
        assert_close(batch.cost.excess, np.asarray(share * (world.cost(policy) - 2.0)))
        rows = batch._replace(advantage=batch.cost.advantage)
        with jax.enable_x64(True):
            g = expected_advantage.gradient(linearise(policy, batch.obs), rows).vector
            assert_close(flat(g), share * flat(world.costs.gradient(policy)), rtol=1e-11)


def test_what_cannot_be_a_constraint_is_refused() -> None:
    mdp = random_mdp(4, 3, 5, 3)
    with pytest.raises(UsageError, match="cost must have shape"):
        ConstrainedMDP(mdp, np.zeros((3, 4)), 1.0)
    with pytest.raises(UsageError, match="limit must be a finite number"):
        ConstrainedMDP(mdp, np.zeros((4, 3)), np.nan)
    with pytest.raises(UsageError, match="FiniteHorizonMDP or an"):
        ConstrainedMDP(mdp.average(), np.zeros((4, 3)), 1.0)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"no policy costs at most 4: .* costs 5"):
        ConstrainedMDP(mdp, np.ones((4, 3)), 4.0).optimal()
