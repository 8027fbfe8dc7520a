"""A computation beside another: its result, its errors, the settings of its thread, and the critic's fit so made."""

from __future__ import annotations

import os
import signal
import threading
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from steepest.training import learner as training_learner
from steepest.training.beside import beside
from steepest.training.iteration import Given
from test_learner import ACTED, CRITIC, REFRESHED, learner, policy, rollout


def test_it_runs_while_the_caller_goes_on() -> None:
    began, went_on = threading.Event(), threading.Event()

    def call() -> bool:
        began.set()
        return went_on.wait(30.0)

    finish = beside(call)
    assert began.wait(30.0), "it begins before anybody waits for it"
    went_on.set()
    assert finish(), "and the caller went on before it had ended"


def test_what_it_raises_is_raised_where_it_is_waited_for() -> None:
    def fail() -> None:
        raise ValueError("no")

    finish = beside(fail)
    with pytest.raises(ValueError, match="no"):
        finish()
    assert beside(lambda: 1)() == 1  # and the next one runs


def test_it_has_the_settings_of_the_callers_thread() -> None:
    def dtype() -> Any:
        return jnp.ones(1).dtype

    assert beside(dtype)() == np.float32
    with jax.enable_x64(True):
        assert beside(dtype)() == np.float64
    config: Any = jax.config
    names = ("default_device", "default_matmul_precision", "disable_jit", "debug_nans", "debug_infs")

    def settings() -> list[Any]:
        return [getattr(config, f"jax_{name}") for name in names]

    with (
        jax.default_device(jax.devices()[0]), jax.default_matmul_precision("highest"), jax.disable_jit(),
        jax.debug_nans(True), jax.debug_infs(True),
    ):  # fmt: skip
        ours = settings()
        assert beside(settings)() == ours
    assert beside(settings)() == settings() != ours


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
@pytest.mark.filterwarnings("ignore:.*fork.*")
def test_it_runs_in_a_child_too() -> None:
    beside(lambda: 1)()
    child = os.fork()
    if not child:
        signal.alarm(30)
        os._exit(beside(lambda: 7)())
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7


@pytest.mark.parametrize("processors", [1, 2])
def test_the_critics_fit_beside_the_policys_change_is_the_fit_after_it(
    processors: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training_learner, "two_processors", lambda: processors == 2)
    method, state = learner(), learner().init(policy(), CRITIC)
    given = Given(rollout(), ACTED, REFRESHED, np.float32(1.0), jax.random.key(3))
    prepared, lesson = method.prepare(state, given)
    finish = method.begin_to_fit(state, lesson)
    changed, step = method.change(state, given, prepared)
    together, fit, _ = finish(changed)
    after, fit_after, _ = method.fit_critics(changed, lesson)
    assert step.accepted
    assert not eqx.tree_equal(together.policy, state.policy)
    assert not eqx.tree_equal(together.critic, state.critic)
    assert eqx.tree_equal((together, fit), (after, fit_after))
    updated, info = method.update(state, given)
    assert eqx.tree_equal((updated, info.critic), (together, fit))
