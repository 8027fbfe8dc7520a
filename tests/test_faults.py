"""Faults of environments: each costs its own row and its episode, is counted and written down, and nothing else."""

from __future__ import annotations

import functools
import json
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from multiprocessing import Pipe
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

import steepest as st
from environments import (
    Counting,
    Endless,
    Leaving,
    Orphaning,
    Signs,
    Slow,
    Twice,
    Unmade,
    Wrong,
    hang,
    killed,
    leave,
    wheel,
)
from steepest.agent import Agent
from steepest.batch import Rollout
from steepest.normaliser import Normaliser
from steepest.parameters import split
from steepest.policies import MlpCategorical
from steepest.runs import RunFolder
from steepest.sampling.acting import host_actor
from steepest.sampling.advantages import batch_from_rollout, gae
from steepest.sampling.apart import WorldApart
from steepest.sampling.fault_tally import FaultTally
from steepest.sampling.groups import Groups, Order, make_groups
from steepest.sampling.reward_scale import RewardScale
from steepest.sampling.rollout import Collector, empty, layout
from steepest.sampling.workers import Workers
from steepest.spaces import describe
from steepest.training.engine import EVALUATE, seed_of
from steepest.training.evaluation import play
from steepest.worlds import environment_seeds, make_world
from steepest.worlds.faults import ATTEMPTS, Fault, Irreparable
from steepest.worlds.remaking import remake
from steepest.worlds.settable import keeps
from steepest.worlds.world import Transition

SECOND = environment_seeds(7, 3)[1]
"""The seed of environment 1 of 3, of a world that is reset with 7."""
POLICY, OF_TWO = (MlpCategorical(inputs, 2, (8,), key=jax.random.key(0)) for inputs in (1, 2))


def act_zero(obs: np.ndarray, t: int) -> np.ndarray:
    return np.zeros(len(obs), int)


def bearing(env: Callable[..., Any], envs: int = 3, seed: int | None = 7) -> tuple[Collector, list[Fault]]:
    """A collector of a world that bears with faults, after its reset; and its faults."""
    found: list[Fault] = []
    world: Any = make_world(env, envs)
    world.bear(found.append)
    collector = Collector(world)
    collector.reset(seed)
    return collector, found


# what a fault costs

WAYS: list[tuple[Callable[..., Any], str, str]] = [
    (wheel, "raised", "raised KeyError: 'wheel'"),
    (lambda *right: exit(2), "raised", "raised SystemExit: 2"),
    (lambda obs, *rest: (obs * np.nan, *rest), "observation", "an observation that is not finite: nan in entry 0"),
    (lambda obs, *rest: (obs + np.inf, *rest), "observation", "an observation that is not finite: inf in entry 0"),
    (lambda obs, *rest: (obs * 1e300, *rest), "observation", r"not finite: 3e\+300 in entry 0"),
    (
        lambda obs, *rest: (np.zeros(2), *rest),
        "observation",
        r"of shape \(2,\) and dtype float64; its space is Box",
    ),
    (lambda obs, *rest: (["a"], *rest), "observation", r"of shape \(1,\) and dtype <U1; its space is Box"),
    (lambda obs, reward, *rest: (obs, np.nan, *rest), "reward", "a reward that is not finite: nan"),
    (lambda obs, reward, *rest: (obs, -1e39, *rest), "reward", r"a reward that is not finite: -1e\+39"),
    (lambda obs, reward, *rest: (obs, None, *rest), "reward", "a reward that is not a number, but a NoneType"),
    (lambda obs, reward, *rest: (obs, "1", *rest), "reward", "a reward that is not a number, but a str"),
    (lambda obs, reward, *rest: (obs, 1j, *rest), "reward", "a reward that is not a number, but a complex"),
    (lambda *right: None, "answer", "an answer that is none"),
    (lambda *right: right[:4], "answer", "an answer that is none"),
    (lambda *right: (*right[:4], None), "answer", "an answer that is none"),
]


@pytest.mark.parametrize(("answer", "kind", "message"), WAYS)
def test_a_fault_costs_its_row_and_its_episode_and_nothing_else(answer: Any, kind: str, message: str) -> None:
    collector, found = bearing(functools.partial(Wrong, 5, SECOND, answer))
    rollout, episodes = collector.collect(act_zero, 8)
    whole, _ = bearing(functools.partial(Counting, 5))[0].collect(act_zero, 8)
    for column, right in zip(rollout[:7], whole[:7], strict=True):
        np.testing.assert_array_equal(column[:, [0, 2]], right[:, [0, 2]])
    np.testing.assert_array_equal(rollout.obs[:, 1, 0], [0, 1, 2, 0, 1, 2, 3, 4])
    np.testing.assert_array_equal(rollout.next_obs[:, 1, 0], [1, 2, 2, 1, 2, 3, 4, 5])
    np.testing.assert_array_equal(rollout.reward[:, 1], [1, 1, 0, 1, 1, 1, 1, 1])
    np.testing.assert_array_equal(rollout.valid[:, 1], [1, 1, 0, 1, 1, 1, 1, 1])
    np.testing.assert_array_equal(rollout.truncated[:, 1], [0, 0, 1, 0, 0, 0, 0, 1])
    assert not rollout.terminated.any()
    assert [(e.env, e.ret, e.length) for e in episodes] == [(0, 5, 5), (2, 5, 5), (1, 5, 5)]
    (fault,) = found
    assert fault[:3] == (1, 3, kind)
    with pytest.raises(st.RunError, match=rf"^Wrong: environment 1 of 3 .*{message}.*\(at step 3\) \(action 0; "):
        FaultTally(0)(fault)


def faulty_rollout() -> Rollout:
    return bearing(functools.partial(Wrong, 5, SECOND, wheel))[0].collect(act_zero, 8)[0]


def test_what_came_before_a_fault_is_bootstrapped_as_at_a_truncation() -> None:
    rollout = faulty_rollout()
    value = np.random.default_rng(0).normal(size=(8, 3)).astype(np.float32)
    next_value = np.random.default_rng(1).normal(size=(8, 3)).astype(np.float32)
    ends = rollout.terminated, rollout.truncated, rollout.valid
    advantage, _ = gae(rollout.reward, value, next_value, *ends, gamma=0.9, lam=0.8)
    before, after = slice(0, 2), slice(3, 8)
    for part in (before, after):
        cut = np.zeros_like(rollout.truncated[part])
        cut[-1] = True  # alone, as an episode that was cut there
        reward, here, ahead, never = rollout.reward[part], value[part], next_value[part], rollout.terminated[part]
        alone, _ = gae(reward, here, ahead, never, cut, np.ones_like(cut), gamma=0.9, lam=0.8)
        np.testing.assert_array_equal(np.asarray(advantage)[part, 1], np.asarray(alone)[:, 1])
    done = rollout.truncated
    batch = batch_from_rollout(rollout.obs, rollout.action, advantage, rollout.valid, done)
    weight, path = np.asarray(batch.weight).reshape(8, 3)[:, 1], np.asarray(batch.segment).reshape(8, 3)[:, 1]
    np.testing.assert_array_equal(weight, np.float32(1 / 21) * np.array([1, 1, 0, 1, 1, 1, 1, 1]))
    assert path[0] == path[1] != path[3] == path[7]


def test_a_fault_is_in_no_statistics() -> None:
    rollout = faulty_rollout()
    seen = Normaliser.empty((1,)).updated(rollout.obs[rollout.valid])
    assert seen.count == 21
    np.testing.assert_allclose(seen.mean, (2 * (0 + 1 + 2 + 3 + 4 + 0 + 1) + 0 + 1 + 0 + 1 + 2 + 3 + 4) / 21)
    scale = RewardScale.empty(3).updated(rollout, 0.5)
    sums = [1, 1.5, 1, 1.5, 1.75, 1.875, 1.9375]  # of environment 1: two steps, the fault, five steps
    others = 2 * [1, 1.5, 1.75, 1.875, 1.9375, 1, 1.5]
    assert scale.statistics.count == 21
    np.testing.assert_allclose(scale.statistics.mean, np.mean(sums + others))


def test_a_fault_in_the_first_row_of_a_rollout_ends_the_episode_of_the_one_before() -> None:
    collector, found = bearing(functools.partial(Wrong, 5, SECOND, wheel))
    assert not collector.collect(act_zero, 2)[1]
    _, episodes = collector.collect(act_zero, 6)
    assert len(found) == 1
    assert [(e.env, e.ret, e.length) for e in episodes if e.env == 1] == [(1, 5, 5)]  # and not 7


# a new beginning


class Recording(Wrong):
    """Writes down every seed that any of them is reset with."""

    seeds: list[int | None]

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        Recording.seeds.append(seed)
        return super().reset(seed=seed)


def test_a_new_environment_has_a_seed_of_its_own_the_same_for_the_same_fault() -> None:
    histories = []
    for seed in (7, 7, 8):
        Recording.seeds = []
        second = environment_seeds(seed, 3)[1]
        collector, found = bearing(functools.partial(Recording, 50, second, wheel), seed=seed)
        collector.collect(act_zero, 9)
        assert len(found) == 1
        histories.append(Recording.seeds)
    a, b, other = histories
    assert a == b
    assert len(set(a + other)) == 8
    assert all(type(seed) is int for seed in a)


class Stuck(Counting):
    """Its second reset fails, and that of every one that is made after it."""

    resets = 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        Stuck.resets += 1
        if Stuck.resets > 1:
            raise OSError("no display")
        return super().reset(seed=seed)


def test_an_environment_that_cannot_begin_again_ends_the_run_whatever_is_borne_with() -> None:
    Stuck.resets = 0
    collector, found = bearing(functools.partial(Stuck, 2), envs=1)
    times = rf"OSError: no display, when it was made again \(at step 3\).*{ATTEMPTS} times in a row"
    with pytest.raises(Irreparable, match=times):
        collector.collect(act_zero, 9)
    assert [fault.kind for fault in found] == ["raised"] * (1 + ATTEMPTS)


def test_what_exists_already_can_only_break() -> None:
    world: Any = make_world(Wrong(5, environment_seeds(7, 1)[0], wheel))
    world.bear([].append)
    world.reset(7)
    with pytest.raises(st.RunError, match=r"environment 0 of 1 raised KeyError: 'wheel' \(at step 3\)") as caught:
        Collector(world).collect(act_zero, 9)
    assert isinstance(caught.value.__cause__, KeyError)


def test_one_too_many_ends_the_run_with_the_last_of_them() -> None:
    tally = FaultTally(3)
    for i, kind in enumerate(("raised", "hung", "raised")):
        tally(Fault(5 - i, 1, kind, f"W: environment {5 - i} did this", "reward inf"))
    assert [fault.env for fault in tally.take()] == [3, 4, 5]
    assert not tally.take()
    with pytest.raises(st.RunError) as caught:
        tally(Fault(0, 9, "raised", "W: environment 0 did that (at step 9)", "reward nan"))
    said = str(caught.value)
    assert said.startswith("more than 3 faults of environments (raised 3, hung 1); the last: W: environment 4 did this")
    assert said.endswith("W: environment 0 did that (at step 9) (reward nan)")


# workers

STEPS, ENVS, SIZE = 12, 5, 2


def order(seed: int | None, policy: Any) -> tuple[Any, Order]:
    actor = host_actor(policy, SIZE)
    return actor, Order(actor.export(split(policy)[0], None), (7,), seed)


def seed_in_group(seed: int, env: int) -> int:
    """Of an environment, where the order begins with `seed`."""
    group = int(np.random.SeedSequence((seed, env // SIZE)).generate_state(1)[0] >> 1)
    return environment_seeds(group, SIZE)[env % SIZE]


def form(env: Callable[..., Any]) -> Any:
    world = make_world(env)
    return describe(world.observation_space, "observation"), describe(world.action_space, "action")


def here(env: Callable[..., Any], policy: Any = POLICY) -> tuple[Rollout, list[Fault]]:
    """A rollout in this process, and its faults."""
    actor, first = order(0, policy)
    faults = FaultTally(10**6)
    rollout = empty(STEPS, ENVS, *form(env))
    worlds = make_groups(lambda envs: make_world(env, envs), range(3), SIZE, ENVS)
    Groups(worlds, SIZE, ENVS, actor, faults).collect(first, rollout)
    return rollout, faults.take()


def there(
    env: Callable[..., Any], count: int, policy: Any = POLICY, timeout: float = 60.0
) -> tuple[list[Rollout], list[Fault]]:
    """Two rollouts by workers, and their faults."""
    actor, first = order(0, policy)
    faults = FaultTally(10**6)
    workers = Workers(count, remake(env), SIZE, ENVS, layout(STEPS, ENVS, *form(env)), faults, timeout)
    rollouts = []
    try:
        workers.act_with(actor)
        for each in (first, first._replace(seed=None)):
            workers.start(each)
            rollouts.append(workers.finish()[0])
        return [Rollout(*(None if x is None else np.copy(x) for x in rollout)) for rollout in rollouts], faults.take()
    finally:
        workers.close()


def test_faults_that_environments_commit_themselves_are_the_same_bits_in_workers(tmp_path: Path) -> None:
    ways = [way for way, (kind, _) in Signs.WAYS.items() if kind not in ("died", "hung")]
    rollout, faults = here(functools.partial(Signs, str(tmp_path / "here"), 0.15, ways), OF_TWO)
    assert len(faults) == len((tmp_path / "here").read_text().split()) > 5
    (first, _), found = there(functools.partial(Signs, str(tmp_path / "there"), 0.15, ways), 2, OF_TWO)
    for x, y in zip(first[:7], rollout[:7], strict=True):
        np.testing.assert_array_equal(x, y)
    assert len(found) == len((tmp_path / "there").read_text().split()) > len(faults)  # of two rollouts
    assert [fault for fault in found if fault.step <= STEPS] == faults


@pytest.mark.parametrize(
    ("answer", "kind", "message"),
    [
        (leave, "died", "worker 1 of 2, with environments 2 to 4 of 5, ended with exit code 3 in step 3"),
        (killed, "died", "worker 1 of 2, with environments 2 to 4 of 5, was killed by SIGKILL in step 3"),
        (hang, "hung", "worker 1 of 2, with environments 2 to 4 of 5, gave no sign of life for "),
    ],
)
def test_a_worker_that_is_lost_costs_its_first_row_and_what_was_under_way(answer: Any, kind: str, message: str) -> None:
    # environments 0 and 1 are worker 0's; in worker 1 environment 2 raises before environment 3 ends the process
    env = functools.partial(Twice, seed_in_group(0, 2), wheel, seed_in_group(0, 3), answer)
    (first, second), faults = there(env, 2, timeout=2.0)
    right, _ = here(functools.partial(Counting, 5))
    for x, y in zip(first[:7], right[:7], strict=True):
        np.testing.assert_array_equal(x[:, :2], y[:, :2])
    assert not first.valid[0, 2:].any()
    assert first.truncated[0, 2:].all()
    np.testing.assert_array_equal(first.obs[:, 2:, 0].T, [[0, 0, 1, 2, 3, 4, 5, 0, 1, 2, 3, 4]] * 3)
    np.testing.assert_array_equal(first.valid[:, 2:].T, [[0, 1, 1, 1, 1, 1, 0, 1, 1, 1, 1, 1]] * 3)
    assert second.valid[1:].any()
    assert not second.valid.all()
    np.testing.assert_array_equal(second.obs[0, :, 0], [0, 0, 5, 5, 5])  # both go on
    assert [(fault.env, fault.step, fault.kind) for fault in faults] == [(2, 2, "raised"), (3, 3, kind)]
    assert faults[1].message.startswith(message)
    assert faults[1].message.endswith("of environment 3")


def test_a_worker_that_is_slow_is_not_lost() -> None:
    _, faults = there(functools.partial(Slow, 9), 1, timeout=1.5)  # a rollout takes 3 s
    assert not faults


def test_a_worker_that_is_lost_each_time_ends_the_run() -> None:
    with pytest.raises(st.RunError, match=rf"exit code 3 in step 1 of environment \d; so it went {ATTEMPTS} times"):
        there(functools.partial(Leaving, 5), 1)


# evaluation


def test_an_evaluation_leaves_out_the_episodes_that_were_lost() -> None:
    observation, action = form(functools.partial(Counting, 5))
    agent = Agent(POLICY, observation, action)
    found: list[Fault] = []
    env = functools.partial(Wrong, 5, SECOND, wheel)
    np.testing.assert_array_equal(play(agent, make_world(env, 3), 6, 7, report=found.append), [5] * 5)
    assert len(found) == 1
    with pytest.raises(st.RunError, match="KeyError: 'wheel'"):
        play(agent, make_world(env, 3), 6, 7)
    Stuck.resets = 0
    assert not len(play(agent, make_world(functools.partial(Stuck, 2), 1), 2, 7, report=found.append)) > 1
    Stuck.resets = 1
    assert not len(play(agent, make_world(functools.partial(Stuck, 2), 1), 2, 7, report=found.append))


def apart(env: Callable[..., Any], envs: int, timeout: float = 60.0) -> Iterator[WorldApart]:
    world = WorldApart(remake(env), make_world(env), envs, timeout)
    yield world
    world.close()


def test_a_world_apart_is_the_same_world() -> None:
    here = make_world("CartPole-v1", 3)
    there = WorldApart(remake("CartPole-v1"), here, 3)
    with pytest.raises(st.UsageError, match="must be reset"):
        _ = there.obs
    for seed in (3, None, 3):
        np.testing.assert_array_equal(there.reset(seed), here.reset(seed))
        for _ in range(30):
            action = np.array([0, 1, 1])
            for x, y in zip(there.step(action), here.step(action), strict=True):
                np.testing.assert_array_equal(x, y)
            np.testing.assert_array_equal(there.obs, here.obs)
    with pytest.raises(st.UsageError, match=r"actions of shape \(3,\)"):
        there.step(np.zeros(2))
    there.close()
    there.close()
    lock = threading.Lock()
    with pytest.raises(st.UsageError, match="the environment cannot be sent"):
        WorldApart(remake(lambda: Counting(5) if lock else None), here, 3)


@pytest.mark.parametrize(("answer", "kind"), [(wheel, "raised"), (leave, "died"), (killed, "died"), (hang, "hung")])
def test_an_evaluation_apart_loses_the_episode_that_broke_and_no_other(answer: Any, kind: str) -> None:
    observation, action = form(functools.partial(Counting, 5))
    agent, found = Agent(POLICY, observation, action), list[Fault]()
    for world in apart(functools.partial(Wrong, 5, SECOND, answer), 3, timeout=2.0):
        np.testing.assert_array_equal(play(agent, world, 6, 7, report=found.append), [5] * 5)
        assert [(fault.env, fault.step, fault.kind) for fault in found] == [(1, 3, kind)]


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (wheel, "environment 1 of 3 raised KeyError: 'wheel'"),
        (leave, "3 environments, ended with exit code 3 in step 3 of environment 1"),
    ],
)
def test_an_evaluation_apart_that_bears_nothing_says_what_broke(answer: Any, message: str) -> None:
    observation, action = form(functools.partial(Counting, 5))
    for world in apart(functools.partial(Wrong, 5, SECOND, answer), 3):
        with pytest.raises(st.RunError, match=message):
            play(Agent(POLICY, observation, action), world, 6, 7)


def test_an_evaluation_apart_that_breaks_each_time_ends() -> None:
    observation, action = form(functools.partial(Counting, 5))
    agent, found = Agent(POLICY, observation, action), list[Fault]()
    for world in apart(functools.partial(Leaving, 5), 3):
        assert not len(play(agent, world, 2, 7, report=found.append))
    assert 1 < len(found) < 9
    assert {fault.kind for fault in found} == {"died"}
    found.clear()
    for world in apart(functools.partial(Unmade, os.getpid()), 2):
        assert not len(play(agent, world, 2, 7, report=found.append))
    assert [fault.step for fault in found] == [-1] * (ATTEMPTS + 1)


def test_a_hang_that_is_not_borne_with_is_known_by_its_own_timeout() -> None:
    observation, action = form(functools.partial(Counting, 5))
    for world in apart(functools.partial(Endless, 5), 2, timeout=2.0):
        begin = time.monotonic()
        with pytest.raises(st.RunError, match=r"gave no sign of life for 2.* in step 1 of environment 0"):
            play(Agent(POLICY, observation, action), world, 2, 7)
        assert time.monotonic() - begin < 30  # not the minute that a start may take


def test_a_process_that_leaves_another_behind_has_died_and_so_has_that(tmp_path: Path) -> None:
    observation, action = form(functools.partial(Counting, 5))
    found, log = list[Fault](), tmp_path / "log"
    for world in apart(functools.partial(Orphaning, str(log)), 1):
        assert not len(play(Agent(POLICY, observation, action), world, 1, 7, report=found.append))
    assert [fault.kind for fault in found] == ["died"]
    (orphan,) = map(int, log.read_text().split())
    for _ in range(100):
        if not Path(f"/proc/{orphan}").exists() or "Z" in Path(f"/proc/{orphan}/stat").read_text().split()[2]:
            break
        time.sleep(0.05)
    else:
        os.kill(orphan, signal.SIGKILL)
        pytest.fail("it lives on")


def test_what_a_lost_process_had_still_to_say_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    """It writes after it was last listened to, and ends before it is listened to again."""
    ours, theirs = Pipe()
    said = Fault(0, 1, "raised", "late")

    class Process:
        connection, exited, at = ours, True, (0, 1)

        def look(self) -> str:
            return ""

        end = where = look

        def send(self, message: bytes) -> None: ...

        def kill(self) -> list[Fault]:
            return [said]

    found: list[Fault] = []
    world = WorldApart(remake("CartPole-v1"), make_world("CartPole-v1"), 1, timeout=0.1)
    world.bear(found.append)
    processes = [Process()] * (ATTEMPTS + 1)
    monkeypatch.setattr(world, "_begin", processes.pop)
    with pytest.raises(Irreparable):
        world.reset(0)
    assert [fault.message for fault in found[:1]] == ["late"]
    assert [fault.kind for fault in found] == ["raised", "died"] * (ATTEMPTS + 1)
    theirs.close()


class Lost:
    """Ten environments, of which the last ends after 20 steps and the others after 2; in the steps of `lost` all of
    them are lost by the fault of one."""

    name, backend, envs, agents = "lost", "gymnasium", 10, 1

    def __init__(self, like: Any, lost: dict[int, int]):
        self.observation_space, self.action_space, self.obs = like.observation_space, like.action_space, like.reset(0)
        self.lost, self.t, self.age = lost, 0, np.zeros(10, int)

    def bear(self, report: Any, at: Any = None) -> None:
        self.report = report

    def reset(self, seed: int | None = None) -> np.ndarray:
        return self.obs

    def step(self, action: np.ndarray) -> Transition:
        self.t += 1
        none, every = np.zeros(10, bool), np.ones(10, bool)
        if self.t in self.lost:
            self.report(Fault(self.lost[self.t], self.t, "hung", ""))
            self.age[:] = 0
            return Transition(np.zeros(10, np.float32), self.obs, none, every, none)
        self.age += 1
        over = self.age >= np.array([2] * 9 + [20])
        self.age[over] = 0
        return Transition(np.ones(10, np.float32), self.obs, over, none, every)

    def close(self) -> None: ...


@pytest.mark.parametrize("lost", [{5: 0}, {5: 0, 8: 1, 30: 2}, {1: 9}, {t: 0 for t in range(3, 70, 3)}])
def test_an_episode_that_others_ended_is_played_again_however_long_it_is(lost: dict[int, int]) -> None:
    like = make_world(functools.partial(Counting, 5), 10)
    agent = Agent(POLICY, describe(like.observation_space, "observation"), describe(like.action_space, "action"))
    world: Any = Lost(like, lost)
    returns = play(agent, world, 10, 7, report=lambda fault: None)
    if len(lost) > 10 or 9 in lost.values():  # its own doing; or more than there is patience for
        assert returns.tolist() == [2] * 9
    else:
        assert returns.tolist() == [2] * 9 + [20]


def test_an_evaluation_of_a_run_with_workers_bears_a_hang(tmp_path: Path) -> None:
    first = environment_seeds(seed_of(0, EVALUATE, 1), 2)
    run = st.train(
        functools.partial(Wrong, 5, first[1], hang), "trpo", steps=256, seed=0, out=tmp_path / "run", workers=1,
        envs=2, group=1, rollout=64, timeout=2.0, evaluation={"every": 128, "episodes": 2, "final_episodes": 2},
    )  # fmt: skip
    assert run.ended == "all steps done"
    assert run.evaluation.tolist() == [5, 5]
    assert [row["evaluation/mean"] for row in run.metrics if "evaluation/mean" in row] == [5, 5]
    lines = [json.loads(line) for line in (tmp_path / "run" / "faults.jsonl").read_text().splitlines()]
    assert [(line["during"], line["kind"]) for line in lines] == [("evaluation", "hung")] * 2  # with the same seed


# a run


def soak(tmp_path: Path, chance: float, ways: list[str], workers: int, steps: int, **settings: Any) -> st.Run:
    """A run in which environments break all the time; nothing of it is not finite, every fault is in the report."""
    log, out = tmp_path / "log", tmp_path / "run"

    def finite(event: Any) -> None:
        agent = event.agent
        arrays = [*jax.tree.leaves(split(agent.policy)[0]), agent.normaliser.mean, agent.normaliser.m2]
        assert all(np.isfinite(x).all() for x in arrays)
        assert np.isfinite(event.metrics["critic/loss"])

    run = st.train(
        functools.partial(Signs, str(log), chance, ways), "trpo", steps=steps, seed=1, out=out, workers=workers,
        faults=10**6, envs=8, group=4, rollout=64, critic={"epochs": 2, "minibatch": 128}, tensorboard=False,
        normalise_observations=True, scale_rewards=True, max_failures=10**6, callbacks=[finite], gamma=0.9, delta=0.1,
        evaluation={"every": steps // 2, "final_episodes": 10}, **settings,
    )  # fmt: skip
    assert run.ended == "all steps done"
    arrays, info = RunFolder.open(out).load_checkpoint("last")
    assert all(np.isfinite(x).all() for name, x in arrays.items() if not name.startswith("worlds."))
    tried = tmp_path / "tried"  # before the run, to see whether their state can be kept: in no report
    tried.touch()
    for _ in range(workers or 1):
        keeps(make_world(functools.partial(Signs, str(tried), chance, ways), 4))
    injected = Counter(log.read_text().split()) - Counter(tried.read_text().split())
    lines = [json.loads(line) for line in (out / "faults.jsonl").read_text().splitlines()]
    assert Counter(line["kind"] for line in lines) == injected
    assert run.faults == sum(injected.values())
    in_training = Counter(line["kind"] for line in lines if line["during"] == "training")
    in_rows = {kind: sum(row.get(f"faults/{kind}", 0) for row in run.metrics) for kind in in_training}
    assert in_rows == in_training
    assert info["progress"]["faults"] <= run.faults
    early = np.nanmean([row["return/mean"] for row in run.metrics[:1]])
    late = np.mean([row["return/mean"] for row in run.metrics[-5:]])
    assert early < 6.5
    assert late > 9
    return run


def test_a_thousand_faults_and_the_policy_learns(tmp_path: Path) -> None:
    ways = [way for way, (kind, _) in Signs.WAYS.items() if kind not in ("died", "hung")]
    run = soak(tmp_path, 0.1, ways, 0, 10_000)
    assert run.faults >= 1000


@pytest.mark.slow
def test_processes_that_die_and_hang_and_the_policy_learns(tmp_path: Path) -> None:
    run = soak(tmp_path, 0.0015, ["leaves", "killed", "hangs", "raises"], 2, 12_000, timeout=2.0)
    assert run.faults >= 8
