"""Functional worlds keep the contract of worlds: true successors, honest flags, seeds that mean something; and refuse
what they cannot be."""

from __future__ import annotations

import builtins
import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import steepest as st
from functional_environments import Branching, Breaking, Charged, Drift, Growing, Shapeless
from steepest.batch import Rollout
from steepest.sampling.rollout import Collector
from steepest.sampling.unroll import begin, unroll
from steepest.worlds import make_world
from steepest.worlds.finite import MDPS
from steepest.worlds.functional.world import FunctionalWorld
from steepest.worlds.settable import settable

ENVS, STEPS = 4, 30


def play(world: Any, seed: int, steps: int = STEPS) -> list[Any]:
    """(obs, action, transition) of each step, under random actions that depend on the seed alone."""
    rng, obs = np.random.default_rng(seed), world.reset(seed)
    rows = []
    for _ in range(steps):
        shape = (world.envs, *(world.action_space.shape or ()))
        n = getattr(world.action_space, "n", None)
        action = rng.normal(size=shape).astype(np.float32) if n is None else rng.integers(n, size=shape)
        rows.append((obs.copy(), action, world.step(action)))
        obs = world.obs
    return rows


WORLDS = {
    "drift": lambda: FunctionalWorld(Drift(), ENVS),
    "mdp": lambda: make_world("mdp:random", ENVS, horizon=6),
    "lqr": lambda: make_world("lqr:double-integrator", ENVS, horizon=6),
    "CartPole": lambda: make_world("gymnax:CartPole-v1", ENVS, max_steps_in_episode=12),
}


@pytest.fixture(scope="module", params=list(WORLDS))
def world(request: pytest.FixtureRequest) -> Any:
    if request.param == "CartPole":
        pytest.importorskip("gymnax")
    return WORLDS[request.param]()


def test_successors_are_true_and_episodes_follow_one_another(world: Any):
    rows, lengths = play(world, 0), np.zeros(ENVS, int)
    limit = world.copies.time_limit
    ended = 0
    for (obs, _, step), (later, _, _) in itertools.pairwise(rows):
        done, lengths = step.terminated | step.truncated, lengths + 1
        assert obs.shape == (ENVS, *world.observation_space.shape)
        assert not (step.terminated & step.truncated).any()
        np.testing.assert_array_equal(later[~done], step.next_obs[~done])
        if limit is not None:
            np.testing.assert_array_equal(step.truncated, (lengths == limit) & ~step.terminated)
        lengths[done] = 0
        ended += done.sum()
    assert ended >= ENVS


def test_the_last_observation_of_an_episode_is_not_the_next_ones_first():
    rows = [step for _, _, step in play(FunctionalWorld(Drift(), 200), 0, 14)]
    obs, terminated, truncated = (np.concatenate(column) for column in list(zip(*rows, strict=True))[1:4])
    assert (obs[:, 1] > 0).all()  # a first observation has counted no step
    np.testing.assert_array_equal(terminated, abs(obs[:, 0]) > 2)
    np.testing.assert_array_equal(truncated, (obs[:, 1] == 7) & ~terminated)
    assert (terminated & (obs[:, 1] == 7)).any()  # what ends in its last step was not cut


def test_the_same_seed_gives_the_same_and_another_does_not(world: Any):
    first, again, other = (play(world, seed, 5) for seed in (3, 3, 4))
    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(a[0], b[0])
        np.testing.assert_array_equal(a[2].reward, b[2].reward)
    values = [np.concatenate([np.ravel(row[2].next_obs) for row in rows]) for rows in (first, other)]
    assert not np.array_equal(values[0], values[1])


def test_copies_differ_and_go_on_anew():
    world = FunctionalWorld(Drift(), ENVS)
    first = world.reset(0).copy()
    assert len(set(first[:, 0].tolist())) == ENVS
    assert not np.isin(world.reset(), first[:, 0]).any()  # without a seed, the streams go on


def test_a_world_can_be_put_back_into_a_state(world: Any):
    states = settable(world)  # which tries it out, to the bit
    states.set_state([states.get_state([1])[0]] * ENVS, [5, 5, 6, 6])
    action = np.zeros((ENVS, *(world.action_space.shape or ())), np.int32)
    step = states.advance(action, np.array([True, True, True, False]))
    np.testing.assert_array_equal(step.next_obs[0], step.next_obs[1])
    np.testing.assert_array_equal(step.valid, [True, True, True, False])


def test_equal_seeds_draw_equal_numbers_from_different_states():
    world = FunctionalWorld(Drift(), ENVS)
    world.reset(0)
    before = world.set_state(world.get_state(), [5, 5, 6, 6]).copy()
    pushed = world.step(np.zeros((ENVS, 1), np.float32)).next_obs[:, 0] - before[:, 0]
    assert pushed[0] == pytest.approx(pushed[1], abs=1e-6) != pytest.approx(pushed[2], abs=1e-3)


def test_a_rollout_in_a_program_is_what_the_world_gives_step_by_step(world: Any):
    copies, policy = world.copies, _policy(world)
    key = jax.random.key(9)

    def act(obs: Any, key: Any) -> Any:
        return jax.vmap(policy)(obs).sample(key)

    @jax.jit
    def whole() -> Any:
        return unroll(copies, copies.tables, act, begin(copies, copies.tables, jax.random.key(2), ENVS), key, STEPS)

    _, rollout, ends = whole()
    collector, stepped = Collector(world), jax.jit(act)
    collector.reset(2)
    host, episodes = collector.collect(lambda obs, t: np.asarray(stepped(obs, jax.random.fold_in(key, t))), STEPS)
    for name in Rollout._fields[:7]:
        np.testing.assert_allclose(getattr(rollout, name), getattr(host, name), rtol=1e-5, atol=1e-5, err_msg=name)
    t, b = np.nonzero(ends.ended)
    assert [(e.env, e.length) for e in episodes] == [(i, int(ends.lengths[n, i])) for n, i in zip(t, b, strict=True)]
    np.testing.assert_allclose([e.ret for e in episodes], ends.returns[t, b], rtol=1e-5)


def _policy(world: Any) -> Any:
    key, n = jax.random.key(0), getattr(world.action_space, "n", None)
    if not world.observation_space.shape:
        return st.TabularSoftmax(jnp.zeros((world.observation_space.n, n)))
    inputs = world.observation_space.shape[0]
    return st.MlpGaussian(inputs, 1, (8,), key=key) if n is None else st.MlpCategorical(inputs, int(n), (8,), key=key)


def test_R1_a_finite_mdp_draws_from_its_own_tables():
    mdp, envs = MDPS["random"](horizon=4), 4000
    world = make_world("mdp:random", envs, horizon=4)
    world.reset(1)
    visits = np.zeros(mdp.states)
    rewards = np.zeros(envs)
    for h in range(4):
        visits += np.bincount(world.obs, minlength=mdp.states) / envs / 4
        action = np.full(envs, h % mdp.actions)
        reward = mdp.reward[world.obs, action]
        step = world.step(action)
        np.testing.assert_allclose(step.reward, reward, rtol=1e-6)
        rewards += step.reward
    table = np.zeros((4, mdp.states, mdp.actions))
    table[np.arange(4), :, np.arange(4) % mdp.actions] = 1.0
    np.testing.assert_allclose(visits, mdp.occupancy(table).sum(1), atol=4 / np.sqrt(envs))
    assert abs(rewards.mean() - mdp.value(table)) < 4 * rewards.std() / np.sqrt(envs)


def test_the_returns_of_an_lqr_are_what_it_says_its_cost_is():
    world, envs = make_world("lqr:scalar", 3000, horizon=5), 3000
    policy = st.LinearGaussian(jnp.array([[-0.5]]), jnp.array([-1.0]))
    lqr: Any = world.copies.environment.lqr  # type: ignore[attr-defined]
    returns, rng = np.zeros(envs), np.random.default_rng(0)
    world.reset(0)
    for _ in range(5):
        action = -0.5 * world.obs + np.exp(-1.0) * rng.normal(size=(envs, 1))
        returns += world.step(action.astype(np.float32)).reward
    assert abs(returns.mean() - lqr.value(policy)) < 4 * returns.std() / np.sqrt(envs)


def test_costs_are_reported_and_actions_clipped():
    world = FunctionalWorld(Charged(), 2)
    world.reset(0)
    np.testing.assert_array_equal(world.step(np.array([0, 1])).cost, [0.0, 1.0])
    still = {"noise": 0.0}
    world = FunctionalWorld(Drift(), 1, params=still)
    start = world.reset(0)[0, 0]
    assert world.step(np.array([[9.0]])).next_obs[0, 0] == pytest.approx(start + 1.0)


@pytest.mark.parametrize(
    ("environment", "says"),
    [
        (Branching(), "cannot trace and vectorise its step"),
        (Shapeless(), r"observation of shape \[4\], its space has \[3\]"),
        (Growing(), "changes a part of its state"),
    ],
)
def test_what_is_no_functional_world_is_refused(environment: Any, says: str):
    with pytest.raises(st.UsageError, match=says):
        make_world(environment, 2)


def test_a_reward_that_is_not_finite_stops_the_world_with_its_number():
    world = FunctionalWorld(Breaking(2), 2)
    world.reset(0)
    world.step(np.array([0, 1]))
    world.step(np.array([0, 1]))
    with pytest.raises(st.RunError, match="environment 0 of 2 returned a reward"):
        world.step(np.array([0, 1]))


@pytest.mark.parametrize(
    ("spec", "kwargs", "says"),
    [
        ("mdp:two-sate", {}, "did you mean 'two-state'"),
        ("mdp:chain", {"lenght": 3}, "it takes length, horizon"),
        ("lqr:skalar", {}, "did you mean 'scalar'"),
        ("lqr:double-integrator", {"step": -1.0}, "step > 0"),
    ],
)
def test_names_and_arguments_that_do_not_exist_are_refused_with_the_nearest(spec: str, kwargs: Any, says: str):
    with pytest.raises(st.UsageError, match=says):
        make_world(spec, 2, **kwargs)


def test_gymnax_names_that_do_not_exist_are_refused_with_the_nearest():
    pytest.importorskip("gymnax")
    with pytest.raises(st.UsageError, match="did you mean 'CartPole-v1'"):
        make_world("gymnax:CartPole-v2", 2)
    with pytest.raises(st.UsageError, match="did you mean 'gravity'"):
        make_world("gymnax:CartPole-v1", 2, gravitiy=1.0)


def test_a_missing_gymnax_names_the_extra(monkeypatch: pytest.MonkeyPatch):
    real = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if name == "gymnax":
            raise ModuleNotFoundError("No module named 'gymnax'", name="gymnax")
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(st.UsageError, match=r'pip install "steepest\[gymnax\]"'):
        make_world("gymnax:CartPole-v1", 2)


@pytest.mark.parametrize("name", ["Acrobot-v1", "Pendulum-v1", "Breakout-MinAtar", "Catch-bsuite", "DeepSea-bsuite"])
def test_gymnax_worlds_of_every_kind_step(name: str):
    pytest.importorskip("gymnax")
    rows = play(make_world(f"gymnax:{name}", 2), 0, 12)
    assert np.isfinite([row[2].reward for row in rows]).all()
    if name == "Catch-bsuite":  # nine rows to fall: the ball ends an episode by itself
        assert sum(row[2].terminated.sum() for row in rows) == 2
