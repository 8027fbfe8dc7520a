"""The named finite MDPs, and the finite MDP as a world to sample from."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from finite_problems import problem
from steepest.errors import UsageError
from steepest.worlds.finite import (
    MDPS,
    FiniteHorizonMDP,
    MDPWorld,
    chain,
    make_mdp,
    sample_paths,
    two_state,
)
from steepest.worlds.finite import random as random_mdp

# Named worlds


def test_named_worlds_have_the_optimal_values_of_their_docstrings():
    assert set(MDPS) == {"two-state", "chain", "random", "grid"}
    assert two_state(20).optimal()[0] == 38.0
    assert two_state(1).optimal()[0] == 1.0
    assert [chain(5, h).optimal()[0] for h in (3, 4, 5, 10)] == [0.0, 0.0, 1.0, 6.0]
    assert chain(1, 3).optimal()[0] == 3.0
    assert np.array_equal(MDPS["random"](seed=3).transition, random_mdp(seed=3).transition)
    assert not np.array_equal(random_mdp(seed=3).reward, random_mdp(seed=4).reward)


# The sampled world


def test_world_visits_states_as_often_as_the_exact_occupancy_and_returns_agree_with_value():
    p = problem(2, 3, 3, 2, "clock")
    envs, episodes, rng = 4000, 5, np.random.default_rng(0)
    world = MDPWorld(p.mdp, envs)
    world.reset(0)
    visits, returns = np.zeros((2, 3)), []
    for _ in range(episodes):
        total = np.zeros(envs)
        for h in range(p.mdp.horizon):
            assert np.all(world.time == h)
            obs = world.obs
            assert obs.dtype == np.int32
            action = np.sum(rng.random(envs)[:, None] >= np.cumsum(p.table, axis=1)[obs], axis=1)
            step = world.step(action)
            np.add.at(visits, (obs, action), 1.0)
            total += step.reward
            assert step.reward.dtype == np.float32
            assert np.all(step.terminated == (h == p.mdp.horizon - 1))
            assert not step.truncated.any()
            assert step.valid.all()
            if h < p.mdp.horizon - 1:
                assert np.array_equal(world.obs, step.next_obs)
        returns.append(total)
    exact = p.mdp.occupancy(p.policy)
    error = np.sqrt(exact * (1 - exact) / (envs * episodes))  # a bound: as if the H steps of a path were one
    assert np.all(np.abs(visits / visits.sum() - exact) < 4 * error)
    returns = np.concatenate(returns)
    assert abs(returns.mean() - p.mdp.value(p.policy)) < 4 * returns.std() / np.sqrt(returns.size)


def test_world_resets_to_the_initial_distribution_and_reports_the_true_successor():
    world = make_mdp("two-state", 3, horizon=1)
    step = world.step(np.array([0, 1, 1]))
    assert step.next_obs.tolist() == [0, 1, 1]
    assert step.reward.tolist() == [1.0, 0.0, 0.0]
    assert step.terminated.all()
    assert world.obs.tolist() == [0, 0, 0]
    assert world.time.tolist() == [0, 0, 0]
    world.close()


class Always:
    """A generator that draws one number for ever."""

    def __init__(self, number: float):
        self.number = number

    def random(self, count: int) -> np.ndarray:
        return np.full(count, self.number)


@pytest.mark.parametrize(("number", "state"), [(0.0, 1), (np.nextafter(1.0, 0.0), 10)])
def test_outcomes_of_probability_zero_are_never_drawn(number: float, state: int):
    # ten tenths add up to less than 1, and the first and the last of the twelve states are impossible
    initial = np.array([0.0, *[0.1] * 10, 0.0])
    assert np.cumsum(initial)[-1] <= np.nextafter(1.0, 0.0)
    mdp = FiniteHorizonMDP(np.full((12, 1, 12), 1 / 12), np.zeros((12, 1)), initial, 1)
    rng: Any = Always(number)
    assert sample_paths(mdp, np.ones((12, 1)), 1, rng)[0].tolist() == [[state]]


def test_world_is_what_its_seed_says():
    def roll(seed: int) -> np.ndarray:
        world = make_mdp("random", 8)
        seen = [world.reset(seed)]
        seen += [world.step(np.full(8, k % 3)).next_obs for k in range(25)]
        return np.stack(seen)

    assert np.array_equal(roll(1), roll(1))
    assert not np.array_equal(roll(1), roll(2))


def test_world_describes_itself_and_refuses_what_does_not_exist():
    world = make_mdp("chain", 2)
    assert (world.name, world.backend, world.envs) == ("chain", "mdp", 2)
    assert (world.observation_space.n, world.action_space.n) == (5, 2)
    with pytest.raises(UsageError, match="actions are 0 … 1, got -1 … 0"):
        world.step(np.array([-1, 0]))
    with pytest.raises(UsageError, match="expected 2 integer actions"):
        world.step(np.zeros(3, int))
    with pytest.raises(UsageError, match="did you mean 'two-state'"):
        make_mdp("two-sate", 1)
    with pytest.raises(UsageError, match="it takes length, horizon"):
        make_mdp("chain", 1, lenght=3)
    with pytest.raises(UsageError, match="at least one environment"):
        make_mdp("chain", 0)
