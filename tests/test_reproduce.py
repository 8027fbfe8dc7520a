"""`steepest reproduce`: every experiment leaves its five files, and a page over all of them."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import pytest

from steepest.cli import main
from steepest.reports.figures import column_figure, figure_style
from steepest.reproduce import output
from steepest.reproduce.experiment import Experiment, Outcome
from steepest.reproduce.registry import EXPERIMENTS, experiment


def run(quick: bool) -> Outcome:
    with figure_style():
        figure, axes = column_figure()
        axes.plot([0, 1], [0, 1])
        axes.set(xlabel="x", ylabel="y")
    rows = [{"x": 0.0, "y": 1 / 3}, {"x": 1.0, "y": 2.0}]
    table = [{"π(a|s)": 1 / 3, "name": "<b>"}]
    return Outcome(figure, rows, f"quick: {quick}", "nowhere", table)


@pytest.fixture(autouse=True)
def made_up(monkeypatch: pytest.MonkeyPatch) -> None:
    what = Experiment("A & B", "somebody", "something", run, ("R1",))
    monkeypatch.setattr(output, "experiment", lambda name: what)


def test_an_experiment_leaves_its_files_and_the_index(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["reproduce", "lecture-kl", "--quick", "--out", str(tmp_path), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["index"] == str(tmp_path / "index.html")
    assert [e["name"] for e in said["experiments"]] == ["lecture-kl"]
    endings = {"png", "svg", "csv", "md", "json"}
    assert {p.name for p in tmp_path.iterdir()} == {"index.html", *(f"lecture-kl.{e}" for e in endings)}
    with (tmp_path / "lecture-kl.csv").open() as file:
        assert [row["y"] for row in csv.DictReader(file)] == ["0.333333333333", "2"]
    page = (tmp_path / "index.html").read_text()
    assert "A &amp; B" in page
    assert "&lt;b&gt;" in page
    assert "quick: True" in page
    assert "quick version" in page
    assert "data:image/png;base64," in page
    assert r"| π(a\|s) | name |" in (tmp_path / "lecture-kl.md").read_text()


def test_all_of_them_make_one_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["reproduce", "all", "--out", str(tmp_path), "--quiet"]) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "index.html")
    page = (tmp_path / "index.html").read_text()
    assert [page.count(f'<section id="{name}">') for name in EXPERIMENTS] == [1] * len(EXPERIMENTS)
    assert "quick version" not in page


def test_the_same_figure_is_the_same_svg(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        output.reproduce("rates", tmp_path / folder, quick=True)
    assert (tmp_path / "a" / "rates.svg").read_bytes() == (tmp_path / "b" / "rates.svg").read_bytes()


def test_an_unknown_experiment_is_refused_before_anything_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["reproduce", "lecture-kll", "--out", str(tmp_path / "x")]) == 2
    assert "did you mean 'lecture-kl'" in capsys.readouterr().err
    assert not (tmp_path / "x").exists()


def test_what_cannot_be_written_is_said_before_anything_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def never(quick: bool) -> Outcome:
        raise AssertionError("it ran")

    monkeypatch.setattr(output, "experiment", lambda name: Experiment("A", "B", "C.", never))
    (tmp_path / "file").write_text("")
    assert main(["reproduce", "rates", "--out", str(tmp_path / "file")]) == 1
    assert "make the folder" in capsys.readouterr().err
    (tmp_path / "kakade-lqr.json").write_text("{bad")
    (tmp_path / "kakade-lqr.png").write_bytes(b"")
    assert main(["reproduce", "rates", "--out", str(tmp_path)]) == 1
    assert "kakade-lqr.json is damaged" in capsys.readouterr().err


def test_every_experiment_has_its_page() -> None:
    docs = Path(__file__).parent.parent / "docs"
    listed = re.findall(r"^experiments/(.+)$", (docs / "experiments.md").read_text(), re.MULTILINE)
    assert tuple(listed) == EXPERIMENTS
    for name in EXPERIMENTS:
        assert f"]({name}.png)" in (docs / "experiments" / f"{name}.md").read_text()
        quick = name == "trpo-locomotion"  # whose full version is fifty-five trainings; its page says what it left out
        assert json.loads((docs / "experiments" / f"{name}.json").read_text())["quick"] == quick, name


def test_every_name_is_an_experiment() -> None:
    for name in EXPERIMENTS:
        what = experiment(name)
        assert what.title, name
        assert what.source, name
        assert what.shows.endswith((".", "!")), name
