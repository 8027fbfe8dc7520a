"""Every kind of world keeps one contract: what `worlds/world.py` promises, looked at from outside.

A row is a world as somebody would name it, or a thing that somebody would write; nothing here knows what is behind it.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import gymnasium
import numpy as np
import pytest

from functional_environments import Drift
from parallel_environments import Noisy
from steepest.errors import UsageError
from steepest.spaces import Box, describe
from steepest.worlds import make_world

ENVS, STEPS = 3, 45


class Ticking(gymnasium.Env[Any, Any]):
    """As a user would write it: noise, ended by its luck after some steps, or by its limit after twelve."""

    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (2,), np.float64)
    action_space = gymnasium.spaces.Discrete(3, start=1)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.steps = 0
        return self.np_random.normal(size=2), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        assert action in self.action_space
        self.steps += 1
        return self.np_random.normal(size=2), 1.0, bool(self.np_random.random() < 0.1), self.steps >= 12, {}


@dataclass(frozen=True)
class Case:
    """spec, kwargs: as of `make_world`.  needs: a package that may not be there.  limit: steps of the longest episode.
    fresh: no two episodes begin alike.  agents: in each environment, a row each.
    leaves: its own reset leaves something of an episode that was not played to its end."""

    spec: Any
    kwargs: Any = None
    needs: str = "gymnasium"
    limit: int | None = None
    fresh: bool = True
    agents: int = 1
    leaves: bool = False

    @property
    def rows(self) -> int:
        return ENVS * self.agents


CASES = {
    "gymnasium, discrete": Case("CartPole-v1", {"max_episode_steps": 20}, limit=20),
    "gymnasium, continuous": Case("Pendulum-v1", {"max_episode_steps": 13}, limit=13),
    "gymnasium, a vector environment": Case(
        lambda: gymnasium.make_vec("CartPole-v1", ENVS, vectorization_mode="vector_entry_point", max_episode_steps=20),
        limit=20,
    ),
    "mujoco": Case("Hopper-v5", {"max_episode_steps": 15}, "mujoco", 15),
    "box2d": Case("LunarLander-v3", {"max_episode_steps": 15}, "Box2D", 15),
    "atari": Case("ALE/Pong-v5", {"max_num_frames_per_episode": 100}, "ale_py", fresh=False),
    "envpool": Case("envpool:CartPole-v1", {"max_episode_steps": 20}, "envpool", 20),
    "gymnax": Case("gymnax:CartPole-v1", {"max_steps_in_episode": 20}, "gymnax", 20),
    "gymnax, bsuite": Case("gymnax:Catch-bsuite", None, "gymnax", fresh=False),
    "mdp": Case("mdp:random", {"horizon": 6}, limit=6, fresh=False),
    "lqr": Case("lqr:double-integrator", {"horizon": 6}, limit=6, fresh=False),
    "minigrid": Case("MiniGrid-Fetch-5x5-N2-v0", {"max_steps": 15}, "minigrid", 15, fresh=False),
    "pettingzoo, all end together": Case(
        "pettingzoo:classic.rps_v2", {"max_cycles": 11}, "pettingzoo", 11, False, agents=2
    ),
    "pettingzoo, one after the other": Case(
        "pettingzoo:butterfly.knights_archers_zombies_v11",
        {"max_cycles": 40, "line_death": True},
        "pettingzoo",
        40,
        fresh=False,
        agents=4,
        leaves=True,
    ),
    "a user's environment": Case(Ticking, limit=12),
    "a user's environment of several agents": Case(Noisy, limit=12, agents=3),
    "a user's functional environment": Case(Drift(), limit=7),
}


class Row(NamedTuple):
    """obs: upon which action was taken.  later: what to act upon next."""

    obs: Any
    action: Any
    step: Any
    later: Any


def play(world: Any, seed: int, steps: int = STEPS) -> list[Row]:
    """Under random actions that depend on the seed alone."""
    space: Any = describe(world.action_space, "action")
    obs, rows = world.reset(seed), []
    rng = np.random.default_rng(seed)
    for _ in range(steps):
        shape = (world.envs, *space.shape)
        action = rng.normal(size=shape) if isinstance(space, Box) else rng.integers(space.counts, size=shape)
        obs, action = obs.copy(), action.astype(space.inside)
        step = world.step(action)
        rows.append(Row(obs, action, step, world.obs.copy()))
        obs = world.obs
    return rows


class Played(NamedTuple):
    case: Case
    world: Any
    rows: list[Row]


def make(case: Case) -> Any:
    if importlib.util.find_spec(case.needs) is None:
        pytest.skip(f"{case.needs} is not installed")
    vector = isinstance(case.spec, Callable) and not isinstance(case.spec, type)
    return make_world(case.spec(), case.rows) if vector else make_world(case.spec, case.rows, **(case.kwargs or {}))


@pytest.fixture(scope="module", params=list(CASES))
def played(request: pytest.FixtureRequest) -> Any:
    case = CASES[request.param]
    world = make(case)
    yield Played(case, world, play(world, 5))
    world.close()
    world.close()  # may be called twice


def test_what_it_says_of_itself(played: Played):
    world = played.world
    assert world.name
    assert world.backend
    assert world.envs == played.case.rows
    describe(world.observation_space, "observation")


def test_shapes_and_dtypes(played: Played):
    observation = describe(played.world.observation_space, "observation")
    for row in played.rows:
        for obs in (row.obs, row.step.next_obs, row.later):
            assert obs.shape == (played.case.rows, *observation.shape)
            assert obs.dtype == observation.inside
            assert np.isfinite(obs).all()
        assert row.step.reward.shape == (played.case.rows,)
        assert row.step.reward.dtype == np.float32
        for flag in row.step[2:5]:
            assert flag.shape == (played.case.rows,)
            assert flag.dtype == bool


def test_a_step_leads_to_where_the_next_one_begins(played: Played):
    for row in played.rows:
        goes_on = row.step.valid & ~(row.step.terminated | row.step.truncated)
        np.testing.assert_array_equal(row.step.next_obs[goes_on], row.later[goes_on])


def test_a_ghost_follows_an_end_and_carries_nothing(played: Played):
    """One, where the environment resets itself; of several agents as many as it takes until the last has ended."""
    agents, ended = played.case.agents, np.zeros(played.case.rows, bool)
    for row in played.rows:
        ghost = ~row.step.valid
        assert not (ghost & ~ended).any()
        assert not row.step.reward[ghost].any()
        assert not (row.step.terminated | row.step.truncated)[ghost].any()
        ended = row.step.terminated | row.step.truncated
        if agents > 1:
            assert row.step.valid.reshape(-1, agents).any(axis=1).all()
            ended |= ghost


def test_an_episode_ends_and_the_next_begins_elsewhere(played: Played):
    """The successor at an end is not the first observation of what comes next, and lengths are those of the limit."""
    lengths, ends = np.zeros(played.case.rows, int), 0
    for t, row in enumerate(played.rows):
        lengths += row.step.valid
        done = row.step.terminated | row.step.truncated
        ends += done.sum()
        if played.case.limit is not None:
            assert (lengths <= played.case.limit).all()
            assert (done == (lengths == played.case.limit))[~row.step.terminated & row.step.valid].all()
        for b in np.flatnonzero(done) if played.case.fresh else ():
            begins = next((after.obs[b] for after in played.rows[t + 1 :] if after.step.valid[b]), None)
            assert begins is None or (begins != row.step.next_obs[b]).any()
        lengths[done] = 0
    assert ends


def test_a_finite_horizon_is_an_end_and_a_time_limit_a_cut(played: Played):
    if played.world.backend in ("mdp", "lqr"):
        assert not any(row.step.truncated.any() for row in played.rows)
    elif played.case.spec == "Pendulum-v1":
        assert any(row.step.truncated.any() for row in played.rows)
        assert not any(row.step.terminated.any() for row in played.rows)


def test_the_same_seed_gives_the_same_to_the_bit_and_another_does_not(played: Played):
    world = make(played.case) if played.case.leaves else played.world
    again, other = play(world, 5), play(world, 6)
    for row, same in zip(played.rows, again, strict=True):
        for a, b in ((row.obs, same.obs), (row.later, same.later), *zip(row.step[:5], same.step[:5], strict=True)):
            np.testing.assert_array_equal(a, b)
    assert any((row.later != elsewhere.later).any() for row, elsewhere in zip(played.rows, other, strict=True))


def test_environments_have_seeds_of_their_own(played: Played):
    first, second, third = np.moveaxis(np.stack([row.later for row in played.rows]), 1, 0)[:: played.case.agents]
    assert not np.array_equal(first, second)
    assert not np.array_equal(second, third)


def test_neighbouring_seeds_share_no_environment(played: Played):
    if not played.case.fresh:
        return
    first, second = ({obs.tobytes() for obs in played.world.reset(seed)} for seed in (0, 1))
    assert len(first) == played.case.rows
    assert not first & second


def test_actions_of_another_shape_are_refused(played: Played):
    played.world.reset(0)
    with pytest.raises(UsageError, match="shape"):
        played.world.step(np.zeros((played.case.rows + 1, *(played.world.action_space.shape or ()))))


def test_what_was_given_out_does_not_change(played: Played):
    obs = played.world.reset(3)
    kept = obs.copy()
    for row in play(played.world, 3, 3):
        assert np.isfinite(row.step.reward).all()
    np.testing.assert_array_equal(obs, kept)
