"""MiniGrid's environments as a policy can learn from them: one-hot planes, and missions by their words."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import cloudpickle
import gymnasium
import numpy as np
import pytest

import steepest as st
from steepest.cli import main
from steepest.errors import RunError, UsageError
from steepest.spaces import Joint, describe
from steepest.worlds import make_world
from steepest.worlds.remaking import remake

minigrid = pytest.importorskip("minigrid")

from minigrid.wrappers import OneHotPartialObsWrapper  # noqa: E402

from steepest.worlds.minigrid import MISSIONS, OneHotGrid, one_hot  # noqa: E402

EMPTY = "MiniGrid-Empty-5x5-v0"


def parts_of(world: Any) -> dict[str, np.ndarray]:
    form = describe(world.observation_space, "observation")
    assert isinstance(form, Joint)
    return form.structured(form.split(world.obs))


def test_planes_are_those_of_minigrids_own_wrapper():
    env = OneHotPartialObsWrapper(gymnasium.make("MiniGrid-DoorKey-8x8-v0"))
    obs, _ = env.reset(seed=1)
    env.action_space.seed(1)
    for _ in range(60):
        np.testing.assert_array_equal(one_hot(env.unwrapped.gen_obs()["image"]), obs["image"])  # type: ignore[attr-defined]
        obs, *_ = env.step(env.action_space.sample())


def test_what_there_is_but_one_of_is_left_out():
    world = make_world(EMPTY)
    assert list(world.observation_space.spaces) == ["direction", "image"]
    world.reset(0)
    assert parts_of(world)["image"].sum() == 7 * 7 * 3
    world.close()


def test_a_mission_is_the_number_of_each_of_its_words():
    world = make_world("minigrid:Fetch-5x5-N2-v0", 6)
    world.reset(0)
    (first, *_), known = world._env.envs, set[str]()  # type: ignore[attr-defined]
    places = first.unwrapped.observation_space["mission"].ordered_placeholders
    for env, numbers in zip(world._env.envs, parts_of(world)["mission"].astype(int), strict=True):  # type: ignore[attr-defined]
        words = [words[k] for words, k in zip(places, numbers, strict=True)]
        assert env.unwrapped.mission == f"{words[0]} {words[1]} {words[2]}"
        known.add(env.unwrapped.mission)
    assert len(known) > 1
    world.close()


def test_missions_that_cannot_be_listed_are_refused_unless_they_are_given():
    with pytest.raises(UsageError, match=r"BabyAI-GoToRedBall-v0.*Dict\['mission'\].BabyAIMissionSpace.*missions="):
        make_world("BabyAI-GoToRedBall-v0")
    missions = ["go to the red ball", "go to a red ball"]
    world = make_world(lambda: OneHotGrid(gymnasium.make("BabyAI-GoToRedBall-v0"), missions), 2)
    world.reset(0)
    texts = [env.unwrapped.mission for env in world._env.envs]  # type: ignore[attr-defined]
    assert parts_of(world)["mission"].ravel().tolist() == [missions.index(text) for text in texts]
    other = make_world(lambda: OneHotGrid(gymnasium.make("BabyAI-GoToRedBall-v0"), ["go away", "come here"]))
    with pytest.raises(RunError, match="none of the 2"):
        other.reset(0)
    with pytest.raises(UsageError, match=f"more than {MISSIONS}"):
        OneHotGrid(gymnasium.make(EMPTY), missions=[str(k) for k in range(MISSIONS + 1)])


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("minigrid:Emty-5x5-v0", "did you mean 'MiniGrid-Empty-5x5-v0'"),
        ("MiniGrid-Emty-5x5-v0", "did you mean 'MiniGrid-Empty-5x5-v0'"),
        (f"gymnasium:{EMPTY}", r"Dict\['mission'\].MissionSpace"),
        (f"stack:4:{EMPTY}", "frames of a Box are stacked"),
        (lambda: OneHotGrid(gymnasium.make("CartPole-v1")), "CartPole-v1: observations of MiniGrid are"),
    ],
)
def test_what_cannot_be_made_is_said(name: Any, says: str):
    with pytest.raises(UsageError, match=says):
        make_world(name)


def test_without_the_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "minigrid", None)
    with pytest.raises(UsageError, match=r"steepest\[minigrid\]"):
        make_world(EMPTY)


def test_somebodys_own_of_such_a_name_stays_as_it_is():
    gymnasium.register("MiniGrid-Plain-v0", entry_point="gymnasium.envs.classic_control:CartPoleEnv")
    try:
        assert make_world("MiniGrid-Plain-v0").observation_space.shape == (4,)
        assert (
            make_world(lambda: OneHotGrid(gymnasium.make(EMPTY))).observation_space
            == make_world(EMPTY).observation_space
        )
    finally:
        gymnasium.registry.pop("MiniGrid-Plain-v0")


def test_it_is_made_again_in_a_process_that_has_not_seen_it():
    """There the id's record comes before MiniGrid, which registers all of its ids: no warning that one is there."""
    program = (
        "import sys, cloudpickle; world = cloudpickle.load(sys.stdin.buffer)(2); world.reset(0); "
        "print(world.envs, *world.obs.shape)"
    )
    sent = cloudpickle.dumps(remake(EMPTY))
    done = subprocess.run([sys.executable, "-c", program], input=sent, capture_output=True, check=True)
    assert done.stdout.split() == [b"2", b"2", b"981"]
    assert b"Overriding" not in done.stderr


@pytest.mark.slow
def test_trained_by_workers_and_evaluated_from_its_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    settings: Any = {"envs": 4, "group": 2, "rollout": 4, "final_episodes": 1, "episodes": 1, "minibatch": 16}
    settings |= {"policy.network": "mlp", "critic.network": "mlp", "policy.hidden": (4,), "critic.hidden": (4,)}
    run = st.train(EMPTY, steps=16, out=tmp_path / "run", workers=2, **settings)
    assert len(run.metrics) == 1
    assert main(["evaluate", str(run.path), "--episodes", "1", "--quiet"]) == 0
    assert "episodes=1" in capsys.readouterr().out
