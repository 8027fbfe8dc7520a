"""What is installed, what of it works, and what is at odds."""

from __future__ import annotations

import importlib.metadata
import json
from typing import Any

import pytest

from steepest import doctor
from steepest.cli import main
from steepest.doctor import BACKENDS, Backend, conflicts
from steepest.worlds import backends

WORKS = Backend("mdp", "mdp:two-state", "steepest")
BROKEN = Backend("mdp, another", "mdp:two-sate", "steepest")
MISSING = Backend("moon", "moon:Lander-v1", "no_such_module", "moon")


def test_every_backend_that_there_is_is_tried():
    assert {each.name.split(",")[0] for each in BACKENDS} == set(backends)
    assert all(each.extra is None or f'"{each.extra}"' in extras() for each in BACKENDS)


def extras() -> str:
    return " ".join(f'"{name}"' for name in importlib.metadata.metadata("steepest").get_all("Provides-Extra") or ())


def test_what_works_what_is_missing_and_what_is_broken(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(doctor, "BACKENDS", (WORKS, BROKEN, MISSING))
    assert main(["doctor", "--json"]) == 1  # something is broken
    record: dict[str, Any] = json.loads(capsys.readouterr().out)
    works, broken, missing = record["backends"]
    assert (works["state"], works["says"]) == ("works", "")
    assert broken["state"] == "broken"
    assert "two-state" in broken["says"]
    assert (missing["state"], missing["says"]) == ("missing", 'pip install "steepest[moon]"')
    assert record["jax"] == {"backend": "cpu", "devices": ["cpu"]}
    assert record["conflicts"] == []
    monkeypatch.setattr(doctor, "BACKENDS", (WORKS, MISSING))
    assert main(["doctor"]) == 0  # what is not there is not broken
    out = capsys.readouterr().out
    assert "works" in out
    assert "steepest[moon]" in out


@pytest.mark.parametrize(
    ("package", "there", "says"),
    [
        ("numpy", "1.26.4", "requires numpy>=2.0, and 1.26.4 is installed"),
        ("gymnasium", "1.4.0", "gymnax requires gymnasium<1.4"),
        ("rich", None, "steepest requires rich, which is not installed"),
    ],
)
def test_versions_at_odds_are_named(monkeypatch: pytest.MonkeyPatch, package: str, there: str | None, says: str):
    known = importlib.metadata.version

    def version(name: str) -> str:
        if name.lower() != package:
            return known(name)
        if there is None:
            raise importlib.metadata.PackageNotFoundError(name)
        return there

    if says.startswith("gymnax"):
        pytest.importorskip("gymnax")
    monkeypatch.setattr(importlib.metadata, "version", version)
    assert any(says.split(",")[0] in each for each in conflicts()), list(conflicts())
