"""The methods in other metrics from their names: what they train with, what they refuse."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import gymnasium
import jax
import numpy as np
import pytest

import steepest as st
from steepest.algorithms import covariant, methods, natural_actor_critic, q_npg
from steepest.geometry import trajectory
from steepest.spaces import Box, Discrete
from steepest.training.assembly import build_learner
from steepest.training.composition import build_algorithm
from steepest.training.config import UpdateConfig
from steepest.training.presets import resolve
from steepest.training.settings import with_settings

SMALL: dict[str, Any] = {
    "steps": 1000,
    "envs": 4,
    "rollout": 64,
    "critic": {"epochs": 2, "minibatch": 64, "hidden": (8,)},
    "policy": {"hidden": (8,)},
    "evaluation": {"every": 0, "final_episodes": 2},
    "tensorboard": False,
}


@pytest.mark.parametrize("name", ["covariant", "natural-actor-critic", "q-npg"])
def test_a_run_from_its_name(name: str, tmp_path: Path) -> None:
    """Steps are δ long whatever the metric: to leading order in KL, less where Q-NPG's fit depends on the state."""
    run = st.train("CartPole-v1", name, out=tmp_path / "run", delta=1e-3, **SMALL)
    config = json.loads((run.path / "config.json").read_text())
    assert config["algorithm"] == name
    assert config["sampling"]["segment"] == 8  # 256 rows are 32 paths
    assert len(run.metrics) >= 4
    for row in run.metrics:
        assert row["update/reason"] == "accepted"
        assert 0.2e-3 < row["update/kl"] < 2e-3
        if name == "covariant":
            assert row["update/predicted_kl"] == pytest.approx(1e-3, rel=1e-3)


def test_the_length_of_a_segment_reaches_the_update(tmp_path: Path) -> None:
    norms = []
    for length in (1, 64):
        settings = {**SMALL, "steps": 256, "segment": length}
        run = st.train("CartPole-v1", "covariant", out=tmp_path / str(length), **settings)
        norms.append(run.metrics[0]["update/natural_norm"])
    assert norms[0] != pytest.approx(norms[1], rel=1e-3)


def test_a_policy_of_ones_own_in_float64_is_its_own_template(tmp_path: Path) -> None:
    policy = st.TabularSoftmax(np.zeros((5, 2)))
    settings = {name: value for name, value in SMALL.items() if name != "policy"}
    run = st.train("mdp:chain", "npg", policy=policy, out=tmp_path / "run", **settings)
    (logits,) = jax.tree.leaves(st.load(run.path, policy=policy).policy)
    assert logits.dtype == np.float32


def test_q_npg_refuses_a_gaussian_and_leaves_nothing_behind(tmp_path: Path) -> None:
    class Idle(gymnasium.Env):
        observation_space = gymnasium.spaces.Box(-1, 1, (2,))
        action_space = gymnasium.spaces.Box(-1, 1, (1,))

        def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
            return np.zeros(2, np.float32), {}

        def step(self, action: np.ndarray) -> Any:
            return np.zeros(2, np.float32), 0.0, False, True, {}

    with pytest.raises(st.UsageError, match="gives a DiagonalGaussian: use natural-actor-critic or npg"):
        st.train(Idle, "q-npg", out=tmp_path / "run", **SMALL)
    assert not (tmp_path / "run").exists()


def test_the_names_and_their_settings_reach_the_algorithm() -> None:
    assert {"covariant", "natural-actor-critic", "q-npg"} <= set(methods)
    for name, method in (("covariant", covariant), ("natural-actor-critic", natural_actor_critic), ("q-npg", q_npg)):
        settings = UpdateConfig(delta=0.02, damping=0.3, solver="cg", cg_iterations=7)
        assert build_algorithm(name, settings) == method(0.02, damping=0.3, solver=st.ConjugateGradient(7))
    by_setting = build_algorithm("npg", UpdateConfig(metric="trajectory"))
    assert by_setting == st.npg(metric=trajectory)
    assert dataclasses.replace(by_setting, name="covariant") == covariant()


@pytest.mark.parametrize("name", ["covariant", "natural-actor-critic", "q-npg"])
def test_a_metric_of_its_own_is_not_exchanged(name: str) -> None:
    with pytest.raises(st.UsageError, match=f"{name} is npg in a metric of its own: leave metric at auto"):
        build_algorithm(name, UpdateConfig(metric="fisher"))


def test_the_metric_on_paths_has_no_solve_in_sample_space(tmp_path: Path) -> None:
    with pytest.raises(st.UsageError, match="use ConjugateGradient"):
        st.train("CartPole-v1", "covariant", out=tmp_path / "run", solver="sample-space", **SMALL)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("action", [Discrete(2), Box(-np.ones(1), np.ones(1))], ids=["discrete", "box"])
def test_a_batch_has_32_paths_at_least(action: Any) -> None:
    for settings in ({}, {"envs": 4, "rollout": 512}, {"envs": 1, "rollout": 128}, {"envs": 8, "rollout": 4096}):
        config = resolve(with_settings(st.TrainConfig("X", "covariant"), settings), action)
        assert config.sampling.segment == min(64, config.batch // 32)
        assert build_learner(config, covariant()).segment == config.sampling.segment
    chosen = resolve(with_settings(st.TrainConfig("X", "covariant"), {"segment": 500}), action)
    assert chosen.sampling.segment == 500
    with pytest.raises(st.UsageError, match="segment must be at least 1, got 0"):
        resolve(with_settings(st.TrainConfig("X"), {"segment": 0}), action)
