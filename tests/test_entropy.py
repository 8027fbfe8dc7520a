"""The entropy-regularised return: its gradient, its surrogate, its natural step and the bonus in the rewards."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import steepest as st
from geometry_problems import in_dtype, problem
from steepest import trees
from steepest.algorithms import mirror_descent as updates
from steepest.geometry import EntropyRegularised, linearise
from steepest.sampling.advantages import batch_from_rollout, gae
from steepest.sampling.entropy_bonus import entropy_bonus
from steepest.worlds.finite import ensemble
from steepest.worlds.finite.ensemble import log_softmax
from steepest.worlds.finite.precision import exact, inwards
from steepest.worlds.finite.regularised import Regularised

GAMMA, TAU = 0.9, 0.3
RNG = np.random.default_rng(32)  # states of different freedom: without the entropy of later steps, .2 off the optimum
TABLES = RNG.dirichlet(np.full(4, 0.2), size=(1, 4, 3)), RNG.uniform(size=(1, 4, 3)) * (np.arange(4) > 0)[:, None]
WORLDS = ensemble.Ensemble(*TABLES, np.full((1, 4), 0.25))
MDP = st.DiscountedMDP(WORLDS.transition[0], WORLDS.reward[0], WORLDS.initial[0], GAMMA)
LOGS = log_softmax(np.random.default_rng(0).normal(size=(4, 3)))
POLICY = st.TabularSoftmax(LOGS)


def soft(logs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Q_τ [S,A] and V_τ [S] of the table, by the linear solve of the ensemble."""
    q = ensemble.action_values(WORLDS, logs[None], GAMMA, TAU)
    return q[0], ensemble.state_values(logs[None], q, TAU)[0]


def regularised_npg(beta: float) -> st.Algorithm:
    step = st.Fixed(beta)
    return dataclasses.replace(st.npg(solver=st.Direct(), damping=0.0, step=step), objective=EntropyRegularised(TAU))


def logs_of(policy: Any) -> np.ndarray:
    return log_softmax(np.asarray(policy.logits))


@pytest.mark.claim("ENT1")
def test_ENT1_values_and_advantages_are_those_of_the_regularised_return() -> None:
    q, v = soft(LOGS)
    world = Regularised(MDP, TAU)
    np.testing.assert_allclose(world.action_values(POLICY), q, rtol=1e-12)
    assert float(world.value(POLICY)) == pytest.approx(float(MDP.initial @ v), rel=1e-12)
    centred = q - np.sum(np.exp(LOGS) * q, axis=1, keepdims=True)
    np.testing.assert_allclose(world.batch(POLICY).advantage, centred, rtol=0, atol=1e-12)


@pytest.mark.claim("ENT1")
def test_ENT1_the_gradient_is_that_of_the_regularised_value() -> None:
    """(1−γ)∇V_τ, by central differences of the linear solve."""
    world, size = Regularised(MDP, TAU), 1e-6

    @exact
    def gradient() -> Any:
        policy = inwards(POLICY)
        batch = jax.tree.map(jnp.asarray, world.batch(policy))
        return EntropyRegularised(TAU).gradient(linearise(policy, batch.obs), batch).vector.logits

    for direction in np.random.default_rng(1).normal(size=(5, 4, 3)):
        up, down = (world.value(st.TabularSoftmax(LOGS + sign * size * direction)) for sign in (1, -1))
        assert (1 - GAMMA) * (up - down) / (2 * size) == pytest.approx(np.sum(gradient() * direction), rel=1e-7)


@pytest.mark.claim("ENT1", "B3")
@pytest.mark.parametrize("part", [0.1, 0.5, 1.0])
def test_ENT1_the_natural_step_is_the_update_of_cen_et_al(part: float) -> None:
    """β = η/(1−γ) on the batch is their step η on V_τ: the batch holds (1−γ)∇V_τ and F. β = 1/τ is the largest."""
    beta = part / TAU
    policies, infos = st.iterate(POLICY, Regularised(MDP, TAU), regularised_npg(beta), steps=8)
    logs = LOGS
    for policy, info in zip(policies[1:], infos, strict=True):
        assert info.accepted
        logs = updates.regularised(logs, soft(logs)[0], step=beta * (1 - GAMMA), temperature=TAU, discount=GAMMA)
        np.testing.assert_allclose(logs_of(policy), logs, rtol=0, atol=1e-10)
    assert np.abs(logs - LOGS).max() > 0.5


@pytest.mark.claim("ENT1")
def test_ENT1_steps_of_a_given_kl_approach_the_soft_optimum() -> None:
    _, best = ensemble.soft_optimal(WORLDS, GAMMA, TAU)
    algorithm = dataclasses.replace(st.trpo(1e-2, damping=0.0), objective=EntropyRegularised(TAU))
    world = Regularised(MDP, TAU)
    policies, _ = st.iterate(POLICY, world, algorithm, steps=120)
    values = [float(world.value(p)) for p in policies]
    top = float(MDP.initial @ soft(best[0])[1])
    assert values[0] < top - 0.1
    assert top - values[-1] < 1e-4 * (top - values[0])
    assert np.abs(logs_of(policies[-1]) - best[0]).max() < 0.05


@pytest.mark.claim("ENT1")
def test_ENT1_the_gain_is_the_regularised_performance_difference_at_the_old_states() -> None:
    """(1−γ)(V_τ' − V_τ) = Σ d'(s)[Σ π'A + τ(H' − H)]: with the new policy's states in the batch it is exact."""
    other = st.TabularSoftmax(LOGS + np.random.default_rng(2).normal(size=(4, 3)))
    world = Regularised(MDP, TAU)
    batch = world.batch(POLICY)._replace(weight=MDP.state_distribution(other))

    @exact
    def gain() -> Any:
        with_states = jax.tree.map(jnp.asarray, batch)
        old, new = (jax.vmap(inwards(p))(with_states.obs) for p in (POLICY, other))
        return EntropyRegularised(TAU).gain(old, new, with_states)

    assert float(gain()) == pytest.approx((1 - GAMMA) * (world.value(other) - world.value(POLICY)), rel=1e-10)


@pytest.mark.parametrize("kind", ["tabular", "mlp-gaussian"])
def test_the_gradient_has_its_readings_and_is_that_of_the_gain(kind: str) -> None:
    with jax.enable_x64(True):
        policy, batch = in_dtype(problem(kind), jnp.float64)
        objective = EntropyRegularised(0.7)
        local = linearise(policy, batch.obs)
        gradient = objective.gradient(local, batch)
        by_gain = jax.grad(lambda t: objective.gain(local.distribution, local.predict(t), batch))(local.params)
        g, expected = (np.asarray(trees.ravel(x)[0]) for x in (gradient.vector, by_gain))
        np.testing.assert_allclose(g, expected, rtol=0, atol=1e-12)
        plain = np.asarray(trees.ravel(st.expected_advantage.gradient(local, batch).vector)[0])
        assert np.abs(g - plain).max() > 1e-3
        dual = st.fisher.dual(local, batch, gradient)
        back = trees.ravel(st.fisher.operator(local, batch).transpose(dual))[0]
        np.testing.assert_allclose(np.asarray(back), g, rtol=0, atol=1e-12)
        assert gradient.coefficient is None
        assert float(objective.gain(local.distribution, local.predict(local.params), batch)) == 0.0


def test_masked_and_certain_actions_are_no_trouble() -> None:
    logits = jnp.array([[0.3, -jnp.inf, 0.1], [0.0, -1e4, -1e4], [0.2, 0.4, -0.5]])
    policy, obs = st.TabularSoftmax(logits), jnp.arange(3)
    batch = st.Batch(obs, jnp.array([0.5, 0.5, 0.0]), jnp.array([[0], [0], [1]]), jnp.ones((3, 1)), jnp.zeros((3, 1)),
                     obs)  # fmt: skip
    algorithm = dataclasses.replace(st.npg(1e-3, damping=0.1), objective=EntropyRegularised(0.5))
    after, _, info = algorithm.update(policy, algorithm.init(policy), batch)
    assert info.accepted  # to the uniform policy over the two actions of state 0
    assert all(np.isfinite(np.asarray(x)).all() for x in jax.tree.leaves(info))
    assert after.logits[0, 1] == -jnp.inf
    assert abs(after.logits[0, 0] - after.logits[0, 2]) < 0.2
    np.testing.assert_array_equal(after.logits[1:], logits[1:])


def test_settings_out_of_range() -> None:
    for make in (EntropyRegularised, lambda t: Regularised(MDP, t)):
        with pytest.raises(st.UsageError, match="temperature ≥ 0, got -1"):
            make(-1.0)
    policy, batch = in_dtype(problem("mlp-categorical"), jnp.float32)
    algorithm = dataclasses.replace(st.natural_actor_critic(solver=st.SampleSpace()), objective=EntropyRegularised(0.1))
    with pytest.raises(st.UsageError, match="SampleSpace needs the dual"):
        algorithm.update(policy, algorithm.init(policy), batch)


class TestBonus:
    def test_a_ghost_row_gets_none(self) -> None:
        policy = st.TabularSoftmax(jnp.zeros((2, 3)))
        bonus = entropy_bonus(policy, jnp.zeros((4, 2), jnp.int32), jnp.ones((4, 2), bool).at[1, 1].set(False), 2.0)
        assert bonus.shape == (4, 2)
        np.testing.assert_allclose(bonus, 2 * np.log(3) * (np.arange(8).reshape(4, 2) != 3), rtol=1e-6)

    @pytest.mark.claim("ENT1")
    def test_ENT1_training_on_samples_approaches_the_soft_optimum(self) -> None:
        """Endless paths, a critic fitted to the targets that the bonus makes: the policy of the theory."""
        _, best = ensemble.soft_optimal(WORLDS, GAMMA, TAU)
        rng = np.random.default_rng(0)
        algorithm = regularised_npg(0.3 / TAU)
        policy = st.TabularSoftmax(jnp.zeros((4, 3), jnp.float32))
        algorithm = dataclasses.replace(algorithm, damping=1e-4)
        state, ends, value = algorithm.init(policy), [], np.zeros(4)
        for _ in range(40):
            logs = logs_of(policy).astype(np.float64)
            s, a, after = _sampled(logs, rng, 128, 32)
            never = np.zeros(s.shape, bool)
            reward = MDP.reward[s, a] + np.asarray(entropy_bonus(policy, s, ~never, TAU))
            advantage, target = gae(reward, value[s], value[after], never, never, ~never, gamma=GAMMA, lam=0.9)
            value = np.array([np.mean(np.asarray(target)[s == here]) for here in range(4)])
            batch = batch_from_rollout(s, a, jnp.asarray(advantage, jnp.float32), ~never, never)
            policy, state, info = algorithm.update(policy, state, batch)
            assert info.accepted
            ends.append(np.exp(logs_of(policy)))
        away = np.abs(np.mean(ends[20:], axis=0) - np.exp(best[0])).max()
        plain = np.abs(np.eye(3)[MDP.optimal()[1]] - np.exp(best[0])).max()
        assert away < 0.03  # 0.008; 0.23 without the bonus
        assert plain > 0.2  # what training without the bonus goes to is another policy


def _sampled(logs: np.ndarray, rng: Any, steps: int, chains: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """s, a, s' [T,B] of `chains` endless paths, by inversion of the cumulative probabilities."""
    to, table = np.cumsum(MDP.transition, axis=-1), np.cumsum(np.exp(logs), axis=-1)
    here = rng.integers(0, 4, chains)
    s, a, after = (np.zeros((steps, chains), np.int32) for _ in range(3))
    for t in range(steps):
        s[t] = here
        a[t] = np.minimum((rng.uniform(size=(chains, 1)) > table[here]).sum(axis=1), 2)
        here = after[t] = np.minimum((rng.uniform(size=(chains, 1)) > to[here, a[t]]).sum(axis=1), 3)
    return s, a, after
