"""What MuJoCo warns of is said once, and nothing is written where the program runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mujoco as installed
import pytest

from steepest.worlds import make_world, mujoco_warnings

mujoco: Any = installed  # without types


@pytest.fixture(autouse=True)
def nobody_listens(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    monkeypatch.setattr(mujoco_warnings, "_said", set())
    monkeypatch.chdir(tmp_path)
    before = mujoco.get_mju_user_warning()
    mujoco.set_mju_user_warning(None)
    yield
    mujoco.set_mju_user_warning(before)


def test_a_warning_of_every_environment_is_said_once(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """HalfCheetah-v5 has a deprecated attribute in its model."""
    make_world("HalfCheetah-v5", 3).close()
    make_world("HalfCheetah-v5", 2).close()
    assert capfd.readouterr().err.count("settotalmass") == 1
    assert not list(tmp_path.iterdir())


def test_numbers_make_no_other_kind(capfd: pytest.CaptureFixture[str]) -> None:
    mujoco_warnings.say_once()
    listener = mujoco.get_mju_user_warning()
    for text in ("huge value in QACC at DOF 0. Time = 0.4e-2.", "huge value in QACC at DOF 3. Time = 17.1.", "other"):
        listener(text)
    assert capfd.readouterr().err.splitlines() == [
        "MuJoCo: huge value in QACC at DOF 0. Time = 0.4e-2.",
        "MuJoCo: other",
    ]


def test_who_listens_already_goes_on(capfd: pytest.CaptureFixture[str]) -> None:
    heard: list[str] = []
    mujoco.set_mju_user_warning(heard.append)
    make_world("HalfCheetah-v5", 2).close()
    assert len(heard) == 2
    assert "settotalmass" not in capfd.readouterr().err
