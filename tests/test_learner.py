"""One iteration's arithmetic: raw in, raw out, and everything measured with the statistics that acted."""

from __future__ import annotations

import dataclasses
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import steepest as st
from steepest.batch import Rollout
from steepest.critics import AdamFit
from steepest.geometry import expected_advantage, log_probs
from steepest.normaliser import Normaliser, Scaling
from steepest.parameters import split
from steepest.sampling.acting import actions
from steepest.training import collecting
from steepest.training.iteration import Given
from steepest.training.learner import Learner

STEPS, ENVS = 6, 4
ACTED = Scaling(np.array([0.5, -1.0], np.float32), np.array([0.5, 1.5], np.float32))
REFRESHED = Scaling(np.array([2.0, 1.0], np.float32), np.array([0.1, 3.0], np.float32))


class Affine(eqx.Module):
    """V(x) = wᵀx + b."""

    weight: jax.Array
    bias: jax.Array

    def __call__(self, obs: Any) -> jax.Array:
        return jnp.vdot(self.weight, obs) + self.bias


CRITIC = Affine(jnp.array([0.7, -0.3]), jnp.array(0.2))


class Uneven(eqx.Module):
    """A Gaussian whose deviation varies from state to state, so that its KL is not symmetric."""

    mean: jax.Array
    spread: jax.Array

    def __call__(self, obs: Any) -> st.DiagonalGaussian:
        return st.DiagonalGaussian(obs @ self.mean, obs @ self.spread)


def policy() -> Uneven:
    return Uneven(jnp.array([[0.5], [-0.3]]), jnp.array([[0.2], [0.1]]))


def rollout(acted: Scaling = ACTED) -> Rollout:
    """Actions drawn by `policy()` with `acted`; the last row of environment 2 is a ghost, row 3 of 0 and 1 an end."""
    rng = np.random.default_rng(0)
    shape = (STEPS, ENVS)
    obs, next_obs = (rng.normal(size=(*shape, 2)).astype(np.float32) for _ in range(2))
    action = [actions(policy(), acted, x, jax.random.key(2), t, False) for t, x in enumerate(obs)]
    terminated, truncated, valid = np.zeros(shape, bool), np.zeros(shape, bool), np.ones(shape, bool)
    terminated[3, 0] = truncated[3, 1] = True
    valid[-1, 2] = False
    reward = rng.normal(size=shape).astype(np.float32)
    return Rollout(obs, np.stack(action), reward, next_obs, terminated, truncated, valid)


def learner(algorithm: Any = None, *, lam: float = 0.0, centre: bool = True) -> Learner:
    return Learner(algorithm or st.npg(1e-3), AdamFit(epochs=1, minibatch=8), 0.5, lam, centre)


def learn(learner: Learner, acted: Any = ACTED, refreshed: Any = REFRESHED, scale: float = 1.0) -> Any:
    state = learner.init(policy(), CRITIC)
    return learner.update(state, Given(rollout(), acted, refreshed, np.float32(scale), jax.random.key(3)))


def mean(x: np.ndarray) -> float:
    return float(x[rollout().valid].mean())


@dataclasses.dataclass(frozen=True, eq=False)
class Behaviour:
    """An objective whose gain is max |ln π_old(a) − ln π_acted(a)| over the rollout: 0 where the ratio is 1."""

    log_prob: Any

    def gradient(self, local: Any, batch: Any) -> Any:
        return expected_advantage.gradient(local, batch)

    def gain(self, old: Any, new: Any, batch: Any) -> Any:
        return jnp.max(jnp.where(batch.weight > 0, jnp.abs(log_probs(old, batch.action)[:, 0] - self.log_prob), 0.0))


class TestPitfall11:
    """Pitfall 11: statistics that change between rollout and update make the ratio at θ_old something else than 1."""

    @pytest.mark.parametrize("centre", [True, False])
    def test_pitfall_11_the_ratio_at_theta_old_is_1_with_the_statistics_that_acted(self, centre: bool) -> None:
        given = rollout()
        said = jax.vmap(jax.vmap(policy()))(ACTED(given.obs))
        behaviour = Behaviour(np.asarray(said.log_prob(given.action)).ravel())
        algorithm = dataclasses.replace(st.npg(step=st.Fixed(1e-9)), objective=behaviour)
        _, right = learn(learner(algorithm, centre=centre))
        assert right.step.accepted
        assert float(right.step.improvement) < 1e-5
        _, wrong = learn(learner(algorithm, centre=centre), acted=REFRESHED, refreshed=ACTED)
        assert float(wrong.step.improvement) > 0.1  # or the test could not tell

    def test_pitfall_11_what_is_refreshed_reaches_the_report_alone(self) -> None:
        state, info = learn(learner())
        other, still = learn(learner(), refreshed=ACTED)
        for x, y in zip(jax.tree.leaves(state), jax.tree.leaves(other), strict=True):
            np.testing.assert_array_equal(x, y)
        assert float(still.step.normaliser_kl) == 0.0
        given = rollout()
        before, after = (jax.vmap(jax.vmap(state.policy))(s(given.obs)) for s in (ACTED, REFRESHED))
        assert float(info.step.normaliser_kl) == pytest.approx(mean(np.asarray(before.kl(after))), rel=1e-4)

    def test_pitfall_11_a_run_learns_with_what_acted(self, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        """In every iteration actor and update get the same statistics, those of the valid rows of earlier ones."""
        used: list[Any] = []
        acting: list[Any] = []
        fitting: list[Any] = []
        calls: list[tuple[Any, Rollout, Any, Any]] = []
        host_actor, prepare = collecting.host_actor, Learner.prepare

        def watch_actor(policy: Any, envs: int) -> Any:
            actor = host_actor(policy, envs)
            export, begin = actor.export, actor.begin

            def watched_export(params: Any, scaling: Any) -> Any:
                used.append((params, scaling))
                return export(params, scaling)

            def watched_begin(weights: Any, entropy: Any, steps: int, envs: int) -> None:
                *key, group = entropy
                assert group == 0
                acting.append(tuple(key))
                begin(weights, entropy, steps, envs)

            monkeypatch.setattr(actor, "export", watched_export)
            monkeypatch.setattr(actor, "begin", watched_begin)
            return actor

        def watch_prepare(self: Any, state: Any, given: Given) -> Any:
            calls.append((split(state.policy)[0], given.rollout, given.acted, given.refreshed))
            fitting.append(given.key)
            return prepare(self, state, given)

        monkeypatch.setattr(collecting, "host_actor", watch_actor)
        monkeypatch.setattr(Learner, "prepare", watch_prepare)
        settings: dict[str, Any] = {"steps": 90, "envs": 4, "rollout": 8, "tensorboard": False}
        settings |= {"evaluation": {"every": 0, "final_episodes": 1}, "critic": {"epochs": 1, "minibatch": 32}}
        st.train("CartPole-v1", "trpo", out=tmp_path / "run", normalise_observations=True, **settings)
        assert len(calls) == 3
        statistics = Normaliser.empty((4,))
        for (policy, seen, acted, refreshed), (acting_policy, acting_scaling) in zip(calls, used, strict=True):
            assert eqx.tree_equal(policy, acting_policy)  # a rollout started early is still of the policy it improves
            for scaling in (acted, acting_scaling):
                np.testing.assert_array_equal(scaling.shift, statistics.scaling().shift)
                np.testing.assert_array_equal(scaling.scale, statistics.scaling().scale)
            statistics = statistics.updated(seen.obs[seen.valid])
            np.testing.assert_array_equal(refreshed.shift, statistics.scaling().shift)
            np.testing.assert_array_equal(refreshed.scale, statistics.scaling().scale)
        learnt = [tuple(np.asarray(jax.random.key_data(key)).tolist()) for key in fitting]
        assert len({*acting, *learnt}) == 3 + 3  # one key an iteration to act, another to fit


class TestArithmetic:
    """With λ = 0 the advantage is the TD error: known in NumPy."""

    @staticmethod
    def td(scale: float) -> tuple[np.ndarray, np.ndarray]:
        """(V, target), in units of the scaled reward."""
        given = rollout()
        value, beyond = (
            ((x - ACTED.shift) * ACTED.scale) @ np.asarray(CRITIC.weight) + 0.2 for x in (given.obs, given.next_obs)
        )
        return value, given.reward / scale + 0.5 * np.where(given.terminated, 0.0, beyond)

    @pytest.mark.parametrize("scale", [1.0, 4.0])
    def test_the_critic_sees_scaled_rewards_and_true_successors(self, scale: float) -> None:
        value, target = self.td(scale)
        _, info = learn(learner(), scale=scale)
        assert float(info.critic.loss) == pytest.approx(mean((value - target) ** 2), rel=1e-4)

    @pytest.mark.parametrize("scale", [1.0, 4.0])
    def test_advantages_come_back_in_raw_units(self, scale: float) -> None:
        value, target = self.td(scale)
        advantage = scale * (target - value)
        _, info = learn(learner(), scale=scale)
        centred = advantage - mean(advantage)
        assert float(info.advantage_std) == pytest.approx(np.sqrt(mean(centred**2)), rel=1e-4)
        _, info = learn(learner(centre=False), scale=scale)
        assert float(info.advantage_std) == pytest.approx(np.sqrt(mean(advantage**2)), rel=1e-4)

    def test_the_critic_is_fitted_to_what_it_will_be_asked(self) -> None:
        """To normalised observations and the λ-return: after many epochs it is the least-squares solution."""
        fitted = dataclasses.replace(learner(), fit=AdamFit(0.05, epochs=400, minibatch=24))
        state, _ = learn(fitted)
        given = rollout()
        x = ((given.obs - ACTED.shift) * ACTED.scale)[given.valid]
        design = np.concatenate([x, np.ones((len(x), 1))], axis=1)
        _, target = self.td(1.0)
        best = np.linalg.lstsq(design, target[given.valid])[0]
        np.testing.assert_allclose([*state.critic.weight, state.critic.bias], best, atol=1e-2)

    def test_everything_learnt_moves_and_the_counters_count(self) -> None:
        state, info = learn(learner())
        assert info.step.accepted
        assert info.critic.kept
        assert int(state.algorithm.updates) == 1
        first = learner().init(policy(), CRITIC)
        for x, y in zip(jax.tree.leaves(state), jax.tree.leaves(first), strict=True):
            assert not np.array_equal(x, y) or np.ndim(x) == 0
