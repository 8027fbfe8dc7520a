"""What the README shows is what runs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from steepest.cli import main

README = (Path(__file__).parent.parent / "README.md").read_text()


def test_the_python_block_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (block,) = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    names: dict = {}
    exec(compile(block, "README.md", "exec"), names)
    assert names["run"].evaluation.mean() > 100
    assert names["mdp"].value(names["better"]) > names["mdp"].value(names["policy"])
    assert float(names["info"].kl) == pytest.approx(1e-4, rel=0.05)


def test_every_command_is_one_that_parses(capsys: pytest.CaptureFixture[str]) -> None:
    commands = re.findall(r"^    steepest (\S+) (.*)$", README, flags=re.MULTILINE)
    assert {name for name, _ in commands} == {"train", "evaluate", "resume", "diagnose", "inspect", "reproduce"}
    for name, rest in commands:
        with pytest.raises(SystemExit) as end:
            main([name, *rest.split(), "--help"])
        assert not end.value.code
    capsys.readouterr()
