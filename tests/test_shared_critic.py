"""A critic upon the policy's network: what it sees, what it leaves alone, and how runs with it go."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.spaces import Discrete

import steepest as st
from images import Dot, FunctionalDot
from masked_environments import FunctionalTrap, trap
from sameness import differences
from short_runs import NEAR
from steepest.batch import Rollout
from steepest.critics import AdamFit, SharedValue, count_features, features, upon
from steepest.policies import MlpGaussian, NetworkPolicy
from steepest.policies.heads import head_for
from steepest.policies.masked import MaskedPolicy, with_mask
from steepest.policies.recurrent import recurrent_network
from steepest.sampling.cost_meter import Limited
from steepest.sampling.vine import Branches
from steepest.spaces import Masked, describe
from steepest.training import learner as training_learner
from steepest.training.diagnose import diagnose
from steepest.training.failed_update import load_update
from steepest.training.iteration import Given
from steepest.training.learner import Learner
from steepest.trees import ravel

STEPS, ENVS = 8, 4
SHARED: dict[str, Any] = {**NEAR, "critic": {"network": "shared", "hidden": [32], "epochs": 2}}


class Own(eqx.Module):
    """A policy of a user's that says what its last layer is given; and `Silent`, one that does not."""

    first: jax.Array
    last: jax.Array

    def features(self, obs: Any) -> Any:
        return jnp.tanh(obs @ self.first)

    def __call__(self, obs: Any) -> st.Categorical:
        return st.Categorical(self.features(obs) @ self.last)


class Around(eqx.Module):
    """A user's wrapper around a policy that has features, without any of its own."""

    policy: Any

    def __call__(self, obs: Any) -> Any:
        return self.policy(obs)


class Silent(eqx.Module):
    logits: jax.Array

    def __call__(self, obs: Any) -> st.Categorical:
        return st.Categorical(self.logits + 0 * obs[0])


class Miscounted(Silent):
    """`features` is how many there are."""

    features: int = 64


class Paired(Silent):
    """`features` makes a pair of them."""

    def features(self, obs: Any) -> Any:
        return obs, obs


def flat(module: Any) -> jax.Array:
    return ravel(eqx.filter(module, eqx.is_array))[0]


def own(inputs: int = 3, actions: int = 2) -> Own:
    keys = jax.random.split(jax.random.key(0))
    return Own(jax.random.normal(keys[0], (inputs, 5)), jax.random.normal(keys[1], (5, actions)))


def gaussian() -> MlpGaussian:
    return MlpGaussian(3, 2, (5,), head_gain=1.0, key=jax.random.key(0))


def rollout(policy: Any) -> Rollout:
    rng, shape = np.random.default_rng(0), (STEPS, ENVS)
    obs, next_obs = (rng.normal(size=(*shape, 3)).astype(np.float32) for _ in range(2))
    action = jax.vmap(jax.vmap(lambda o: policy(o).sample(jax.random.key(1))))(obs)
    none = np.zeros(shape, bool)
    return Rollout(
        obs, np.asarray(action), rng.normal(size=shape).astype(np.float32), next_obs, none, none, np.ones(shape, bool)
    )


@pytest.mark.parametrize("kind", ["mlp", "network", "masked"])
def test_features_are_what_the_last_layer_is_given(kind: str) -> None:
    box, discrete = describe(spaces.Box(-1, 1, (3,), np.float32), "observation"), describe(spaces.Discrete(4), "action")
    if kind == "mlp":
        policy = st.MlpCategorical(3, 4, (5, 6), norm=True, head_gain=1.0, key=jax.random.key(0))
        logits = policy.net.layers[-1]
    else:
        policy = NetworkPolicy.of(box, head_for(discrete), (5, 6), gain=1.0, key=jax.random.key(0))
        logits = policy.last
    obs = np.array([0.3, -1.0, 2.0], np.float32)
    if kind == "masked":
        policy = with_mask(policy, Masked(box, 4))
        assert isinstance(policy, MaskedPolicy)
        obs = np.concatenate([obs, np.ones(4, np.float32)])
    given = features(policy)(obs)
    assert given.shape == (6,)
    distribution: Any = policy(obs)
    np.testing.assert_allclose(logits(given), distribution.logits, rtol=1e-6)


def test_its_gradient_stops_at_the_layers_of_the_policy() -> None:
    policy, critic = gaussian(), SharedValue(5, (4,), key=jax.random.key(1))
    obs = np.array([0.3, -1.0, 2.0], np.float32)
    slopes = eqx.filter_grad(lambda both: upon(*both)(obs))((critic, policy))
    assert np.abs(flat(slopes[0])).max() > 0
    assert np.abs(flat(slopes[1])).max() == 0


def test_a_fit_of_two_critics_of_their_own_beside_the_policys_change_is_the_fit_after_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The reward's and the cost's."""
    monkeypatch.setattr(training_learner, "two_processors", lambda: True)
    policy = gaussian()
    critics = [upon(SharedValue(5, (4,), key=jax.random.key(k)), policy) for k in (1, 2)]
    learner, data = Learner(st.cpo(1e-2), AdamFit(epochs=3, minibatch=8), 0.9, 0.9), rollout(policy)
    limited = Limited(np.float32(0.3), np.float32(1.0), np.float32(1.0))
    given = Given(data._replace(cost=np.abs(data.reward)), None, None, 1.0, jax.random.key(3), None, limited)
    before = learner.init(policy, *critics, envs=ENVS)
    state, lesson, _, _ = learner.improve(before, given)
    fitted, _, cost_fit = beside = learner.begin_to_fit(before, lesson)(state)
    assert cost_fit is not None
    assert not eqx.tree_equal(fitted.cost_critic, before.cost_critic)
    assert eqx.tree_equal(beside, learner.fit_critics(state, lesson))


@pytest.mark.parametrize("of_a_user", [False, True])
def test_the_policy_moves_as_beside_any_critic_that_says_the_same(
    of_a_user: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the reward, and of a cost: where one of the two is shared, the other is what it was."""
    monkeypatch.setattr(training_learner, "two_processors", lambda: True)
    policy: Any = own() if of_a_user else gaussian()
    shared, apart = (SharedValue(5, (4,), key=jax.random.key(k)) for k in (1, 2))
    learner, data = Learner(st.cpo(1e-2), AdamFit(epochs=3, minibatch=8), 0.9, 0.9), rollout(policy)
    data = data._replace(cost=np.abs(data.reward))
    limited = Limited(np.float32(0.3), np.float32(1.0), np.float32(1.0))
    rows = jnp.asarray(data.obs).reshape(-1, 3)
    found = []
    for critics in ((shared, apart), (shared, upon(apart, policy)), (upon(shared, policy), apart)):
        state = before = learner.init(policy, *critics, envs=ENVS)
        state, lesson, step, _ = learner.improve(state, Given(data, None, None, 1.0, jax.random.key(3), None, limited))
        assert step.accepted
        fitted, fit, cost_fit = learner.fit_critics(state, lesson)
        assert eqx.tree_equal(learner.begin_to_fit(before, lesson)(state), (fitted, fit, cost_fit))
        assert flat(fitted.policy).tobytes() == flat(state.policy).tobytes()
        found.append((state, lesson, fitted))
        # a shared one is taught upon the new layers, and its report is of what it says there before the fit
        assert lesson.cost is not None
        assert cost_fit is not None
        taught = ((critics[0], lesson.target, fit), (critics[1], lesson.cost[2], cost_fit))
        for critic, target, said in taught:
            there = jax.vmap(upon(critic, state.policy))(rows)
            np.testing.assert_allclose(said.loss, jnp.mean((there - target) ** 2), rtol=1e-5)
    for state, lesson, _ in found[1:]:
        np.testing.assert_allclose(flat(state.policy), flat(found[0][0].policy), rtol=1e-6)
        np.testing.assert_allclose(lesson.value, found[0][1].value, rtol=1e-6)
    assert np.abs(flat(found[0][0].policy) - flat(policy)).max() > 1e-3
    # which fit, and to what, does not hang on the other critic
    np.testing.assert_allclose(flat(found[1][2].critic), flat(found[0][2].critic), rtol=1e-6)
    np.testing.assert_allclose(flat(found[2][2].cost_critic), flat(found[0][2].cost_critic), rtol=1e-6)
    state, lesson, fitted = found[0]
    critics: Any = state.critic, fitted.critic
    new = jax.vmap(features(state.policy))(rows)
    errors = [jnp.mean((jax.vmap(c)(new) - lesson.target) ** 2) for c in critics]
    assert errors[1] < errors[0]


def test_the_rest_of_a_vines_branches_is_worth_what_it_says_upon_the_policy_that_acted() -> None:
    policy, critic = gaussian(), SharedValue(5, (4,), key=jax.random.key(1))
    learner, data, rng = Learner(st.trpo(1e-2), AdamFit(epochs=1), 0.9, 0.9), rollout(policy), np.random.default_rng(1)
    states, actions = 6, 3
    row = np.arange(0, STEPS * ENVS, 5)[:states]
    obs = data.obs.reshape(-1, 3)[row]
    taken, last = (rng.normal(size=(states, actions, size)).astype(np.float32) for size in (2, 3))
    rest = np.full((states, actions), 5.0, np.float32)  # of each branch; nothing was paid before
    branches = Branches(row, obs, taken, 0 * rest, rest, last, np.ones(states, bool), False)
    found = []
    for each in (critic, upon(critic, policy), SharedValue(5, (4,), key=jax.random.key(2))):
        state = learner.init(policy, each, envs=ENVS)
        state, _, step, _ = learner.improve(state, Given(data, None, None, 1.0, jax.random.key(3), branches))
        assert step.accepted
        found.append(flat(state.policy))
    np.testing.assert_allclose(found[1], found[0], rtol=1e-6)
    assert np.abs(found[2] - found[0]).max() > 1e-3  # it is what the branches are compared by


@pytest.mark.parametrize("native", [pytest.param(True, marks=pytest.mark.slow), False])
def test_runs_with_it(native: bool, tmp_path: Path) -> None:
    env = FunctionalDot() if native else Dot
    seen = {"every": 400, "episodes": 2, "final_episodes": 2}
    settings = {**SHARED, "steps": 1024, "seed": 1, "checkpoint_every": 1, "evaluation": seen}
    run = st.train(env, "trpo", out=tmp_path / "whole", **settings)
    assert all(row["update/reason"] == "accepted" for row in run.metrics)
    st.train(env, "trpo", out=tmp_path / "part", **{**settings, "steps": 512})
    st.resume(tmp_path / "part", env=env, steps=1024)
    assert not differences(tmp_path / "whole", tmp_path / "part")
    obs = np.zeros((2, 8, 8, 1), np.uint8)
    assert st.load(run.path).predict(obs)[0].shape == (2,)


@pytest.mark.parametrize(
    "settings",
    [
        pytest.param({"scheme": "vine", "vine": {"states": 8, "actions": 2, "length": 2}}, marks=pytest.mark.slow),
        {"subsample": 0.5, "chunk": 128, "group": 4, "workers": 2},
        pytest.param(
            {"critic": {"network": "shared", "fit": "gauss-newton"}, "normalise_observations": True},
            marks=pytest.mark.slow,
        ),
    ],
    ids=["vine", "workers, chunks", "gauss-newton"],
)
def test_other_ways_to_train(settings: dict[str, Any], tmp_path: Path) -> None:
    run = st.train("CartPole-v1", "trpo", out=tmp_path / "run", **{**SHARED, "steps": 1024, **settings})
    assert run.metrics[-1]["update/reason"] == "accepted"


@pytest.mark.slow
def test_masked_runs_and_seeds_in_one_program(tmp_path: Path) -> None:
    """0 is the best, and a forbidden action would end at −100."""
    settings = {**SHARED, "steps": 6144, "mask": True}
    runs = st.train(FunctionalTrap(), "trpo", seed=1, seeds=2, out=tmp_path / "runs", **settings)
    alone = st.train(FunctionalTrap(), "trpo", seed=2, out=tmp_path / "alone", **settings)
    for run in (*runs, alone):
        assert run.evaluation.mean() == 0
        assert min(row["return/mean"] for row in run.metrics) > -100
    first, single = runs[1].metrics[0], alone.metrics[0]
    for name in ("update/kl", "critic/loss", "return/mean"):
        np.testing.assert_allclose(first[name], single[name], rtol=1e-5, err_msg=name)
    run = st.train(lambda: trap(Discrete(4), False), "trpo", seed=1, out=tmp_path / "host", **settings)
    assert run.evaluation.mean() == 0


@pytest.mark.slow
def test_a_failed_update_is_made_again_and_a_run_is_diagnosed(tmp_path: Path) -> None:
    fails = {"steps": 1024, "delta": 30.0, "backtracks": 0, "max_failures": 10**6}
    run = st.train("CartPole-v1", "trpo", out=tmp_path / "run", **{**SHARED, **fails})
    replayed = load_update(min((run.path / "updates").iterdir()))
    assert replayed.step["update/reason"] == "line_search"
    assert replayed.step == {
        name: run.metrics[replayed.record["progress"]["iteration"]][name] for name in replayed.step
    }
    measured = diagnose(run.path, rows=1024, seed=1)
    assert all(0 < residual <= 1 for residual in np.ravel(measured["solver"]["residual"])[:3])


def test_one_that_cannot_be_shared_is_refused(tmp_path: Path) -> None:
    box, discrete = describe(spaces.Box(-1, 1, (4,), np.float32), "observation"), describe(spaces.Discrete(2), "action")
    remembers = recurrent_network(box, head_for(discrete), key=jax.random.key(0))
    others = Silent(jnp.zeros(2)), Around(own()), Miscounted(jnp.zeros(2))
    for policy in others:
        with pytest.raises(st.UsageError, match=rf"features\(obs\), and {type(policy).__name__} has no such method"):
            features(policy)
    with pytest.raises(st.UsageError, match="without memory, and RecurrentNetwork has one"):
        features(remembers)
    with pytest.raises(st.UsageError, match=r"Paired.features\(obs\) makes no array"):
        count_features(Paired(jnp.zeros(2)), np.zeros(4, np.float32))
    bent = st.geometry.reparameterise(own(), 2 * np.eye(flat(own()).size))
    assert count_features(bent, np.zeros(3, np.float32)) == 5
    with pytest.raises(st.UsageError, match="Silent has no such method"):
        st.train("CartPole-v1", "npg", policy=Silent(jnp.zeros(2)), out=tmp_path / "silent", **SHARED)
    with pytest.raises(st.UsageError, match="a network without memory"):
        st.train(
            "CartPole-v1",
            "npg",
            policy={"memory": "gru"},
            out=tmp_path / "gru",
            **{**SHARED, "critic": {"network": "shared", "memory": "none"}},
        )
    with pytest.raises(st.UsageError, match="TabularSoftmax has no such method"):
        st.train("FrozenLake-v1", "npg", out=tmp_path / "table", **SHARED)
    assert not any(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_it_learns_upon_a_network_of_images(seed: int, tmp_path: Path) -> None:
    """8 is the best, 2 is chance."""
    episodes = {"every": 0, "final_episodes": 50}
    run = st.train(
        FunctionalDot(), "trpo", steps=40_960, seed=seed, out=tmp_path / "run", **{**SHARED, "evaluation": episodes}
    )
    assert run.evaluation.mean() > 7.5
