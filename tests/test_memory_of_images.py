"""Memory behind the network of any observation: images, Dict and Tuple, with layer norm, and windows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import numpy as np
import pytest

import steepest as st
from images import LENGTH, FunctionalOnce, Once
from short_runs import NEAR
from steepest.policies.specification import PolicySpec
from steepest.policies.trunks import Convolutional, Plain
from steepest.spaces import Box, Discrete, Joint, Masked, MultiBinary, Space
from steepest.training.assembly import build_agent, build_critic, check_policy
from steepest.training.config import TrainConfig
from steepest.training.presets import resolve
from steepest.training.settings import with_settings

SMALL: dict[str, Any] = {**NEAR, "critic": {"epochs": 2}, "policy": {"memory": "gru", "memory_units": 16}}


def image(height: int, width: int, channels: int) -> Box:
    shape = height, width, channels
    return Box(np.zeros(shape), np.full(shape, 255.0), "uint8")


VECTOR = Box(np.full(2, -np.inf), np.full(2, np.inf))
PARTS = Joint((image(4, 4, 1), Discrete(3), VECTOR), ("picture", "sign", "rest"))
WINDOW = Box(np.full((3, 2), -np.inf), np.full((3, 2), np.inf))


@pytest.mark.parametrize(
    ("observation", "network", "kind", "features", "statistics"),
    [
        (image(4, 5, 1), "auto", "network", Convolutional, False),
        (PARTS, "auto", "network", Plain, True),
        (MultiBinary(3), "auto", "network", Plain, False),
        (Masked(image(4, 5, 1), 3), "auto", "network", Convolutional, False),
        (WINDOW, "attention", "network", None, True),
        (WINDOW, "auto", "mlp", Plain, True),
        (VECTOR, "auto", "mlp", Plain, True),
        (Discrete(4), "auto", "mlp", Plain, False),
    ],
    ids=["image", "parts", "switches", "masked image", "attended window", "window", "vector", "state"],
)
def test_what_is_before_a_memory(observation: Space, network: str, kind: str, features: Any, statistics: bool) -> None:
    own = {"memory": "lstm", "memory_units": 3, "hidden": (8,), "network": network, "layer_norm": True}
    settings = {"policy": own, "normalise_observations": True}
    config = resolve(with_settings(TrainConfig("X"), settings), Discrete(3), observation=observation)
    assert (config.critic.memory, config.critic.memory_units) == ("lstm", 3)
    made: Any = build_agent(config, observation, Discrete(3), None, jax.random.key(0))
    check_policy(made.policy, observation, Discrete(3))
    assert (made.spec.kind, made.normaliser is not None) == (kind, statistics)
    policy = getattr(made.policy, "policy", made.policy)
    critic: Any = eqx.filter_eval_shape(build_critic, config, observation, policy, jax.random.key(1))
    assert features is None or isinstance(policy.features, features)
    assert type(getattr(critic.features, "critic", critic.features)) is type(policy.features)
    assert policy.features.how.norm if features else policy.features.features == 8
    again = PolicySpec.from_record(made.spec.to_record(), observation, Discrete(3))
    assert again == made.spec
    assert jax.tree.structure(eqx.filter_eval_shape(again.build, jax.random.key(0))) == jax.tree.structure(made.policy)


@pytest.mark.slow
def test_a_run_with_a_memory_of_images_comes_back_from_its_file(tmp_path: Path) -> None:
    run = st.train(Once, "trpo", out=tmp_path / "run", seed=1, workers=0, **{**SMALL, "steps": 1024})
    assert all(row["update/accepted"] for row in run.metrics)
    agent, (obs, _) = st.load(run.path), Once().reset(seed=0)
    np.testing.assert_array_equal(st.evaluate(agent, Once, 4, 3), st.evaluate(run.agent, Once, 4, 3))
    _, state = agent.predict(obs)
    assert state.shape == (16,)
    assert obs.dtype == np.uint8


@pytest.mark.slow
@pytest.mark.parametrize("env", [Once, FunctionalOnce()], ids=["host", "program"])
def test_what_was_shown_once_is_recalled(env: Any, tmp_path: Path) -> None:
    """8 at the best; who forgets has 1 + 7/4."""
    run = st.train(env, "trpo", steps=40_960, seed=1, out=tmp_path, **SMALL)
    assert run.evaluation.mean() > LENGTH - 1


def test_more_images_than_fit_into_memory_are_refused() -> None:
    def resolved(observation: Any, **settings: Any) -> Any:
        return resolve(with_settings(TrainConfig("X"), settings), Discrete(3), observation=observation)

    atari, memory = image(84, 84, 4), {"memory": "gru"}
    assert resolved(atari, policy=memory).batch == 1024
    for observation in (atari, Masked(atari, 3), Joint((atari, VECTOR))):
        for given in ({"policy": memory}, {"critic": memory}):
            with pytest.raises(st.UsageError, match=r"at once, 1\.7 times .* at most 2377 rows"):
                resolved(observation, envs=8, rollout=512, **given)
    resolved(atari, envs=8, rollout=512)
    resolved(VECTOR, envs=8, rollout=2**20, policy=memory)
