"""Gymnasium worlds: one canonical transition out of three autoreset modes, and errors that name what broke."""

from __future__ import annotations

import subprocess
import sys

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete
from gymnasium.vector import AutoresetMode

from environments import MODES, Broken, Chain, Counting, Spaces, Walk, vector
from steepest.errors import RunError, UsageError
from steepest.sampling.rollout import collect
from steepest.worlds import environment_seeds, make_world
from steepest.worlds.gymnasium import GymnasiumWorld
from steepest.worlds.gymnasium_making import make_gymnasium


def act_zero(obs, t):
    return np.zeros(len(obs), int)


# what a transition is


@pytest.mark.parametrize("mode", MODES)
def test_next_obs_is_the_true_successor_and_obs_what_to_act_upon(mode):
    world = GymnasiumWorld(vector([Counting(2), Counting(3, terminates=True), Counting(5)], mode))
    world.reset(0)
    rollout, _ = collect(world, act_zero, 20)
    valid = rollout.valid
    np.testing.assert_array_equal(rollout.next_obs[valid], rollout.obs[valid] + 1)
    assert rollout.next_obs[valid][:, 0].max() == 5
    limit = np.array([2, 3, 5])
    np.testing.assert_array_equal(
        (rollout.terminated | rollout.truncated)[valid], (rollout.next_obs[..., 0] == limit)[valid]
    )
    assert rollout.terminated[:, 1].any()
    assert not rollout.terminated[:, [0, 2]].any()
    assert not rollout.truncated[:, 1].any()
    assert valid.all() == (mode != AutoresetMode.NEXT_STEP)
    assert rollout.obs.dtype == rollout.next_obs.dtype == rollout.reward.dtype == np.float32


def test_ghost_rows_follow_every_end_and_carry_nothing():
    world = GymnasiumWorld(vector([Counting(2), Counting(3)], AutoresetMode.NEXT_STEP))
    world.reset(0)
    rollout, _ = collect(world, act_zero, 9)
    done = rollout.terminated | rollout.truncated
    np.testing.assert_array_equal(~rollout.valid[1:], done[:-1])
    assert (rollout.reward[~rollout.valid] == 0).all()
    assert not done[~rollout.valid].any()


def test_a_reset_forgets_that_a_ghost_was_due():
    world = GymnasiumWorld(vector([Counting(1)], AutoresetMode.NEXT_STEP))
    world.reset(0)
    world.step(np.zeros(1, int))
    world.reset(0)
    assert world.step(np.zeros(1, int)).valid.all()


@pytest.mark.parametrize("mode", MODES[1:])
def test_all_autoreset_modes_see_the_same_transitions(mode):
    def paths(mode):
        world = GymnasiumWorld(vector([Walk() for _ in range(3)], mode))
        world.reset(7)
        rollout, _ = collect(world, lambda obs, t: np.tanh(3 * obs[:, :1] + 0.2), 120)
        assert rollout.terminated.any()
        assert rollout.truncated.any()
        return [[column[rollout.valid[:, b], b] for column in rollout if column is not None] for b in range(3)]

    for b, (reference, path) in enumerate(zip(paths(MODES[0]), paths(mode), strict=True)):
        n = min(len(reference[0]), len(path[0]))
        assert n > 60, b
        for x, y in zip(reference, path, strict=True):
            np.testing.assert_array_equal(x[:n], y[:n])


def test_observations_that_are_kept_do_not_change():
    # in float32 the cast alone would not copy gymnasium's buffer
    world = make_world(lambda: Spaces(observation_space=Box(0, np.inf, (1,), np.float32)), 2)
    first = world.reset(0)
    second = world.step(np.zeros(2, int)).next_obs
    world.step(np.zeros(2, int))
    np.testing.assert_array_equal([first[:, 0], second[:, 0]], [[0, 0], [1, 1]])


# actions on the way in


def test_box_actions_are_clipped_only_on_the_way_in():
    env = Walk(high=0.5)
    world = make_world(env)
    world.reset(0)
    rollout, _ = collect(world, lambda obs, t: np.full((1, 1), 9.0), 2)
    assert (rollout.action == 9.0).all()
    assert [float(a[0]) for a in env.taken] == [0.5, 0.5]
    assert env.taken[0].dtype == np.float32


def test_discrete_actions_and_states_count_from_zero():
    world = make_world(Chain)
    np.testing.assert_array_equal(world.reset(0), [0])
    np.testing.assert_array_equal(world.step(np.array([2])).next_obs, [2])
    assert world.obs.dtype == np.int32


@pytest.mark.parametrize("action", [np.zeros(3, int), np.zeros((2, 1), int)])
def test_actions_of_a_wrong_shape_are_refused(action):
    world = make_world(lambda: Counting(5), 2)
    world.reset(0)
    with pytest.raises(UsageError, match=r"actions of shape \(2,\)"):
        world.step(action)


def test_an_action_that_is_not_finite_blames_the_policy():
    world = make_world(lambda: Walk(), 2)
    world.reset(0)
    with pytest.raises(RunError, match=r"environment 1 of 2 was to be given an action that is not finite: nan"):
        world.step(np.array([[0.0], [np.nan]]))


# seeds


def test_pitfall_15_runs_with_neighbouring_seeds_share_no_environment_seed():
    assert not set(environment_seeds(0, 1000)) & set(environment_seeds(1, 1000))
    assert len(set(environment_seeds(0, 1000))) == 1000
    assert environment_seeds(3, 5) == environment_seeds(3, 8)[:5]
    assert all(0 <= s < 2**31 for s in environment_seeds(0, 1000))


def test_pitfall_15_these_seeds_reach_the_environments():
    seen = []
    for seed in (0, 1):
        envs = [Walk() for _ in range(4)]
        GymnasiumWorld(vector(envs, AutoresetMode.NEXT_STEP)).reset(seed)
        assert [env.seeds for env in envs] == [[s] for s in environment_seeds(seed, 4)]
        seen += [env.seeds[0] for env in envs]
    assert len(set(seen)) == 8


def test_a_natively_vectorised_environment_takes_one_seed():
    env = gymnasium.make_vec("CartPole-v1", 3, vectorization_mode="vector_entry_point")
    world = make_world(env)
    first = world.reset(0).copy()
    np.testing.assert_array_equal(first, world.reset(0))
    assert (first != world.reset(1)).any()
    rollout, _ = collect(world, act_zero, 30)
    done = rollout.terminated | rollout.truncated
    np.testing.assert_array_equal(~rollout.valid[1:], done[:-1])
    assert done.any()


# what was asked for


@pytest.mark.parametrize(
    ("given", "suggested"),
    [
        ("CartPol-v1", "CartPole-v1"),
        ("Hopper-v9", "Hopper-v5"),
        ("hopper-v5", "Hopper-v5"),
        ("LunarLander-v2", "LunarLander-v3"),
        ("gymnasium:Hoper-v5", "Hopper-v5"),
        ("gymnasuim:Hopper-v5", "gymnasium:Hopper-v5"),
    ],
)
def test_an_unknown_id_suggests_the_nearest(given, suggested):
    with pytest.raises(UsageError, match=rf"did you mean '{suggested}'"):
        make_world(given, 1)


@pytest.mark.parametrize("given", ["no such thing", "", "no_such_module:Foo-v0", "json:Foo-v0", ":Foo-v0"])
def test_nonsense_is_refused_without_a_guess(given):
    with pytest.raises(UsageError):
        make_world(given, 1)


def test_a_missing_package_names_the_extra(monkeypatch):
    for name in [m for m in sys.modules if m.startswith(("gymnasium.envs.mujoco", "mujoco"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "mujoco", None)
    with pytest.raises(UsageError, match=r'Hopper-v5.*pip install "steepest\[mujoco\]"'):
        make_world("Hopper-v5", 1)


def test_a_module_that_only_a_file_names_is_not_imported(monkeypatch):
    monkeypatch.delitem(sys.modules, "this", raising=False)
    for given in ("this:Foo-v0", "gymnasium:this:Foo-v0"):
        with pytest.raises(UsageError, match="on the command line"):
            make_world(given, 1, allow_import=False)
    assert "this" not in sys.modules
    make_world("gymnasium:CartPole-v1", 1, allow_import=False).close()


def test_a_module_registers_its_environments(tmp_path, monkeypatch):
    (tmp_path / "some_worlds.py").write_text(
        "import gymnasium\n"
        "gymnasium.register('SomeCounting-v0', entry_point='environments:Counting', kwargs={'limit': 4})\n"
    )
    (tmp_path / "some_broken_worlds.py").write_text("import some_package_that_is_missing\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr("gymnasium.envs.registration.registry", gymnasium.registry)
    world = make_world("some_worlds:SomeCounting-v0", 2)
    assert (world.name, world.backend, world.envs) == ("some_worlds:SomeCounting-v0", "gymnasium", 2)
    gymnasium.registry.pop("SomeCounting-v0")
    with pytest.raises(UsageError, match=r"importing 'some_broken_worlds' raised ModuleNotFoundError"):
        make_world("some_broken_worlds:Foo-v0", 2)


def test_a_world_passes_through():
    world = make_world(lambda: Counting(3), 2)
    assert make_world(world) is world
    assert make_world(world, 2) is world
    with pytest.raises(UsageError, match="made with 2 environments, not 3"):
        make_world(world, 3)


def test_names():
    assert make_world("CartPole-v1", 2).name == "CartPole-v1"
    assert make_world(lambda: Counting(3), 2).name == "Counting"
    assert make_world(Counting(3)).name == "Counting"
    assert make_world(gymnasium.make("CartPole-v1")).name == "CartPole-v1"
    assert make_gymnasium(Counting, 2, limit=3).envs == 2


SHARED = Counting(3)


@pytest.mark.parametrize(
    ("spec", "envs", "kwargs", "message"),
    [
        (Counting(3), 4, {}, "1 environment.s., not 4"),
        (Counting(3), 1, {"limit": 3}, "takes no more arguments"),
        (vector([Counting(3)], MODES[0]), 4, {}, "1 environment.s., not 4"),
        (lambda: SHARED, 2, {}, "same object twice"),
        (lambda: 3, 2, {}, "returned a int"),
        (lambda: Counting(), 2, {}, "factory raised TypeError"),  # pyright: ignore[reportCallIssue]
        (3, 2, {}, "got int"),
        ("CartPole-v1", 0, {}, "at least 1"),
        ("CartPole-v1", 1, {"lenght": 3}, "unknown option of CartPole-v1 'lenght'"),
    ],
)
def test_what_cannot_be_made_says_why(spec, envs, kwargs, message):
    with pytest.raises(UsageError, match=message):
        make_world(spec, envs, **kwargs)


@pytest.mark.parametrize(
    ("spaces", "message"),
    [
        ({"observation_space": Dict(x=MultiBinary((2, 2)))}, r"because of its Dict\['x'\].MultiBinary; supported"),
        ({"observation_space": MultiDiscrete(np.array([[2, 3]]))}, r"MultiDiscrete.*supported: Discrete"),
        ({"action_space": MultiDiscrete(np.array([[2, 3]]))}, r"MultiDiscrete.*supported: Discrete"),
        ({"action_space": MultiBinary((2, 2))}, r"MultiBinary.*supported"),
        ({"action_space": Box(-1, 1, (2, 2))}, r"Box.*supported"),
        ({"action_space": Box(0, 9, (2,), np.int32)}, r"Box.*supported"),
    ],
)
def test_a_space_that_is_not_supported_is_named(spaces, message):
    with pytest.raises(UsageError, match=message):
        make_world(Spaces(**spaces))


@pytest.mark.parametrize("space", [Box(0, 9, (2,), np.int32), Box(0, 1, (2, 2)), Discrete(4)])
def test_other_box_and_discrete_observations_are_supported(space):
    assert make_world(Spaces(observation_space=space)).observation_space == space


def test_a_vector_environment_must_name_its_autoreset_mode():
    env = vector([Counting(3)], MODES[0])
    del env.metadata["autoreset_mode"]
    with pytest.raises(UsageError, match=r'metadata\["autoreset_mode"\] is None'):
        make_world(env)


def test_a_world_must_be_reset_first():
    world = make_world(Counting(3))
    with pytest.raises(UsageError, match="reset"):
        _ = world.obs
    with pytest.raises(UsageError, match="reset"):
        world.step(np.zeros(1, int))


# what breaks


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (lambda: Broken(obs=np.array([np.nan])), "observation that is not finite: nan in entry 0"),
        (lambda: Broken(obs=np.array([-np.inf])), "observation that is not finite: -inf in entry 0"),
        (lambda: Broken(reward=np.inf), "reward that is not finite: inf"),
        (lambda: Broken(obs=np.zeros(2)), r"observation of shape \(2,\) and dtype float64; its space is Box"),
        (lambda: Broken(obs=np.array(["a"])), r"observation of shape \(1,\) and dtype <U1; its space is Box"),
        (lambda: Broken(error=KeyError("wheel")), "raised KeyError: 'wheel'"),
    ],
)
def test_a_broken_environment_is_named_with_its_index_and_step(broken, message, mode):
    world = GymnasiumWorld(vector([Counting(100), broken(), Counting(100)], mode))
    world.reset(0)
    with pytest.raises(RunError, match=rf"environment 1 of 3 .*{message}.*\(at step 3\)") as caught:
        collect(world, act_zero, 10)
    if "KeyError" in message:
        assert isinstance(caught.value.__cause__, KeyError)


def test_numbers_whose_squares_overflow_are_finite():
    world = make_world(lambda: Broken(obs=np.array([-1e30]), reward=1e30), 2)
    world.reset(0)
    rollout, _ = collect(world, act_zero, 4)
    assert (rollout.next_obs[2:] == np.float32(-1e30)).all()
    assert (rollout.reward[2:] == np.float32(1e30)).all()


def test_a_final_observation_in_the_same_step_is_checked():
    class LastIsNan(Counting):
        def step(self, action):
            obs, reward, terminated, truncated, info = super().step(action)
            return (obs * np.nan if truncated else obs), reward, terminated, truncated, info

    world = GymnasiumWorld(vector([Counting(9), LastIsNan(2)], AutoresetMode.SAME_STEP))
    world.reset(0)
    with pytest.raises(RunError, match=r"environment 1 of 2 .*not finite.*at step 2"):
        collect(world, act_zero, 4)


def test_a_state_out_of_range_is_named():
    class Beyond(Chain):
        def step(self, action):
            return np.int64(8), 0.0, False, False, {}

    world = make_world(Beyond, 1)
    world.reset(0)
    with pytest.raises(RunError, match=r"the state 8, which is not in Discrete\(3, start=5\)"):
        world.step(np.zeros(1, int))


def test_an_environment_that_cannot_reset_is_named():
    class Stuck(Counting):
        def reset(self, *, seed=None, options=None):
            raise OSError("no display")

    with pytest.raises(RunError, match=r"Stuck: environment 0 of 2 raised OSError: no display \(at the reset\)"):
        make_world(lambda: Stuck(3), 2).reset(0)


def test_importing_worlds_loads_neither_a_simulator_nor_jax():
    program = "import sys, steepest.worlds; print([m for m in ('gymnasium', 'jax') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
