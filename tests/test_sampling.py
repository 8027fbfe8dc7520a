"""Rollouts and advantages: nothing crosses the end of an episode but the value of a state that was cut off."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from environments import MODES, Counting, Walk, vector
from steepest.batch import Rollout
from steepest.errors import UsageError
from steepest.sampling.advantages import batch_from_rollout, gae
from steepest.sampling.episodes import Running, account
from steepest.sampling.rollout import Collector, collect
from steepest.worlds.gymnasium import GymnasiumWorld


def act_zero(obs, t):
    return np.zeros(len(obs), int)


def rollout_of(envs, mode, steps):
    world = GymnasiumWorld(vector(envs, mode))
    world.reset(0)
    return collect(world, act_zero, steps)[0]


def gae_of(rollout, critic, gamma, lam):
    value, next_value = critic(rollout.obs[..., 0]), critic(rollout.next_obs[..., 0])
    flags = rollout.terminated, rollout.truncated, rollout.valid
    return gae(rollout.reward, value, next_value, *flags, gamma=gamma, lam=lam)


def slow_gae(reward, value, next_value, terminated, truncated, valid, gamma, lam):
    """The sum over what is left of the path, from the definition: A_t = Σ_k (γλ)^k δ_{t+k}."""
    steps, envs = reward.shape
    advantage = np.zeros((steps, envs))
    for b in range(envs):
        for t in range(steps):
            for k in range(t, steps):
                if not valid[k, b]:
                    break
                beyond = 0.0 if terminated[k, b] else next_value[k, b]
                advantage[t, b] += (gamma * lam) ** (k - t) * (reward[k, b] + gamma * beyond - value[k, b])
                if terminated[k, b] or truncated[k, b]:
                    break
    return advantage


# rollouts


@pytest.mark.parametrize("mode", MODES)
def test_episodes_run_on_across_rollouts_and_count_no_ghosts(mode):
    collector = Collector(GymnasiumWorld(vector([Counting(2), Counting(7, terminates=True)], mode)))
    collector.reset(0)
    episodes = [e for _ in range(6) for e in collector.collect(act_zero, 4)[1]]
    assert {(e.env, e.ret, e.length, e.terminated) for e in episodes} == {(0, 2.0, 2, False), (1, 7.0, 7, True)}
    rows = 24 if mode != AutoresetMode.NEXT_STEP else 16
    assert sum(e.env == 0 for e in episodes) == rows // 2
    finished = [sum(e.length for e in episodes if e.env == b) for b in range(2)]
    np.testing.assert_array_equal(collector.running.lengths, collector.running.returns)
    assert (collector.running.lengths + finished == [rows, 24 if rows == 24 else 21]).all()
    collector.reset(1)
    assert not collector.running.lengths.any()


@pytest.mark.parametrize("seed", range(4))
def test_episodes_are_the_sums_from_one_end_to_the_next(seed):
    rng = np.random.default_rng(seed)
    running, slow = Running.none(3), np.zeros((3, 3))
    for _ in range(3):
        reward, cost = rng.integers(-9, 9, (2, 8, 3)).astype(np.float32)
        valid, terminated, truncated = rng.random((8, 3)) < 0.8, *(rng.random((2, 8, 3)) < 0.3)
        reward, cost = np.where(valid, reward, 0), np.where(rng.random((8, 3)) < 0.1, np.nan, cost)
        cost = np.where(valid, cost, 0)
        rollout = Rollout(reward, reward, reward, reward, terminated, truncated, valid, cost)
        episodes, running = account(rollout, running)
        expected = []
        for t, b in np.ndindex(8, 3):
            slow[b] += reward[t, b], valid[t, b], cost[t, b]
            if terminated[t, b] or truncated[t, b]:
                known = None if np.isnan(slow[b, 2]) else slow[b, 2]
                if valid[t, b]:  # else a fault, and no episode
                    expected.append((slow[b, 0], slow[b, 1], b, terminated[t, b], known))
                slow[b] = 0
        assert [tuple(episode) for episode in episodes] == expected
        np.testing.assert_array_equal(np.stack(running, axis=1), slow)


def test_a_rollout_keeps_raw_rewards_unclipped_actions_and_what_the_policy_saw():
    world = GymnasiumWorld(vector([Walk(), Walk()], AutoresetMode.SAME_STEP))
    first = world.reset(3)
    seen = []

    def act(obs, t):
        assert t == len(seen)
        seen.append(obs.copy())
        return np.full((2, 1), 5.0 + t, np.float32)

    rollout, _ = collect(world, act, 6)
    np.testing.assert_array_equal(rollout.obs, seen)
    np.testing.assert_array_equal(rollout.obs[0], first)
    np.testing.assert_array_equal(rollout.action[:, 0, 0], 5.0 + np.arange(6))
    np.testing.assert_array_equal(rollout.reward, rollout.next_obs[..., 0])
    assert rollout.action.dtype == np.float32


def test_rollouts_share_no_memory():
    collector = Collector(GymnasiumWorld(vector([Counting(3)], MODES[0])))
    collector.reset(0)
    (first, _), (second, _) = collector.collect(act_zero, 4), collector.collect(act_zero, 4)
    assert not any(np.shares_memory(x, y) for x, y in zip(first, second, strict=True))


def test_a_rollout_of_no_steps_and_one_before_the_reset_are_refused():
    world = GymnasiumWorld(vector([Counting(3)], MODES[0]))
    with pytest.raises(UsageError, match="reset"):
        collect(world, act_zero, 4)
    world.reset(0)
    with pytest.raises(UsageError, match="at least 1 step"):
        collect(world, act_zero, 0)


# advantages on a world whose value is known


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("lam", [0.0, 0.7, 1.0])
def test_pitfall_9_truncation_is_not_termination(mode, lam):
    rollout = rollout_of([Counting(2), Counting(3), Counting(50)], mode, 17)
    advantage, target = gae_of(rollout, lambda count: np.full_like(count, 2.0), gamma=0.5, lam=lam)
    np.testing.assert_array_equal(np.asarray(target)[rollout.valid], 2.0)  # 1/(1−γ), exact in float32
    np.testing.assert_array_equal(advantage, 0.0)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("lam", [0.0, 0.7, 1.0])
def test_pitfall_9_beyond_a_termination_the_value_is_zero(mode, lam):
    limit = np.array([2, 3, 5])
    rollout = rollout_of([Counting(int(n), terminates=True) for n in limit], mode, 17)
    # at the end the critic says 100: what is beyond a termination must not be read
    advantage, target = gae_of(rollout, lambda c: np.where(c < limit, 2 * (1 - 0.5 ** (limit - c)), 100.0), 0.5, lam)
    exact = 2 * (1 - 0.5 ** (limit - rollout.obs[..., 0]))
    np.testing.assert_array_equal(np.asarray(target)[rollout.valid], exact[rollout.valid])
    np.testing.assert_array_equal(advantage, 0.0)


def test_pitfall_9_the_successor_is_bootstrapped_not_the_state_itself():
    rollout = rollout_of([Counting(3)], AutoresetMode.DISABLED, 5)
    advantage, _ = gae_of(rollout, lambda count: count, gamma=0.5, lam=0.0)
    count = rollout.obs[..., 0]
    np.testing.assert_array_equal(advantage, 1 + 0.5 * (count + 1) - count)


def test_pitfall_9_gae_does_not_cross_a_reset():
    reward = np.zeros((6, 1), np.float32)
    reward[4] = 1e6
    zero, never = np.zeros_like(reward), np.zeros((6, 1), bool)
    cut = never.copy()
    cut[2] = True
    for flags in ((cut, never), (never, cut)):
        advantage, _ = gae(reward, zero, zero, *flags, ~never, gamma=1.0, lam=1.0)
        np.testing.assert_array_equal(np.asarray(advantage)[:, 0], [0, 0, 0, 1e6, 1e6, 0])


def test_pitfall_9_ghost_rows_are_neither_bootstrapped_nor_weighted():
    rollout = rollout_of([Counting(2), Counting(3)], AutoresetMode.NEXT_STEP, 9)
    ghost = ~rollout.valid
    reward, value = rollout.reward.copy(), np.full((9, 2), 2.0, np.float32)
    reward[ghost] = np.nan
    flags = rollout.terminated, rollout.truncated
    advantage, _ = gae(reward, value, value, *flags, rollout.valid, gamma=0.5, lam=0.9)
    np.testing.assert_array_equal(advantage, 0.0)
    batch = batch_from_rollout(rollout.obs, rollout.action, advantage + 1.0, rollout.valid, flags[0] | flags[1])
    assert not np.asarray(batch.weight)[ghost.ravel()].any()
    assert not np.asarray(batch.advantage)[ghost.ravel()].any()


# advantages against their definition


def arrays(dtype, elements):
    return hnp.arrays(dtype, (9, 2), elements=elements)


numbers = arrays(np.float32, st.integers(-20, 20).map(lambda i: i / 4))
flags = arrays(bool, st.booleans())
rare = arrays(bool, st.sampled_from([False, False, False, True]))


@settings(max_examples=60, deadline=None)
@given(
    numbers, numbers, numbers, rare, rare, st.one_of(flags, rare.map(np.logical_not)), st.sampled_from([0.0, 0.5, 1.0])
)
def test_gae_is_its_definition_for_every_pattern_of_ends(reward, value, next_value, terminated, truncated, valid, lam):
    given_ = reward, value, next_value, terminated, truncated, valid
    advantage, target = gae(*given_, gamma=0.9, lam=lam)
    expected = slow_gae(*given_, 0.9, lam)
    np.testing.assert_allclose(advantage, expected, rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(target, expected + value, rtol=1e-5, atol=1e-4)
    assert not np.asarray(advantage)[~valid].any()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_gae_at_lambda_1_is_the_discounted_return_and_at_0_the_td_error(dtype):
    rng = np.random.default_rng(0)
    reward, value, next_value = rng.normal(size=(3, 20, 4)).astype(dtype)
    terminated, truncated = rng.random((2, 20, 4)) < 0.15
    valid = np.ones((20, 4), bool)
    next_value[:-1] = np.where((terminated | truncated)[:-1], next_value[:-1], value[1:])
    returns = np.zeros((21, 4))
    returns[20] = next_value[19]
    for t in reversed(range(20)):
        beyond = np.where(truncated[t], next_value[t], returns[t + 1])
        returns[t] = reward[t] + 0.9 * np.where(terminated[t], 0.0, beyond)
    tolerance = 1e-12 if dtype is np.float64 else 1e-5
    with jax.enable_x64(dtype is np.float64):
        given_ = [jnp.asarray(x) for x in (reward, value, next_value, terminated, truncated, valid)]
        full, target = gae(*given_, gamma=0.9, lam=1.0)
        td, _ = jax.jit(gae)(*given_, gamma=0.9, lam=0.0)
        assert full.dtype == target.dtype == td.dtype == dtype
        np.testing.assert_allclose(full, returns[:20] - value, atol=tolerance)
        np.testing.assert_allclose(td, reward + 0.9 * np.where(terminated, 0, next_value) - value, atol=tolerance)


# batches


def plain(advantage, **kwargs):
    shape = advantage.shape
    everything, nothing = np.ones(shape, bool), np.zeros(shape, bool)
    return batch_from_rollout(np.zeros((*shape, 3)), np.zeros(shape, int), advantage, everything, nothing, **kwargs)


def test_pitfall_10_constant_advantages_become_zero():
    for shape in ((4, 2), (5, 3)):
        assert not plain(np.full(shape, 3.75, np.float32)).advantage.any()  # its sums are exact
        np.testing.assert_allclose(
            plain(np.full(shape, 3.7, np.float32)).advantage, 0.0, atol=3e-7
        )  # half an ulp of 3.7


def test_pitfall_10_advantages_are_centred_and_keep_the_units_of_the_reward():
    advantage = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
    for scale in (1e-3, 1.0, 1e3):
        batch = plain(scale * advantage)
        np.testing.assert_allclose(batch.advantage.ravel(), scale * (advantage - advantage.mean()).ravel(), rtol=2e-4)
    np.testing.assert_array_equal(plain(advantage, centre=False).advantage.ravel(), advantage.ravel())


def test_a_batch_is_the_rollout_row_by_row():
    rollout = rollout_of([Counting(2), Counting(3)], AutoresetMode.NEXT_STEP, 9)
    done = rollout.terminated | rollout.truncated
    advantage = np.arange(18, dtype=np.float32).reshape(9, 2)
    batch = batch_from_rollout(rollout.obs, rollout.action, advantage, rollout.valid, done)
    np.testing.assert_array_equal(batch.obs.reshape(9, 2, 1), rollout.obs)
    assert batch.action.shape == batch.action_weight.shape == batch.advantage.shape == (18, 1)
    np.testing.assert_array_equal(batch.weight, rollout.valid.ravel() / np.float32(rollout.valid.sum()))
    np.testing.assert_allclose(np.sum(batch.weight), 1.0, rtol=1e-6)
    np.testing.assert_allclose(batch.weight @ batch.advantage[:, 0], 0.0, atol=1e-5)


@pytest.mark.parametrize("mode", MODES)
def test_segments_are_the_paths(mode):
    rollout = rollout_of([Counting(2), Counting(3), Counting(4, terminates=True)], mode, 11)
    done = rollout.terminated | rollout.truncated
    batch = batch_from_rollout(rollout.obs, rollout.action, rollout.reward, rollout.valid, done)
    segment = np.asarray(batch.segment).reshape(11, 3)
    paths = {}
    for t, b in np.argwhere(rollout.valid):
        paths.setdefault(segment[t, b], []).append((b, int(rollout.obs[t, b, 0])))
    for path in paths.values():
        assert path == [(path[0][0], count) for count in range(len(path))]
    assert len(paths) == done.sum() + (~done[-1] & rollout.valid[-1]).sum()
    assert 0 <= segment.min() <= segment.max() < 33


def test_a_batch_with_no_valid_row_has_no_weight_and_no_nan():
    shape = (3, 2)
    nothing = np.zeros(shape, bool)
    batch = batch_from_rollout(np.zeros(shape), np.zeros(shape), np.ones(shape, np.float32), nothing, nothing)
    assert not np.asarray(batch.weight).any()
    assert not np.asarray(batch.advantage).any()
