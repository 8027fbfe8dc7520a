"""Observations of every space: what a network is given of them, from the environment to the optimum, and bad ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces as gym
from gymnasium.vector import AutoresetMode, SyncVectorEnv

import steepest as st
from environments import Counting, Spaces
from sameness import differences
from short_runs import NEAR
from steepest.normaliser import Normaliser
from steepest.policies.encoder import left_alone
from steepest.policies.specification import PolicySpec
from steepest.policies.trunks import Layers, trunk_for
from steepest.sampling.moments import Moments
from steepest.spaces import Box, Discrete, Joint, MultiBinary, MultiDiscrete, describe
from steepest.worlds import make_world
from steepest.worlds.gymnasium import GymnasiumWorld
from steepest.worlds.observing import entry

LENGTH = 8
KEY = jax.random.key(0)


def space() -> gym.Dict:
    inner = gym.Tuple(
        (gym.Box(-1e3, 1e3, (2,), np.float64), gym.MultiBinary(2), gym.MultiDiscrete([2, 3], start=[1, 0]))
    )
    picture = gym.Box(0, 255, (4, 4, 1), np.uint8)
    return gym.Dict({"picture": picture, "sign": gym.Discrete(2, start=5), "rest": inner})


class Signs(gymnasium.Env):
    """A bright dot on the left or the right, and a sign that says which action is which: 8 in all at the best, for who
    looks at both, and 4 for who does not; the rest says nothing."""

    def __init__(self) -> None:
        self.observation_space: Any = space()
        self.action_space: Any = gym.Discrete(2)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.count = 0
        return self._draw(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        right = float(action == self.wanted)
        self.count += 1
        return self._draw(), right, False, self.count == LENGTH, {}

    def _draw(self) -> dict[str, Any]:
        rng = self.np_random
        row, column, sign = rng.integers(4), rng.integers(4), rng.integers(2)
        self.wanted = int(column >= 2) ^ int(sign)
        picture = np.zeros((4, 4, 1), np.uint8)
        picture[row, column] = 255
        rest = (rng.normal(100, 10, 2), rng.integers(0, 2, 2, np.int8), np.array([1, 0]) + rng.integers([2, 3]))
        return {"picture": picture, "sign": np.int64(5 + sign), "rest": rest}


class FunctionalSigns:
    """The same in JAX, without the rest."""

    time_limit = LENGTH

    def __init__(self) -> None:
        parts = space().spaces
        self.observation_space = gym.Dict({name: parts[name] for name in ("picture", "sign")})
        self.action_space = gym.Discrete(2)

    def reset(self, key: Any, params: Any) -> Any:
        row, column, sign = jax.random.randint(key, (3,), 0, jnp.array([4, 4, 2]))
        picture = jnp.zeros((4, 4, 1), jnp.uint8).at[row, column, 0].set(255)
        return {"picture": picture, "sign": 5 + sign}, (column >= 2) ^ sign.astype(bool)

    def step(self, key: Any, state: Any, action: Any, params: Any) -> Any:
        obs, wanted = self.reset(key, params)
        return obs, wanted, (action == state).astype(jnp.float32), False, False, {}


SMALL: dict[str, Any] = {**NEAR, "group": 4, "normalise_observations": True, "critic": {"epochs": 2}}


@pytest.mark.slow
def test_the_optimum_needs_both_parts_and_is_found(tmp_path: Path) -> None:
    run = st.train(Signs, "trpo", steps=61_440, seed=1, out=tmp_path / "run", workers=0, **SMALL)
    assert run.evaluation.mean() == LENGTH
    env = Signs()
    for seed in range(5):
        obs, _ = env.reset(seed=seed)
        assert run.agent.predict(obs, deterministic=True)[0] == env.wanted


@pytest.mark.slow
def test_the_optimum_is_found_in_one_program(tmp_path: Path) -> None:
    settings = {**SMALL, "group": None}
    run = st.train(FunctionalSigns(), "trpo", steps=30_720, seed=1, out=tmp_path, **settings)
    assert run.evaluation.mean() == LENGTH


@pytest.mark.slow
def test_a_run_resumes_exactly_and_workers_change_nothing(tmp_path: Path) -> None:
    def stop(event: st.IterationEvent) -> None:
        if event.iteration == 1:
            raise KeyboardInterrupt

    settings = {**SMALL, "steps": 1024, "checkpoint_every": 1, "evaluation": {"every": 512, "episodes": 2}}
    whole = st.train(Signs, "trpo", out=tmp_path / "whole", workers=0, **settings)
    with pytest.raises(KeyboardInterrupt):
        st.train(Signs, "trpo", out=tmp_path / "run", callbacks=[stop], workers=0, **settings)
    st.resume(tmp_path / "run", env=Signs)
    assert differences(whole.path, tmp_path / "run") == []
    agent, env = st.load(whole.path), Signs()
    np.testing.assert_array_equal(st.evaluate(agent, Signs, 10, 3), st.evaluate(whole.agent, Signs, 10, 3))
    obs, _ = env.reset(seed=0)
    action = agent.predict(obs, deterministic=True)[0]
    many = {"picture": np.stack([obs["picture"]] * 3), "sign": np.full(3, obs["sign"])}
    many["rest"] = tuple(np.stack([part] * 3) for part in obs["rest"])
    assert agent.predict(many, deterministic=True)[0].tolist() == [action] * 3
    for wrong in ({**obs, "sign": 7}, {**obs, "picture": obs["picture"][1:]}, {"sign": 5}, np.zeros(3)):
        with pytest.raises(st.UsageError, match="observation"):
            agent.predict(wrong)
    shared = st.train(Signs, "trpo", out=tmp_path / "workers", workers=2, **settings)
    assert [row["update/kl"] for row in whole.metrics] == [row["update/kl"] for row in shared.metrics]


def test_a_vector_has_the_parts_and_statistics_leave_whole_numbers_and_pixels_alone() -> None:
    form = describe(space(), "observation")
    assert isinstance(form, Joint)
    assert form.names == ("picture", "rest", "sign")
    env = Signs()
    obs, _ = env.reset(seed=3)
    flat = form.from_environment(obs)
    expected = [obs["picture"].ravel(), *obs["rest"][:2], obs["rest"][2] - [1, 0], [obs["sign"] - 5]]
    np.testing.assert_array_equal(flat, np.concatenate(expected).astype(np.float32))
    alone = left_alone(form)
    assert np.flatnonzero(~alone).tolist() == [16, 17]
    data = np.stack([form.from_environment(env._draw()) for _ in range(50)])
    for scaling in (Normaliser.empty((23,), alone).updated(data).scaling(),
                    Moments.of(Normaliser.empty((23,), alone)).updated(jnp.asarray(data)).scaling()):  # fmt: skip
        seen = np.asarray(scaling(data))
        np.testing.assert_array_equal(seen[:, alone], data[:, alone])
        np.testing.assert_allclose(seen[:, 16:18].mean(axis=0), 0, atol=1e-4)
        np.testing.assert_allclose(seen[:, 16:18].std(axis=0), 1, rtol=1e-3)


@pytest.mark.parametrize("observation", ["discrete", "multi-discrete", "multi-binary", "joint"])
def test_numbers_are_one_hot_and_switches_are_0_and_1(observation: str) -> None:
    how, key = Layers(), KEY
    forms: dict[str, tuple[Any, Any, list[float]]] = {
        "discrete": (Discrete(3, 5), 2, [0, 0, 1]),
        "multi-discrete": (MultiDiscrete((2, 3), (0, 0)), [1, 0], [0, 1, 1, 0, 0]),
        "multi-binary": (MultiBinary(3), [0, 1, 1], [0, 1, 1]),
    }
    both = Joint((forms["discrete"][0], Box(np.zeros(2), np.ones(2)), forms["multi-discrete"][0]))
    forms["joint"] = both, [2, 0.25, 0.5, 1, 0], [0, 0, 1, 0.25, 0.5, 0, 1, 1, 0, 0]
    form, obs, expected = forms[observation]
    trunk: Any = trunk_for(form, "auto", (), how, key=key)
    assert trunk.features == len(expected)
    np.testing.assert_array_equal(trunk(jnp.asarray(obs, form.inside)), expected)
    for action in (Box(np.zeros(2), np.ones(2)), MultiBinary(2), Discrete(3)):
        spec = PolicySpec.for_spaces(form, action, (4,))
        assert spec.kind == ("tabular" if observation == "discrete" and isinstance(action, Discrete) else "network")
        policy: Any = spec.build(key)
        seen = 2 if spec.kind == "tabular" else jnp.asarray(obs, form.inside)
        assert policy(seen).sample(key).shape == action.shape


@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_every_mode_of_a_vector_environment_gives_the_same_vectors(mode: AutoresetMode) -> None:
    """Against Gymnasium's own next-step mode, stepped by us one by one."""
    worlds = [GymnasiumWorld(SyncVectorEnv([Signs, Signs], autoreset_mode=m)) for m in (mode, AutoresetMode.NEXT_STEP)]
    if mode is AutoresetMode.NEXT_STEP:
        worlds[0]._lockstep = None
        worlds[0]._stepped = worlds[0]._env
    firsts = [world.reset(3) for world in worlds]
    np.testing.assert_array_equal(firsts[0], firsts[1])
    for t in range(LENGTH):
        steps = [world.step(np.zeros(2, np.int32)) for world in worlds]
        np.testing.assert_array_equal(steps[0].next_obs, steps[1].next_obs)
        assert steps[0].truncated.all() == (t == LENGTH - 1)
        assert steps[0].next_obs.dtype == np.float32


class Wrong(Signs):
    """Its third observation has something else in a part."""

    def __init__(self, path: tuple[Any, ...], value: Any):
        super().__init__()
        self.path, self.value = path, value

    def step(self, action: Any) -> Any:
        obs, *rest = super().step(action)
        if self.count != 3:
            return obs, *rest
        if len(self.path) == 2:
            obs["rest"] = tuple(self.value if i == self.path[1] else part for i, part in enumerate(obs["rest"]))
        elif self.value is None:
            del obs[self.path[0]]
        else:
            obs[self.path[0]] = self.value
        return obs, *rest


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("sign",), 7, r"returned 7 for \['sign'\], which is not in Dict"),
        (("sign",), 5.5, r"returned \['sign'\] of shape \(\) and dtype float64; its space is Discrete\(2, start=5\)"),
        (("sign",), None, r"without the parts of Dict.*KeyError: 'sign'"),
        (("picture",), np.zeros((4, 4), np.uint8), r"returned \['picture'\] of shape \(4, 4\) and dtype uint8"),
        (("rest", 0), np.array([0.0, np.nan]), "returned an observation that is not finite: nan in entry 17"),
        (("rest", 1), np.array([0, 2], np.int8), r"returned 2 for entry 1 of \['rest'\]\[1\]"),
        (("rest", 2), np.array([0, 2]), r"returned 0 for entry 0 of \['rest'\]\[2\]"),
        (("rest",), (1, 2), r"returned its part \['rest'\] without the parts of Tuple"),
    ],
)
def test_an_observation_outside_its_space_is_a_fault(path: Any, value: Any, message: str) -> None:
    world = make_world(Wrong(path, value))
    world.reset(0)
    world.step(np.zeros(1, np.int32))
    world.step(np.zeros(1, np.int32))
    with pytest.raises(st.RunError, match=message):
        world.step(np.zeros(1, np.int32))


@pytest.mark.parametrize(
    ("observation", "value", "message"),
    [
        (
            gym.MultiDiscrete([2, 3]),
            np.array([1, 3]),
            "returned 3 for entry 1, which is not in MultiDiscrete",
        ),
        (gym.MultiBinary(2), np.array([0, 2], np.int8), "returned 2 for entry 1, which is not in MultiBinary"),
        (gym.Discrete(3), np.int64(3), r"returned the state 3, which is not in Discrete\(3\)"),
    ],
)
def test_numbers_outside_their_space_are_faults(observation: Any, value: Any, message: str) -> None:
    class One(Counting):
        def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
            self.count = 0
            return value, {}

    env = One(5)
    env.observation_space = observation
    with pytest.raises(st.RunError, match=message):
        make_world(env).reset(0)


def test_a_part_that_is_not_supported_is_named(tmp_path: Path) -> None:
    wrong = gym.Dict({"camera": gym.Text(3), "place": gym.Box(0, 1, (2,))})
    with pytest.raises(st.UsageError, match=r"because of its Dict\['camera'\].Text"):
        st.train(lambda: Spaces(wrong), "npg", out=tmp_path / "run", **SMALL)
    place = gym.Dict({"place": gym.Box(0, 1, (2,))})
    with pytest.raises(st.UsageError, match="images, not of observations of Dict"):
        st.train(lambda: Spaces(place), "npg", out=tmp_path / "run", policy={"network": "nature"}, **SMALL)


def test_entries_have_names() -> None:
    form = describe(space(), "observation")
    assert entry(form, 0) == (0, "entry 0 of ['picture']")
    assert entry(form, 20) == (1, "entry 0 of ['rest'][2]")
    assert entry(form, 22) == (5, "['sign']")
