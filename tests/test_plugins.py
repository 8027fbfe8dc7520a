"""Other packages add worlds, algorithms and sinks by entry points: on the word of the user, not of a file."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

import steepest as st
from steepest.algorithms import methods
from steepest.cli import main
from steepest.errors import UsageError
from steepest.names import Registry
from steepest.runs import SINKS
from steepest.worlds import backends, make_world

MODULE = """
import json
from pathlib import Path
import steepest as st
from steepest.worlds import make_world


def world(name, envs, **kwargs):
    made = make_world(f"mdp:{name}", envs, **kwargs)
    made.backend = "moon"
    return made


def lander(delta=0.02):
    return st.npg(delta=delta)


class Lines:
    def __init__(self, folder, purge):
        self.path, self.purge = Path(folder) / "lines.txt", purge

    def write(self, step, values):
        with self.path.open("a") as file:
            file.write(json.dumps([step, self.purge, values["update/kl"]]) + "\\n")

    def offset(self):
        return None

    def close(self):
        pass


class Broken(Lines):
    def write(self, step, values):
        raise ConnectionError("no signal on the far side")
"""
POINTS = """
[steepest.worlds]
moon = moon:world
[steepest.algorithms]
lander = moon:lander
[steepest.sinks]
lines = moon:Lines
broken = moon:Broken
gone = no_such_module:Lines
"""
SETTINGS: dict[str, Any] = {
    "envs": 2,
    "rollout": 10,
    "critic": {"minibatch": 20},
    "tensorboard": False,
    "evaluation": {"every": 0},
}


@pytest.fixture(autouse=True)
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An installed package with entry points; what was imported of it is forgotten afterwards."""
    folder = tmp_path / "site" / "moon-1.0.dist-info"
    folder.mkdir(parents=True)
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: moon\nVersion: 1.0\n")
    (folder / "entry_points.txt").write_text(POINTS)
    (tmp_path / "site" / "moon.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path / "site")
    forget(monkeypatch)


def forget(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a new process."""
    monkeypatch.delitem(sys.modules, "moon", raising=False)
    for registry in (backends, methods, SINKS):
        own = {name: entry for name, entry in registry._entries.items() if name not in registry.plugins}
        monkeypatch.setattr(registry, "_entries", own)


def test_a_run_made_of_plugins_is_taken_up_on_the_users_word_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    out = tmp_path / "run"
    run = st.train("moon:two-state", "lander", steps=40, out=out, sinks=("lines",), **SETTINGS)
    assert run.steps == 40
    assert json.loads((out / "config.json").read_text())["algorithm"] == "lander"
    lines = [json.loads(line) for line in (out / "lines.txt").read_text().splitlines()]
    assert [line[:2] for line in lines] == [[20, None], [40, None]]
    forget(monkeypatch)
    for arguments, says in (
        ([], "sink 'lines' is the plugin 'moon:Lines', which only a file names"),
        (["--sinks", "lines"], "environment backend 'moon' is the plugin"),
        (["--sinks", "lines", "--env", "moon:two-state"], "algorithm 'lander' is the plugin"),
    ):
        with pytest.raises(UsageError, match=says):
            resumed(out, arguments)
        forget(monkeypatch)
        assert "moon" not in sys.modules
    command = ["resume", str(out), "--steps", "60", "--quiet", "--sinks", "lines"]
    assert main([*command, "--env", "moon:two-state", "--algorithm", "lander"]) == 0
    lines = [json.loads(line) for line in (out / "lines.txt").read_text().splitlines()]
    assert [line[:2] for line in lines[2:]] == [[60, 41]]


def resumed(out: Path, arguments: list[str]) -> None:
    given = dict(zip(arguments[::2], arguments[1::2], strict=True))
    sinks = (given["--sinks"],) if "--sinks" in given else None
    st.resume(out, steps=60, env=given.get("--env"), sinks=sinks)


def test_a_sink_that_breaks_ends_no_run(tmp_path: Path):
    run = st.train("mdp:two-state", steps=40, out=tmp_path / "run", sinks=("broken", "lines"), **SETTINGS)
    assert run.steps == 40
    (event,) = [json.loads(line) for line in (tmp_path / "run" / "events.jsonl").read_text().splitlines()]
    assert event["event"] == "broken sink"
    assert "no signal on the far side" in event["why"]
    assert len((tmp_path / "run" / "lines.txt").read_text().splitlines()) == 2


def test_names_that_are_no_plugins_and_plugins_that_are_no_modules(tmp_path: Path):
    with pytest.raises(UsageError, match="unknown sink 'line'; did you mean 'lines'"):
        st.train("mdp:two-state", steps=20, out=tmp_path / "run", sinks=("line",), **SETTINGS)
    with pytest.raises(UsageError, match="'no_such_module:Lines', which raised ModuleNotFoundError"):
        st.train("mdp:two-state", steps=20, out=tmp_path / "run", sinks=("gone",), **SETTINGS)
    with pytest.raises(UsageError, match="did you mean 'lander'"):
        st.train("mdp:two-state", "landr", steps=20, out=tmp_path / "run", **SETTINGS)
    assert not (tmp_path / "run").exists()


def test_a_file_imports_no_world(tmp_path: Path):
    with pytest.raises(UsageError, match="only a file names"):
        make_world("moon:two-state", allow_import=False)
    assert "moon" not in sys.modules
    assert make_world("moon:two-state").backend == "moon"


def test_a_registry_without_a_group_has_no_plugins():
    registry: Registry[int] = Registry("number")
    registry.plug("lines")
    assert registry.plugins == {}
    with pytest.raises(UsageError, match="unknown number 'lines'"):
        registry["lines"]
