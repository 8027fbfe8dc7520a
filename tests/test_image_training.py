"""Policies of images: from the environment to the optimum, from a file, by workers and in one program."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import steepest as st
from images import LENGTH, Dot, FunctionalDot
from sameness import differences
from short_runs import NEAR
from steepest.spaces import describe
from steepest.training.assembly import example
from steepest.training.failed_update import replay
from steepest.training.settings import from_record

SMALL: dict[str, Any] = {**NEAR, "group": 4, "critic": {"epochs": 2}}


@pytest.mark.slow
def test_the_optimum_is_found_on_the_host(tmp_path: Path) -> None:
    run = st.train(Dot, "trpo", out=tmp_path / "run", seed=1, workers=0, **{**SMALL, "steps": 20_480})
    assert run.evaluation.mean() == LENGTH
    env = Dot()
    obs, _ = env.reset(seed=0)
    assert run.agent.predict(obs, deterministic=True)[0] == env.wanted


@pytest.mark.slow
def test_the_optimum_is_found_in_one_program(tmp_path: Path) -> None:
    run = st.train(FunctionalDot(), "trpo", steps=20_480, seed=1, out=tmp_path, **{**SMALL, "group": None})
    assert run.evaluation.mean() == LENGTH


@pytest.mark.slow
def test_a_run_resumes_exactly_and_workers_change_nothing(tmp_path: Path) -> None:
    def stop(event: st.IterationEvent) -> None:
        if event.iteration == 1:
            raise KeyboardInterrupt

    env, settings = Dot, {**SMALL, "steps": 1024, "checkpoint_every": 1, "evaluation": {"every": 512, "episodes": 2}}
    whole = st.train(env, "trpo", out=tmp_path / "whole", workers=0, **settings)
    with pytest.raises(KeyboardInterrupt):
        st.train(env, "trpo", out=tmp_path / "run", callbacks=[stop], workers=0, **settings)
    st.resume(tmp_path / "run", env=env)
    assert differences(whole.path, tmp_path / "run") == []
    assert whole.agent.normaliser is None
    assert whole.agent.spec is not None
    assert whole.agent.spec.network == "minatar"
    agent = st.load(whole.path)
    np.testing.assert_array_equal(st.evaluate(agent, Dot, 10, 3), st.evaluate(whole.agent, Dot, 10, 3))
    obs, _ = Dot().reset(seed=0)
    for deterministic in (True, False):
        assert Dot().action_space.contains(agent.predict(obs, deterministic=deterministic)[0])
        assert agent.predict(np.stack([obs] * 3), deterministic=deterministic)[0].shape == (3,)
    with pytest.raises(st.UsageError, match=r"expected an observation of shape \(8, 8, 1\)"):
        agent.predict(obs[:-1])
    shared = st.train(env, "trpo", out=tmp_path / "workers", workers=2, **settings)
    np.testing.assert_array_equal(whole.evaluation, shared.evaluation)
    assert [row["update/kl"] for row in whole.metrics] == [row["update/kl"] for row in shared.metrics]


def test_bytes_stay_bytes_and_floats_floats() -> None:
    for form, dtype in (("last", np.uint8), ("float", np.float32)):
        space = describe(Dot(form).observation_space, "observation")
        assert space.inside is dtype
        assert example(space).dtype == dtype
        assert space.from_environment(Dot(form).reset(seed=0)[0]).dtype == dtype


@pytest.mark.slow
def test_a_failed_update_of_images_is_made_again(tmp_path: Path) -> None:
    settings = {**SMALL, "steps": 1024, "workers": 0, "max_failures": 2, "delta": 1e-30}
    run = st.train(Dot, "trpo", out=tmp_path / "run", **settings)
    (first, *_) = sorted((run.path / "updates").iterdir())
    found = replay(first)
    assert found["same"]
    assert found["rollout"]["observation"]["greatest"] == 255


def test_a_run_of_before_takes_images_as_it_did() -> None:
    """Whose file names no network: all were MLPs."""
    old = from_record({"env": "X", "policy": {"activation": "tanh"}, "critic": {"hidden": [3]}})
    assert (old.policy.network, old.critic.network, old.policy.activation) == ("mlp", "mlp", "tanh")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"policy": {"network": "nature"}}, "nature takes images of at least 36×36 pixels, these have 8×8"),
        ({"critic": {"network": "nature"}}, "nature takes images of at least 36×36 pixels, these have 8×8"),
        ({"policy": {"network": "deep"}}, "policy.network must be one of 'auto', 'mlp', 'trpo-conv'"),
    ],
)
def test_networks_that_do_not_fit_are_refused(settings: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(st.UsageError, match=message):
        st.train(Dot, "trpo", out=tmp_path / "run", **{**SMALL, "steps": 512, **settings})
    assert not (tmp_path / "run").exists()


class Wrong(Dot):
    """Its third observation is of another shape."""

    def step(self, action: Any) -> Any:
        obs, *rest = super().step(action)
        return (obs[:-1] if self.count == 3 else obs), *rest


def test_an_image_of_another_shape_is_a_fault(tmp_path: Path) -> None:
    with pytest.raises(st.RunError, match=r"shape \(7, 8, 1\) and dtype uint8"):
        st.train(
            Wrong(), "trpo", out=tmp_path / "run", **{**SMALL, "envs": 1, "group": None, "steps": 512, "rollout": 512}
        )
