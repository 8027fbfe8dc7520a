"""Actions of Dict and Tuple spaces: from the environment to the optimum, in every kind of world, and from a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, Tuple
from gymnasium.vector import AutoresetMode, SyncVectorEnv

import steepest as st
from environments import Spaces
from short_runs import SHORT
from steepest.distributions import Categorical, Product
from steepest.worlds import make_world

LENGTH = 8
WIDTH = 0.3
"""How near an action comes to what is wanted for full reward."""
ACTIONS: Any = Dict(go=Tuple((Box(-1.0, 1.0, (1,)), Discrete(3, start=-1))), on=MultiBinary(2))


class Copy(gymnasium.Env):
    """Do what the observation says: ¼ a step for each of a number to be met within 0.3, one of three, and two switches.

    8 at the best; at random about 8·(¼·0.26 + ¼·⅓ + ¼) = 3.2.
    """

    action_space = ACTIONS
    observation_space = Box(-1.0, 1.0, (4,), np.float32)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.count = 0
        return self._draw(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        assert ACTIONS.contains(action), action
        (number, which), on = action["go"], action["on"]
        near, right = abs(number[0] - self.wanted[0]) < WIDTH, which == self.wanted[1]
        self.count += 1
        reward = (float(near) + float(right) + float(np.sum(on == self.wanted[2:]))) / 4
        return self._draw(), reward, False, self.count == LENGTH, {}

    def _draw(self) -> np.ndarray:
        rng = self.np_random
        self.wanted = np.concatenate([rng.uniform(-0.8, 0.8, 1), rng.integers(-1, 2, 1), rng.integers(0, 2, 2)])
        return self.wanted.astype(np.float32)


class FunctionalCopy:
    """The same in JAX."""

    action_space, observation_space, time_limit = Copy.action_space, Copy.observation_space, LENGTH

    def reset(self, key: Any, params: Any) -> Any:
        number = jax.random.uniform(key, (1,), minval=-0.8, maxval=0.8)
        which, on = jax.random.randint(key, (1,), -1, 2), jax.random.bernoulli(key, 0.5, (2,))
        obs = jnp.concatenate([number, which.astype(jnp.float32), on.astype(jnp.float32)])
        return obs, obs

    def step(self, key: Any, state: Any, action: Any, params: Any) -> Any:
        (number, which), on = action["go"], action["on"]
        right = jnp.stack([jnp.abs(number[0] - state[0]) < WIDTH, which == state[1], *(on == state[2:])])
        obs, state = self.reset(key, params)
        return obs, state, jnp.mean(right.astype(jnp.float32)), False, False, {}


@pytest.mark.slow
@pytest.mark.parametrize("distribution", ["beta", "gaussian"])
def test_the_optimum_is_found_and_comes_back_from_its_file(distribution: Any, tmp_path: Path) -> None:
    given = {**SHORT, "policy": {"distribution": distribution}, "delta": 0.05, "gamma": 0.5}
    run = st.train(Copy, "trpo", steps=30_000, seed=1, out=tmp_path / "run", **given)
    assert run.evaluation.mean() > 0.97 * LENGTH
    assert all(np.isfinite(row["update/kl"]) for row in run.metrics)
    agent, obs = st.load(run.path), np.ones((5, 4), np.float32)
    for deterministic in (True, False):
        many, _ = agent.predict(obs, deterministic=deterministic)
        assert many["go"][0].shape == (5, 1)
        assert ACTIONS.contains(agent.predict(obs[0], deterministic=deterministic)[0])
    np.testing.assert_array_equal(st.evaluate(agent, Copy, 10, 3), st.evaluate(run.agent, Copy, 10, 3))
    other = Dict(go=ACTIONS["go"], on=MultiBinary(3))
    with pytest.raises(st.UsageError, match=r"Dict\(go: .*\) does not fit Spaces's Dict\(.*on: MultiBinary\(3\)\)"):
        st.evaluate(agent, lambda: Spaces(Copy.observation_space, other))


@pytest.mark.slow
def test_the_optimum_is_found_in_one_program(tmp_path: Path) -> None:
    run = st.train(FunctionalCopy(), "trpo", steps=30_000, seed=1, delta=0.05, gamma=0.5, out=tmp_path, **SHORT)
    assert run.evaluation.mean() > 0.97 * LENGTH


@pytest.mark.slow
def test_a_run_is_taken_up(tmp_path: Path) -> None:
    run = st.train(Copy, "trpo", out=tmp_path / "run", **SHORT, steps=512, checkpoint_every=1)
    assert st.resume(run.path, env=Copy, steps=1024).steps > 512


def test_a_functional_world_is_given_them_as_its_space_says() -> None:
    world = make_world(FunctionalCopy(), 3)
    world.reset(0)
    right = np.array(world.obs)
    right[:, 1] += 1  # policies count from 0
    np.testing.assert_array_equal(world.step(right).reward, 1.0)
    with pytest.raises(st.UsageError, match="actions are 0"):
        world.step(right + 3)


@pytest.mark.parametrize("mode", [AutoresetMode.SAME_STEP, AutoresetMode.DISABLED])
def test_a_vector_environment_is_given_them_batched(mode: AutoresetMode) -> None:
    env = SyncVectorEnv([Copy] * 3, autoreset_mode=mode)
    world = make_world(env)
    world.reset(0)
    steps = [world.step(np.array([[0.5, 2.0, 1.0, 0.0]] * 3, np.float32)) for _ in range(LENGTH + 1)]
    assert all(step.valid.all() for step in steps)


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        {"scheme": "vine", "vine": {"states": 8, "actions": 2, "length": 2}},
        {"solver": "sample-space", "workers": 2, "group": 4},
        {"algorithm": "acktr", "entropy": 0.01},
    ],
    ids=["vine", "sample space, workers", "acktr, entropy"],
)
def test_other_ways_to_train(settings: dict[str, Any], tmp_path: Path) -> None:
    given = {"algorithm": "trpo", **SHORT, **settings, "steps": 1024}
    run = st.train(Copy, out=tmp_path / "run", **given)
    assert run.metrics[-1]["update/reason"] == "accepted"


def test_a_policy_of_your_own_with_other_parts_is_refused(tmp_path: Path) -> None:
    given = st.MlpCategorical(4, 4, (4,), key=jax.random.key(0))

    def policy(parts: Any) -> Any:
        return lambda obs: Product([Categorical(given(obs).logits[:n]) for n in parts])

    space = Tuple((Discrete(2), Discrete(3)))
    with pytest.raises(st.UsageError, match="the policy has 3 actions, the environment 2"):
        st.train(lambda: Spaces(Copy.observation_space, space), "npg", policy=policy((3, 2)), out=tmp_path, **SHORT)
