"""Policies with memory in training: what the update computes is what acted, on the host, in programs and in workers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import steepest as st
from environments import Walk
from functional_environments import Drift
from recurrent_problems import VECTOR, Own
from steepest.agent import Agent
from steepest.batch import Rollout
from steepest.cells import cells
from steepest.chunks import each
from steepest.critics import AdamFit, NaturalFit, recurrent_value
from steepest.critics.fit import _Sequences
from steepest.distributions import Categorical
from steepest.errors import UsageError
from steepest.parameters import split
from steepest.policies.heads import GaussianHead
from steepest.policies.recurrent import recurrent_network
from steepest.runs import checkpoint
from steepest.sampling.acting import actions, host_actor
from steepest.sampling.groups import Groups, Order, make_groups
from steepest.sampling.rollout import empty, layout
from steepest.sampling.rows import memories, rows_of, values_along
from steepest.sampling.unroll import begin
from steepest.sampling.workers import Workers
from steepest.sequences import Sequences, initial_memory
from steepest.spaces import Discrete, describe
from steepest.training.beginning import first_snapshot, learner_of
from steepest.training.config import TrainConfig
from steepest.training.native_program import Carry, collect
from steepest.training.persistence import contents, origin_of
from steepest.training.presets import resolve
from steepest.training.settings import with_settings
from steepest.worlds import make_world
from steepest.worlds.functional.world import FunctionalWorld
from steepest.worlds.memory_tasks import NORTH, SOUTH, TMaze
from steepest.worlds.remaking import remake

STEPS, ENVS, SIZE = 12, 3, 2
said, along_rollout = eqx.filter_jit(each), eqx.filter_jit(values_along)
SURE = -30.0
"""ln σ of a policy whose actions are its means: what acted can be read off the rollout."""


def sure(memory: str = "gru") -> Any:
    head = GaussianHead(jnp.full(1, SURE))
    policy = recurrent_network(VECTOR, head, (), memory=memory, units=3, gain=1.0, key=jax.random.key(4))
    return eqx.tree_at(lambda p: p.cell.inputs.bias, policy, replace_fn=lambda b: b + 0.5)  # 0 ↦ 0 would hide a reset


def spaces(env: Any) -> Any:
    world = make_world(env)
    return describe(world.observation_space, "observation"), describe(world.action_space, "action")


def on_the_host(policy: Any, count: int) -> list[Rollout]:
    """Consecutive rollouts of two groups of random walks, which end by both ways within 7 steps."""
    actor, width = host_actor(policy, SIZE), initial_memory(policy).size
    groups = Groups(make_groups(lambda envs: make_world(Walk, envs), range(2), SIZE, ENVS), SIZE, ENVS, actor)
    rollouts = []
    for i in range(count):
        rollouts.append(empty(STEPS, ENVS, *spaces(Walk), memory=width))
        groups.collect(Order(actor.export(split(policy)[0], None), (1, i), 5 if i == 0 else None), rollouts[-1])
    return rollouts


def agrees(policy: Any, rollouts: list[Rollout]) -> None:
    """What the update computes of each rollout is what acted in it, and each goes on where the last one ended."""
    expected = np.asarray(memories(policy, rollouts[0].memory.shape[0]))
    for rollout in rollouts:
        np.testing.assert_allclose(rollout.memory, expected, atol=1e-6)
        rows = rows_of(policy, rollout.obs, rollout, rollout.memory)
        means = np.asarray(said(policy, rows).mean).reshape(rollout.action.shape)
        np.testing.assert_allclose(means[rollout.valid], rollout.action[rollout.valid], atol=1e-6)
        of_policy = along_rollout(Mean(policy), rollout.obs, rollout.next_obs, rollout, rollout.memory, None)
        expected = np.asarray(of_policy.memory)


class Mean(eqx.Module):
    """A policy as a critic: its first mean for a value."""

    policy: Any

    def initial(self) -> Any:
        return self.policy.initial()

    def step(self, memory: Any, obs: Any) -> Any:
        memory, distribution = self.policy.step(memory, obs)
        return memory, distribution.mean[0]


@pytest.mark.parametrize("memory", ["gru", pytest.param("lstm", marks=pytest.mark.slow)])
def test_on_the_host_the_update_computes_what_acted(memory: str) -> None:
    policy = sure(memory)
    rollouts = on_the_host(policy, 3)
    agrees(policy, rollouts)
    done = np.concatenate([r.terminated | r.truncated for r in rollouts])
    assert done.any(axis=1).sum() > 5
    assert not np.concatenate([r.valid for r in rollouts]).all()  # ghost rows are among them
    assert done[STEPS - 1].any() or done[2 * STEPS - 1].any() or np.abs(rollouts[1].memory).min() > 0

    agent = Agent(policy, *spaces(Walk))
    state, start = None, np.ones(ENVS, bool)
    for t in range(STEPS):
        action, state = agent.predict(rollouts[0].obs[t], state, start, deterministic=True)
        seen = np.clip(rollouts[0].action[t], -1, 1)
        np.testing.assert_allclose(action[rollouts[0].valid[t]], seen[rollouts[0].valid[t]], atol=1e-6)
        start = done[t] | ~rollouts[0].valid[t]


def test_predict_takes_and_gives_what_it_remembers() -> None:
    agent = Agent(sure("lstm"), *spaces(Walk))
    obs = np.array([0.3, 1.0])
    first, state = agent.predict(obs, deterministic=True)
    assert state.shape == (6,)
    second, after = agent.predict(obs, state, deterministic=True)
    assert not np.allclose(first, second)
    np.testing.assert_array_equal(agent.predict(obs, state, True, deterministic=True)[0], first)
    both, states = agent.predict(np.stack([obs, obs]), np.stack([state, after]), [True, False], deterministic=True)
    np.testing.assert_allclose(both[0], first, atol=1e-6)
    assert states.shape == (2, 6)
    with pytest.raises(UsageError, match=r"state of shape \(6,\)"):
        agent.predict(obs, np.zeros(5))
    with pytest.raises(UsageError, match=r"episode_start of shape \(2,\)"):
        agent.predict(np.stack([obs, obs]), None, [True, False, True])


def small(**settings: Any) -> dict[str, Any]:
    own: dict[str, Any] = {"hidden": (), "memory": "gru", "memory_units": 4, "initial_log_std": SURE, "head_gain": 1.0}
    return {
        "envs": 3, "rollout": 16, "steps": 96, "tensorboard": False, "policy": own,
        "critic": {"hidden": (4,), "minibatch": 16, "epochs": 1},
        "evaluation": {"episodes": 2, "final_episodes": 2}, **settings,
    }  # fmt: skip


def test_in_a_program_the_update_computes_what_acted() -> None:
    world = FunctionalWorld(Drift(), 3)
    settings = small(normalise_observations=False)
    config = resolve(with_settings(TrainConfig("X"), settings), world.copies.action, functional=True)
    learner, copies = learner_of(config, "trpo"), world.copies
    snapshot = first_snapshot(config, learner, world, None)
    arrays, rest = eqx.partition(snapshot.learner, eqx.is_array)
    policy = snapshot.learner.policy
    carry = Carry(arrays, begin(copies, copies.tables, jax.random.key(1), 3, initial_memory(policy)), None, None)
    collected = jax.jit(lambda carry, i: collect(learner, rest, copies, 16, copies.tables, carry, jnp.uint32(0), i)[:2])
    rollouts = []
    for i in range(2):
        underway, given = collected(carry, i)
        carry = carry._replace(underway=underway)
        rollouts.append(Rollout(*(None if x is None else np.asarray(x) for x in given.rollout)))
        assert (rollouts[-1].terminated | rollouts[-1].truncated).sum() > 5
    agrees(policy, rollouts)
    assert np.any(rollouts[1].memory)


def test_where_episodes_begin_afresh_the_critic_remembers_nothing() -> None:
    world = FunctionalWorld(Drift(), 3)
    config = resolve(with_settings(TrainConfig("X"), small()), world.copies.action, functional=True)
    snapshot = first_snapshot(config, learner_of(config, "trpo"), world, None)
    state = snapshot.learner
    assert state.critic_memory.shape == (3, 4)
    going_on = snapshot._replace(learner=state._replace(critic_memory=jnp.ones((3, 4))))
    assert not np.any(going_on.afresh().learner.critic_memory)


def test_workers_remember_as_one_process_does() -> None:
    policy = sure()
    alone, actor = on_the_host(policy, 3), host_actor(policy, SIZE)
    workers = Workers(
        2, remake(Walk), SIZE, ENVS, layout(STEPS, ENVS, *spaces(Walk), memory=initial_memory(policy).size)
    )
    try:
        workers.act_with(actor)
        for i, mine in enumerate(alone):
            workers.start(Order(actor.export(split(policy)[0], None), (1, i), 5 if i == 0 else None))
            theirs, _ = workers.finish()
            for name in ("obs", "action", "reward", "valid", "memory"):
                np.testing.assert_array_equal(getattr(mine, name), getattr(theirs, name), err_msg=name)
    finally:
        workers.close()


class First(eqx.Module):
    """Keeps the first sign that it saw since it began, and turns there: solves a T-maze if its memory begins anew."""

    scale: Any

    def initial(self) -> Any:
        return jnp.zeros(())

    def step(self, memory: Any, obs: Any) -> Any:
        sign = jnp.where(obs[0] == obs[2], 0.0, jnp.where(obs[2] == 1, 1.0, -1.0))
        memory = jnp.where(memory == 0, sign, memory)
        turn = jnp.zeros(4).at[jnp.where(memory > 0, NORTH, SOUTH)].set(self.scale)
        return memory, Categorical(jnp.where(jnp.all(obs == jnp.array([0, 1, 0])), turn, jnp.eye(4)[0] * self.scale))


class Maze:
    """The same T-maze, of 3 steps, as a functional environment."""

    action_space = TMaze().action_space
    observation_space = TMaze().observation_space
    time_limit = 20

    def reset(self, key: Any, params: Any) -> Any:
        north = jax.random.bernoulli(key)
        return jnp.where(north, jnp.array([0.0, 1, 1]), jnp.array([1.0, 1, 0])), (0, north)

    def step(self, key: Any, state: Any, action: Any, params: Any) -> Any:
        at, north = state
        turned = (at == 3) & ((action == NORTH) | (action == SOUTH))
        reward = jnp.where(turned, jnp.where((action == NORTH) == north, 4.0, -0.1), 0.0)
        at = jnp.minimum(at + (action == 0), 3)
        return (
            jnp.where(at == 3, jnp.array([0.0, 1, 0]), jnp.array([1.0, 0, 1])),
            (at, north),
            reward,
            turned,
            False,
            {},
        )


@pytest.mark.parametrize("env", [lambda: TMaze(3), Maze()], ids=["host", "program"])
def test_evaluation_begins_every_episode_with_a_new_memory(env: Any) -> None:
    agent = Agent(First(jnp.ones(())), *spaces(TMaze))
    np.testing.assert_allclose(st.evaluate(agent, env, episodes=40, seed=1), 4.0)


def problem_of_values() -> tuple[Any, Rollout]:
    rng = np.random.default_rng(0)
    obs, next_obs = (rng.normal(size=(5, 2, 2)).astype(np.float32) for _ in range(2))
    terminated, truncated, valid = (np.zeros((5, 2), bool) for _ in range(3))
    terminated[1, 0] = truncated[2, 1] = truncated[4, 0] = True
    valid[:] = True
    valid[3, 1] = False
    reward = rng.normal(size=(5, 2)).astype(np.float32)
    critic = recurrent_value(VECTOR, (3,), units=2, key=jax.random.key(0))
    return critic, Rollout(obs, obs, reward, next_obs, terminated, truncated, valid)


def test_the_true_successor_is_valued_with_the_memory_of_its_own_episode() -> None:
    critic, rollout = problem_of_values()
    critic = eqx.tree_at(lambda c: c.last.weight, critic, 100 * critic.last.weight)  # its head starts near 0
    memory = np.full((2, 2), 0.3, np.float32)
    values = along_rollout(critic, rollout.obs, rollout.next_obs, rollout, memory, None)
    for b in range(2):
        remembered: Any = jnp.asarray(memory[b])
        for t in range(5):
            remembered, value = critic.step(remembered, rollout.obs[t, b])
            if rollout.valid[t, b]:
                assert float(values.value[t, b]) == pytest.approx(float(value), abs=1e-6)
                after = critic.step(remembered, rollout.next_obs[t, b])[1]
                assert float(values.next_value[t, b]) == pytest.approx(float(after), abs=1e-6)
            if rollout.terminated[t, b] or rollout.truncated[t, b] or not rollout.valid[t, b]:
                remembered = critic.initial()
        np.testing.assert_allclose(values.memory[b], remembered, atol=1e-6)
    assert not values.memory[0].any()
    assert values.memory[1].all()


@pytest.mark.parametrize(
    "fit", [AdamFit(3e-3, epochs=60, minibatch=5), pytest.param(NaturalFit(4), marks=pytest.mark.slow)]
)
def test_critics_with_memory_are_fitted_along_whole_sequences(fit: Any) -> None:
    critic, rollout = problem_of_values()
    rows = rows_of(critic, rollout.obs, rollout, np.zeros((2, 2), np.float32))
    assert isinstance(rows, Sequences)
    target, weight = jnp.asarray(rollout.reward.ravel()), jnp.asarray(rollout.valid.ravel(), jnp.float32)
    given = rows, target, weight, said(critic, rows), jax.random.key(0)
    after, _, info = eqx.filter_jit(fit)(critic, fit.init(critic), *given)
    assert bool(info.kept)
    loss = float(jnp.sum(weight * (said(after, rows) - target) ** 2) / jnp.sum(weight))
    assert loss < 0.7 * float(info.loss)


@pytest.mark.parametrize("size", [5, 10])
def test_minibatches_of_sequences_are_whole_environments(size: int) -> None:
    critic, rollout = problem_of_values()
    rows = rows_of(critic, rollout.obs, rollout, np.zeros((2, 2), np.float32))
    parts = _Sequences(rows, size)
    envs = parts.shuffled(jax.random.key(1))
    assert envs.shape == (10 // size, size // 5)
    assert sorted(np.asarray(envs).ravel().tolist()) == [0, 1]
    for part in envs:
        sequences, numbers = parts.of(part)
        np.testing.assert_allclose(said(critic, sequences), said(critic, rows)[numbers], rtol=1e-6, atol=1e-7)


def test_an_agent_is_saved_loaded_and_evaluated(tmp_path: Path) -> None:
    world = make_world("steepest/PendulumMasked-v0", 3)
    own = {"hidden": (4,), "memory": "lstm", "memory_units": 3}
    config = resolve(with_settings(TrainConfig("X"), small(policy=own)), describe(world.action_space, "action"))
    snapshot = first_snapshot(config, learner_of(config, "trpo"), world, None)
    checkpoint.save(tmp_path / "agent", *contents(snapshot, {"metrics": 0, "episodes": 0}, origin_of(config, [])))
    agent = st.load(tmp_path / "agent")
    assert agent.spec is not None
    assert (agent.spec.memory, agent.spec.memory_units) == ("lstm", 3)
    mine, theirs = (st.evaluate(a, "steepest/PendulumMasked-v0", episodes=2, seed=3) for a in (snapshot.agent, agent))
    np.testing.assert_array_equal(mine, theirs)
    arrays, info = checkpoint.load(tmp_path / "agent")
    old = {name.replace(".features.layers[", ".features.net.layers["): array for name, array in arrays.items()}
    assert old.keys() != arrays.keys()
    checkpoint.save(tmp_path / "old", old, {**info, "policy": {**info["policy"], "kind": "mlp-gaussian"}})
    assert checkpoint.load(tmp_path / "old")[0].keys() == arrays.keys()
    np.testing.assert_array_equal(st.evaluate(st.load(tmp_path / "old"), "steepest/PendulumMasked-v0", 2, 3), mine)
    checkpoint.save(tmp_path / "own", old, {**info, "policy": None})
    kept = checkpoint.load(tmp_path / "own")[0]
    assert "learner.policy.features.net.layers[0].weight" in kept
    assert "learner.critic.features.layers[0].weight" in kept


class Growing(Own):
    """Its memory is of another form after a step."""

    def step(self, memory: Any, obs: Any) -> Any:
        memory, distribution = super().step(memory, obs)
        return {**memory, "step": jnp.ones(2)}, distribution


OWN = {k: v for k, v in small().items() if k != "policy"}


def test_a_module_of_the_users_own_that_cannot_be_trained(tmp_path: Path) -> None:
    env, settings = "steepest/PendulumMasked-v0", OWN
    with pytest.raises(UsageError, match="step must return a memory of the form"):
        st.train(env, policy=Growing(jnp.zeros((1, 4)), jnp.zeros(1)), out=tmp_path / "no", **settings)
    with pytest.raises(UsageError, match="scheme=vine takes rows one by one"):
        st.train(env, policy=Own(jnp.zeros((1, 4)), jnp.zeros(1)), scheme="vine", **settings)


@pytest.mark.slow
def test_a_module_of_the_users_own(tmp_path: Path) -> None:
    env, settings = "steepest/PendulumMasked-v0", OWN
    run = st.train(env, policy=Own(0.3 * jnp.ones((1, 4)), jnp.zeros(1)), out=tmp_path / "run", **settings)
    loaded: Any = st.load(run.path, policy=Own(jnp.zeros((1, 4)), jnp.zeros(1))).policy
    trained: Any = run.agent.policy
    np.testing.assert_array_equal(loaded.weight, trained.weight)
    assert not np.array_equal(loaded.weight, 0.3 * np.ones((1, 4)))
    assert all(row["update/accepted"] for row in run.metrics)
    assert np.isfinite(st.diagnose(run.path, policy=loaded)["gradient"]["norm"])


@pytest.mark.parametrize(
    "env", ["steepest/CartPoleMasked-v0", pytest.param("gymnax:CartPole-v1", marks=pytest.mark.slow)]
)
def test_products_on_some_sequences_and_chunks_of_them(env: str, tmp_path: Path) -> None:
    """A chunk changes nothing but rounding, a subsample the direction; what is held is δ on all rows."""
    runs = {}
    for name, update in (("whole", {}), ("chunk", {"chunk": 16}), ("part", {"chunk": 16, "subsample": 0.5})):
        runs[name] = st.train(env, "npg", out=tmp_path / name, delta=1e-5, **{**small(), "steps": 64}, **update)
        assert all(row["update/accepted"] for row in runs[name].metrics)
        assert runs[name].metrics[0]["update/kl"] == pytest.approx(1e-5, rel=0.1)
    whole, chunk, some = (runs[name].metrics[0] for name in ("whole", "chunk", "part"))
    assert chunk["update/natural_norm"] == pytest.approx(whole["update/natural_norm"], rel=1e-5)
    assert some["update/natural_norm"] != pytest.approx(whole["update/natural_norm"], rel=1e-5)


@pytest.mark.parametrize("memory", ["gru", "lstm"])
def test_a_span_spreads_the_times_over_which_units_forget(memory: str) -> None:
    """1/(1 − σ(b)) = 1 + eᵇ steps, of which b ~ ln U[1, T − 1] makes times up to T, evenly."""
    key = jax.random.key(3)
    few, many = (cells[memory](2, 400, span=span, key=key) for span in (None, 100))
    gates = len(few.inputs.bias) // 400
    usual, spread = (np.asarray(cell.inputs.bias).reshape(gates, 400) for cell in (few, many))
    np.testing.assert_array_equal(usual, np.eye(gates)[1][:, None] * np.ones(400))
    times = 1 + np.exp(spread[1])
    assert 2 <= times.min() < 8
    assert 94 < times.max() <= 100
    assert np.quantile(times, [0.25, 0.5, 0.75]) == pytest.approx([26.5, 51, 75.5], abs=7)
    if memory == "lstm":
        np.testing.assert_array_equal(spread[0], -spread[1])  # what is kept and what comes in are one
        assert not spread[2:].any()
    else:
        assert not spread[[0, 2]].any()
    np.testing.assert_array_equal(few.inputs.weight, many.inputs.weight)
    np.testing.assert_array_equal(few.recurrent, many.recurrent)


def test_a_span_is_of_policy_and_critic_and_in_the_file(tmp_path: Path) -> None:
    settings = small()
    settings["policy"] = {**settings["policy"], "memory_span": 1000, "memory_units": 8}
    config = resolve(with_settings(TrainConfig("X"), settings), Discrete(2))
    learner = learner_of(config, "trpo")
    snapshot = first_snapshot(config, learner, make_world("steepest/CartPoleMasked-v0", 3), None)
    models: Any = snapshot.agent.policy, snapshot.learner.critic
    assert min(np.max(model.cell.inputs.bias) for model in models) > 3
    run = st.train("steepest/CartPoleMasked-v0", out=tmp_path / "run", **settings)
    spec = st.load(run.path).spec
    assert spec is not None
    assert spec.memory_span == 1000
    for span, says in ((1, "at least 2"), (10**10, "at most 1000000000")):
        with pytest.raises(UsageError, match=f"memory_span must be {says}"):
            st.train("nowhere-v0", policy={"memory": "gru", "memory_span": span})
    with pytest.raises(UsageError, match="memory_span says nothing without a memory"):
        st.train("nowhere-v0", policy={"memory_span": 50})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"scheme": "vine"}, "scheme at single-path"),
        ({"metric": "kronecker"}, "metric at fisher"),
        ({"algorithm": "acktr"}, "trpo or npg"),
        ({"preconditioner": "diagonal"}, "preconditioner at none"),
    ],
)
def test_what_takes_rows_one_by_one_is_refused_before_anything_is_made(settings: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        st.train("nowhere-v0", **{"policy": {"memory": "gru"}, **settings})


def test_an_agent_with_memory_does_not_act_without_it() -> None:
    with pytest.raises(UsageError, match="remembers"):
        actions(sure(), None, np.zeros((2, 2), np.float32), jax.random.key(0), 0, True)
    rollout = Rollout(*[np.zeros((2, 1, 2), np.float32)] * 2, *[np.zeros((2, 1))] * 5)
    with pytest.raises(UsageError, match="needs `memory`"):
        rows_of(sure(), rollout.obs, rollout, None)
