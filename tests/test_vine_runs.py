"""Runs whose data is a vine: what reaches it, what it counts, what it compiles, what is refused."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import steepest as st
from environments import Counting
from steepest.batch import Batch
from steepest.critics import MlpValue
from steepest.geometry import self_normalised
from steepest.normaliser import Scaling
from steepest.parameters import split
from steepest.policies import MlpGaussian
from steepest.sampling.rollout import Collector
from steepest.sampling.vine import Branches, Vine
from steepest.spaces import Box, describe
from steepest.training.assembly import build_learner
from steepest.training.collecting import SinglePath, VinePath, build_collect
from steepest.training.presets import resolve
from steepest.training.settings import with_settings
from steepest.training.vine_batch import compared_of, with_trunk
from steepest.worlds import make_world

SMALL: dict[str, Any] = {
    "steps": 700,
    "envs": 4,
    "rollout": 16,
    "scheme": "vine",
    "vine": {"states": 8, "actions": 3, "length": 5},
    "critic": {"epochs": 2, "minibatch": 64, "hidden": (8,)},
    "policy": {"hidden": (8,)},
    "evaluation": {"every": 0, "final_episodes": 2},
    "tensorboard": False,
}


def idle(obs: np.ndarray, t: int) -> np.ndarray:
    return np.zeros(len(obs), int)


def still(obs: np.ndarray, seeds: np.ndarray, t: int) -> np.ndarray:
    return np.zeros(len(obs), int)


def test_the_gathered_branches_are_those_of_the_policy_with_the_noise_of_their_seeds() -> None:
    """Equal seeds draw equal noise, other seeds, steps and states other noise; the first actions are all drawn."""
    world = make_world("Pendulum-v1", 4)
    settings = {k: v for k, v in SMALL.items() if k != "steps"}
    config = resolve(with_settings(st.TrainConfig("Pendulum-v1"), settings), describe(world.action_space, "action"))
    policy = MlpGaussian(3, 1, (8,), key=jax.random.key(0))
    gather: Any = build_collect(config, [world], policy)
    gather.reset(0)
    params = split(policy)[0]
    follow, drawn = gather._follow, []
    gather._follow = lambda *given: (drawn.append(given[-2:]), follow(*given))[1]
    found = gather(params, None, jax.random.key(1))
    assert found.branches.action.shape == (8, 3, 1)
    assert len(np.unique(found.branches.action)) == 24
    assert found.branch_steps == 8 * 3 * 5
    assert found.steps == 4 * 16 + 120
    shared = np.concatenate([seeds for seeds, t in drawn if t == 1]).reshape(8, 3)
    assert (shared == shared[:, :1]).all()
    assert len(np.unique(shared)) == 8
    obs = np.zeros((4, 3), np.float32)
    seeds = np.array([1, 1, 2, 3], np.uint32)
    draw = [np.asarray(gather._follow(params, None, obs, jax.random.key(0), seeds, np.int32(t))) for t in (1, 2)]
    assert draw[0][0] == draw[0][1]
    assert len(np.unique(np.concatenate(draw))) == 6
    same = gather._follow(params, None, obs, jax.random.key(0), seeds[::-1], np.int32(1))
    np.testing.assert_array_equal(np.asarray(same)[::-1], draw[0])


@pytest.mark.parametrize("env", ["CartPole-v1", "Pendulum-v1", "mdp:random"])
def test_a_run_counts_the_steps_of_trunk_and_branches_and_compiles_once(env: str, tmp_path: Path) -> None:
    compilations: list[str] = []
    at: list[int] = []

    def listen(event: str, duration_secs: float, **_: Any) -> None:
        if event.endswith("backend_compile_duration"):
            compilations.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)
    run = st.train(env, "trpo", out=tmp_path / "a", callbacks=[lambda e: at.append(len(compilations))], **SMALL)
    assert at[0] == at[-1]
    assert len(at) >= 3
    branches = [row["branch_steps"] for row in run.metrics]
    assert all(0 < n <= 8 * 3 * 5 for n in branches)
    assert run.steps <= sum(branches) + 64 * len(branches)
    assert run.steps > sum(branches) + 40 * len(branches)
    for row in run.metrics:
        assert row["update/reason"] == "accepted"
        assert 0 < row["update/kl"] <= 0.031
    if env == "CartPole-v1":
        again = st.train(env, "trpo", out=tmp_path / "b", **SMALL)
        for one, other in zip(run.metrics, again.metrics, strict=True):
            kept = [{k: v for k, v in row.items() if not k.startswith("time/")} for row in (one, other)]
            assert kept[0] == kept[1]
        assert st.resume(run.path, steps=1400).steps >= 1400


def test_the_critic_stands_for_the_rest_of_a_branch_in_raw_units_as_the_statistics_say_that_acted() -> None:
    """Known in NumPy: Q̂ = Σ γⁱr + γ^ℓ·σ_R·V((s_ℓ − shift)·scale), less the mean of the other actions'."""
    rng = np.random.default_rng(0)
    acted, reward_scale = Scaling(np.array([0.5], np.float32), np.array([2.0], np.float32)), np.float32(3.0)
    policy = st.MlpGaussian(1, 1, (4,), key=jax.random.key(0))
    critic = MlpValue(1, (4,), key=jax.random.key(1))
    state = build_learner(resolve(st.TrainConfig("X"), Box(np.zeros(1), np.ones(1))), st.trpo()).init(policy, critic)
    obs, last = rng.normal(size=(6, 1)).astype(np.float32), rng.normal(size=(2, 3, 1)).astype(np.float32)
    seen = np.asarray(acted(obs))
    one, row = np.ones((6, 1), np.float32), np.array([4, 1])
    trunk = Batch(seen, np.full(6, 1 / 6, np.float32), one[..., None], one, one, np.arange(6))
    reward, discount = rng.normal(size=(2, 2, 3)).astype(np.float32)
    discount[0, 1] = 0.0
    action = rng.normal(size=(2, 3, 1)).astype(np.float32)
    branches = Branches(row, obs[row], action, reward, discount, last, np.ones(2, bool), False)
    compared = compared_of(state.policy, state.critic, branches, trunk, acted, jnp.asarray(reward_scale))
    batch = with_trunk(state.policy, branches, compared, trunk)
    value = np.array([[float(critic(jnp.asarray((x - 0.5) * 2))) for x in state_] for state_ in last])
    q = reward + discount * 3.0 * value
    expected = np.zeros((6, 3))
    expected[row] = (q - (q.sum(axis=1, keepdims=True) - q) / 2) * 6 / 2  # two of six rows have advantages
    np.testing.assert_allclose(batch.advantage, expected, atol=1e-5)
    np.testing.assert_allclose(compared.advantage, expected[row] * 2 / 6, atol=1e-5)  # in raw units, for the report
    np.testing.assert_array_equal(batch.action[row], action)
    np.testing.assert_array_equal(batch.obs, seen)


def test_settings_of_the_vine_reach_it() -> None:
    world = make_world("CartPole-v1", 4)
    policy = st.MlpCategorical(4, 2, key=jax.random.key(0))
    for width, every in ((3, None), (2, 2), (None, 2)):
        settings = {"scheme": "vine", "vine": {"states": 8, "actions": width, "length": 5}, "envs": 4, "gamma": 0.9}
        config = resolve(with_settings(st.TrainConfig("CartPole-v1"), settings), describe(world.action_space, "action"))
        gather: Any = build_collect(config, [world], policy)
        assert isinstance(gather, VinePath)
        assert gather._vine == Vine(8, width or 2, 5, 0.9)
        assert gather._every == every
        assert build_learner(config, st.trpo()).algorithm == dataclasses.replace(st.trpo(), objective=self_normalised)
    config = resolve(st.TrainConfig("CartPole-v1"), describe(world.action_space, "action"))
    assert isinstance(build_collect(config, [world], policy), SinglePath)
    assert build_learner(config, st.trpo()).algorithm == st.trpo()


class Opaque(Counting):
    def __init__(self) -> None:
        super().__init__(100)
        self.simulator = object()


@pytest.mark.parametrize(
    ("env", "settings", "message"),
    [
        (Opaque, {}, r"Opaque\.simulator is a object.*leave the scheme at single-path"),
        ("CartPole-v1", {"vine": {"actions": 1}}, r"vine\.actions must be at least 2, got 1"),
        ("CartPole-v1", {"vine": {"length": 0}}, r"vine\.length must be at least 1, got 0"),
        ("CartPole-v1", {"vine": {"states": 0}}, r"vine\.states must be at least 1, got 0"),
        ("CartPole-v1", {"vine": {"states": 65}}, r"at most the 4 environments × 16 steps = 64 rows.*got 65"),
        ("CartPole-v1", {"scheme": "single-path"}, r"vine\.states says nothing of a single path: add --scheme vine"),
        ("CartPole-v1", {"algorithm": "covariant"}, r"covariant measures whole paths, and a vine has none"),
        ("CartPole-v1", {"scheme": "wine"}, r"must be one of 'single-path', 'vine', got 'wine'"),
    ],
)
def test_what_makes_no_vine_is_refused_before_anything_is_written(
    env: Any, settings: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(st.UsageError, match=message):
        st.train(env, out=tmp_path / "run", **{"algorithm": "trpo", **SMALL, **settings})
    assert not (tmp_path / "run").exists()


def test_what_makes_no_vine_is_refused_by_the_vine_itself() -> None:
    for numbers, message in (
        ((0, 2, 1, 1.0), "states must be at least 1, got 0"),
        ((1, 1, 1, 1.0), "actions must be at least 2, got 1: one action a state has nothing to be compared with"),
        ((1, 2, 0, 1.0), "length must be at least 1, got 0"),
        ((1, 2, 1, 1.5), r"gamma must be in \[0, 1\], got 1.5"),
    ):
        with pytest.raises(st.UsageError, match=message):
            Vine(*numbers)
    world: Any = make_world("mdp:random", 2)
    world.reset(0)
    with pytest.raises(st.UsageError, match="at most the 6 rows of the trunk, got 7"):
        Vine(7, 2, 1, 1.0).trunk(world, Collector(world), idle, 3, np.random.default_rng(0))
    trunk = Vine(6, 2, 1, 1.0).trunk(world, Collector(world), idle, 3, np.random.default_rng(0))
    with pytest.raises(st.UsageError, match="expected 6 states with 2 actions, got 6 with 3"):
        Vine(6, 2, 1, 1.0).branches(world, trunk, np.zeros((6, 3), int), still, np.arange(6), exhaustive=True)
