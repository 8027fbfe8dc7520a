"""An update that failed is written down with all that went into it, and is made again from the file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

import steepest as st
from environments import Effort
from steepest.cli import main
from steepest.errors import RunError
from steepest.parameters import split
from steepest.reports.replayed_update import in_words
from steepest.runs import RunFolder, checkpoint
from steepest.training.failed_update import load_update, replay
from steepest.training.loop import KEPT
from steepest.training.persistence import read

SMALL: dict[str, Any] = {
    "envs": 4, "rollout": 64, "tensorboard": False, "critic": {"epochs": 2, "minibatch": 64},
    "evaluation": {"every": 0, "final_episodes": 1}, "max_failures": 10**6,
}  # fmt: skip
FAILS = {"delta": 30.0, "backtracks": 0}
"""A step that the line search cannot take, nearly always."""
REMEMBERING = {"policy": {"hidden": (8,), "memory": "gru", "memory_units": 8}, "normalise_observations": True}
KINDS: list[Any] = [
    ("normalised", "CartPole-v1", {**FAILS, "normalise_observations": True, "scale_rewards": True}),
    ("workers", "CartPole-v1", {**FAILS, "group": 2, "workers": 2}),
    pytest.param(
        "warm", "Pendulum-v1", {**FAILS, "damping_rule": "adaptive", "warm_start": True}, marks=pytest.mark.slow
    ),
    ("vine", "CartPole-v1", {**FAILS, "scheme": "vine", "vine": {"states": 8, "actions": 2, "length": 3}}),
    pytest.param("cost", Effort, {"algorithm": "trpo-lagrangian", "cost_limit": 6.0, **FAILS}, marks=pytest.mark.slow),
    ("native", "mdp:chain", {**FAILS}),
    pytest.param("memory", "CartPole-v1", {**FAILS, **REMEMBERING}, marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("name", "env", "settings"), KINDS, ids=lambda x: x if isinstance(x, str) else "")
def test_a_failed_update_is_made_again_from_its_file(
    name: str, env: Any, settings: dict[str, Any], tmp_path: Path
) -> None:
    run = st.train(env, out=tmp_path / "run", **{**SMALL, "steps": 6 * 256, **settings})
    rows = run.metrics
    failed = [row["iteration"] for row in rows if row["update/reason"] == "line_search"]
    assert failed, "nothing failed"
    first = [i for i in failed if i - 1 not in failed][:KEPT]
    files = sorted((run.path / "updates").iterdir())
    assert [file.name for file in files] == [f"iteration-{i:06d}.safetensors" for i in first]
    replayed = load_update(files[0])
    assert replayed.record["progress"]["iteration"] + replayed.ahead + 1 == first[0]
    assert replayed.step["update/reason"] == "line_search"
    then = {name: rows[first[0] - 1][name] for name in replayed.step}
    if name == "native":  # the program of many iterations rounds otherwise
        for key in ("update/gradient_norm", "update/predicted_kl"):
            np.testing.assert_allclose(replayed.step[key], then[key], rtol=1e-3)
    else:
        assert then == replayed.step


def test_what_is_said_of_it_is_what_went_into_it(tmp_path: Path) -> None:
    settings = {**SMALL, **FAILS, "steps": 256}
    run = st.train("CartPole-v1", out=tmp_path / "run", **settings)
    file = min((run.path / "updates").iterdir())
    record, replayed = replay(file), load_update(file)
    assert record["same"]
    assert [trial["with"].split()[0] for trial in record["trials"]] == ["damping", "damping", "delta"]
    text = in_words(record)
    assert f"iteration {record['iteration']}, after {record['steps']} steps" in text
    assert "No point on the line improves the surrogate" in text
    rollout = replayed.given.rollout
    row, before = run.metrics[record["iteration"] - 1], read(file)[1]["progress"]
    assert record["rollout"]["rows"] == int(rollout.valid.sum()) == row["step"] - before["steps"]
    assert record["rollout"]["terminated"] == row["episodes"] - before["episodes"]
    obs = rollout.obs[rollout.valid]
    assert record["rollout"]["observation"]["greatest"] == obs.max()
    assert record["batch"]["observation"] == record["rollout"]["observation"]  # there are no statistics
    params, _ = split(replayed.state.policy)
    assert record["parameters"]["net.layers[0].weight"]["least"] == float(np.min(params.net.layers[0].weight))
    line = record["line"]
    assert line["delta"] == sorted(line["delta"])
    assert line["predicted"][-1] > line["predicted"][0] > 0
    agent = st.load(file)  # a checkpoint of the moment before
    for a, b in zip(jax.tree.leaves(split(agent.policy)[0]), jax.tree.leaves(params), strict=True):
        np.testing.assert_array_equal(a, b)


def test_numbers_that_are_not_finite_are_counted(tmp_path: Path) -> None:
    run = st.train("CartPole-v1", out=tmp_path / "run", **{**SMALL, **FAILS, "steps": 256})
    (file,) = (run.path / "updates").iterdir()
    arrays, info = read(file)
    arrays["update.rollout.reward"] = arrays["update.rollout.reward"].copy()
    arrays["update.rollout.reward"][3, 1] = np.nan
    checkpoint.save(file, arrays, info)
    record = replay(file)
    assert record["rollout"]["reward"]["not finite"] == 1
    assert record["batch"]["advantage"]["not finite"] > 0
    assert record["replayed"]["update/reason"] == "nonfinite_gradient"
    assert not record["same"]
    assert "it was 'line_search' then" in in_words(record)


def test_a_run_that_stops_for_its_failures_keeps_the_last_of_them(tmp_path: Path) -> None:
    settings = {**SMALL, **FAILS, "steps": 100 * 256, "max_failures": 3}
    run = st.train("CartPole-v1", out=tmp_path / "run", **settings)
    assert "3 updates in a row kept the policy" in run.ended
    last = run.metrics[-1]["iteration"]
    names = sorted(file.name for file in (run.path / "updates").iterdir())
    assert names[-1] == f"iteration-{last:06d}.safetensors"
    assert f"iteration-{last - 2:06d}.safetensors" in names


def test_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = st.train("CartPole-v1", out=tmp_path / "run", **{**SMALL, **FAILS, "steps": 256})
    (file,) = (run.path / "updates").iterdir()
    assert main(["diagnose", str(file)]) == 0
    assert "made again: the same numbers" in capsys.readouterr().out
    assert main(["diagnose", str(file), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["same"]
    assert main(["inspect", str(file)]) == 0
    assert main(["diagnose", str(run.path / "checkpoints" / "last.safetensors")]) == 2
    assert "holds no update" in capsys.readouterr().err


@pytest.mark.parametrize("wrong", ["report", "rollout", "key", "row", "exhaustive", "critic"])
def test_a_file_that_is_none_is_refused(wrong: str, tmp_path: Path) -> None:
    vine = {"scheme": "vine", "vine": {"states": 8, "actions": 2, "length": 3}}
    run = st.train("CartPole-v1", out=tmp_path / "run", **{**SMALL, **FAILS, **vine, "steps": 2 * 256})
    file = next((run.path / "updates").iterdir())
    arrays, info = read(file)
    if wrong == "report":
        info["update"] = {"report": [], "exhaustive": None, "ahead": None}
    elif wrong == "rollout":
        arrays["update.rollout.obs"] = arrays["update.rollout.obs"][:3]
    elif wrong == "key":
        del arrays["update.key"]
    elif wrong == "critic":
        info["config"]["critic"]["hidden"] = [10**9, 10**9]  # would take an exabyte
    elif wrong == "row":
        arrays["update.branches.row"] = arrays["update.branches.row"] + 10**6
    else:
        info["update"]["exhaustive"] = 1
    checkpoint.save(file, arrays, info)
    with pytest.raises(RunError, match=r"damaged|does not fit"):
        replay(file)


def test_a_full_disk_does_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: RunFolder, *args: Any) -> None:
        raise RunError("cannot write: No space left on device")

    monkeypatch.setattr(RunFolder, "save_update", full)
    run = st.train("CartPole-v1", out=tmp_path / "run", **{**SMALL, **FAILS, "steps": 256})
    assert run.ended == "all steps done"
