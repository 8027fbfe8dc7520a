"""What a clumsy user, a full disk or a second process must not be able to do to a run."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import gymnasium
import jax
import numpy as np
import pytest

import steepest as st
from steepest.runs import RunFolder, read_lines
from steepest.worlds.finite import random as random_mdp
from test_training import SMALL, same


class Scaled(gymnasium.Wrapper):
    """CartPole with rewards of 100: its spec is that of CartPole."""

    def step(self, action: Any) -> Any:
        obs, _, terminated, truncated, info = self.env.step(action)
        return obs, 100.0, terminated, truncated, info


def test_a_solved_world_ends_well(tmp_path: Path) -> None:
    """Past the optimum there is nothing to gain: the run may stop early, but evaluated, saved and drawn."""
    run = st.train("mdp:two-state", "trpo", steps=60_000, out=tmp_path / "run", max_failures=5)
    assert run.evaluation.mean() >= 37
    assert same(st.load(run.path), run.agent)
    assert (run.path / "learning_curve.png").is_file()


def test_npg_refuses_a_kl_that_delta_cannot_mean(tmp_path: Path) -> None:
    """Beside a deterministic policy F → 0, and the closed form would leap: the report says KL, and θ stays."""
    run = st.train("mdp:two-state", "npg", steps=40_000, out=tmp_path / "run", max_failures=10**6)
    assert max(row["update/kl"] for row in run.metrics) <= 100 * 0.01
    assert run.evaluation.mean() >= 37


def test_a_mask_of_minus_infinity_stays_and_the_rest_learns() -> None:
    mdp = random_mdp(3, 3, 5, 0)
    logits = np.zeros((3, 3))
    logits[:, 1] = -np.inf
    for algorithm in (st.npg(1e-3), st.trpo(1e-3), st.pg(1e-3)):
        better, info = st.improve(st.TabularSoftmax(logits), mdp, algorithm)
        assert info.accepted
        assert (np.asarray(better.logits)[:, 1] == -np.inf).all()
        assert mdp.value(better) > mdp.value(st.TabularSoftmax(logits))


def test_a_config_says_which_algorithm(tmp_path: Path) -> None:
    run = st.train("CartPole-v1", config=st.TrainConfig("CartPole-v1", algorithm="npg"), out=tmp_path / "run", **SMALL)
    assert json.loads((run.path / "config.json").read_text())["algorithm"] == "npg"
    assert all(row["update/backtracks"] == 0 for row in run.metrics)


class TestObjects:
    def test_an_algorithm_is_not_swapped_on_resume(self, tmp_path: Path) -> None:
        algorithm = st.trpo(0.05, solver=st.ConjugateGradient(3))
        run = st.train("CartPole-v1", algorithm, out=tmp_path / "run", **SMALL)
        with pytest.raises(st.UsageError, match=r"given its algorithm as an object.*algorithm="):
            st.resume(run.path, steps=700)
        again = st.resume(run.path, steps=700, algorithm=algorithm)
        assert {row["update/iterations"] for row in again.metrics} == {3}
        assert {row["update/damping"] for row in again.metrics} == {np.float32(0.1)}
        with pytest.raises(st.UsageError, match="belong to the algorithm"):
            st.train("CartPole-v1", algorithm, delta=0.5, out=tmp_path / "other")

    def test_an_environment_is_not_swapped_on_resume(self, tmp_path: Path) -> None:
        settings = {k: v for k, v in SMALL.items() if k not in ("envs", "rollout")}
        env = Scaled(gymnasium.make("CartPole-v1"))
        run = st.train(env, "trpo", out=tmp_path / "run", **settings)
        with pytest.raises(st.UsageError, match=r"given its env as an object"):
            st.resume(run.path, steps=3000)
        assert st.resume(run.path, steps=3000, env=env).evaluation.min() >= 800
        done = subprocess.run(
            [sys.executable, "-m", "steepest.cli", "evaluate", str(run.path)], capture_output=True, text=True
        )
        assert done.returncode == 2
        assert "give it again, --env ID" in done.stderr

    def test_a_number_of_environments_that_is_not_there(self, tmp_path: Path) -> None:
        with pytest.raises(st.UsageError, match="1 environment"):
            st.train(gymnasium.make("Pendulum-v1"), steps=300, envs=4, out=tmp_path / "run")
        assert not (tmp_path / "run").exists()


class TestFolders:
    def test_one_process_at_a_time(self, tmp_path: Path) -> None:
        run = st.train("CartPole-v1", "trpo", out=tmp_path / "run", **SMALL)
        rows = read_lines(run.path / "metrics.jsonl")
        with RunFolder(run.path).lock(), pytest.raises(st.UsageError, match="is in use"):
            st.resume(run.path, steps=5000)
        assert read_lines(run.path / "metrics.jsonl") == rows
        assert json.loads((run.path / "config.json").read_text())["steps"] == SMALL["steps"]

    def test_a_start_that_fails_leaves_nothing(self, tmp_path: Path) -> None:
        with pytest.raises(st.UsageError, match=r"more than 8192 rows; use ConjugateGradient"):
            st.train("CartPole-v1", "trpo", out=tmp_path / "run", solver="sample-space", rollout=1280, steps=5000)
        assert not (tmp_path / "run").exists()

    def test_whatever_is_raised_the_last_iteration_is_saved(self, tmp_path: Path) -> None:
        agents: list[st.Agent] = []

        def explode(event: st.IterationEvent) -> None:
            agents.append(event.agent)
            if event.iteration == 3:
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            st.train("CartPole-v1", "trpo", out=tmp_path / "run", checkpoint_every=100, callbacks=[explode], **SMALL)
        assert same(st.load(tmp_path / "run"), agents[-1])

    def test_the_last_evaluation_can_be_had_again(self, tmp_path: Path) -> None:
        run = st.train("CartPole-v1", "trpo", out=tmp_path / "run", **SMALL)
        kept = json.loads((run.path / "evaluation.json").read_text())
        assert kept["returns"] == run.evaluation.tolist()
        # the quota of an environment depends on how many there are: with as many, the episodes are the same
        again = st.evaluate(st.load(run.path), gymnasium_world(2), episodes=3, seed=kept["seed"])
        np.testing.assert_array_equal(again, run.evaluation)

    @pytest.mark.skipif(sys.platform != "linux", reason="needs a file size limit that raises")
    def test_a_full_disk(self, tmp_path: Path) -> None:
        """A limit on the size of files stands in for it: what was saved last is whole, and the message is one line."""
        code = (
            "import resource, signal, sys\n"
            "from steepest.cli import main\n"
            "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
            "resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, 30_000))\n"
            "import os; os.environ['JAX_COMPILATION_CACHE_DIR'] = ''\n"
            f"sys.exit(main(['train', 'CartPole-v1', '--out', {str(tmp_path / 'run')!r}, '--quiet']))\n"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
        assert done.returncode == 1
        assert done.stderr.startswith("steepest: cannot write ")
        assert "Traceback" not in done.stderr
        assert not (tmp_path / "run").exists()


def gymnasium_world(envs: int) -> Any:
    from steepest.worlds import make_world

    return make_world("CartPole-v1", envs)


class TestArguments:
    def test_settings_have_their_types(self, tmp_path: Path) -> None:
        run = st.train("CartPole-v1", "trpo", out=tmp_path / "run", **{**SMALL, "steps": 5e2})
        assert json.loads((run.path / "config.json").read_text())["steps"] == 500
        for settings, message in (
            ({"steps": "abc"}, "steps must be int, got 'abc'"),
            ({"envs": "4"}, "sampling.envs must be"),
            ({"policy": {"hidden": 64}}, "policy.hidden must be"),
            ({"solver": "nope"}, "must be one of 'auto', 'cg'"),
            ({"seed": 2**40}, "less than 2³²"),
        ):
            with pytest.raises(st.UsageError, match=message):
                st.train("CartPole-v1", "trpo", out=tmp_path / "no", **settings)  # type: ignore[arg-type]

    def test_things_that_are_no_algorithm(self) -> None:
        mdp, policy = random_mdp(2, 2, 3, 0), st.TabularSoftmax(np.zeros((2, 2)))
        bad: Any = "npg"
        with pytest.raises(st.UsageError, match=r"such as st.npg"):
            st.improve(policy, mdp, bad)
        with pytest.raises(st.UsageError, match=r"such as st.FiniteHorizonMDP"):
            st.improve(policy, bad, st.npg())
        with pytest.raises(st.UsageError, match=r"solver must be a Solver such as st.ConjugateGradient"):
            st.npg(solver=bad)
        with pytest.raises(st.UsageError, match=r"algorithm is a name or an Algorithm"):
            st.train("CartPole-v1", 3, steps=10)  # type: ignore[arg-type]
        with pytest.raises(st.UsageError, match="no solver and no Fisher metric"):
            st.train("CartPole-v1", "pg", solver="cg")

    def test_observations_that_are_not_in_the_space(self) -> None:
        from steepest.spaces import Box, Discrete

        agent = st.Agent(st.TabularSoftmax(np.zeros((3, 2))), Discrete(3), Discrete(2))
        assert agent.predict(2)[0] in (0, 1)
        for wrong in (3, -1, [0, 99]):
            with pytest.raises(st.UsageError, match="not in the space"):
                agent.predict(wrong)
        box = Box(np.full(4, -np.inf), np.full(4, np.inf))
        agent = st.Agent(st.MlpCategorical(4, 2, key=jax.random.key(0)), box, Discrete(2))
        with pytest.raises(st.UsageError, match="not in the space"):
            agent.predict([0.0, np.nan, 0.0, 0.0])

    def test_an_evaluation_that_never_ends_can_be_stopped(self) -> None:
        from steepest.training.evaluation import play

        agent = st.Agent(st.MlpCategorical(4, 2, key=jax.random.key(0)), *spaces_of_cartpole())
        asked: list[int] = []

        def stop() -> bool:
            asked.append(1)
            return len(asked) > 5

        assert len(play(agent, gymnasium_world(2), 4, 0, stop=stop)) == 0
        with pytest.raises(st.UsageError, match="seed must be at least 0"):
            st.evaluate(agent, "CartPole-v1", 2, seed=-1)


def spaces_of_cartpole() -> tuple[Any, Any]:
    from steepest.spaces import describe

    world = gymnasium_world(1)
    return describe(world.observation_space, "observation"), describe(world.action_space, "action")
