"""A world that was put back into a state goes on as it did, to the bit: what vine's branches rest on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode

from environments import MODES, Counting, Walk, vector
from steepest.errors import RunError, UsageError
from steepest.worlds import make_world
from steepest.worlds.finite import FiniteHorizonMDP, MDPWorld
from steepest.worlds.finite import random as random_mdp
from steepest.worlds.finite.streams import Streams
from steepest.worlds.gymnasium import GymnasiumWorld
from steepest.worlds.settable import settable

LONG = ["Hopper-v5", "Swimmer-v5", "HalfCheetah-v5", "Ant-v5", "CartPole-v1", "Pendulum-v1", "mdp:random"]
"""Ant's reward has a mean of bodies' positions from before the step, which lag behind the joints'."""


def short(env: str) -> Any:
    """The environment with a time limit that a few steps reach."""
    return env if env.startswith("mdp:") else lambda: gymnasium.make(env, max_episode_steps=23)


def actions(world: Any, steps: int, seed: int = 0) -> list[np.ndarray]:
    world.action_space.seed(seed)
    return [np.stack([np.asarray(world.action_space.sample()) for _ in range(world.envs)]) for _ in range(steps)]


def follow(world: Any, chosen: list[np.ndarray]) -> list[Any]:
    """What the world shows before and after each action; what a ghost row answers means nothing."""
    return [(world.obs.copy(), world.step(action), world.obs.copy()) for action in chosen]


def same(one: list[Any], other: list[Any]) -> bool:
    flat = [[x for obs, step, after in rows for x in (obs, *step, after) if x is not None] for rows in (one, other)]
    return all(np.array_equal(x, y) for x, y in zip(*flat, strict=True))


@pytest.mark.claim("VINE1")
@pytest.mark.parametrize("env", LONG)
def test_VINE1_a_world_that_was_put_back_replays_to_the_bit(
    env: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Across ends of episodes, time limits and ghost rows, and after the world has been somewhere else."""
    monkeypatch.chdir(tmp_path)  # MuJoCo writes its warnings into a file where it stands
    world = make_world(short(env), 3)
    states: Any = settable(world)
    world.reset(5)
    follow(world, actions(world, 7))
    for _ in range(4):  # the snapshot of the last is taken close to the end of an episode
        snapshot = states.get_state()
        chosen = actions(world, 40, 1)
        first = follow(world, chosen)
        assert env == "Pendulum-v1" or any((s.terminated | s.truncated).any() for _, s, _ in first)
        follow(world, actions(world, 9, 2))
        np.testing.assert_array_equal(states.set_state(snapshot), first[0][0])
        assert same(follow(world, chosen), first)
        follow(world, actions(world, 3, 3))


@pytest.mark.claim("VINE1")
@pytest.mark.parametrize("mode", MODES)
def test_VINE1_in_every_autoreset_mode_with_the_environments_own_noise(mode: AutoresetMode) -> None:
    world = GymnasiumWorld(vector([Walk() for _ in range(4)], mode))
    states = settable(world)
    world.reset(0)
    ghosts = 0
    for k in range(12):
        snapshot = states.get_state()
        chosen = actions(world, 10, k)
        first = follow(world, chosen)
        ghosts += sum((~step.valid).sum() for _, step, _ in first)
        states.set_state(snapshot)
        assert same(follow(world, chosen), first)
    assert (ghosts > 0) == (mode == AutoresetMode.NEXT_STEP)


def test_no_ghost_is_left_of_what_the_world_did_before_it_was_put_back() -> None:
    world = GymnasiumWorld(vector([Counting(3), Counting(3)], AutoresetMode.NEXT_STEP))
    states = settable(world)
    world.reset(0)
    fresh = states.get_state()
    assert follow(world, [np.zeros(2, int)] * 3)[-1][1].truncated.all()
    ended = states.get_state()
    np.testing.assert_array_equal(states.set_state(fresh), [[0.0], [0.0]])
    step = world.step(np.zeros(2, int))
    assert step.valid.all()
    np.testing.assert_array_equal(step.next_obs, [[1.0], [1.0]])
    states.set_state(ended)  # of an ended episode: its next step is the ghost that it was
    assert not world.step(np.zeros(2, int)).valid.any()
    np.testing.assert_array_equal(world.obs, [[0.0], [0.0]])


@pytest.mark.parametrize("env", ["Hopper-v5", "walk", "mdp:random"])
def test_a_state_can_be_set_in_another_environment_and_equal_seeds_give_equal_numbers(env: str) -> None:
    world = GymnasiumWorld(vector([Walk() for _ in range(4)], AutoresetMode.NEXT_STEP)) if env == "walk" else None
    world = world or make_world(env, 4)
    states: Any = settable(world)
    world.reset(1)
    follow(world, actions(world, 2))
    one = states.get_state([2])[0]
    chosen = [np.stack([a[0]] * 4) for a in actions(world, 4, 1)]
    states.set_state([one] * 4, [9, 9, 9, 10])
    steps = [states.advance(action, np.array([True, True, False, True])) for action in chosen]
    for step in steps:
        assert np.array_equal(step.next_obs[0], step.next_obs[1])
        assert step.reward[0] == step.reward[1]
        assert step.valid.tolist() == [True, True, False, True]
    np.testing.assert_array_equal(steps[-1].next_obs[2], one.obs if hasattr(one, "obs") else one.state)
    differ = any(not np.array_equal(step.next_obs[0], step.next_obs[3]) for step in steps)
    assert differ == (env != "Hopper-v5")  # MuJoCo draws nothing between resets


def test_an_environment_that_ended_is_not_reset_by_advance() -> None:
    world = GymnasiumWorld(vector([Counting(2), Counting(9)], AutoresetMode.NEXT_STEP))
    states = settable(world)
    world.reset(0)
    running, before = np.ones(2, bool), states.get_state()
    states.advance(np.zeros(2, int), running)
    step = states.advance(np.zeros(2, int), running)
    assert step.truncated.tolist() == [True, False]
    step = states.advance(np.zeros(2, int), np.array([False, True]))
    assert step.valid.tolist() == [False, True]
    np.testing.assert_array_equal(step.next_obs, [[2.0], [3.0]])
    states.set_state(before)
    assert world.step(np.zeros(2, int)).valid.all()


def test_a_finite_mdp_whose_tables_depend_on_time_is_put_back_with_its_clock() -> None:
    rng = np.random.default_rng(0)
    tables = rng.dirichlet(np.ones(3), size=(4, 3, 2)), rng.normal(size=(4, 3, 2))
    world = MDPWorld(FiniteHorizonMDP(*tables, np.ones(3) / 3, 4), 5)
    assert settable(world) is world
    world.reset(0)
    world.step(np.zeros(5, int))
    snapshot = world.get_state()
    chosen = actions(world, 9)
    first = follow(world, chosen)
    world.set_state(snapshot)
    assert world.time.tolist() == [1] * 5
    assert same(follow(world, chosen), first)


def test_streams_are_uniform_and_independent_of_their_neighbours() -> None:
    streams = Streams(np.arange(20_000))
    draws = np.stack([streams.random() for _ in range(5)])
    assert draws.min() >= 0
    assert draws.max() < 1
    assert abs(draws.mean() - 0.5) < 4 / np.sqrt(12 * draws.size)
    assert abs(draws.var() - 1 / 12) < 1e-3
    centred = draws - 0.5
    for lag in (centred[:, 1:] * centred[:, :-1], centred[1:] * centred[:-1], centred[1:, :-1] * centred[:-1, 1:]):
        assert abs(lag.mean()) < 4 / 12 / np.sqrt(lag.size)


# What cannot be put back


class Hidden(Counting):
    """Counts where no snapshot looks."""

    def __init__(self) -> None:
        super().__init__(100)
        box = [0]

        def tick() -> int:
            box[0] += 1
            return box[0]

        self.tick = tick

    def step(self, action: Any) -> Any:
        return np.array([float(self.tick())]), 1.0, False, False, {}


class Opaque(Counting):
    def __init__(self) -> None:
        super().__init__(100)
        self.simulator = object()


class Saved(Opaque):
    """`Opaque`, with snapshots of its own."""

    def get_state(self) -> Any:
        return {"count": self.count}

    def set_state(self, state: Any) -> None:
        self.count = state["count"]


@pytest.mark.parametrize(
    ("env", "message"),
    [
        (Hidden, r"what follows a state is not the same"),
        (Opaque, r"Opaque\.simulator is a object, of which no snapshot.*single-path.*get_state\(\)"),
        (lambda: gymnasium.wrappers.NormalizeReward(gymnasium.make("CartPole-v1")), r"return_rms is a RunningMeanStd"),
        (gymnasium.make_vec("CartPole-v1", 2, vectorization_mode="vector_entry_point"), r"out of reach in a CartPoleV"),
    ],
    ids=["hidden", "opaque", "wrapper", "native"],
)
def test_a_world_that_cannot_be_put_back_is_refused(env: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        settable(make_world(env))


def test_an_environment_can_take_its_own_snapshots() -> None:
    world = make_world(Saved, 2)
    states = settable(world)
    world.reset(0)
    snapshot = states.get_state()
    world.step(np.zeros(2, int))
    np.testing.assert_array_equal(states.set_state(snapshot), [[0.0], [0.0]])
    np.testing.assert_array_equal(world.step(np.zeros(2, int)).next_obs, [[1.0], [1.0]])


def test_another_number_of_states_or_seeds_is_refused_and_a_break_is_said() -> None:
    for world in (MDPWorld(random_mdp(), 2), make_world(lambda: Counting(5), 2)):
        states: Any = settable(world)
        world.reset(0)
        both = states.get_state()
        with pytest.raises(UsageError, match="has 2 environments, got 1 states"):
            states.set_state(both[:1])
        with pytest.raises(UsageError, match="has 2 environments, got 3 seeds"):
            states.set_state(both, [1, 2, 3])

    class Breaking(Counting):
        def step(self, action: Any) -> Any:
            if self.count == 3:
                raise ValueError("gears")
            return super().step(action)

    world = make_world(lambda: Breaking(100), 2)
    from steepest.worlds.gymnasium_state import GymnasiumStates

    states = GymnasiumStates(world)
    world.reset(0)
    for _ in range(3):
        states.advance(np.zeros(2, int), np.ones(2, bool))
    with pytest.raises(RunError, match="environment 0 of 2 raised ValueError: gears"):
        states.advance(np.zeros(2, int), np.ones(2, bool))
