"""A run from start to end: what it writes, what it learns, how it stops, how it goes on."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
from pathlib import Path
from typing import Any

import equinox as eqx
import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode

import steepest as st
from environments import Counting, vector
from steepest.critics import AdamFit
from steepest.normaliser import Normaliser
from steepest.parameters import split
from steepest.policies.specification import PolicySpec
from steepest.runs import RunFolder, read_lines
from steepest.spaces import Box
from steepest.training.assembly import build_agent, build_critic, build_learner
from steepest.training.composition import build_algorithm
from steepest.training.config import UpdateConfig
from steepest.training.learner import Learner
from steepest.training.presets import resolve
from steepest.training.settings import from_record, to_record, with_settings

SMALL: dict[str, Any] = {
    "steps": 512,
    "envs": 4,
    "rollout": 32,
    "critic": {"epochs": 2, "minibatch": 64, "hidden": (8,)},
    "policy": {"hidden": (8,)},
    "evaluation": {"every": 256, "episodes": 2, "final_episodes": 3},
    "tensorboard": False,
}


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> st.Run:
    return st.train("CartPole-v1", "trpo", out=tmp_path_factory.mktemp("runs") / "run", **SMALL)


def arrays(agent: st.Agent) -> list[np.ndarray]:
    return [np.asarray(x) for x in jax.tree.leaves(split(agent.policy)[0])]


def same(a: st.Agent, b: st.Agent) -> bool:
    return all(np.array_equal(x, y) for x, y in zip(arrays(a), arrays(b), strict=True))


class TestRun:
    def test_the_folder_holds_what_is_promised(self, run: st.Run) -> None:
        for name in ("config.json", "meta.json", "metrics.jsonl", "episodes.jsonl", "learning_curve.png"):
            assert (run.path / name).stat().st_size > 0
        assert RunFolder.open(run.path).checkpoints == ["best", "last", "steps-000000000000", f"steps-{run.steps:012d}"]
        config = from_record(json.loads((run.path / "config.json").read_text()))
        assert config.update.delta == 0.01
        assert config.sampling.gamma == 0.99

    def test_every_update_has_a_trust_report(self, run: st.Run) -> None:
        rows = run.metrics
        assert len(rows) >= 4
        for row in rows:
            assert {f"update/{name}" for name in st.StepInfo._fields if name != "details"} <= set(row)
            assert row["update/reason"] == "accepted"
            assert 0 < row["update/kl"] <= 0.01
        assert [row["iteration"] for row in rows] == list(range(1, len(rows) + 1))
        assert sum("evaluation/mean" in row for row in rows) == 2

    def test_ghost_rows_are_not_counted(self, run: st.Run) -> None:
        episodes = read_lines(run.path / "episodes.jsonl")
        assert run.steps == run.metrics[-1]["step"] < 128 * len(run.metrics)
        assert sum(e["length"] for e in episodes) <= run.steps
        assert all(e["return"] == e["length"] for e in episodes)  # CartPole: a reward of 1 a step

    def test_a_loaded_agent_is_the_one_that_was_trained(self, run: st.Run) -> None:
        agent = st.load(run.path)
        assert same(agent, run.agent)
        obs = np.random.default_rng(0).normal(size=(5, 4))
        for given in (obs, obs[0]):
            ours, _ = run.agent.predict(given, deterministic=True)
            theirs, state = agent.predict(given, deterministic=True)
            np.testing.assert_array_equal(ours, theirs)
            assert state is None
        assert agent.predict(obs[0])[0].shape == ()
        np.testing.assert_array_equal(
            st.evaluate(agent, "CartPole-v1", 3, 1), st.evaluate(run.agent, "CartPole-v1", 3, 1)
        )
        assert st.load(run.path, checkpoint="best").policy is not None

    def test_the_same_seed_gives_the_same_run(self, run: st.Run, tmp_path: Path) -> None:
        again = st.train("CartPole-v1", "trpo", out=tmp_path / "again", **SMALL)
        assert same(again.agent, run.agent)
        for one, two in zip(run.metrics, again.metrics, strict=True):
            kept = [{k: v for k, v in row.items() if not k.startswith("time/")} for row in (one, two)]
            assert kept[0] == kept[1]
        other = st.train("CartPole-v1", "trpo", out=tmp_path / "other", seed=1, **SMALL)
        assert not same(other.agent, run.agent)

    def test_evaluation_counts_whole_episodes_by_quota(self, run: st.Run) -> None:
        returns = st.evaluate(run.agent, "CartPole-v1", episodes=7, seed=3)
        assert returns.shape == (7,)
        assert returns.dtype == np.float64
        np.testing.assert_array_equal(returns, st.evaluate(run.agent, "CartPole-v1", episodes=7, seed=3))

    def test_pitfall_15_runs_with_neighbouring_seeds_share_no_stream(self, tmp_path: Path) -> None:
        """Nor do training and evaluation, or the resets after each evaluation in a world that serves for both."""

        class Recording(Counting):
            seeds: list[int] = []  # noqa: RUF012

            def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
                if seed is not None:
                    Recording.seeds.append(seed)
                return super().reset(seed=seed)

        seen: list[set[int]] = []
        for seed in (0, 1, 2):
            Recording.seeds = []
            world = vector([Recording(7) for _ in range(4)], AutoresetMode.SAME_STEP)
            settings = {k: v for k, v in SMALL.items() if k != "envs"}
            run = st.train(world, "trpo", out=tmp_path / str(seed), seed=seed, **settings)
            seen.append(set(Recording.seeds))
            assert len(seen[-1]) == 4 * (1 + 1 + 1 + 1)  # the first, after the first evaluation, evaluation's, the last
            episodes = read_lines(run.path / "episodes.jsonl")
            assert {(e["return"], e["length"]) for e in episodes} == {(7.0, 7)}  # none goes across an evaluation
        assert len(set.union(*seen)) == sum(map(len, seen))

    def test_the_best_checkpoint_is_the_agent_of_the_best_evaluation(self, tmp_path: Path) -> None:
        agents: list[tuple[float, st.Agent]] = []

        def watch(event: st.IterationEvent) -> None:
            assert event.evaluation is not None
            agents.append((float(event.evaluation.mean()), event.agent))

        settings = {**SMALL, "evaluation": {"every": 1, "episodes": 3}}
        run = st.train("CartPole-v1", "trpo", out=tmp_path / "run", callbacks=[watch], **settings)
        means = [mean for mean, _ in agents]
        assert min(means) < max(means)
        latest = max(i for i, mean in enumerate(means) if mean == max(means))
        assert same(st.load(run.path, checkpoint="best"), agents[latest][1])
        assert RunFolder.open(run.path).load_checkpoint("best")[1]["progress"]["best"] == max(means)


class TestGoingOn:
    def test_a_resumed_run_goes_on(self, tmp_path: Path) -> None:
        first = st.train("CartPole-v1", "trpo", out=tmp_path / "run", **SMALL)
        rows = first.metrics
        second = st.resume(first.path, steps=1024)
        assert second.metrics[: len(rows)] == rows
        assert second.steps >= 1024 > first.steps
        assert [r["iteration"] for r in second.metrics] == list(range(1, len(second.metrics) + 1))
        assert not same(second.agent, first.agent)
        with pytest.raises(st.UsageError, match="has done its 1024 steps"):
            st.resume(first.path)

    def test_a_resumed_run_is_the_one_that_was_not_interrupted(self, tmp_path: Path) -> None:
        """To the bit, where no episode is under way at a checkpoint: 31 steps and the ghost row of a reset make 32."""

        class Clockwork(gymnasium.Env):
            observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (2,))
            action_space = gymnasium.spaces.Discrete(2)

            def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
                self.count = 0
                return np.zeros(2, np.float32), {}

            def step(self, action: int) -> Any:
                self.count += 1
                obs = np.array([self.count, action], np.float32)
                return obs, float(action * np.sin(self.count)), self.count == 31, False, {}

        settings = {**SMALL, "normalise_observations": True, "scale_rewards": True, "evaluation": {"every": 2 * 124}}
        whole = st.train(Clockwork, "trpo", out=tmp_path / "whole", **{**settings, "steps": 4 * 124})
        half = st.train(Clockwork, "trpo", out=tmp_path / "half", **{**settings, "steps": 2 * 124})
        after = st.resume(half.path, env=Clockwork, steps=4 * 124)
        assert len(after.metrics) == 4
        for one, other in zip(whole.metrics, after.metrics, strict=True):
            rows = ({k: v for k, v in row.items() if "time/" not in k and k != "return/recent"} for row in (one, other))
            assert next(rows) == next(rows)
        np.testing.assert_array_equal(whole.evaluation, after.evaluation)
        (arrays_, info), (others, other_info) = (RunFolder.open(r.path).load_checkpoint("last") for r in (whole, after))
        assert any("optimiser" in name for name in arrays_)
        assert arrays_["reward_scale.count"] == arrays_["normaliser.count"] == whole.steps
        assert arrays_.keys() == others.keys()
        for name, array in arrays_.items():
            np.testing.assert_array_equal(array, others[name], err_msg=name)
        expected = {**info["progress"], "resumed": 1, "seconds": other_info["progress"]["seconds"]}
        assert other_info["progress"] == expected

    def test_a_resumed_run_remembers_its_best(self, tmp_path: Path) -> None:
        class Worsening(Counting):
            step_of_all = 0

            def step(self, action: Any) -> Any:
                Worsening.step_of_all += 1
                obs, _, terminated, truncated, info = super().step(action)
                return obs, -float(Worsening.step_of_all), terminated, truncated, info

        settings = {**SMALL, "steps": 100, "evaluation": {"every": 100, "episodes": 2, "final_episodes": 2}}
        run = st.train(lambda: Worsening(7), "npg", out=tmp_path / "run", **settings)
        first = RunFolder.open(run.path).load_checkpoint("best")[1]["progress"]
        resumed = st.resume(run.path, env=lambda: Worsening(7), steps=300)
        means = [row["evaluation/mean"] for row in resumed.metrics if "evaluation/mean" in row]
        assert means == sorted(means, reverse=True)
        assert len(means) >= 2
        assert RunFolder.open(run.path).load_checkpoint("best")[1]["progress"] == first

    def test_logs_are_cut_back_to_the_checkpoint(self, tmp_path: Path) -> None:
        first = st.train("CartPole-v1", "trpo", out=tmp_path / "run", **SMALL)
        before = (first.path / "metrics.jsonl").read_text()
        with (first.path / "metrics.jsonl").open("a") as log:
            log.write('{"step": 99999}\n{"ste')
        st.resume(first.path, steps=700)
        after = (first.path / "metrics.jsonl").read_text()
        assert after.startswith(before)
        assert '"step": 99999' not in after

    def test_statistics_and_optimiser_come_back(self, tmp_path: Path) -> None:
        settings = {**SMALL, "normalise_observations": True, "scale_rewards": True}
        first = st.train("CartPole-v1", "npg", out=tmp_path / "run", **settings)
        assert first.agent.normaliser is not None
        agent = st.load(first.path)
        assert agent.normaliser is not None
        assert agent.normaliser.count == first.agent.normaliser.count == first.steps
        np.testing.assert_array_equal(agent.normaliser.mean, first.agent.normaliser.mean)
        second = st.resume(first.path, steps=700)
        assert second.agent.normaliser is not None
        assert second.agent.normaliser.count == second.steps
        assert second.metrics[-1]["reward_scale"] != 1.0

    def test_a_signal_finishes_the_iteration_and_saves(self, tmp_path: Path) -> None:
        def interrupt(event: st.IterationEvent) -> None:
            if event.iteration == 2:
                os.kill(os.getpid(), signal.SIGTERM)

        before = signal.getsignal(signal.SIGTERM)
        run = st.train("CartPole-v1", "trpo", out=tmp_path / "run", callbacks=[interrupt], **SMALL)
        assert run.exit_code == 128 + signal.SIGTERM
        assert len(run.metrics) == 2
        assert signal.getsignal(signal.SIGTERM) == before
        assert same(st.load(run.path), run.agent)
        assert st.resume(run.path).exit_code == 0

    def test_stop_at_return_and_callbacks(self, tmp_path: Path) -> None:
        seen: list[int] = []

        def watch(event: st.IterationEvent) -> str | None:
            seen.append(event.iteration)
            return "seen enough" if event.iteration == 3 else None

        run = st.train("CartPole-v1", "trpo", out=tmp_path / "a", callbacks=[watch], **SMALL)
        assert run.ended == "seen enough"
        assert seen == [1, 2, 3]
        run = st.train("CartPole-v1", "trpo", out=tmp_path / "b", stop_at_return=1.0, **SMALL)
        assert "reached 1" in run.ended
        assert run.steps < 512

    def test_too_many_failures_stop_with_a_diagnosis_and_a_good_policy(self, tmp_path: Path) -> None:
        @dataclasses.dataclass(frozen=True)
        class NotANumber:
            def __call__(self, operator: Any, rhs: Any, dual: Any = None) -> Any:
                solution = st.Direct()(operator, rhs)
                return solution._replace(residual=jnp.array(jnp.nan))

        run = st.train("CartPole-v1", st.npg(solver=NotANumber()), out=tmp_path / "run", max_failures=3, **SMALL)
        assert run.exit_code == 1
        assert run.ended.startswith("3 updates in a row kept the policy; the last: solver")
        assert len(run.evaluation) == 3
        assert all(np.isfinite(x).all() for x in arrays(st.load(tmp_path / "run")))


class TestYourOwn:
    def test_a_policy_of_your_own(self, tmp_path: Path) -> None:
        class Linear(eqx.Module):
            weight: jax.Array

            def __call__(self, obs: jax.Array) -> st.Categorical:
                return st.Categorical(obs @ self.weight)

        settings = {**SMALL, "policy": Linear(jnp.zeros((4, 2)))}
        run = st.train("CartPole-v1", "npg", out=tmp_path / "run", **settings)
        with pytest.raises(st.UsageError, match=r"policy=template"):
            st.load(run.path)
        loaded = st.load(run.path, policy=Linear(jnp.ones((4, 2))))
        assert same(loaded, run.agent)
        with pytest.raises(st.RunError, match=r"weight is float32\[4,2\], expected float32\[4,3\]"):
            st.load(run.path, policy=Linear(jnp.ones((4, 3))))

    @pytest.mark.parametrize(
        "env",
        [
            lambda: gymnasium.make("CartPole-v1"),
            gymnasium.make("CartPole-v1"),
            gymnasium.make_vec("CartPole-v1", 4, vectorization_mode="sync"),
            "mdp:two-state",
        ],
        ids=["factory", "instance", "vector", "mdp"],
    )
    def test_an_environment_of_your_own(self, env: Any, tmp_path: Path) -> None:
        settings = {k: v for k, v in SMALL.items() if k not in ("envs", "rollout")}
        run = st.train(env, "trpo", out=tmp_path / "run", **{**settings, "steps": 1500})
        assert run.steps >= 1500
        assert run.evaluation.shape == (3,)

    def test_an_algorithm_of_your_own(self, tmp_path: Path) -> None:
        algorithm = st.trpo(0.005, metric=st.empirical_fisher, solver=st.SampleSpace(), damping=1e-2)
        run = st.train("CartPole-v1", algorithm, out=tmp_path / "run", **SMALL)
        assert all(row["update/kl"] <= 0.005 for row in run.metrics)

    @pytest.mark.parametrize("algorithm", ["pg", "npg", "trpo"])
    def test_box_actions_are_clipped_only_on_their_way_out(self, algorithm: str, tmp_path: Path) -> None:
        seen: list[np.ndarray] = []

        class Watching(gymnasium.Env):
            observation_space = gymnasium.spaces.Box(-1, 1, (2,))
            action_space = gymnasium.spaces.Box(-0.1, 0.2, (3,))

            def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
                return np.zeros(2, np.float32), {}

            def step(self, action: np.ndarray) -> Any:
                seen.append(action)
                return np.zeros(2, np.float32), float(-np.sum(action**2)), False, len(seen) % 10 == 0, {}

        run = st.train(Watching, algorithm, out=tmp_path / "run", **SMALL)
        actions = np.array(seen)
        assert actions.min() == pytest.approx(-0.1)
        assert actions.max() == pytest.approx(0.2)
        action, _ = run.agent.predict(np.zeros(2))
        assert (action >= np.float32(-0.1)).all()
        assert (action <= np.float32(0.2)).all()
        assert run.metrics[-1]["update/entropy"] != pytest.approx(0)


class TestStatistics:
    def test_pitfall_11_they_are_frozen_between_rollout_and_update(self, tmp_path: Path) -> None:
        """The first trial of every line search is measured from what acted: with observation normalisation on, a run
        whose steps are tiny realises a KL that is tiny, in every iteration, while the statistics move a lot."""
        algorithm = st.npg(delta=1e-6)
        settings = {**SMALL, "normalise_observations": True}
        run = st.train("CartPole-v1", algorithm, out=tmp_path / "run", **settings)
        for row in run.metrics:
            assert row["update/kl"] == pytest.approx(1e-6, rel=0.1)
        assert max(row["update/normaliser_kl"] for row in run.metrics) > 1e-7

    def test_batches_merge_to_the_whole(self) -> None:
        rng = np.random.default_rng(0)
        data = rng.normal(3.0, 5.0, size=(100, 2))
        merged = Normaliser.empty((2,)).updated(data[:7]).updated(data[7:60]).updated(data[60:60]).updated(data[60:])
        np.testing.assert_allclose(merged.mean, data.mean(axis=0), rtol=1e-12)
        np.testing.assert_allclose(merged.m2 / merged.count, data.var(axis=0), rtol=1e-12)
        scaled = np.asarray(merged.scaling()(data.astype(np.float32)))
        np.testing.assert_allclose(scaled.mean(axis=0), 0, atol=1e-5)
        np.testing.assert_allclose(scaled.std(axis=0), 1, rtol=1e-4)

    def test_an_entry_that_never_varies_is_not_blown_up(self) -> None:
        scaling = Normaliser.empty((1,)).updated(np.full((5, 1), 3.0)).scaling()
        np.testing.assert_array_equal(scaling(np.array([[3.5]], np.float32)), [[0.5]])


class TestLearning:
    def test_cartpole_is_solved_by_natural_gradients(self, tmp_path: Path) -> None:
        run = st.train("CartPole-v1", "trpo", steps=40_000, out=tmp_path / "run", evaluation={"every": 0})
        assert run.evaluation.mean() >= 475

    def test_the_two_state_mdp_is_solved(self, tmp_path: Path) -> None:
        run = st.train("mdp:two-state", "trpo", steps=30_000, out=tmp_path / "run", evaluation={"every": 0})
        assert run.evaluation.mean() >= 0.95 * 38  # V* = 2(H − 1), H = 20

    def test_a_critic_that_only_sees_truncation_is_not_taught_an_end(self, tmp_path: Path) -> None:
        """Reward 1 for ever, cut every few steps: the value is 1/(1 − γ), not the length of an episode."""
        settings = {
            **SMALL,
            "steps": 20_000,
            "gamma": 0.9,
            "gae_lambda": 0.9,
            "evaluation": {"every": 0},
            "delta": 1e-3,
        }
        settings["critic"] = {"epochs": 10, "minibatch": 64, "learning_rate": 1e-2}
        run = st.train(lambda: Counting(7), "pg", out=tmp_path / "run", **settings)
        assert run.metrics[-1]["critic/loss"] < 0.2  # from 100 at the start


class TestConfig:
    def test_it_survives_a_file(self) -> None:
        config = with_settings(st.TrainConfig("X-v0"), {"delta": 0.5, "policy": {"hidden": [3]}, "critic.epochs": 4})
        assert config.policy.hidden == (3,)
        assert from_record(json.loads(json.dumps(to_record(config)))) == config

    def test_every_setting_of_the_update_reaches_the_algorithm(self) -> None:
        config = UpdateConfig(
            0.02,
            damping=0.3,
            solver="cg",
            cg_iterations=7,
            metric="empirical-fisher",
            damped_form=True,
            backtracks=3,
            shrink=0.5,
        )
        fisher, cg = st.empirical_fisher, st.ConjugateGradient(7)
        step, region = st.Normalised(0.02, damped_form=True), st.TrustRegion(0.02, 3, 0.5, True)
        assert build_algorithm("pg", UpdateConfig(0.02, damped_form=True)) == st.pg(step=step)
        assert build_algorithm("pg", UpdateConfig(0.02, metric="fisher")) == st.pg(0.02)  # what older folders say
        assert build_algorithm("npg", config) == st.npg(metric=fisher, solver=cg, damping=0.3, step=step)
        assert build_algorithm("trpo", config) == st.trpo(metric=fisher, solver=cg, damping=0.3, step=region)
        assert build_algorithm("trpo", UpdateConfig(cg_iterations=7)) == st.trpo(solver=cg)
        assert build_algorithm("npg", UpdateConfig(cg_iterations=7)) == st.npg(solver=st.Automatic(7))
        assert build_algorithm("npg", UpdateConfig(solver="direct")) == st.npg(solver=st.Direct())
        assert build_algorithm("npg", UpdateConfig(solver="sample-space", metric="fisher")) == st.npg(
            solver=st.SampleSpace()
        )

    def test_every_setting_of_the_learner_reaches_it(self) -> None:
        settings = {"gamma": 0.9, "gae_lambda": 0.8, "centre_advantages": False}
        critic = {"learning_rate": 0.1, "epochs": 2, "minibatch": 3}
        config = with_settings(st.TrainConfig("X"), {**settings, "critic": critic})
        assert build_learner(config, st.npg()) == Learner(st.npg(), AdamFit(0.1, 2, 3), 0.9, 0.8, False)

    def test_every_setting_of_the_networks_reaches_them(self) -> None:
        box, layers = Box(np.zeros(2), np.ones(2)), {"activation": "relu", "initialisation": "uniform"}
        given = {"policy": {"hidden": [3], "initial_log_std": -1.0, "head_gain": 2.0, **layers}, "critic": layers}
        config = with_settings(st.TrainConfig("X"), given)
        spec = build_agent(config, box, box, None, jax.random.key(0)).spec
        assert spec == PolicySpec("mlp-gaussian", 2, 2, (3,), -1.0, 2.0, "relu", "uniform")
        critic = build_critic(config, box, None, jax.random.key(0))
        assert critic.net.activation == "relu"  # type: ignore[attr-defined]
        assert np.abs(critic.net.layers[0].bias).max() > 0  # type: ignore[attr-defined]

    def test_the_first_sigma_is_by_the_dimension_of_the_action_unless_it_was_chosen(self) -> None:
        def first(env: str, dimension: int, **settings: Any) -> float | None:
            space = Box(np.full(dimension, -1.0), np.ones(dimension))
            return resolve(with_settings(st.TrainConfig(env), settings), space).policy.initial_log_std

        assert [first("X", d) for d in (1, 3)] == [0, 0]
        assert first("X", 6) == pytest.approx(np.log(1 / 2))
        assert first("X", 8, initial_log_std=-0.5) == -0.5

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"policy": {"head_gain": 0}}, r"head_gain must be a finite number > 0"),
            ({"policy": {"activation": "sine"}}, r"policy.activation must be one of 'auto', 'tanh', .* got 'sine'"),
            ({"dleta": 1.0}, r"unknown setting 'dleta'; did you mean 'delta'"),
            ({"hidden": (3,)}, r"could be policy.hidden or critic.hidden"),
            ({"critic": {"epoch": 3}}, r"unknown setting of critic 'epoch'; did you mean 'epochs'"),
            ({"critic": 3}, r"critic takes a CriticConfig"),
            ({"steps": 0}, r"steps must be at least 1, got 0"),
            ({"seed": -1}, r"seed must be at least 0"),
            ({"delta": 0.0}, r"delta must be a finite number > 0, got 0"),
            ({"delta": float("inf")}, r"delta must be a finite"),
            ({"gamma": 1.5}, r"gamma must be in \[0, 1\], got 1.5"),
            ({"gae_lambda": -0.1}, r"gae_lambda must be in \[0, 1\]"),
            ({"damping": -1.0}, r"damping must be a finite number ≥ 0"),
            ({"envs": 0}, r"envs must be at least 1"),
            ({"envs": 3, "rollout": 7}, r"3 environments × 7 steps = 21 rows is not divisible into minibatches of 128"),
            ({"shrink": 1.0}, r"shrink must be between 0 and 1"),
            ({"policy": {"hidden": (0,)}}, r"policy.hidden needs layers"),
        ],
    )
    def test_bad_settings(self, settings: dict[str, Any], message: str, tmp_path: Path) -> None:
        with pytest.raises(st.UsageError, match=message):
            st.train("CartPole-v1", "trpo", out=tmp_path / "run", **settings)
        assert not (tmp_path / "run").exists()

    @pytest.mark.parametrize(
        ("record", "message"),
        [
            ([], "not a JSON object"),
            ({}, "lacks env"),
            ({"env": 3}, "config.env must be str, got 3"),
            ({"env": "X", "steps": True}, "config.steps must be int, got True"),
            ({"env": "X", "update": {"solver": "magic"}}, "must be one of 'auto', 'cg'"),
            ({"env": "X", "polcy": {}}, "did you mean 'policy'"),
            ({"env": "X", "policy": {"hidden": ["a"]}}, "policy.hidden must be"),
        ],
    )
    def test_bad_files(self, record: Any, message: str) -> None:
        with pytest.raises(st.UsageError, match=message):
            from_record(record)

    def test_every_rule_leaves_a_batch_that_minibatches_divide(self) -> None:
        from steepest.spaces import Discrete

        for envs in (1, 2, 3, 5, 7, 8, 16, 48):
            config = resolve(st.TrainConfig("X"), Discrete(2), envs)
            assert config.batch % config.critic.minibatch == 0
            assert 1024 <= config.batch <= 1024 * 9


class TestBadWorlds:
    @pytest.mark.parametrize(
        ("env", "message"),
        [
            ("CartPole-v", r"unknown environment 'CartPole-v'; did you mean 'CartPole-v1'"),
            ("gymnasuim:CartPole-v1", r"did you mean 'gymnasium:CartPole-v1'"),
            ("mdp:two-stat", r"did you mean 'two-state'"),
            (3, r"an environment is an id"),
        ],
    )
    def test_unknown(self, env: Any, message: str, tmp_path: Path) -> None:
        with pytest.raises(st.UsageError, match=message):
            st.train(env, "trpo", out=tmp_path / "run")
        assert not (tmp_path / "run").exists()

    def test_unknown_algorithm(self, tmp_path: Path) -> None:
        with pytest.raises(st.UsageError, match="unknown algorithm 'tpro'; did you mean 'trpo'"):
            st.train("CartPole-v1", "tpro", out=tmp_path / "run")
        assert not (tmp_path / "run").exists()

    def test_an_environment_that_breaks_leaves_the_last_good_policy(self, tmp_path: Path) -> None:
        class Breaking(gymnasium.Env):
            observation_space = gymnasium.spaces.Box(-1, 1, (2,))
            action_space = gymnasium.spaces.Discrete(2)
            steps = 0

            def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
                return np.zeros(2, np.float32), {}

            def step(self, action: int) -> Any:
                Breaking.steps += 1
                obs = np.full(2, np.nan if Breaking.steps == 300 else 0.0, np.float32)
                return obs, 1.0, Breaking.steps % 9 == 0, False, {}

        with pytest.raises(st.RunError, match=r"Breaking.*environment \d of 4.*not finite: nan"):
            st.train(Breaking, "trpo", out=tmp_path / "run", faults=0, **{**SMALL, "evaluation": {"every": 0}})
        assert st.load(tmp_path / "run").predict(np.zeros(2))[0].shape == ()

    def test_a_policy_that_does_not_fit(self, tmp_path: Path) -> None:
        for policy, message in (
            (st.MlpCategorical(4, 3, key=jax.random.key(0)), "the policy has 3 actions, the environment 2"),
            (st.MlpCategorical(5, 2, key=jax.random.key(0)), r"observation of shape \(4,\)"),
            (st.MlpGaussian(4, 2, key=jax.random.key(0)), r"actions have shape \(2,\), the environment takes \(\)"),
        ):
            with pytest.raises(st.UsageError, match=message):
                st.train("CartPole-v1", "trpo", policy=policy, out=tmp_path / "run")

    def test_an_agent_in_the_wrong_environment(self, run: st.Run) -> None:
        with pytest.raises(st.UsageError, match=r"observation space Box\(4,\) does not fit Pendulum-v1's Box\(3,\)"):
            st.evaluate(run.agent, "Pendulum-v1")
        with pytest.raises(st.UsageError, match=r"expected an observation of shape \(4,\).*got \(3,\)"):
            run.agent.predict(np.zeros(3))
        with pytest.raises(st.UsageError, match="episodes ≥ 1"):
            st.evaluate(run.agent, "CartPole-v1", episodes=0)


def test_an_iteration_compiles_nothing_after_the_first(tmp_path: Path) -> None:
    compilations: list[str] = []
    at: list[int] = []

    def listen(event: str, duration_secs: float, **_: Any) -> None:
        if event.endswith("backend_compile_duration"):
            compilations.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)
    settings = {**SMALL, "evaluation": {"every": 0}, "normalise_observations": True, "scale_rewards": True}
    st.train(
        "CartPole-v1", "trpo", out=tmp_path / "run", callbacks=[lambda e: at.append(len(compilations))], **settings
    )
    assert len(at) >= 4
    assert at[0] == at[-1], at
