"""Options of an environment behind its id: what they mean, what is refused, and that they go where the id goes."""

from __future__ import annotations

import json

import gymnasium
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some

import steepest as st
from steepest.errors import RunError, UsageError
from steepest.worlds import make_world
from steepest.worlds.options import with_options


def test_values_are_flags_numbers_and_words():
    said = "FrozenLake-v1,map_name=8x8,is_slippery=False,success_rate=.5,max_episode_steps=1_000,desc=none,n=-3,x=1e-2"
    assert with_options(said) == (
        "FrozenLake-v1",
        {"map_name": "8x8", "is_slippery": False, "success_rate": 0.5, "max_episode_steps": 1000, "desc": None, "n": -3,
         "x": 0.01},
    )  # fmt: skip
    assert with_options("gymnax:CartPole-v1") == ("gymnax:CartPole-v1", {})


@given(some.text(max_size=60))
def test_whatever_is_said_there_is_an_id_or_one_sentence(text):
    for trusted in (True, False):
        try:
            identifier, options = with_options(f"Env-v0,{text}", trusted=trusted)
        except UsageError as error:
            said = str(error)
            assert "\n" not in said
        else:
            assert identifier == "Env-v0"
            assert all(name.isidentifier() for name in options)


@pytest.mark.parametrize(
    ("spec", "why"),
    [
        ("FrozenLake-v1,8x8", "'8x8' is no option: .* as in FrozenLake-v1,map_name=8x8"),
        ("FrozenLake-v1,map_name=", "'map_name=' is no option"),
        ("FrozenLake-v1,", "'' is no option"),
        ("FrozenLake-v1,map_name=4x4,map_name=8x8", "map_name is said twice"),
        ("FrozenLake-v1,num_envs=4", "num_envs is no option of an environment: --envs N"),
        ("FrozenLake-v1,stack=4", "stack:N:ID"),
        ("FrozenLake-v1,wrappers=x", "how environments are made"),
        ("FrozenLake-v1,map_nme=8x8", "unknown option of FrozenLake-v1 'map_nme'; did you mean 'map_name'"),
        ("FrozenLake-v1,map_name=9x9", "could not be made"),
        ("CartPole-v2,sutton_barto_reward=true", "CartPole-v1"),
        ("mdp:two-state,horizn=5", "horizn"),
        ("mdp:two-state,horizon=long", "an integer ≥ 1, got 'long'"),
        ("gymnax:CartPole-v1,gravty=1", "gravity"),
        ("gymnax:CartPole-v1,gravity=low", "gravity of gymnax's CartPole-v1 is a number, such as 9.8, got 'low'"),
    ],
)
def test_what_is_no_option_is_refused_in_one_sentence(spec, why):
    if spec.startswith("gymnax"):
        pytest.importorskip("gymnax")
    with pytest.raises(UsageError, match=why) as caught:
        make_world(spec, 2)
    assert "\n" not in str(caught.value)


def test_nothing_that_only_a_file_names_reads_files_or_takes_memory():
    files = "Hopper-v5,xml_file=/etc/passwd", "Hopper-v5,xml_file=evil.xml"
    for spec in (*files, "ALE/Pong-v5,img_height=9999,img_width=9999", "X-v0,size=1e9", "X-v0,size=1e999"):
        with pytest.raises(UsageError, match="only a file names"):
            make_world(spec, allow_import=False)
        assert with_options(spec)  # on the user's own word it is for the constructor to say
    assert make_world("FrozenLake-v1,map_name=8x8,max_episode_steps=500", allow_import=False).observation_space.n == 64


def test_an_option_goes_to_the_constructor_of_every_kind_of_world():
    lake = make_world("FrozenLake-v1,map_name=8x8,is_slippery=false", 3)
    assert (lake.envs, lake.observation_space.n) == (3, 64)
    assert make_world("gymnasium:FrozenLake-v1,map_name=8x8").observation_space.n == 64
    assert make_world("stack:2:Pendulum-v1,g=1.0").observation_space.shape == (2, 3)
    short = make_world("mdp:two-state,horizon=3")
    ended = []
    short.reset(0)
    for _ in range(3):
        ended.append(bool(short.step(np.zeros(1, np.int32)).terminated[0]))
    assert ended == [False, False, True]


def test_gymnax_and_atari_take_them_too():
    pytest.importorskip("gymnax")
    world = make_world("gymnax:CartPole-v1,max_steps_in_episode=7", 2)
    world.reset(0)
    truncated = [bool(world.step(np.zeros(2, np.int32)).truncated.all()) for _ in range(7)]
    assert truncated == [False] * 6 + [True]
    pytest.importorskip("ale_py")
    small = make_world("ALE/Pong-v5,img_height=42,img_width=42,stack_num=2", 2)
    assert small.observation_space.shape == (2, 42, 42)
    with pytest.raises(UsageError, match="did you mean 'img_height'"):
        make_world("ALE/Pong-v5,img_heigt=42")


class Walk(gymnasium.Env):
    """A walk of as many steps as one says, of which each is worth as much as one says."""

    observation_space = gymnasium.spaces.Box(0.0, 1.0, (1,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)

    def __init__(self, length: int = 4, worth: float = 1.0, word: str = ""):
        self.length, self.worth, self.at = length, worth, 0
        assert not word or word == "walk"

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.at = 0
        return np.zeros(1, np.float32), {}

    def step(self, action):
        self.at += 1
        return np.full(1, self.at / self.length, np.float32), self.worth, self.at >= self.length, False, {}


def test_a_run_has_them_in_training_evaluation_workers_and_when_it_is_gone_on_with(tmp_path):
    gymnasium.register("steepest/Walk-v0", f"{__name__}:Walk")
    try:
        env = "steepest/Walk-v0,length=5,worth=2,word=walk"
        run = st.train(
            env, out=tmp_path / "run", steps=128, envs=4, rollout=32, group=2, workers=2, tensorboard=False, quiet=True,
            evaluation={"every": 0, "final_episodes": 2},
        )  # fmt: skip
        assert run.evaluation.tolist() == [10.0, 10.0]
        again = st.resume(run.path, steps=256, quiet=True)
        assert again.evaluation.tolist() == [10.0, 10.0]
        assert again.faults == 0
        lines = (run.path / "episodes.jsonl").read_text().splitlines()
        assert {json.loads(line)["return"] for line in lines} == {10.0}
        other = st.resume(run.path, env="steepest/Walk-v0,length=5,worth=3", steps=384, quiet=True)
        assert other.evaluation.tolist() == [15.0, 15.0]
    finally:
        del gymnasium.registry["steepest/Walk-v0"]


def test_a_run_of_a_strangers_options_is_not_begun(tmp_path):
    run = st.train(
        "Hopper-v5", out=tmp_path / "run", steps=128, envs=2, rollout=64, tensorboard=False, quiet=True,
        evaluation={"every": 0, "final_episodes": 1},
    )  # fmt: skip
    config = run.path / "config.json"
    config.write_text(config.read_text().replace('"Hopper-v5"', '"Hopper-v5,xml_file=/etc/passwd"'))
    with pytest.raises((UsageError, RunError), match="only a file names"):
        st.resume(run.path, steps=256, quiet=True)
