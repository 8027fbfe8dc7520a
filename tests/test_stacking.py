"""The last observations as one: as Gymnasium stacks them, across resets, in JAX, and put back where they stood."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium.wrappers import FrameStackObservation

import steepest as st
from environments import Counting
from masked_environments import FunctionalRecall, Trap
from steepest.policies.images import Pixels
from steepest.spaces import describe
from steepest.training.config import TrainConfig
from steepest.training.hosting import place
from steepest.training.settings import with_settings
from steepest.worlds import Adapted, make_world
from steepest.worlds.functional.stacking import FunctionalStack
from steepest.worlds.functional.world import FunctionalWorld
from steepest.worlds.masks import offers_masks
from steepest.worlds.remaking import remake
from steepest.worlds.settable import keepable
from steepest.worlds.stacking import FrameStack, stacked_space


def test_frames_are_those_of_gymnasiums_own_wrapper() -> None:
    """Over resets: CartPole falls every ten steps or so."""
    ours, rng = remake("stack:3:CartPole-v1")(2), np.random.default_rng(0)
    assert (ours.name, ours.backend) == ("stack:3:CartPole-v1", "gymnasium")

    def make() -> Any:
        return FrameStackObservation(gymnasium.make("CartPole-v1"), 3)

    theirs = make_world(make, 2)
    np.testing.assert_array_equal(ours.reset(3), theirs.reset(3))
    assert ours.obs.shape == (2, 3, 4)
    ended = 0
    for _ in range(60):
        action = rng.integers(0, 2, 2)
        a, b = ours.step(action), theirs.step(action)
        for x, y in zip(a, b, strict=True):
            if x is not None:
                np.testing.assert_array_equal(x, y)
        np.testing.assert_array_equal(ours.obs, theirs.obs)
        ended += int(a.terminated.sum())
    assert ended > 3


def test_a_stack_is_put_back_where_it_stood() -> None:
    world = make_world("stack:3:CartPole-v1", 2)
    world.reset(0)
    for _ in range(4):
        world.step(np.zeros(2, np.int32))
    states: Any = keepable(world)
    kept, before = states.keep(), world.obs.copy()
    steps = [world.step(np.ones(2, np.int32)).next_obs for _ in range(5)]
    states.put_back(kept)
    np.testing.assert_array_equal(world.obs, before)
    np.testing.assert_array_equal([world.step(np.ones(2, np.int32)).next_obs for _ in range(5)], steps)


def test_an_environment_may_use_its_buffer_again() -> None:
    class Reusing(Counting):
        buffer = np.zeros(1)

        def step(self, action: Any) -> Any:
            obs, *rest = super().step(action)
            self.buffer[:] = obs
            return self.buffer, *rest

    env = FrameStack(Reusing(9), 3)
    env.reset()
    seen = [env.step(0)[0] for _ in range(3)]
    np.testing.assert_array_equal(np.squeeze(seen), [[0, 0, 1], [0, 1, 2], [1, 2, 3]])


class Count:
    """Counts its steps up to 4, in JAX."""

    observation_space = gymnasium.spaces.Box(0, 9, (1,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)
    name, default_params, time_limit = "count", None, 4

    def reset(self, key: Any, params: Any) -> Any:
        return jnp.zeros(1), jnp.zeros((), jnp.int32)

    def step(self, key: Any, state: Any, action: Any, params: Any) -> Any:
        return jnp.full(1, state + 1.0), state + 1, 1.0, False, False, {}


def test_functional_frames_begin_afresh_with_each_episode() -> None:
    world = FunctionalWorld(FunctionalStack(Count(), 3), 2)
    assert world.observation_space == stacked_space(Count.observation_space, 3)
    rows = [world.reset(0)[0].ravel().tolist()]
    ends = []
    for _ in range(5):
        ends.append(world.step(np.zeros(2, np.int32)).next_obs[0].ravel().tolist())
        rows.append(world.obs[0].ravel().tolist())
    assert rows == [[0, 0, 0], [0, 0, 1], [0, 1, 2], [1, 2, 3], [0, 0, 0], [0, 0, 1]]
    assert ends[3] == [2, 3, 4]


def test_images_are_stacked_in_their_channels() -> None:
    box: Any = describe(stacked_space(gymnasium.spaces.Box(0, 255, (6, 5, 3), np.uint8), 2), "observation")
    assert (box.inside, Pixels(box).size) == (np.uint8, (6, 5, 6))
    grey: Any = describe(stacked_space(gymnasium.spaces.Box(0, 255, (6, 5), np.uint8), 2), "observation")
    assert (grey.inside, Pixels(grey).size) == (np.uint8, (6, 5, 2))


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("stack:0:CartPole-v1", "frames are stacked by stack:N:ENVIRONMENT"),
        ("stack:CartPole-v1", "as in stack:4:CartPole-v1"),
        ("stack:2:stack:2:CartPole-v1", "a stack is of no stack"),
        ("stack:2:mdp:two-state", r"frames of a Box are stacked, not of Discrete"),
        ("stack:2:CartPole-v", "did you mean 'CartPole-v1'"),
    ],
)
def test_what_cannot_be_stacked_is_said(spec: str, message: str) -> None:
    with pytest.raises(st.UsageError, match=message):
        make_world(spec)


def test_a_module_that_only_a_file_names_is_not_imported_for_a_stack() -> None:
    with pytest.raises(st.UsageError, match="a file's word imports nothing"):
        make_world("stack:2:my_package:Env-v0", allow_import=False)


@pytest.mark.slow
def test_a_policy_of_stacked_frames_trains(tmp_path: Any) -> None:
    settings: dict[str, Any] = {"steps": 1024, "envs": 8, "rollout": 64, "tensorboard": False}
    for env in ("stack:2:CartPole-v1", FunctionalStack(Count(), 2)):
        run = st.train(env, "trpo", out=tmp_path / str(env)[:5], evaluation={"final_episodes": 2}, **settings)
        assert jax.tree.leaves(run.agent.policy)[0].shape[0] in (8, 2)


def test_masks_are_shown_beside_a_stack_those_of_the_latest_frame() -> None:
    gymnasium.register("steepest-tests/Recall-v0", entry_point="masked_environments:Recall")
    spec = "stack:3:steepest-tests/Recall-v0"
    for env in (spec, FunctionalStack(FunctionalRecall(), 3)):
        world: Any = make_world(Adapted(env, masks=True), 2)
        assert offers_masks(make_world(env, 2))
        obs, ends, taken = world.reset(0), 0, Trap.taken[1]
        for _ in range(20):
            own, mask = world.obs[:, :6].reshape(2, 3, 2), world.obs[:, 6:]
            assert ((mask == 0) | (mask == 1)).all()
            assert mask.any(axis=1).all()
            step = world.step(np.argmax(mask, axis=1))
            assert (step.reward > -100).all()
            np.testing.assert_array_equal(step.next_obs[step.valid, :4], own[step.valid, 1:].reshape(-1, 4))
            ends += int((step.terminated | step.truncated).sum())
        assert ends >= 4
        assert Trap.taken[1] == taken
        assert obs.shape == (2, 10)
        with ExitStack() as stack:
            config = with_settings(TrainConfig("here"), {"mask": "auto", "workers": 0})
            assert place(stack, config, env)[0].policy.mask is True
    assert not offers_masks(make_world("stack:2:CartPole-v1"))
    assert not hasattr(FunctionalStack(Count(), 2), "action_masks")


@pytest.mark.slow
def test_a_policy_of_a_stack_with_masks_never_does_what_is_forbidden(tmp_path: Any) -> None:
    """The window of 8 steps shows the cue to the end: no memory is needed."""
    settings: dict[str, Any] = {"envs": 8, "rollout": 64, "delta": 0.05, "gamma": 0.5, "tensorboard": False}
    run = st.train(
        FunctionalStack(FunctionalRecall(), 8),
        "trpo",
        mask=True,
        steps=30_000,
        seed=1,
        out=tmp_path / "run",
        **settings,
    )
    assert min(row["return/mean"] for row in run.metrics) > -100
    assert run.evaluation.mean() == 0
