"""Settings of single environments: they are taken where nobody says otherwise, and by nobody who does not ask."""

from __future__ import annotations

from contextlib import ExitStack
from functools import reduce
from typing import Any

import pytest

import steepest as st
from steepest.training.config import TrainConfig
from steepest.training.hosting import place
from steepest.training.settings import with_settings
from steepest.training.tuned import TUNED, tuned_settings


def resolved(env: str, **settings: Any) -> TrainConfig:
    with ExitStack() as stack:
        return place(stack, with_settings(TrainConfig(env), {"workers": 0, **settings}), env)[0]


def at(config: TrainConfig, path: str) -> Any:
    return reduce(getattr, path.split("."), config)


@pytest.mark.parametrize("env", [name for name, settings in TUNED.items() if settings])
def test_the_settings_are_taken_if_one_asks(env: str) -> None:
    asked, not_asked = resolved(env, tuned=True), resolved(env)
    settings = {path: value for path, value in TUNED[env].items() if path != "rows"}
    assert {path: at(asked, path) for path in settings} == settings
    assert any(at(not_asked, path) != value for path, value in settings.items())
    if "rows" in TUNED[env]:
        assert asked.batch == TUNED[env]["rows"]


def test_what_is_said_counts_more() -> None:
    config = resolved("MountainCarContinuous-v0", tuned=True, gamma=0.9)
    assert config.sampling.gamma == 0.9
    assert config.policy.initial_log_std == TUNED["MountainCarContinuous-v0"]["policy.initial_log_std"]


@pytest.mark.parametrize("env", TUNED)
def test_only_what_is_left_open_by_default_can_be_tuned(env: str) -> None:
    for path in TUNED[env]:
        assert path == "rows" or at(TrainConfig(env), path) is None, path


def test_an_environment_that_has_none_is_refused() -> None:
    with pytest.raises(st.UsageError, match=r"unknown environment with tuned settings 'CartPole-v0'.*'CartPole-v1'"):
        tuned_settings("CartPole-v0")
    with pytest.raises(st.UsageError, match="unknown environment with tuned settings 'stack:2:Acrobot-v1'"):
        resolved("stack:2:Acrobot-v1", tuned=True)
