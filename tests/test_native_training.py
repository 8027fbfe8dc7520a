"""Training as one program is training: the host's arithmetic, the host's files, whatever the stretches are."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import steepest as st
from functional_environments import Breaking, Corridor, Drift
from steepest.agent import Agent
from steepest.cli import main
from steepest.normaliser import Normaliser
from steepest.sampling.moments import Moments, discounted_sums
from steepest.sampling.reward_scale import RewardScale
from steepest.sampling.unroll import begin, unroll
from steepest.training import native_engine
from steepest.training.beginning import engine_of, first_snapshot, learner_of
from steepest.training.config import TrainConfig
from steepest.training.engine import ACT, FIT, RESET, key_of
from steepest.training.evaluation import play
from steepest.training.iteration import Given
from steepest.training.presets import resolve
from steepest.training.settings import with_settings
from steepest.worlds.functional.world import FunctionalWorld

SMALL: dict[str, Any] = {
    "envs": 4,
    "rollout": 16,
    "policy": {"hidden": (8,)},
    "critic": {"hidden": (8,), "minibatch": 32, "epochs": 2},
    "evaluation": {"episodes": 2, "final_episodes": 4},
    "tensorboard": False,
}


def parts(world: FunctionalWorld, callbacks: Any = (), **settings: Any) -> Any:
    """(config, learner, first snapshot, engine) of a small run."""
    config = resolve(with_settings(TrainConfig("X"), {**SMALL, **settings}), world.copies.action, functional=True)
    learner = learner_of(config, "trpo")
    snapshot = first_snapshot(config, learner, world, None)
    engine: Any = engine_of(None, config, learner, world, None, snapshot, None, callbacks)  # type: ignore[arg-type]
    return config, learner, snapshot, engine


def numbers(run: st.Run) -> list[dict[str, Any]]:
    return [{k: v for k, v in row.items() if not k.startswith("time/")} for row in run.metrics]


def close(a: dict[str, Any], b: dict[str, Any], tolerance: float = 1e-5) -> None:
    assert a.keys() == b.keys()
    for name, value in a.items():
        expected = value if isinstance(value, str | bool | None) else pytest.approx(value, rel=tolerance, abs=tolerance)
        assert b[name] == expected, name


@pytest.fixture(params=[1, 2], ids=["one program", "two threads"])
def ways(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """Both forms of the engine, whatever this machine has."""
    monkeypatch.setattr(native_engine, "two_processors", lambda: request.param == 2)
    monkeypatch.setattr(native_engine, "BESIDE", 0)
    return request.param


@pytest.mark.parametrize("offset", [0.0, 1000.0])
def test_moments_on_the_device_are_those_of_the_host(offset: float):
    rng = np.random.default_rng(0)
    host, device = Normaliser.empty((3,)), Moments.of(Normaliser.empty((3,)))
    for n in (1, 7, 200, 64, 64):
        x = (offset + rng.normal(size=(n, 3)) * [1.0, 10.0, 0.0]).astype(np.float32)
        host, device = host.updated(x), device.updated(jnp.asarray(x))
    for mine, theirs in zip(device.scaling()[:2], host.scaling()[:2], strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(device.on_host().m2, host.m2, rtol=1e-5, atol=1e-5)


def test_the_scale_of_the_rewards_on_the_device_is_that_of_the_host():
    _, _, snapshot, _ = parts(FunctionalWorld(Drift(), 4))
    world, policy = FunctionalWorld(Drift(), 4), snapshot.agent.policy
    host, device, running = RewardScale.empty(4), Moments.of(Normaliser.empty(())), jnp.zeros(4)
    underway = begin(world.copies, world.copies.tables, jax.random.key(1), 4)
    for i in range(2):
        _, rollout, _ = unroll(world.copies, world.copies.tables, lambda o, k: jax.vmap(policy)(o).sample(k), underway,
                               jax.random.key(i), 16)  # fmt: skip
        host = host.updated(jax.tree.map(np.asarray, rollout), 0.9)
        running, sums = discounted_sums(running, rollout.reward, rollout.terminated | rollout.truncated, 0.9)
        device = device.updated(sums.ravel())
    np.testing.assert_allclose(running, host.running, rtol=1e-5, atol=1e-5)
    assert float(device.deviation()) == pytest.approx(float(host.value), rel=1e-5)


@pytest.mark.usefixtures("ways")
def test_an_iteration_is_the_hosts_arithmetic_on_the_same_rollout():
    """Two iterations: the second is normalised by the first's statistics, and has its optimiser's state."""
    world = FunctionalWorld(Drift(), 4)
    config, learner, snapshot, engine = parts(world, callbacks=(print,), seed=2**32 - 1)
    engine.reset(snapshot)
    copies, state, scale = world.copies, snapshot.learner, snapshot.reward_scale
    underway = begin(copies, copies.tables, key_of(config.seed, RESET, 0), 4)
    normaliser = snapshot.agent.normaliser
    for i in range(2):
        acted = normaliser.scaling()

        def act(obs: Any, key: Any, policy: Any = state.policy, acted: Any = acted) -> Any:
            return jax.vmap(policy)(acted(obs)).sample(key)

        underway, rollout, ends = unroll(copies, copies.tables, act, underway, key_of(config.seed, ACT, i), 16)
        rollout = jax.tree.map(np.asarray, rollout)
        normaliser = normaliser.updated(rollout.obs[rollout.valid])
        scale = scale.updated(rollout, config.sampling.gamma)
        key = key_of(config.seed, FIT, i)
        state, info = learner.update(state, Given(rollout, acted, normaliser.scaling(), scale.value, key))
        advanced = engine.advance(snapshot)
        snapshot = advanced.snapshot
        (row,) = advanced.rows
        assert row.metrics["update/kl"] == pytest.approx(float(info.step.kl), rel=1e-4)
        assert row.metrics["update/normaliser_kl"] == pytest.approx(float(info.step.normaliser_kl), rel=1e-3)
        assert row.metrics["critic/loss"] == pytest.approx(float(info.critic.loss), rel=1e-4)
        assert row.metrics["reward_scale"] == pytest.approx(float(scale.value), rel=1e-5)
        assert len(row.episodes) == int(ends.ended.sum()) > 0
        for mine, theirs in zip(jax.tree.leaves(snapshot.learner), jax.tree.leaves(state), strict=True):
            np.testing.assert_allclose(mine, theirs, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(snapshot.agent.normaliser.mean, normaliser.mean, rtol=1e-5, atol=1e-5)


def test_a_run_leaves_what_every_run_leaves_and_goes_on(tmp_path: Path):
    run = st.train(Corridor(), "pg", steps=640, out=tmp_path / "run", checkpoint_every=4, **SMALL)
    names = {path.name for path in run.path.iterdir()}
    assert {"config.json", "meta.json", "metrics.jsonl", "episodes.jsonl", "evaluation.json", "checkpoints"} <= names
    assert [row["step"] for row in run.metrics] == list(range(64, 641, 64))
    lines = [json.loads(line) for line in (run.path / "episodes.jsonl").read_text().splitlines()]
    assert len(lines) == 64  # of 10 steps each
    assert {(line["length"], line["terminated"]) for line in lines} == {(10, False)}
    assert st.load(run.path).predict(np.eye(3)[0])[0] in (0, 1)
    assert sum("evaluation/mean" in row for row in run.metrics) == 10
    assert run.evaluation.shape == (4,)
    with pytest.raises(st.UsageError, match="give it again"):
        st.resume(run.path, steps=960)
    longer = st.resume(run.path, env=Corridor(), steps=960)
    assert [row["step"] for row in longer.metrics] == list(range(64, 961, 64))
    assert longer.metrics[9]["update/kl"] == run.metrics[9]["update/kl"]


@pytest.mark.usefixtures("ways")
def test_stretches_change_no_number_and_callbacks_see_every_agent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(native_engine, "SECONDS", 1e9)
    settings = {"steps": 1280, "checkpoint_every": 7, **SMALL, "evaluation": {"every": 320, "episodes": 2}}
    seen: list[Agent] = []
    one = st.train(Drift(), "pg", out=tmp_path / "one", callbacks=[lambda event: seen.append(event.agent)], **settings)
    many = st.train(Drift(), "pg", out=tmp_path / "many", **settings)
    assert numbers(one) == numbers(many)
    weights = [float(agent.policy.log_std[0]) for agent in seen]  # type: ignore[attr-defined]
    assert len(set(weights)) == 20
    times = [row["time/iteration"] for row in many.metrics]
    assert len(set(times)) == 7, "stretches end at every evaluation and checkpoint: 1, 5, 7, 10, 14, 15, 20"


def test_the_same_programs_serve_every_stretch(ways: int):
    world, compiled = FunctionalWorld(Corridor(), 4), list[str]()
    _, _, snapshot, engine = parts(world, steps=10**6, checkpoint_every=1000)
    engine.reset(snapshot)

    def listen(event: str, duration_secs: float, **_: Any) -> None:
        compiled.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)
    for pace in (None, 0.25, 0.1):
        engine._runs._pace = pace
        advanced = engine.advance(snapshot)
        snapshot = advanced.snapshot
        assert len(advanced.rows) == (1 if pace is None else int(0.5 / pace))
        assert bool([event for event in compiled if "backend_compile" in event]) == (pace is None)
        compiled.clear()
    assert engine._runs._run.__qualname__.startswith(("compile_iterations", "compile_paired")[ways - 1])


@pytest.mark.parametrize("algorithm", ["trpo", "pg"])
def test_two_threads_do_what_one_program_does(algorithm: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    runs = []
    monkeypatch.setattr(native_engine, "BESIDE", 0)
    for count in (1, 2):
        monkeypatch.setattr(native_engine, "two_processors", lambda count=count: count == 2)
        runs.append(st.train(Drift(), algorithm, steps=256, seed=6, out=tmp_path / str(count), **SMALL))
    one, two = map(numbers, runs)
    assert len(one) == len(two) == 4
    close(one[0], two[0])
    close(one[-1], two[-1], 1e-2)  # rounding is not the same, and grows


def test_a_critic_upon_the_policys_network_stays_in_one_program(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(native_engine, "two_processors", lambda: True)
    monkeypatch.setattr(native_engine, "BESIDE", 0)
    shared = {"critic": {**SMALL["critic"], "network": "shared"}}
    _, _, snapshot, engine = parts(FunctionalWorld(Drift(), 4), **shared)
    engine.reset(snapshot)
    engine.advance(snapshot)
    assert engine._runs._run.__qualname__.startswith("compile_iterations")


def test_a_fit_that_is_soon_done_stays_in_one_program(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(native_engine, "two_processors", lambda: True)
    for hidden, kind in (((8,), "compile_iterations"), ((512, 512), "compile_paired")):
        critic = {"critic": {**SMALL["critic"], "hidden": hidden, "epochs": 1000}}
        _, _, snapshot, engine = parts(FunctionalWorld(Drift(), 4), **critic)
        engine.reset(snapshot)
        monkeypatch.setattr(native_engine, kind, stop)
        with pytest.raises(Stop):
            engine.advance(snapshot)


class Stop(Exception):
    """Raised by `stop`."""


def stop(*_: Any, **__: Any) -> Any:
    raise Stop


@pytest.mark.usefixtures("ways")
def test_updates_that_fail_again_and_again_stop_the_stretch(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(native_engine, "SECONDS", 1e9)
    settings: dict[str, Any] = {"steps": 64 * 20, "delta": 1e-30, "max_failures": 3, "checkpoint_every": 1000}
    _, _, snapshot, engine = parts(FunctionalWorld(Corridor(), 4), **settings | {"evaluation": {"every": 0}})
    engine.reset(snapshot)
    engine._runs._pace = 1e-9  # a stretch as long as there is something to do
    rows = engine.advance(snapshot).rows
    assert [row.progress.failures for row in rows] == [1, 2, 3]


@pytest.mark.usefixtures("ways")
@pytest.mark.parametrize(("at", "whole"), [(2, 0), (40, 2)])
def test_a_world_that_breaks_stops_the_run_after_its_last_whole_iteration(at: int, whole: int, tmp_path: Path):
    settings, path = {**SMALL, "evaluation": {"every": 0}}, tmp_path / "run"
    with pytest.raises(st.RunError, match="environment 0 of 4 returned a reward that is not finite"):
        st.train(Breaking(at), "pg", steps=640, out=path, **settings)
    assert path.exists() == (whole > 0)  # with not one iteration there is nothing to keep
    if whole:
        lines = (path / "metrics.jsonl").read_text().splitlines()
        assert [json.loads(line)["step"] for line in lines] == [64, 128]
        assert st.load(path).predict(np.eye(3)[0])[0] in (0, 1)


def test_signals_and_returns_stop_a_run(tmp_path: Path):
    reached = st.train(
        Corridor(), "pg", steps=10**6, out=tmp_path / "run", stop_at_return=7.5,
        **{**SMALL, "evaluation": {"every": 640, "episodes": 2, "final_episodes": 2}},
    )  # fmt: skip
    assert "reached 7.5" in reached.ended
    assert reached.steps < 64_000

    def kill(event: Any) -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    stopped = st.train(Corridor(), "pg", steps=640, out=tmp_path / "stopped", callbacks=[kill], **SMALL)
    assert (stopped.steps, stopped.exit_code) == (64, 143)


class Stepped:
    """A functional world that nobody knows to be one."""

    def __init__(self, world: FunctionalWorld):
        self._world = world

    def __getattr__(self, name: str) -> Any:
        return getattr(self._world, name)


@pytest.mark.parametrize("deterministic", [True, False])
def test_evaluation_as_one_program_is_evaluation_step_by_step(deterministic: bool):
    _, _, snapshot, _ = parts(FunctionalWorld(Drift(), 4))
    world, given = FunctionalWorld(Drift(), 3), (5, 7, deterministic)
    both: list[Any] = [world, Stepped(world)]
    mine, theirs = (play(snapshot.agent, which, *given) for which in both)
    np.testing.assert_allclose(mine, theirs, rtol=1e-5)


def test_an_evaluation_that_is_stopped_gives_fewer_returns():
    _, _, snapshot, _ = parts(FunctionalWorld(Drift(), 4))
    assert len(play(snapshot.agent, FunctionalWorld(Drift(), 3), 5, 7, stop=lambda: True)) == 0


@pytest.mark.parametrize(
    ("env", "least"), [("mdp:chain", 5.5), pytest.param("lqr:scalar", -31.0, marks=pytest.mark.slow)]
)
def test_an_mdp_and_an_lqr_learn(env: str, least: float, tmp_path: Path):
    """The chain's optimum is 6. The LQR's is −20; an action of 0 everywhere costs 37."""
    run = st.train(env, "trpo", steps=20_480, out=tmp_path / "run", tensorboard=False)
    assert run.evaluation.mean() > least


def test_seeds_together_are_the_seeds_alone(tmp_path: Path):
    settings = {"steps": 256, **SMALL}
    runs = st.train(Drift(), "trpo", seed=5, seeds=3, out=tmp_path / "runs", **settings)
    assert [run.path for run in runs] == [tmp_path / "runs" / f"s{seed}" for seed in (5, 6, 7)]
    alone = st.train(Drift(), "trpo", seed=6, out=tmp_path / "alone", **settings)
    close(numbers(alone)[0], numbers(runs[1])[0])
    close(numbers(alone)[-1], numbers(runs[1])[-1], 1e-2)  # rounding is not the same, and grows
    assert len({json.dumps(numbers(run)) for run in runs}) == 3
    names = {path.name for path in alone.path.iterdir()}
    assert all({path.name for path in run.path.iterdir()} == names for run in runs)
    config = json.loads((runs[1].path / "config.json").read_text())
    assert config == json.loads((alone.path / "config.json").read_text())


def test_seeds_that_have_ended_wait_for_the_others(tmp_path: Path):
    def good(event: st.IterationEvent) -> str | None:
        return "good" if event.metrics["return/recent"] > 3.2 else None

    runs = st.train(Corridor(), "pg", steps=12_800, seeds=3, out=tmp_path / "runs", callbacks=[good], **SMALL)
    assert len({run.steps for run in runs}) > 1, "chosen so that they end at different times"
    for run in runs:
        assert run.ended == "good"
        assert [row["step"] for row in run.metrics] == list(range(64, run.steps + 1, 64))
        assert [row["return/recent"] > 3.2 for row in run.metrics] == [False] * (len(run.metrics) - 1) + [True]


@pytest.mark.parametrize(
    ("env", "settings", "says"),
    [
        ("CartPole-v1", {"seeds": 2}, "stepped on the host.*--seed.*gymnax:CartPole-v1"),
        ("mdp:chain", {"seeds": 2, "sampling": {"scheme": "vine"}}, "vine a run is not one program"),
        ("mdp:chain", {"seeds": 0}, "at least 1"),
        ("mdp:chain", {"seeds": 2.5}, "a whole number, at least 1, got 2.5"),
        ("mdp:chain", {"seeds": 2, "seed": 2**32 - 1}, "less than"),
    ],
)
def test_seeds_that_cannot_be_together_are_refused(env: str, settings: Any, says: str, tmp_path: Path):
    with pytest.raises(st.UsageError, match=says):
        st.train(env, "trpo", steps=100, out=tmp_path / "runs", **settings)
    assert not (tmp_path / "runs").exists()


def test_the_command_line_trains_seeds_and_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    given = ["--envs", "4", "--rollout", "16", "--critic.minibatch", "32", "--no-tensorboard", "--steps", "64"]
    out = ["--out", str(tmp_path / "runs"), "--seeds", "2", "--seed", "3"]
    assert main(["train", "mdp:chain", "--algorithm", "pg", "--json", *given, *out]) == 0
    record = json.loads(capsys.readouterr().out)
    assert [Path(run["run"]).name for run in record["runs"]] == ["s3", "s4"]
    assert record["return_mean"] == pytest.approx(np.mean([run["return_mean"] for run in record["runs"]]))
    assert main(["train", "CartPole-v1", "--seeds", "2", "--steps", "64", "--out", str(tmp_path / "host")]) == 2
    assert "gymnax:CartPole-v1" in capsys.readouterr().err
    assert not (tmp_path / "host").exists()


@pytest.mark.slow
def test_returns_of_seeds_together_are_those_of_seeds_alone(tmp_path: Path):
    """Other seeds, so that nothing but the distribution can agree: |t| of Welch's test below its 1 % quantile."""
    settings = {"steps": 30_720, "tensorboard": False}
    together = st.train("lqr:double-integrator", "trpo", seeds=16, out=tmp_path / "runs", **settings)
    alone = [
        st.train("lqr:double-integrator", "trpo", seed=100 + i, out=tmp_path / f"{i}", **settings) for i in range(12)
    ]
    a, b = (np.array([run.evaluation.mean() for run in runs]) for runs in (together, alone))
    assert abs(a.mean() - b.mean()) < 2.8 * np.sqrt(a.var(ddof=1) / len(a) + b.var(ddof=1) / len(b))
