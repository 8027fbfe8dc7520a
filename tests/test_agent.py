"""What acts: draws, bounds, spaces; and the running statistics it carries, of observations and of rewards."""

from __future__ import annotations

import dataclasses
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode

import steepest as st
from environments import Counting, vector
from steepest.agent import Agent
from steepest.batch import Rollout
from steepest.critics import MlpValue
from steepest.errors import UsageError
from steepest.normaliser import Normaliser
from steepest.parameters import split
from steepest.policies.specification import PolicySpec
from steepest.sampling.acting import actions, compile_actor
from steepest.sampling.reward_scale import RewardScale
from steepest.spaces import Box, Discrete, from_record, to_record

BOX = Box(np.array([-np.inf, 0.0]), np.array([np.inf, 0.5]))


class Copying(eqx.Module):
    """The mean of the action is the observation as the policy sees it."""

    log_std: jax.Array

    def __call__(self, obs: Any) -> st.DiagonalGaussian:
        return st.DiagonalGaussian(obs, self.log_std)


def agent(log_std: float = 0.0, normaliser: Normaliser | None = None) -> Agent:
    space = Box(np.full(2, -np.inf), np.full(2, np.inf))
    return Agent(Copying(jnp.full(2, log_std)), space, space, normaliser)


class TestPredict:
    def test_every_call_and_every_row_draws_anew_and_a_seed_starts_again(self) -> None:
        one = agent()
        one.seed(3)
        first, second = (one.predict(np.zeros((4, 2)))[0] for _ in range(2))
        assert len(np.unique(np.concatenate([first, second]))) == 16
        one.seed(3)
        np.testing.assert_array_equal(one.predict(np.zeros((4, 2)))[0], first)
        one.seed(4)
        assert (one.predict(np.zeros((4, 2)))[0] != first).all()
        np.testing.assert_array_equal(agent().predict(np.zeros(2))[0], agent().predict(np.zeros(2))[0])

    def test_deterministic_is_the_mode_of_what_is_normalised(self) -> None:
        data = np.random.default_rng(0).normal(5.0, [2.0, 0.1], size=(50, 2))
        normal = agent(normaliser=Normaliser.empty((2,)).updated(data))
        obs = np.array([[5.5, 5.0], [1e6, -1e6]])
        expected = np.clip((obs - data.mean(axis=0)) / data.std(axis=0), -10, 10)
        np.testing.assert_allclose(normal.predict(obs, deterministic=True)[0], expected, rtol=1e-3, atol=1e-5)
        noise, _ = normal.predict(np.zeros((1000, 2)) + data.mean(axis=0))
        np.testing.assert_allclose(noise.std(axis=0), 1.0, rtol=0.1)

    def test_what_goes_out_is_clipped_and_of_the_environments_dtype(self) -> None:
        bounded = Agent(Copying(jnp.zeros(2)), BOX, BOX)
        action, _ = bounded.predict(np.array([[-7.0, -7.0], [7.0, 7.0]]), deterministic=True)
        np.testing.assert_array_equal(action, np.array([[-7.0, 0.0], [7.0, 0.5]], np.float32))
        assert action.dtype == np.float32

    def test_an_action_that_is_not_finite_is_an_error(self) -> None:
        with pytest.raises(st.RunError, match="not finite"):
            agent(np.nan).predict(np.zeros(2))
        policy = Copying(jnp.full(2, np.nan))
        act, (params, _) = compile_actor(policy), split(policy)
        with pytest.raises(st.RunError, match="not finite"):
            act(params, None, np.zeros((1, 2), np.float32), jax.random.key(0), 0)

    def test_the_compiled_actor_is_the_plain_one_for_any_parameters(self) -> None:
        policy = Copying(jnp.zeros(2))
        act, (params, _) = compile_actor(policy), split(Copying(jnp.ones(2)))
        obs, scaling = np.ones((3, 2), np.float32), Normaliser.empty((2,)).updated(np.eye(2)).scaling()
        for draw, deterministic in ((0, False), (1, False), (0, True)):
            given = scaling, obs, jax.random.key(1), draw, deterministic
            np.testing.assert_allclose(act(params, *given), actions(Copying(jnp.ones(2)), *given), rtol=1e-6)
        assert (
            act(params, scaling, obs, jax.random.key(1), 0) != act(params, scaling, obs, jax.random.key(1), 1)
        ).all()


class TestSpaces:
    @pytest.mark.parametrize("space", [Discrete(3, 5), BOX, Box(np.zeros((2, 3)), np.ones((2, 3)), "float64")])
    def test_a_space_survives_its_record(self, space: Any) -> None:
        back = from_record(to_record(space))
        if not isinstance(back, Box):
            assert back == space
        else:
            assert isinstance(space, Box)
            np.testing.assert_array_equal(back.low, space.low)
            np.testing.assert_array_equal(back.high, space.high)
            assert back.dtype == space.dtype

    def test_what_is_no_record_is_refused(self) -> None:
        for record in ({}, {"kind": "sphere"}, {"kind": "discrete"}, {**to_record(BOX), "shape": [3]}):
            with pytest.raises(UsageError, match="not the record of a space"):
                from_record(record)

    def test_numbers_count_from_zero_inside_and_from_start_outside(self) -> None:
        space = Discrete(3, 5)
        np.testing.assert_array_equal(space.to_environment([0, 2]), [5, 7])
        np.testing.assert_array_equal(space.from_environment([5, 7]), [0, 2])


class TestPolicySpec:
    def test_a_policy_survives_its_record_and_older_records_mean_what_they_did(self) -> None:
        spec = PolicySpec.for_spaces(BOX, BOX, (4,), -1.0, head_gain=1.0, activation="relu", initialisation="uniform")
        assert PolicySpec.from_record(spec.to_record()) == spec
        old = {"kind": "mlp-gaussian", "inputs": 2, "actions": 2, "hidden": [4], "initial_log_std": -1.0}
        assert PolicySpec.from_record(old) == PolicySpec.for_spaces(BOX, BOX, (4,), -1.0)
        for name in ("activation", "initialisation"):
            with pytest.raises(UsageError, match=f"unknown {name} 'sine'"):
                PolicySpec.from_record({**old, name: "sine"}).build(jax.random.key(0))

    def test_the_layers_start_as_they_are_told_to(self) -> None:
        """Orthogonal: WᵀW = gain². Uniform: within ±1/√in, biases too; and the head is scaled in both."""
        for gain in (0.01, 1.0):
            spec = PolicySpec.for_spaces(BOX, BOX, (64,), head_gain=gain)
            policy: Any = spec.build(jax.random.key(0))
            first, head = policy.net.layers
            np.testing.assert_allclose(head.weight.T @ head.weight, gain**2 * np.eye(2), atol=1e-5 * gain**2)
            np.testing.assert_allclose(first.weight @ first.weight.T, 2 * np.eye(2), atol=1e-5)
            uniform = dataclasses.replace(spec, initialisation="uniform")
            policy = uniform.build(jax.random.key(0))
            first, head = policy.net.layers
            for layer, most in ((first, 2**-0.5), (head, gain / 8)):
                found = np.concatenate([np.ravel(layer.weight), layer.bias])
                assert 0.9 * most < np.abs(found).max() <= most
                assert np.abs(layer.bias).max() > 0

    def test_what_is_between_the_layers(self) -> None:
        for name, expected in (("tanh", np.tanh), ("relu", lambda x: np.maximum(x, 0))):
            net = MlpValue(2, (3,), activation=name, key=jax.random.key(0)).net
            x = np.array([0.3, -2.0])
            hidden = expected(x @ net.layers[0].weight + net.layers[0].bias)
            np.testing.assert_allclose(net(x), hidden @ net.layers[1].weight + net.layers[1].bias, rtol=1e-5)
        with pytest.raises(UsageError, match="unknown activation 'rely'; did you mean 'relu'"):
            st.MlpCategorical(2, 2, activation="rely", key=jax.random.key(0))


class TestEvaluation:
    def test_short_episodes_are_not_favoured(self) -> None:
        """Environment 0 ends its episodes three times as often, and is counted as often as environment 1."""
        policy = st.MlpCategorical(1, 2, (2,), key=jax.random.key(0))
        unbounded = Box(np.zeros(1), np.full(1, np.inf))
        for mode in AutoresetMode:
            world = vector([Counting(2), Counting(6, terminates=True)], mode)
            returns = st.evaluate(Agent(policy, unbounded, Discrete(2)), world, episodes=5)
            np.testing.assert_array_equal(sorted(returns), [2, 2, 2, 6, 6])


class TestRewardScale:
    @staticmethod
    def rollout(seed: int) -> Rollout:
        rng = np.random.default_rng(seed)
        done, valid = rng.random((7, 3)) < 0.2, rng.random((7, 3)) < 0.8
        done &= valid
        cut = rng.random((7, 3)) < 0.5
        reward = rng.normal(1.0, 3.0, size=(7, 3)).astype(np.float32)
        return Rollout(
            np.zeros((7, 3, 1)), np.zeros((7, 3)), reward, np.zeros((7, 3, 1)), done & cut, done & ~cut, valid
        )

    def test_it_is_the_deviation_of_discounted_sums_across_rollouts(self) -> None:
        """R_t = 0.9 R_{t−1} + r_t within an episode, from 0 after each; ghost rows are not there."""
        sums: list[float] = []
        scale, running = RewardScale.empty(3), np.zeros(3)
        assert scale.value == 1.0
        for r in (self.rollout(0), self.rollout(1)):
            scale = scale.updated(r, 0.9)
            for t, b in np.argwhere(r.valid):
                running[b] = 0.9 * running[b] + r.reward[t, b]
                sums.append(float(running[b]))
                running[b] *= not (r.terminated[t, b] or r.truncated[t, b])
        assert scale.value == pytest.approx(np.std(sums), rel=1e-5)
        np.testing.assert_allclose(scale.running, running)

    def test_rewards_that_never_vary_are_not_blown_up(self) -> None:
        still = self.rollout(0)._replace(reward=np.zeros((7, 3), np.float32))
        assert RewardScale.empty(3).updated(still, 0.9).value == 1.0
