"""A computation beside another: its result, its errors, the settings of its thread, and the critic's fit so made."""

from __future__ import annotations

import threading
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from steepest.training.beside import beside
from steepest.training.iteration import Given
from test_learner import ACTED, CRITIC, REFRESHED, learner, policy, rollout


def test_it_runs_while_the_caller_goes_on() -> None:
    went_on = threading.Event()
    finish = beside(went_on.wait, 30.0)
    went_on.set()  # a call that ran first would have waited for ever
    assert finish()


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
    with jax.default_device(jax.devices()[0]):
        settings: Any = jax.config
        assert beside(lambda: settings.jax_default_device)() == jax.devices()[0]


def test_the_critics_fit_beside_the_policys_change_is_the_fit_after_it() -> None:
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
    updated, info = method.update(state, *given)
    assert eqx.tree_equal((updated, info.critic), (together, fit))
