"""Branches of simulators, the steps they cost, their random numbers, and the surrogate of a whole trunk."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode

from environments import Counting, Walk, vector
from steepest import trees
from steepest.batch import Batch
from steepest.geometry import expected_advantage, linearise, self_normalised
from steepest.policies import TabularSoftmax
from steepest.sampling.rollout import Collector
from steepest.sampling.vine import Trunk, Vine, action_values, along_trunk, batch_from_branches
from steepest.worlds import make_world
from steepest.worlds.gymnasium import GymnasiumWorld
from steepest.worlds.settable import settable


def idle(obs: np.ndarray, t: int) -> np.ndarray:
    return np.zeros(len(obs), int)


def still(obs: np.ndarray, seeds: np.ndarray, t: int) -> np.ndarray:
    return np.zeros(len(obs), int)


# Branches


@pytest.mark.claim("VINE2")
@pytest.mark.parametrize("terminates", [True, False])
@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_VINE2_returns_discounts_and_steps_of_branches_are_those_of_a_countable_world(
    mode: AutoresetMode, terminates: bool
) -> None:
    """Reward 1 a step, 7 steps an episode: Q̂ = (1 − γ^ℓ)/(1 − γ) + γ^ℓ V, and every step that was simulated counts."""
    world = GymnasiumWorld(vector([Counting(7, terminates) for _ in range(3)], mode))
    states, collector = settable(world), Collector(world)
    collector.reset(0)
    vine, gamma = Vine(20, 2, 4, 0.9), 0.9
    trunk = vine.trunk(states, collector, idle, 30, np.random.default_rng(0))
    assert trunk.valid.all()
    assert trunk.rollout.valid.ravel()[trunk.row].all()
    assert len(set(trunk.row)) == 20
    after = world.obs.copy()
    branches, steps = vine.branches(states, trunk, np.ones((20, 2), int), still, np.arange(20), exhaustive=True)
    np.testing.assert_array_equal(world.obs, after)
    count = branches.obs[:, 0]
    length = np.minimum(4, 7 - count)
    over = count + length == 7
    reward = (1 - gamma**length) / (1 - gamma)
    np.testing.assert_allclose(branches.reward, np.stack([reward] * 2, axis=1), rtol=1e-6)
    discount = np.where(over & terminates, 0.0, gamma**length)
    np.testing.assert_allclose(branches.discount, np.stack([discount] * 2, axis=1), rtol=1e-6)
    np.testing.assert_array_equal(branches.last_obs[:, :, 0], np.stack([count + length] * 2, axis=1))
    assert steps == 2 * length.sum()
    value = 3.0
    np.testing.assert_allclose(action_values(branches, value)[:, 0], reward + discount * value, rtol=1e-6)
    # and the trunk goes on as if there had been no branches
    alone = GymnasiumWorld(vector([Counting(7, terminates) for _ in range(3)], mode))
    alone.reset(0)
    for _ in range(30):
        alone.step(np.zeros(3, int))
    for _ in range(8):
        ours, theirs = world.step(np.zeros(3, int)), alone.step(np.zeros(3, int))
        assert all(np.array_equal(x, y) for x, y in zip(ours[:5], theirs[:5], strict=True))


def test_a_trunk_of_many_ghosts_gives_masked_rows_and_no_branches_from_them() -> None:
    world = GymnasiumWorld(vector([Counting(1)], AutoresetMode.NEXT_STEP))  # every other row is a ghost
    states, collector = settable(world), Collector(world)
    collector.reset(0)
    vine = Vine(8, 2, 3, 1.0)
    trunk = vine.trunk(states, collector, idle, 8, np.random.default_rng(0))
    assert trunk.valid.tolist() == [True] * 4 + [False] * 4
    branches, steps = vine.branches(states, trunk, np.zeros((8, 2), int), still, np.arange(8), exhaustive=True)
    assert steps == 8
    batch = batch_from_branches(
        branches.obs, branches.action, np.full((8, 2), 0.5), branches.reward, branches.valid, exhaustive=True
    )
    np.testing.assert_array_equal(batch.weight, [0.25] * 4 + [0.0] * 4)


@pytest.mark.claim("VINE3")
@pytest.mark.parametrize(("env", "length", "factor"), [("Swimmer-v5", 30, 3), ("Pendulum-v1", 20, 5), ("walk", 5, 2)])
def test_VINE3_common_random_numbers_reduce_the_variance_of_differences(env: str, length: int, factor: float) -> None:
    """Var(Q̂_a − Q̂_b) in one state, with the numbers shared and without."""
    walk = env == "walk"
    world = GymnasiumWorld(vector([Walk() for _ in range(8)], AutoresetMode.NEXT_STEP)) if walk else make_world(env, 8)
    states = settable(world)
    world.reset(3)
    space: Any = world.action_space
    size = space.shape[0]
    for _ in range(5 if not walk else 0):
        world.step(np.zeros((8, size), np.float32))

    def noisy(obs: np.ndarray, seeds: np.ndarray, t: int) -> np.ndarray:
        return np.stack([0.5 * np.random.default_rng((s, t)).normal(size=size) for s in seeds]).astype(np.float32)

    repeats = 48
    one = states.get_state([0])[0]
    rollout = Collector(world).collect(lambda obs, t: np.zeros((8, size), np.float32), 6)[0]
    row = np.zeros(repeats, np.int32)
    trunk = Trunk(rollout, [], row, np.ones(repeats, bool), [one] * repeats)
    first = np.stack([np.full((repeats, size), x, np.float32) for x in (-0.4, 0.4)], axis=1)
    vine, spread = Vine(repeats, 2, length, 1.0), []
    for seeds in (np.arange(repeats), np.arange(2 * repeats).reshape(repeats, 2)):
        q = vine.branches(states, trunk, first, noisy, seeds, exhaustive=False)[0].reward
        spread.append(np.var(q[:, 0] - q[:, 1]))
    assert factor * spread[0] < spread[1]


# The surrogate along a trunk


@pytest.mark.parametrize("enumerated", [True, False])
def test_the_surrogate_along_the_trunk_is_that_of_the_rollout_set(enumerated: bool) -> None:
    rng = np.random.default_rng(0)
    policy = TabularSoftmax(rng.normal(size=(5, 3)))
    with jax.enable_x64(True):
        logits = jnp.asarray(policy.logits)
        policy = TabularSoftmax(logits)
        table = np.asarray(jax.nn.softmax(logits))
        obs = rng.integers(0, 5, 12)
        valid = np.ones(12)
        valid[4] = 0.0
        trunk = Batch(obs, valid / 11, rng.integers(0, 3, (12, 1)), np.ones((12, 1)), rng.normal(size=(12, 1)), obs)
        row, kept = np.array([7, 2, 9, 4]), np.array([True, True, True, False])
        q = rng.normal(size=(4, 3))
        all_actions = np.tile(np.arange(3), (12, 1))
        action = all_actions[:4] if enumerated else rng.integers(0, 3, (4, 3))
        weight = table[obs[row]] if enumerated else np.full((4, 3), 1 / 3)
        every = (all_actions, table[obs]) if enumerated else None
        vine = batch_from_branches(obs[row], action, weight, q, kept, exhaustive=enumerated)
        whole = along_trunk(vine, row, jax.tree.map(jnp.asarray, trunk), every)
        vine = jax.tree.map(jnp.asarray, vine)
        new = TabularSoftmax(logits + 0.3 * rng.normal(size=logits.shape))
        for objective in (expected_advantage, self_normalised):
            seen = []
            for batch in (vine, whole):
                local = linearise(policy, batch.obs)
                said = linearise(new, batch.obs).distribution
                gain = objective.gain(local.distribution, said, batch)
                seen.append((trees.ravel(objective.gradient(local, batch).vector)[0], gain))
            np.testing.assert_allclose(seen[0][0], seen[1][0], atol=1e-15)
            np.testing.assert_allclose(seen[0][1], seen[1][1], atol=1e-15)
        np.testing.assert_array_equal(whole.weight, trunk.weight)
        np.testing.assert_allclose(whole.action_weight.sum(axis=1), 1, atol=1e-15)


@pytest.mark.claim("VINE2")
def test_VINE2_the_mean_of_the_others_is_a_baseline_without_bias() -> None:
    """Σ over all pairs of actions with their probability: exactly the gradient; the mean of all would give half."""
    rng = np.random.default_rng(1)
    with jax.enable_x64(True):
        logits = jnp.asarray(rng.normal(size=(1, 3)))
        table, q = np.asarray(jax.nn.softmax(logits))[0], rng.normal(size=3)
        pairs = np.array([(a, b) for a in range(3) for b in range(3)])
        batch = batch_from_branches(
            np.zeros(9, int), pairs, np.full((9, 2), 0.5), q[pairs], np.ones(9, bool), exhaustive=False
        )
        weight = table[pairs].prod(axis=1)
        batch = jax.tree.map(jnp.asarray, batch._replace(weight=weight))
        local = linearise(TabularSoftmax(logits), batch.obs)
        exact = table * (q - table @ q)
        for objective in (expected_advantage, self_normalised):
            np.testing.assert_allclose(objective.gradient(local, batch).vector.logits[0], exact, atol=1e-15)
        half = self_normalised.gradient(local, batch._replace(advantage=jnp.asarray(q[pairs])))
        np.testing.assert_allclose(half.vector.logits[0], exact / 2, atol=1e-15)
