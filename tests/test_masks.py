"""Action masks: what is forbidden is never done, in a whole run; where they come from; and masks that are none."""

from __future__ import annotations

import json
import math
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import gymnasium
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium.spaces import Discrete, MultiDiscrete
from gymnasium.vector import AutoresetMode, SyncVectorEnv

import steepest as st
from environments import Counting
from masked_environments import DICT, LENGTH, FunctionalTrap, Trap, TrapWithMethod, Wrong, trap
from short_runs import NEAR
from steepest import spaces
from steepest.agent import Agent
from steepest.distributions import Bernoulli, Categorical, MultiCategorical, Product
from steepest.normaliser import Normaliser
from steepest.policies.masked import masked, with_mask
from steepest.sampling.moments import Moments
from steepest.spaces import flat_mask, forbids_all, permitted
from steepest.training.config import TrainConfig
from steepest.training.hosting import place
from steepest.training.settings import with_settings
from steepest.worlds import Adapted, make_world

SMALL: dict[str, Any] = {**NEAR, "steps": 6000}


def config_of(run: Any) -> Any:
    return json.loads((run.path / "config.json").read_text())


@pytest.mark.parametrize(
    ("actions", "by_method"),
    [
        (Discrete(4), False),
        pytest.param(MultiDiscrete([2, 3]), True, marks=pytest.mark.slow),
        pytest.param(DICT, False, marks=pytest.mark.slow),
    ],
    ids=["discrete, info", "multi-discrete, method", "dict, info"],
)
def test_a_run_never_does_what_is_forbidden_and_finds_the_best(actions: Any, by_method: bool, tmp_path: Path) -> None:
    Trap.taken[:] = [0, 0]
    given = {**SMALL, "evaluation": {"every": 2000, "episodes": 5, "final_episodes": 10}, "workers": 0}
    run = st.train(lambda: trap(actions, by_method), "trpo", out=tmp_path, seed=1, mask="auto", **given)
    assert run.evaluation.mean() == 0
    assert all(np.isfinite(row["update/kl"]) for row in run.metrics)
    assert config_of(run)["policy"]["mask"] is True
    agent = st.load(run.path)
    assert st.evaluate(agent, lambda: trap(actions, by_method), 5).mean() == 0
    st.evaluate(agent, lambda: trap(actions, by_method), 5, deterministic=False)
    assert Trap.taken[0] > 6000
    assert Trap.taken[1] == 0
    assert run.faults == 0


@pytest.mark.slow
def test_in_one_program(tmp_path: Path) -> None:
    run = st.train(FunctionalTrap(), "trpo", out=tmp_path / "run", seed=1, mask=True, **SMALL)
    assert run.evaluation.mean() == 0
    assert min(row["return/mean"] for row in run.metrics) > -100
    with pytest.raises(st.RunError, match="a mask that forbids everything"):
        st.train(FunctionalTrap(3), "trpo", out=tmp_path / "none", mask=True, **SMALL)


@pytest.mark.slow
def test_other_ways_to_train_are_legal_too(tmp_path: Path) -> None:
    def env() -> Trap:
        return TrapWithMethod(Discrete(4))

    Trap.taken[:] = [0, 0]
    vine = {"scheme": "vine", "vine": {"states": 8, "actions": 4, "length": 2}}
    for i, settings in enumerate([vine, {"entropy": 0.01}, {"solver": "sample-space"}, {"algorithm": "acktr"}]):
        given = {"algorithm": "trpo", **SMALL, **settings, "steps": 1024}
        run = st.train(env, mask=True, out=tmp_path / f"{i}", **given)
        assert run.metrics[-1]["update/reason"] == "accepted"
    assert Trap.taken[1] == 0
    run = st.train(env, "trpo", mask=True, out=tmp_path / "workers", **{**SMALL, "steps": 1024}, workers=2, group=4)
    assert min(row["return/mean"] for row in run.metrics) > -100
    assert st.resume(run.path, env=env, steps=2048).faults == 0


def test_auto_is_by_what_is_there_and_true_is_asked_for() -> None:
    def asked(mask: Any, env: Any) -> Any:
        with ExitStack() as stack:
            config = with_settings(TrainConfig("here"), {"mask": mask, "workers": 0})
            return place(stack, config, env)[0].policy.mask

    assert asked("auto", lambda: Counting(5)) is False
    assert asked("auto", lambda: Trap(Discrete(4), False)) is True
    assert asked("auto", lambda: TrapWithMethod(Discrete(4))) is True
    assert asked("auto", "Pendulum-v1") is False
    assert asked("auto", FunctionalTrap()) is True
    with pytest.raises(st.UsageError, match=r"Counting says of no action .* action_masks\(\)"):
        asked(True, lambda: Counting(5))
    with pytest.raises(st.UsageError, match=r"config\.policy\.mask must be"):
        asked("yes", lambda: Counting(5))
    with pytest.raises(st.UsageError, match="'mdp' have no action masks"):
        make_world(Adapted("mdp:two-state", masks=True))
    with pytest.raises(st.UsageError, match="a mask is for Discrete"):
        make_world(Adapted("Pendulum-v1", masks=True))


def test_an_agent_is_told_what_is_allowed() -> None:
    policy = with_mask(st.TabularSoftmax(np.zeros((5, 3))), spaces.Masked(spaces.Discrete(5), 3))
    agent = Agent(policy, spaces.Masked(spaces.Discrete(5), 3), spaces.Discrete(3))
    for deterministic in (True, False):
        assert agent.predict(4, action_mask=[0, 0, 1], deterministic=deterministic)[0] == 2
        both, _ = agent.predict([0, 1], action_mask=[[0, 1, 0], [0, 0, 1]], deterministic=deterministic)
        np.testing.assert_array_equal(both, [1, 2])
    for mask, what in (
        (None, "give action_mask, 3 of 0 and 1"),
        ([0, 0, 0], "forbids everything"),
        ([1, 0], "must have 3 entries"),
        ([[1, 0, 0], [1, 0, 0]], "must have 3 entries, one for each action, got 6"),
    ):
        with pytest.raises(st.UsageError, match=what):
            agent.predict(4, action_mask=mask)
    unmasked = Agent(st.TabularSoftmax(np.zeros((5, 3))), spaces.Discrete(5), spaces.Discrete(3))
    with pytest.raises(st.UsageError, match="this agent was trained without masks"):
        unmasked.predict(4, action_mask=[1, 0, 0])


@pytest.mark.parametrize("mode", list(AutoresetMode))
@pytest.mark.parametrize("by_method", [True, False])
def test_of_a_vector_environment(mode: AutoresetMode, by_method: bool) -> None:
    actions = MultiDiscrete([2, 3])
    world = make_world(Adapted(SyncVectorEnv([lambda: trap(actions, by_method)] * 3, autoreset_mode=mode), masks=True))
    space, own = spaces.describe(world.observation_space, "observation"), spaces.describe(actions, "action")
    assert isinstance(space, spaces.Masked)
    world.reset(0)
    for _ in range(3 * LENGTH):
        mask = space.form.split(world.obs)[1]
        assert not forbids_all(mask, (2, 3)).any()
        step = world.step(permitted(own, np.zeros((3, 2), np.int32), mask))
        assert (step.reward > -100).all()
        assert step.next_obs.shape == (3, 7)


@pytest.mark.parametrize(
    ("mask", "what"),
    [
        ([0, 0, 0, 0], "its action mask forbids everything"),
        ([1, 0, 1], "must have 4 entries, one for each action, got 3"),
        ([1, 0, 2, 0], "a 1 for what is allowed"),
        ("all", "a 1 for what is allowed"),
    ],
)
def test_a_mask_that_is_none_is_a_fault(mask: Any, what: str) -> None:
    world = make_world(Adapted(lambda: Wrong(mask), masks=True), 2)

    def play() -> None:
        world.reset(0)
        for _ in range(5):
            allowed = world.obs[:, 2:]
            world.step(np.argmax(allowed, axis=1))

    with pytest.raises(st.RunError, match=what):
        play()
    faults: list[Any] = []
    world.bear(faults.append)  # type: ignore[attr-defined]
    play()
    assert len(faults) == 2
    assert all(what in str(fault) for fault in faults)


def test_masks_in_one_row() -> None:
    sizes, several = (2, 3), spaces.MultiDiscrete((2, 3), (0, 0))
    named = spaces.Joint((spaces.Discrete(2), several, spaces.Discrete(3)), ("b", "x", "a"))
    assert flat_mask([1, 0, 1, 1, 0], several).tolist() == [1, 0, 1, 1, 0]
    assert flat_mask(([1, 0], [1, 1, 0]), several).tolist() == [1, 0, 1, 1, 0]
    pieces = {"a": np.array([1, 1, 0], np.int8), "x": ([1, 0], [0, 1, 1]), "b": [True, False]}  # in another order
    for given in (pieces, ([1, 0], [1, 0, 0, 1, 1], [1, 1, 0]), [1, 0, 1, 0, 0, 1, 1, 1, 1, 0]):
        assert flat_mask(given, named).tolist() == [1, 0, 1, 0, 0, 1, 1, 1, 1, 0]
    for wrong in ({"a": [1, 1, 0], "b": [1, 0]}, {**pieces, "c": [1]}, ([1, 0], [1, 1, 0])):
        with pytest.raises(st.UsageError, match="parts"):
            flat_mask(wrong, named)
    assert not forbids_all(np.array([1, 0, 0, 0, 1]), sizes)
    assert forbids_all(np.array([[1, 1, 0, 0, 0], [0, 1, 1, 0, 0]]), sizes).tolist() == [True, False]
    action = spaces.describe(DICT, "action")
    chosen = permitted(action, np.array([[0.5, 0.0, 2.0]], np.float32), np.array([[0, 1, 1, 1, 0]]))
    np.testing.assert_array_equal(chosen, [[0.5, 1.0, 0.0]])
    assert permitted(spaces.Discrete(3), np.int32(1), np.array([0, 0, 1])) == 2


def test_what_is_masked_of_a_product() -> None:
    p = Product([Categorical(jnp.zeros(2)), Bernoulli(jnp.zeros(2)), MultiCategorical(jnp.zeros(4), (2, 2))])
    q = masked(p, jnp.array([True, False, True, True, False, True]))
    assert float(q.entropy()) == pytest.approx(3 * np.log(2))  # both switches, and the first pair
    assert float(q.kl(q)) == 0
    with pytest.raises(st.UsageError, match="a mask of 3 entries does not fit 6 logits"):
        masked(p, jnp.ones(3, bool))


def test_masks_are_not_normalised() -> None:
    obs = np.array([[1.0, 5.0, 1, 0, 1], [3.0, 5.0, 0, 0, 1]], np.float32)
    none = Normaliser.empty((2,))
    for statistics in (none.updated(obs), Moments.of(none).updated(jnp.asarray(obs))):
        seen = np.asarray(statistics.scaling()(obs))
        np.testing.assert_allclose(seen[:, :2], [[-1, 0], [1, 0]], atol=1e-6)
        np.testing.assert_array_equal(seen[:, 2:], obs[:, 2:])


def test_records_of_masked_spaces() -> None:
    space = spaces.Masked(spaces.Discrete(5), 3)
    assert spaces.from_record(spaces.to_record(space)) == space
    assert not spaces.fits(space, spaces.Discrete(5))
    assert not spaces.fits(space, spaces.Masked(spaces.Discrete(5), 4))
    inner: Any = {"kind": "masked", "observation": spaces.to_record(space), "mask": 3}
    for wrong in (inner, {**inner, "observation": 3}, {**spaces.to_record(space), "mask": 0}):
        with pytest.raises(st.UsageError, match="not the record of a space"):
            spaces.from_record(wrong)


def test_the_statistics_beside_a_mask_are_of_the_observation_alone() -> None:
    """Of any shape: a mask that is normalised forbids something else."""
    for shape in ((), (2, 3)):
        box = spaces.Box(np.full(shape, -np.inf), np.full(shape, np.inf))
        masked = spaces.Masked(box, 3)
        scaling = Normaliser.empty(spaces.seen_shape(masked)).updated(np.ones((4, math.prod(shape)))).scaling()
        seen = np.asarray(scaling(np.ones((4, math.prod(shape) + 3), np.float32)))
        np.testing.assert_array_equal(seen, np.repeat([[0.0] * math.prod(shape) + [1.0] * 3], 4, axis=0))


def test_a_functional_mask_is_shown_beside_an_observation_of_parts() -> None:
    class Parts(FunctionalTrap):
        observation_space: Any = gymnasium.spaces.Dict(
            a=gymnasium.spaces.MultiDiscrete([2, 3], start=[5, 7]), b=gymnasium.spaces.Box(0.0, 1.0, (1,), np.float32)
        )

        def reset(self, key: Any, params: Any) -> Any:
            return {"a": jnp.array([5, 9]), "b": jnp.ones(1)}, super().reset(key, params)[1]

        def step(self, key: Any, state: Any, action: Any, params: Any) -> Any:
            _, *rest = super().step(key, state, action, params)
            return ({"a": jnp.array([5, 9]), "b": jnp.ones(1)}, *rest)

    world = make_world(Adapted(Parts(), masks=True), 2)
    np.testing.assert_array_equal(world.reset(0)[:, :3], [[0, 2, 1]] * 2)
    world.close()
