"""Workers: whole groups in processes of their own, the same numbers for any number of them, and nothing left behind."""

from __future__ import annotations

import functools
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

import steepest as st
from environments import Effort, Fragile, Looking, Mortal, Slow, Walk
from steepest.batch import Rollout
from steepest.parameters import split
from steepest.policies import MlpCategorical, MlpGaussian
from steepest.runs import RunFolder
from steepest.sampling.acting import CompiledActor, host_actor
from steepest.sampling.fault_tally import FaultTally
from steepest.sampling.groups import Groups, Order, make_groups, share
from steepest.sampling.rollout import empty, layout
from steepest.sampling.workers import Workers
from steepest.spaces import describe
from steepest.training import hosting
from steepest.training.collecting import SinglePath
from steepest.training.config import TrainConfig
from steepest.training.gathering import AtOnce
from steepest.training.hosting import settle
from steepest.training.settings import with_settings
from steepest.worlds import environment_seeds, make_world
from steepest.worlds.remaking import remake
from steepest.worlds.settable import keepable

STEPS, ENVS, SIZE = 12, 5, 2
"""Three groups, the last of them smaller."""

GAUSSIAN = MlpGaussian(2, 1, (8,), key=jax.random.key(0))
CATEGORICAL = MlpCategorical(1, 2, (8,), key=jax.random.key(0))


def form(env: Callable[..., Any]) -> Any:
    world = make_world(env)
    return describe(world.observation_space, "observation"), describe(world.action_space, "action")


def in_process(env: Callable[..., Any], actor: Any) -> Callable[[Order], tuple[Rollout, bool]]:
    worlds = make_groups(lambda envs: make_world(env, envs), range(3), SIZE, ENVS)
    groups = Groups(worlds, SIZE, ENVS, actor)

    def collect(order: Order) -> tuple[Rollout, bool]:
        rollout = empty(STEPS, ENVS, *form(env))
        return rollout, groups.collect(order, rollout)

    return collect


@contextmanager
def working(env: Callable[..., Any], actor: Any, count: int) -> Iterator[Workers]:
    workers = Workers(count, remake(env), SIZE, ENVS, layout(STEPS, ENVS, *form(env)))
    try:
        workers.act_with(actor)
        yield workers
    finally:
        workers.close()


def orders(actor: Any, policy: Any, *seeds: int | None) -> Sequence[Order]:
    return [Order(actor.export(split(policy)[0], None), (7, i), seed) for i, seed in enumerate(seeds)]


def same(a: Rollout, b: Rollout) -> None:
    for x, y in zip(a, b, strict=True):
        np.testing.assert_array_equal(x, y)


# the same numbers


@pytest.mark.parametrize(("compiled", "counts"), [(False, (1, 2, 3)), (True, (2,))])
def test_every_number_of_workers_collects_the_same_bits(compiled: bool, counts: tuple[int, ...]) -> None:
    actor: Any = CompiledActor(GAUSSIAN) if compiled else host_actor(GAUSSIAN, SIZE)
    given = orders(actor, GAUSSIAN, 0, None, 5)
    collect = in_process(Effort, actor)
    expected = [collect(order) for order in given]
    assert all(charged for _, charged in expected)
    assert (expected[0][0].obs != expected[1][0].obs).any()
    assert len({float(x) for x in expected[0][0].action[0, :, 0]}) == ENVS  # no two have the same noise
    for count in counts:
        with working(Effort, actor, count) as workers:
            last: Any = None
            for order, (rollout, _) in zip(given, expected, strict=True):
                workers.start(order)
                found, charged = workers.finish()
                assert charged
                same(found, rollout)
                if last is not None:
                    same(*last)  # the one before is still as it was
                last = found, rollout


def test_a_group_does_not_depend_on_the_others() -> None:
    actor = host_actor(GAUSSIAN, SIZE)
    (order,) = orders(actor, GAUSSIAN, 3)
    whole, _ = in_process(Walk, actor)(order)
    alone = empty(STEPS, ENVS, *form(Walk))
    Groups({1: make_world(Walk, SIZE)}, SIZE, ENVS, actor).collect(order, alone)
    for x, y in zip(whole[:-1], alone[:-1], strict=True):
        np.testing.assert_array_equal(x[:, 2:4], y[:, 2:4])


def test_groups_are_shared_out_whole() -> None:
    assert share(3, 2) == [range(1), range(1, 3)]
    for groups in range(1, 9):
        for workers in range(1, groups + 1):
            parts = share(groups, workers)
            assert [g for part in parts for g in part] == list(range(groups))
            assert max(map(len, parts)) - min(map(len, parts)) <= 1


def settings(**more: Any) -> dict[str, Any]:
    small = {"rollout": 16, "envs": 8, "group": 2, "critic": {"epochs": 2, "minibatch": 64}, "tensorboard": False}
    return {**small, "evaluation": {"every": 0, "final_episodes": 1}, **more}


WIDE = {"policy": {"hidden": (400, 400)}}
"""Too wide for NumPy: the compiled actor."""
EVERY = (0, 1, 2, 4)


@pytest.mark.parametrize(
    ("env", "policy", "counts"),
    [
        ("CartPole-v1", {}, (0, 2)),
        pytest.param("CartPole-v1", WIDE, EVERY, marks=pytest.mark.slow),
        pytest.param("Hopper-v5", {}, EVERY, marks=pytest.mark.slow),
        pytest.param("Hopper-v5", WIDE, EVERY, marks=pytest.mark.slow),
    ],
)
def test_a_run_is_the_same_for_any_number_of_workers(env: str, policy: Any, counts: Any, tmp_path: Path) -> None:
    seen = []
    for count in counts:
        out = tmp_path / str(count)
        run = st.train(env, "trpo", steps=500, seed=4, workers=count, out=out, **settings(**policy))
        assert json.loads((out / "config.json").read_text())["sampling"]["workers"] == count
        arrays, _ = RunFolder.open(out).load_checkpoint("last")
        rows = [{k: v for k, v in row.items() if not k.startswith("time/")} for row in run.metrics]
        assert len(rows) >= 4
        seen.append((repr(rows), {name: x.tobytes() for name, x in arrays.items()}))
    assert all(x == seen[0] for x in seen)


def test_a_run_goes_on_with_its_workers(tmp_path: Path) -> None:
    for count in (0, 2):
        st.train("CartPole-v1", "trpo", steps=256, seed=4, workers=count, out=tmp_path / str(count), **settings())
    resumed = [st.resume(tmp_path / str(count), steps=512) for count in (0, 2)]
    a, b = (jax.tree.leaves(split(run.agent.policy)[0]) for run in resumed)
    for x, y in zip(a, b, strict=True):
        np.testing.assert_array_equal(x, y)


# what a worker is


def test_a_worker_with_a_network_in_numpy_has_no_jax() -> None:
    actor = host_actor(CATEGORICAL, SIZE)
    with working(functools.partial(Looking, 9), actor, 1) as workers:
        workers.start(*orders(actor, CATEGORICAL, 0))
        rollout, charged = workers.finish()
        assert not charged
        assert not rollout.reward.any()
        pids = workers.pids
    assert not any(map(alive, pids))


def test_workers_start_before_jax_is_imported() -> None:
    program = """
import sys
from contextlib import ExitStack
from steepest.training.config import SamplingConfig, TrainConfig
from steepest.training.hosting import place
config = TrainConfig("CartPole-v1", sampling=SamplingConfig(group=4, workers=2))
with ExitStack() as stack:
    _, _, workers = place(stack, config, config.env)
    print(len(workers.pids), "jax" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["2", "False"]


def test_workers_serve_a_program_without_standard_input() -> None:
    program = """
import os; os.close(0)
import test_workers as t
actor = t.host_actor(t.GAUSSIAN, t.SIZE)
with t.working(t.Walk, actor, 2) as workers:
    workers.start(*t.orders(actor, t.GAUSSIAN, 0))
    print(workers.finish()[0].valid[0].all())
"""
    path = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": path}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment)
    assert done.stdout == "True\n", done.stderr


# what breaks


def test_an_environment_that_breaks_in_a_worker_says_what_it_says_here() -> None:
    group_seed = int(np.random.SeedSequence((0, 1)).generate_state(1)[0] >> 1)
    env = functools.partial(Fragile, environment_seeds(group_seed, SIZE)[1])
    actor = host_actor(CATEGORICAL, SIZE)
    (order,) = orders(actor, CATEGORICAL, 0)
    with pytest.raises(st.RunError) as here:
        in_process(env, actor)(order)
    assert "environment 3 of 5 raised KeyError: 'wheel' (at step 3)" in str(here.value)
    with working(env, actor, 2) as workers:
        workers.start(order)
        with pytest.raises(st.RunError) as there:
            workers.finish()
    assert str(there.value) == str(here.value)


def test_a_worker_that_dies_of_where_it_was_put_back_to_begins_afresh() -> None:
    """Or its replacement would die of it too, five times in a row."""
    world: Any = make_world(Mortal, ENVS)
    world.reset(0)
    for env in world._env.envs:
        env.age = 149
    found = keepable(world)
    assert found is not None
    actor, tally = host_actor(GAUSSIAN, ENVS), FaultTally(9)
    workers = Workers(1, remake(Mortal), ENVS, ENVS, layout(STEPS, ENVS, *form(Mortal)), tally)
    try:
        workers.act_with(actor)
        workers.start(orders(actor, GAUSSIAN, 3)[0]._replace(kept={0: found.keep()}))
        rollout, _ = workers.finish()
    finally:
        workers.close()
    assert [fault.kind for fault in tally.take()] == ["died"]
    assert not rollout.valid[0].any()
    assert rollout.valid[1:].any()


def test_a_worker_that_is_killed_is_named_and_sigint_is_the_parents() -> None:
    actor = host_actor(CATEGORICAL, SIZE)
    with working(functools.partial(Slow, 9), actor, 2) as workers:
        first, *_, last = orders(actor, CATEGORICAL, 0, None)
        workers.start(first)
        assert all(map(ready, workers.pids))
        for pid in workers.pids:
            os.kill(pid, signal.SIGINT)
        workers.finish()
        workers.start(last)
        threading.Timer(0.2, os.kill, (workers.pids[1], signal.SIGKILL)).start()
        with pytest.raises(st.RunError, match="worker 1 of 2, with environments 2 to 4 of 5, was killed by SIGKILL"):
            workers.finish()


def test_a_rollout_in_a_thread_that_nobody_waits_for_ends_at_its_next_step() -> None:
    """A second SIGINT does not wait for the rest of it, here 20 s."""
    world = make_world(functools.partial(Slow, 9), 2)
    gather = AtOnce(SinglePath([world], 2, 2, CATEGORICAL, 200, 0, keep=False))
    gather.reset(0)
    gather.start(split(CATEGORICAL)[0], None, jax.random.key(0))
    time.sleep(0.2)
    began = time.monotonic()
    gather.close()
    assert time.monotonic() - began < 5


def ready(pid: int) -> bool:
    """Wait until the process ignores SIGINT."""
    for _ in range(200):
        ignored = next(s for s in Path(f"/proc/{pid}/status").read_text().splitlines() if s.startswith("SigIgn"))
        if int(ignored.split()[1], 16) >> (signal.SIGINT - 1) & 1:
            return True
        time.sleep(0.05)
    return False


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.skipif(not Path("/proc").exists(), reason="asks /proc")
def test_workers_end_with_their_parent_also_in_the_middle_of_a_step() -> None:
    program = """
import environments, functools, test_workers as t
actor = t.host_actor(t.CATEGORICAL, t.SIZE)
with t.working(functools.partial(environments.Endless, 9), actor, 2) as workers:
    workers.start(*t.orders(actor, t.CATEGORICAL, 0))
    print(*workers.pids, flush=True)
    workers.finish()
"""
    before = set(os.listdir("/dev/shm"))
    path = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-c", program]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": path}) as parent:
        assert parent.stdout is not None
        pids = [int(pid) for pid in parent.stdout.readline().split()]
        assert len(pids) == 2
        assert all(map(ready, pids))
        time.sleep(0.5)
        parent.kill()
    deadline = time.monotonic() + 10
    while any(map(alive, pids)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(alive, pids))
    assert set(os.listdir("/dev/shm")) <= before


# how many


def settled(env: Any, world: Any, policy: Any = None, **changes: Any) -> Any:
    config = with_settings(TrainConfig("X"), {"envs": 16, "rollout": 8, **changes})
    sampling = settle(config, env, world, policy).sampling
    return sampling.group, sampling.workers


def test_how_many_there_are_by_rule(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: range(3))
    monkeypatch.setattr(hosting, "_seconds_per_step", lambda world: 1e-3)
    world = make_world(Walk, 1)
    assert settled(Walk, world, steps=4999) == (8, 0)
    assert settled(Walk, world, steps=5000) == (8, 2)  # as many as groups
    assert settled(Walk, world, steps=5000, group=4) == (4, 3)  # as many as cores
    assert settled(Walk, world, steps=5000, group=16) == (16, 0)  # one worker is none too many
    assert settled(Walk, world, steps=5000, envs=4, workers=1) == (4, 1)
    assert settled(Walk, world, steps=5000, workers=0) == (8, 0)
    assert settled(Walk(), make_world(Walk()), envs=1) == (1, 0)
    lock = threading.Lock()
    assert settled(lambda: (lock, Walk())[1], world, steps=5000) == (8, 0)

    class Own(MlpGaussian):
        pass

    own = Own(2, 1, key=jax.random.key(0))  # pyright: ignore[reportCallIssue]
    assert settled(Walk, world, own, steps=5000) == (8, 0)


def test_a_step_is_timed() -> None:
    world = make_world(functools.partial(Slow, 9), 2)  # two of 0.05 s
    assert 0.05 < hosting._seconds_per_step(world) < 0.1


LOCK = threading.Lock()


@pytest.mark.parametrize(
    ("env", "changes", "message"),
    [
        (
            "CartPole-v1",
            {"envs": 16, "workers": 3},
            "at most 2, as many as 16 environments make groups of 8, got 3",
        ),
        (
            "CartPole-v1",
            {"envs": 2, "workers": 3},
            "at most 1, as many as 2 environments make",
        ),
        ("CartPole-v1", {"workers": -1}, "workers must be at least 0, got -1"),
        ("CartPole-v1", {"group": 0}, "group must be at least 1, got 0"),
        ("CartPole-v1", {"workers": 1, "scheme": "vine"}, "workers=1: a vine's branches"),
        ("mdp:two-state", {"workers": 1}, "workers=1: the backend 'mdp' steps all"),
        (Walk(), {"workers": 1}, "workers=1: Walk is made already"),
        (Walk(), {"group": 4}, "group=4: Walk is made already"),
        (lambda: (LOCK, Walk())[1], {"workers": 1}, "the environment cannot be sent to workers: TypeError"),
    ],
)
def test_workers_that_cannot_be_are_refused(env: Any, changes: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(st.UsageError, match=message):
        st.train(env, "trpo", steps=100, out=tmp_path / "run", **changes)
    assert not (tmp_path / "run").exists()


def test_a_policy_of_a_class_that_no_module_holds_is_not_sent(tmp_path: Path) -> None:
    class Own(MlpCategorical):
        pass

    policy = Own(4, 2, (8,), key=jax.random.key(0))  # pyright: ignore[reportCallIssue]
    with pytest.raises(st.UsageError, match="the policy cannot be sent to workers: its class is in no module"):
        st.train("CartPole-v1", "trpo", steps=500, policy=policy, workers=2, out=tmp_path / "run", **settings())
