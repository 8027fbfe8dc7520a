"""Masks and memory together: what is forbidden is never done, and what was allowed in one step alone is forgotten."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import numpy as np
import pytest

import steepest as st
from masked_environments import FunctionalRecall, Recall, Trap
from recurrent_problems import VECTOR
from sameness import differences
from short_runs import NEAR
from steepest.agent import Agent
from steepest.chunks import each
from steepest.critics.value import recurrent_value, unmasked
from steepest.parameters import split
from steepest.policies.heads import CategoricalHead
from steepest.policies.masked import with_mask
from steepest.policies.recurrent import recurrent_network
from steepest.sampling.acting import host_actor
from steepest.sampling.groups import Groups, Order, make_groups
from steepest.sampling.rollout import empty
from steepest.sampling.rows import rows_of
from steepest.sequences import initial_memory
from steepest.spaces import describe
from steepest.training.config import TrainConfig
from steepest.training.hosting import place, remembered
from steepest.training.settings import with_settings
from steepest.worlds import Adapted, make_world
from steepest.worlds.settable import keepable

POLICY: dict[str, Any] = {"memory": "gru", "memory_units": 16, "hidden": (16,), "mask": True}
SMALL: dict[str, Any] = {**NEAR, "steps": 6000, "seed": 1, "policy": POLICY}


def by_hand(agent: Agent, episodes: int) -> float:
    """The mean return of `Recall`, played through `predict`."""
    env, total, state = Recall(), 0.0, None
    for i in range(episodes):
        (obs, _), over, fresh = env.reset(seed=i), False, True
        while not over:
            action, state = agent.predict(obs, state, fresh, deterministic=True, action_mask=env.action_masks())
            obs, reward, over, _, _ = env.step(action)
            total, fresh = total + reward, False
    return total / episodes


def test_a_run_never_does_what_is_forbidden_and_recalls_what_is_best(tmp_path: Path) -> None:
    Trap.taken[:] = [0, 0]
    run = st.train(Recall, "trpo", out=tmp_path / "run", workers=0, **SMALL)
    assert run.evaluation.mean() == 0
    assert by_hand(st.load(run.path), 10) == 0
    assert Trap.taken[0] > 6000
    assert Trap.taken[1] == 0
    assert run.faults == 0
    assert all(np.isfinite(row["update/kl"]) for row in run.metrics)


@pytest.mark.slow
def test_in_one_program(tmp_path: Path) -> None:
    run = st.train(FunctionalRecall(), "trpo", out=tmp_path / "run", **{**SMALL, "steps": 16_000})
    assert run.evaluation.mean() == 0
    assert min(row["return/mean"] for row in run.metrics) > -100
    assert by_hand(st.load(run.path), 10) == 0


@pytest.mark.slow
def test_other_ways_to_train_are_legal_too(tmp_path: Path) -> None:
    shared = {**SMALL, "steps": 1024}
    lstm = {"policy": {**POLICY, "memory": "lstm"}, "algorithm": "npg", "entropy": 0.01}
    own = recurrent_network(VECTOR, CategoricalHead(4), (4,), units=3, key=jax.random.key(0))
    mine = {"policy": own, "mask": True}
    for i, settings in enumerate([lstm, {"solver": "sample-space"}, mine]):
        run = st.train(Recall, out=tmp_path / f"{i}", workers=0, **{"algorithm": "trpo", **shared, **settings})
        assert run.metrics[-1]["update/reason"] == "accepted"
        assert min(row["return/mean"] for row in run.metrics) > -100
    with pytest.raises(st.UsageError, match="preconditioner at none"):
        st.train(Recall, preconditioner="kronecker", **shared)
    run = st.train(Recall, "trpo", out=tmp_path / "workers", **shared, workers=2, group=4)
    alone = st.train(Recall, "trpo", out=tmp_path / "alone", **shared, workers=0, group=4)
    assert [row["return/mean"] for row in run.metrics] == [row["return/mean"] for row in alone.metrics]
    longer = st.resume(run.path, env=Recall, steps=2048)
    assert longer.faults == 0
    assert min(row["return/mean"] for row in longer.metrics) > -100


def test_a_masked_environment_is_put_back_where_it_stood() -> None:
    world = make_world(Adapted(Recall, masks=True), 2)
    world.reset(0)

    def played(steps: int) -> Any:
        return [world.step(np.argmax(world.obs[:, 2:], axis=1)).next_obs for _ in range(steps)]

    played(3)
    states: Any = keepable(world)
    kept, before = states.keep(), world.obs.copy()
    after = played(9)
    states.put_back(kept)
    np.testing.assert_array_equal(world.obs, before)
    np.testing.assert_array_equal(played(9), after)


@pytest.mark.slow
def test_a_resumed_run_ends_as_one_that_was_never_stopped(tmp_path: Path) -> None:
    def stop(event: st.IterationEvent) -> None:
        if event.iteration == 1:
            raise KeyboardInterrupt

    given = {**SMALL, "steps": 1024, "checkpoint_every": 1, "workers": 0, "evaluation": {"every": 512, "episodes": 2}}
    whole = st.train(Recall, "trpo", out=tmp_path / "whole", **given)
    with pytest.raises(KeyboardInterrupt):
        st.train(Recall, "trpo", out=tmp_path / "run", callbacks=[stop], **given)
    st.resume(tmp_path / "run", env=Recall)
    assert differences(whole.path, tmp_path / "run") == []


STEPS, ENVS, SIZE = 12, 3, 2
says = eqx.filter_jit(lambda policy, rows: each(policy, rows).probs)


def test_the_update_computes_what_acted() -> None:
    """A policy that takes the likeliest of what is allowed: its actions can be read off the distributions."""
    world = make_world(Adapted(Recall, masks=True))
    spaces = describe(world.observation_space, "observation"), describe(world.action_space, "action")
    own: Any = recurrent_network(VECTOR, CategoricalHead(4), (3,), units=3, gain=1.0, key=jax.random.key(4))
    bias = jax.random.normal(jax.random.key(5), own.cell.inputs.bias.shape)  # else 0 ↦ 0 would hide a reset
    own = eqx.tree_at(lambda p: (p.cell.inputs.bias, p.last.weight), own, (bias, 1e5 * own.last.weight))
    policy: Any = with_mask(own, spaces[0])
    actor, width = host_actor(policy, SIZE), initial_memory(policy).size
    assert width == 3 + 4
    made = make_groups(lambda envs: make_world(Adapted(Recall, masks=True), envs), range(2), SIZE, ENVS)
    groups, chosen = Groups(made, SIZE, ENVS, actor), []
    for i in range(2):
        rollout = empty(STEPS, ENVS, *spaces, memory=width)
        groups.collect(Order(actor.export(split(policy)[0], None), (1, i), 5 if i == 0 else None), rollout)
        probs = np.asarray(says(policy, rows_of(policy, rollout.obs, rollout, rollout.memory)))
        assert np.isfinite(probs).all()
        likeliest = np.argmax(probs, axis=1).reshape(rollout.action.shape)
        np.testing.assert_array_equal(likeliest[rollout.valid], rollout.action[rollout.valid])
        assert not rollout.valid.all()
        chosen.append(likeliest)
    assert len(np.unique(chosen)) == 4


def test_a_critic_that_remembers_does_not_see_the_mask() -> None:
    form = describe(make_world(Adapted(Recall, masks=True)).observation_space, "observation").form  # type: ignore
    critic = unmasked(recurrent_value(VECTOR, (3,), units=2, key=jax.random.key(0)), form)
    memory, obs = critic.initial(), np.array([0.4, -1.0], np.float32)
    one, other = (critic.step(memory, np.concatenate([obs, mask]))[1] for mask in (np.ones(4), np.eye(4)[1]))
    assert one == other
    assert one != critic.step(memory, np.concatenate([obs[::-1], np.ones(4)]))[1]


def test_what_is_remembered_is_counted() -> None:
    def placed(**policy: Any) -> Any:
        with ExitStack() as stack:
            config = with_settings(TrainConfig("here"), {"policy": {**POLICY, **policy}, "workers": 0})
            config, world, _ = place(stack, config, Recall)
            return config, remembered(config, describe(world.observation_space, "observation"))

    config, width = placed(memory="lstm")
    assert width == 2 * 16 + 4
    assert (config.critic.memory, config.critic.memory_units) == ("lstm", 16)
    assert placed(memory="lstm", mask=False)[1] == 32
    assert placed(memory="none")[1] is None
