"""Actions within bounds: squashed and Beta policies, σ of the state; from the environment to the optimum and a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, Discrete, Tuple

import steepest as st
from short_runs import NEAR
from steepest import spaces
from steepest.distributions import Beta, SquashedGaussian
from steepest.policies.heads import head_for
from steepest.worlds import Adapted, make_world

LENGTH = 8
LOW, HIGH = np.array([-1.0, 10.0], np.float32), np.array([3.0, 12.0], np.float32)


class Reach(gymnasium.Env):
    """Do what the observation says, in fractions of the range: −8·E|miss| an episode, 0 at the best, −2.7 at random.

    It asserts that actions are within their bounds.
    """

    def __init__(self):
        self.action_space = Box(LOW, HIGH)
        self.observation_space = Box(0.0, 1.0, (2,), np.float32)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.count, self.wanted = 0, self.np_random.uniform(0.2, 0.8, 2).astype(np.float32)
        return self.wanted, {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        assert self.action_space.contains(action), action
        miss = np.abs((action - LOW) / (HIGH - LOW) - self.wanted).mean()
        self.count += 1
        self.wanted = self.np_random.uniform(0.2, 0.8, 2).astype(np.float32)
        return self.wanted, -float(miss), False, self.count == LENGTH, {}


class FunctionalReach:
    """The same in JAX."""

    action_space, observation_space, time_limit = Box(LOW, HIGH), Box(0.0, 1.0, (2,), np.float32), LENGTH

    def reset(self, key: Any, params: Any) -> Any:
        wanted = jax.random.uniform(key, (2,), minval=0.2, maxval=0.8)
        return wanted, wanted

    def step(self, key: Any, state: Any, action: Any, params: Any) -> Any:
        obs, wanted = self.reset(key, params)
        miss = jnp.mean(jnp.abs((action - LOW) / (HIGH - LOW) - state))
        return obs, wanted, -miss, False, False, {}


@pytest.mark.slow  # of a part of a Dict not: see test_joint_actions.py
@pytest.mark.parametrize(
    "policy",
    [
        {"distribution": "beta"},
        {"distribution": "squashed"},
        {"distribution": "squashed", "state_dependent_std": True},
    ],
    ids=["beta", "squashed", "squashed, of the state"],
)
def test_the_optimum_is_found_and_comes_back(policy: dict[str, Any], tmp_path: Path) -> None:
    run = st.train(Reach, "trpo", steps=30_000, seed=1, out=tmp_path / "run", policy=policy, **NEAR)
    assert run.evaluation.mean() > -0.4
    assert all(np.isfinite(row["update/kl"]) for row in run.metrics)
    agent, obs = st.load(run.path), np.full((5, 2), 0.5, np.float32)
    for deterministic in (True, False):
        action, _ = agent.predict(obs, deterministic=deterministic)
        assert action.dtype == np.float32
        assert (action >= LOW).all()
        assert (action <= HIGH).all()
    np.testing.assert_array_equal(st.evaluate(agent, Reach, 10, 3), st.evaluate(run.agent, Reach, 10, 3))


@pytest.mark.slow
@pytest.mark.parametrize("distribution", ["squashed", "beta"])
def test_in_one_program_and_in_other_ways(distribution: str, tmp_path: Path) -> None:
    policy = {"distribution": distribution}
    run = st.train(FunctionalReach(), "trpo", steps=30_000, seed=1, out=tmp_path / "run", policy=policy, **NEAR)
    assert run.evaluation.mean() > -0.4
    vine = {"scheme": "vine", "vine": {"states": 8, "actions": 2, "length": 2}}
    ways: list[Any] = [
        vine,
        {"solver": "sample-space", "workers": 2, "group": 4},
        {"algorithm": "acktr"},
        {"entropy": 0.01},
    ]
    for i, settings in enumerate(ways):
        given = {"algorithm": "trpo", **NEAR, **settings, "steps": 1024}
        run = st.train(Reach, out=tmp_path / f"{i}", policy=policy, **given)
        assert run.metrics[-1]["update/reason"] == "accepted"
    assert st.resume(run.path, env=Reach, steps=2048).steps >= 2048


def test_worlds_squash_what_they_are_given() -> None:
    s = np.array([[0.0, 0.0], [50.0, -50.0], [0.5, -0.5]], np.float32)
    expected = LOW + (HIGH - LOW) * (0.5 + 0.5 * np.tanh(s))
    squashed = spaces.Box(LOW, HIGH, squashed=True)
    np.testing.assert_allclose(squashed.to_environment(s), expected, rtol=1e-6)
    for env in (Reach, FunctionalReach()):
        world = make_world(Adapted(env, squashed=True), 3)
        assert spaces.fits(spaces.describe(world.action_space, "action"), squashed)
        wanted = world.reset(0).copy()
        miss = np.abs(0.5 + 0.5 * np.tanh(s) - wanted).mean(axis=1)
        np.testing.assert_allclose(world.step(s).reward, -miss, rtol=1e-5)
    both = Tuple((Discrete(2), Dict(b=Box(-1.0, 1.0, (1,)), a=Discrete(3))))
    world = make_world(Adapted(lambda: Spaced(both), squashed=True), 1)
    joint = spaces.describe(world.action_space, "action")
    assert spaces.brief(joint) == "Tuple(Discrete(2), Dict(b: Box(1,) squashed, a: Discrete(3)))"
    assert spaces.is_squashed(joint)
    world.reset(0)
    world.step(np.array([[1.0, 0.3, 2.0]], np.float32))
    again = spaces.from_record(spaces.to_record(joint))
    assert spaces.fits(again, joint)
    assert not spaces.fits(again, spaces.describe(both, "action"))


class Spaced(Reach):
    def __init__(self, actions: Any):
        super().__init__()
        self.action_space = actions

    def step(self, action: Any) -> Any:
        assert self.action_space.contains(action), action
        return self.wanted, 0.0, False, False, {}


@pytest.mark.parametrize(
    ("env", "policy", "what"),
    [
        (
            lambda: Spaced(Box(-np.inf, np.inf, (2,))),
            {"distribution": "beta"},
            "needs bounds, low < high; Box.* has none",
        ),
        (
            lambda: Spaced(Discrete(2)),
            {"distribution": "squashed"},
            r"=squashed says nothing of .*Discrete\(2\)",
        ),
        (lambda: Spaced(Discrete(2)), {"state_dependent_std": True}, "state_dependent_std says nothing"),
        (Reach, {"distribution": "beta", "state_dependent_std": True}, "state_dependent_std is of Gaussians"),
        (Reach, {"distribution": "gamma"}, "must be one of 'gaussian', 'squashed', 'beta'"),
    ],
)
def test_what_cannot_be_is_said(env: Any, policy: Any, what: str, tmp_path: Path) -> None:
    with pytest.raises(st.UsageError, match=what):
        st.train(env, "npg", out=tmp_path / "run", policy=policy, steps=512)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "wrong",
    [
        {"squashed": 1},
        {"squashed": True, "high": [None]},
        {"squashed": "yes"},
    ],
)
def test_a_record_that_is_none_is_refused(wrong: Any) -> None:
    record = spaces.to_record(spaces.Box(np.zeros(1), np.ones(1), squashed=True))
    assert spaces.from_record(record).to_environment(np.zeros(1)) == 0.5
    with pytest.raises(st.UsageError, match="not the record of a space"):
        spaces.from_record({**record, **wrong})


def test_heads_of_boxes() -> None:
    box, squashed = spaces.Box(LOW, HIGH), spaces.Box(LOW, HIGH, squashed=True)
    spread = head_for(box, -0.7, state_dependent_std=True)
    assert spread.outputs == 4
    log_std = np.asarray(spread(jnp.array([0.0, 0.0, 0.0, 1e9])).log_std)  # type: ignore[attr-defined]
    np.testing.assert_allclose(log_std, [-0.7, 4.3], rtol=1e-6)
    with pytest.raises(st.UsageError, match=r"a beta policy does not fit the actions Box\(2,\)"):
        head_for(box, distribution="beta")
    with pytest.raises(st.UsageError, match="a gaussian policy does not fit"):
        head_for(squashed)
    with pytest.raises(st.UsageError, match="unknown distribution 'bata'; did you mean 'beta'"):
        head_for(squashed, distribution="bata")


@jax.jit
def says(p: Any, q: Any, s: Any) -> Any:
    return p.log_prob(s), p.whitened_score(s), p.kl(q), p.entropy(), p.whiten(q), p.mode()


def test_float32_has_the_digits_near_the_bounds() -> None:
    """Score, density and KL of narrow and of saturated policies against float64."""
    with jax.enable_x64(True):
        s = np.array([-30.0, -9.0, 0.1, 9.0, 30.0])
        ones = np.ones(5)
        pairs: list[tuple[Any, Any]] = [
            (SquashedGaussian(9.0 * ones, 0.5 * ones), SquashedGaussian(9.01 * ones, 0.5 * ones)),
            (Beta(3.0 * ones, 5.0 * ones), Beta(3.01 * ones, 5.0 * ones)),
            (Beta(-80.0 * ones, 2.0 * ones), Beta(-81.0 * ones, 2.1 * ones)),
            (Beta(900.0 * ones, 2000.0 * ones), Beta(901.0 * ones, 1999.0 * ones)),
        ]
        for p, q in pairs:
            p32, q32, s32 = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), (p, q, s))
            for a, b in zip(says(p, q, s), says(p32, q32, s32), strict=True):
                np.testing.assert_allclose(b, a, rtol=2e-3, atol=2e-3 * np.abs(np.asarray(a)).max())


def test_a_saturated_beta_keeps_within_and_finite() -> None:
    p = Beta(jnp.array([-200.0, 50.0, 1e4]), jnp.array([50.0, -200.0, 1e4]))
    draws = jax.jit(jax.vmap(p.sample))(jax.random.split(jax.random.key(0), 200))
    for value in (draws, *says(p, p, draws[0])):
        assert np.isfinite(np.asarray(value)).all()
