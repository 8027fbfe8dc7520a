"""Actions of several numbers, MultiDiscrete and MultiBinary: from the environment to the optimum, and from a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium.spaces import Box, Discrete, MultiBinary, MultiDiscrete, Text, Tuple

import steepest as st
from environments import Counting, Spaces
from sameness import differences
from short_runs import SHORT
from steepest import spaces
from steepest.errors import RunError
from steepest.runs import checkpoint
from steepest.training.persistence import read

LENGTH = 8
ACTIONS: dict[str, Any] = {
    "multi-discrete": MultiDiscrete([2, 3], start=[1, -1]),
    "multi-binary": MultiBinary(3),
}


class Copy(gymnasium.Env):
    """Do what the observation says, entry by entry: a reward of 1/K for each of K that is right, 8 in all at the best.

    At random a MultiDiscrete of 2 and 3 has 8·(1/2 + 1/3)/2 = 3.33, a MultiBinary 4.
    """

    def __init__(self, actions: str):
        self.action_space = ACTIONS[actions]
        self.shape = self.action_space.sample().shape
        self.observation_space = Box(-2.0, 3.0, self.shape, np.float32)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.count = 0
        return self._draw(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        assert self.action_space.contains(action), action
        right = float(np.mean(np.asarray(action) == self.wanted))
        self.count += 1
        return self._draw(), right, False, self.count == LENGTH, {}

    def _draw(self) -> np.ndarray:
        low = getattr(self.action_space, "start", np.zeros(self.shape, int))
        count = getattr(self.action_space, "nvec", np.full(self.shape, 2))
        self.wanted = low + self.np_random.integers(count)
        return self.wanted.astype(np.float32)


class FunctionalCopy:
    """The same in JAX."""

    time_limit = LENGTH

    def __init__(self, actions: str):
        like = Copy(actions)
        self.action_space, self.observation_space = like.action_space, like.observation_space
        self._low = jnp.asarray(getattr(like.action_space, "start", np.zeros(like.shape)), jnp.int32)
        self._count = jnp.asarray(getattr(like.action_space, "nvec", np.full(like.shape, 2)), jnp.int32)

    def reset(self, key: Any, params: Any) -> Any:
        wanted = self._low + jax.random.randint(key, self._low.shape, 0, self._count)
        return wanted.astype(jnp.float32), wanted

    def step(self, key: Any, state: Any, action: Any, params: Any) -> Any:
        obs, wanted = self.reset(key, params)
        return obs, wanted, jnp.mean(action == state), False, False, {}


@pytest.mark.parametrize("actions", ["multi-binary", pytest.param("multi-discrete", marks=pytest.mark.slow)])
@pytest.mark.parametrize("seed", [1, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (2, 3))])
def test_the_optimum_is_found_on_the_host(actions: str, seed: int, tmp_path: Path) -> None:
    settings = {**SHORT, "steps": 25_000, "delta": 0.05, "gamma": 0.5}
    run = st.train(lambda: Copy(actions), "trpo", seed=seed, out=tmp_path, **settings)
    assert run.evaluation.mean() == LENGTH
    assert all(np.isfinite(row["update/kl"]) for row in run.metrics)


@pytest.mark.slow
@pytest.mark.parametrize("actions", ["multi-discrete", "multi-binary"])
def test_the_optimum_is_found_in_one_program(actions: str, tmp_path: Path) -> None:
    world = FunctionalCopy(actions)
    run = st.train(world, "trpo", steps=25_000, seed=1, delta=0.05, gamma=0.5, out=tmp_path, **SHORT)
    assert run.evaluation.mean() == LENGTH


@pytest.mark.parametrize("actions", list(ACTIONS))
def test_an_agent_comes_back_and_acts_in_its_space(actions: str, tmp_path: Path) -> None:
    def env() -> Copy:
        return Copy(actions)

    settings = {**SHORT, "steps": 1024, "checkpoint_every": 1}
    run = st.train(env, "trpo", out=tmp_path / "run", **settings)
    agent, space = st.load(run.path), ACTIONS[actions]
    obs = np.ones((5, *Copy(actions).shape), np.float32)
    for deterministic in (True, False):
        action, _ = agent.predict(obs, deterministic=deterministic)
        assert all(space.contains(one) for one in action), action
        assert space.contains(agent.predict(obs[0], deterministic=deterministic)[0])
    np.testing.assert_array_equal(st.evaluate(agent, env, 10, 3), st.evaluate(run.agent, env, 10, 3))
    with pytest.raises(st.UsageError, match="does not fit"):
        st.evaluate(agent, lambda: Counting(5))
    half = st.train(env, "trpo", out=tmp_path / "half", **{**settings, "steps": 512})
    assert st.resume(half.path, env=env, steps=1024).steps == run.steps


def test_a_run_resumes_exactly(tmp_path: Path) -> None:
    def stop(event: st.IterationEvent) -> None:
        if event.iteration == 1:
            raise KeyboardInterrupt

    def env() -> Copy:
        return Copy("multi-discrete")

    settings = {**SHORT, "steps": 1024, "checkpoint_every": 1, "evaluation": {"every": 512, "episodes": 2}}
    whole = st.train(env, "trpo", out=tmp_path / "whole", **settings)
    with pytest.raises(KeyboardInterrupt):
        st.train(env, "trpo", out=tmp_path / "run", callbacks=[stop], **settings)
    st.resume(tmp_path / "run", env=env)
    assert differences(whole.path, tmp_path / "run") == []


def test_records_of_spaces(tmp_path: Path) -> None:
    for name, space in ACTIONS.items():
        described = spaces.describe(space, "action")
        record = spaces.to_record(described)
        assert record["kind"] == name
        assert spaces.from_record(record) == described
    for wrong in ({"kind": "multi-discrete", "sizes": [2, 0], "starts": [0, 0]}, {"kind": "multi-binary", "n": 0},
                  {"kind": "multi-discrete", "sizes": [2], "starts": []}, {"kind": "multi-binary", "n": 2**60},
                  {"kind": "multi-discrete", "sizes": [], "starts": []}):  # fmt: skip
        with pytest.raises(st.UsageError, match="not the record of a space"):
            spaces.from_record(wrong)


def test_a_file_whose_parts_do_not_fit_is_refused(tmp_path: Path) -> None:
    run = st.train(lambda: Copy("multi-discrete"), "npg", out=tmp_path / "run", **{**SHORT, "steps": 512})
    arrays, info = read(run.path)
    info["policy"]["parts"] = [1, 4]
    checkpoint.save(run.path / "checkpoints" / "last.safetensors", arrays, info)
    with pytest.raises(RunError, match="does not fit its spaces"):
        st.load(run.path)


@pytest.mark.parametrize(
    ("observation", "action", "what"),
    [
        (None, MultiDiscrete(np.array([[2, 3], [2, 2]])), "MultiDiscrete and MultiBinary of one axis"),
        (None, Tuple((Discrete(2), Text(3))), r"because of its Tuple\[1\].Text; supported: Discrete, Box"),
        (MultiDiscrete(np.array([[2, 3], [2, 2]])), None, "MultiDiscrete and MultiBinary of one axis"),
    ],
    ids=["two axes", "tuple", "observation"],
)
def test_what_is_not_supported_is_said(observation: Any, action: Any, what: str, tmp_path: Path) -> None:
    with pytest.raises(st.UsageError, match=what):
        st.train(lambda: Spaces(observation, action), "npg", out=tmp_path / "run", **{**SHORT, "steps": 512})


def test_a_policy_of_your_own_with_other_parts_is_refused(tmp_path: Path) -> None:
    policy = st.MlpMultiCategorical(2, (3, 2), (4,), key=jax.random.key(0))
    with pytest.raises(st.UsageError, match=r"parts have \(3, 2\) actions, the environment's \(2, 3\)"):
        st.train(lambda: Copy("multi-discrete"), "npg", policy=policy, out=tmp_path / "run", **{**SHORT, "steps": 512})
