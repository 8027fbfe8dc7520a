"""Several agents, one policy: rows of agents, and ghosts of those who ended first, of which nothing is learnt."""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, ClassVar

import gymnasium
import jax
import numpy as np
import pytest
from gymnasium.spaces import Box, Discrete

import steepest as st
from environments import Counting
from parallel_environments import Gated, Moody, Noisy, Parallel, Shown, Signals
from steepest.agent import Agent
from steepest.cli import main
from steepest.errors import RunError, UsageError
from steepest.policies.specification import PolicySpec
from steepest.sampling.advantages import batch_from_rollout, gae
from steepest.sampling.reward_scale import RewardScale
from steepest.sampling.rollout import Collector, collect
from steepest.sequences import fresh_rows
from steepest.spaces import describe
from steepest.training.beginning import evaluation_world
from steepest.training.config import TrainConfig
from steepest.training.evaluation import play
from steepest.training.hosting import place
from steepest.worlds import Adapted, environment_seeds, make_up_to, make_world
from steepest.worlds.faults import ATTEMPTS, Fault, Irreparable
from steepest.worlds.masks import offers_masks

TERMINATED, CUT, GHOST, GOES_ON = "terminated", "truncated", "ghost", "goes on"


def act(obs: np.ndarray, t: int) -> np.ndarray:
    return np.zeros(len(obs), np.int32)


def begun(env: Any = Parallel, rows: int | None = None) -> Any:
    world = make_world(env, rows)
    world.reset(0)
    return world


def kinds(rollout: Any) -> list[list[str]]:
    """What each row of a rollout is, [T][B]."""
    table = np.full(rollout.valid.shape, GOES_ON, dtype=object)
    for kind, which in ((TERMINATED, rollout.terminated), (CUT, rollout.truncated), (GHOST, ~rollout.valid)):
        assert (table[which] == GOES_ON).all()
        table[which] = kind
    return table.tolist()


# what a row is


def test_who_ends_first_is_a_ghost_until_the_last_has_ended():
    rollout, _ = collect(begun(rows=4), act, 7)
    episode = [[TERMINATED, GOES_ON], [GHOST, GOES_ON], [GHOST, CUT]]
    assert kinds(rollout) == [row * 2 for row in [*episode, *episode, episode[0]]]
    assert not rollout.reward[~rollout.valid].any()


def test_next_obs_is_the_true_successor_and_obs_of_the_next_episode():
    rollout, _ = collect(begun(), act, 4)
    np.testing.assert_array_equal(rollout.obs[:, 1], [[1, 0, 0], [1, 0, 1], [1, 0, 2], [1, 1, 0]])
    np.testing.assert_array_equal(rollout.next_obs[:, 1], [[1, 0, 1], [1, 0, 2], [1, 0, 3], [1, 1, 1]])
    np.testing.assert_array_equal(rollout.obs[:, 0], [[0, 0, 0], [0, 0, 1], [0, 0, 1], [0, 1, 0]])
    np.testing.assert_array_equal(rollout.next_obs[0, 0], [0, 0, 1])
    np.testing.assert_array_equal(rollout.reward, [[1, 10], [0, 20], [0, 30], [1, 10]])


def test_every_environment_has_a_seed_of_its_own():
    world = begun(Noisy, 9)
    first = world.reset(7).copy()
    assert len({row.tobytes() for row in first}) == 9
    np.testing.assert_array_equal(first, world.reset(7))
    assert world.close() is world.close() is None


def test_a_terminated_agent_need_not_be_shown_what_follows_and_one_that_is_cut_must():
    class Silent(Parallel):
        lives: ClassVar = {"brief": (1, True), "long": (2, False)}

        def step(self, actions: Any) -> Any:
            obs, *rest = super().step(actions)
            return ({agent: seen for agent, seen in obs.items() if agent in self.agents}, *rest)

    world = begun(Silent)
    world.step(np.zeros(2, int))
    with pytest.raises(RunError, match=r"answer that is none \(KeyError: 'long'\)"):
        world.step(np.zeros(2, int))


# what is made of the rows


def test_advantages_by_hand():
    """γ = λ = ½, V(o) = 8·step. Of the one that ends after a step: 1 − 0. Of the other, whose δ are 10 + 4 − 0,
    20 + 8 − 8 and 30 + 12 − 16: 26, 20 + 26/4 and 14 + 26.5/4. A ghost has none, and gives none."""
    rollout, _ = collect(begun(), act, 5)
    value, after = (8 * obs[..., 2] for obs in (rollout.obs, rollout.next_obs))
    ends = rollout.terminated, rollout.truncated, rollout.valid
    advantage, _ = gae(rollout.reward, value, after, *ends, gamma=0.5, lam=0.5)
    brief, long = [1, 0, 0, 1, 0], [14 + 26.5 / 4, 26.5, 26, 14 + 20 / 4, 20]
    np.testing.assert_allclose(advantage, np.stack([brief, long], axis=1), rtol=1e-6)


def test_the_batch_has_no_weight_on_ghosts_and_no_path_through_them():
    rollout, _ = collect(begun(), act, 6)
    done, advantage = rollout.terminated | rollout.truncated, np.arange(12.0).reshape(6, 2)
    for segment, long in ((None, [0, 0, 0, 1, 1, 1]), (2, [0, 0, 1, 2, 2, 3])):
        batch = batch_from_rollout(rollout.obs, rollout.action, advantage, rollout.valid, done, segment=segment)
        weight, path = (np.asarray(x).reshape(6, 2) for x in (batch.weight, batch.segment))
        np.testing.assert_allclose(weight, rollout.valid / 8)
        np.testing.assert_allclose(np.sum(weight * np.asarray(batch.advantage).reshape(6, 2)), 0, atol=1e-6)
        assert np.asarray(batch.advantage).reshape(6, 2)[~rollout.valid].tolist() == [0] * 4
        assert (path[:, 1] - path[0, 1]).tolist() == long
        assert len(set(path[rollout.valid[:, 0], 0].tolist())) == 2
        assert not set(path[rollout.valid].tolist()) & set(path[~rollout.valid].tolist())


def test_a_path_after_ghosts_is_as_long_as_any():
    """Else the ghosts would be of it, and it would be cut before its time."""
    done, valid = np.array([[1, 0, 0, 0, 0, 0]], bool).T, np.array([[1, 0, 0, 1, 1, 1]], bool).T
    obs = np.zeros((6, 1, 1))
    batch = batch_from_rollout(obs, np.zeros((6, 1)), np.zeros((6, 1)), valid, done, segment=3)
    assert len(set(np.asarray(batch.segment)[3:].tolist())) == 1


def test_episodes_are_of_agents_and_run_on_across_rollouts():
    collector = Collector(make_world(Parallel, 4))
    collector.reset(0)
    episodes = [[], []]
    for steps in (2, 1, 3, 1):  # cut among ghosts and between them
        for episode in collector.collect(act, steps)[1]:
            episodes[episode.env % 2].append((episode.ret, episode.length, episode.terminated))
    assert episodes == [[(1.0, 1, True)] * 6, [(60.0, 3, False)] * 4]
    assert collector.running.lengths.tolist() == [0, 1, 0, 1]


def test_the_scale_of_rewards_and_memories_pass_over_ghosts():
    rollout, _ = collect(begun(), act, 6)
    scale = RewardScale.empty(2).updated(rollout, 0.5)
    sums = [1, 1, 10, 25, 42.5, 10, 25, 42.5]
    assert scale.statistics.count == 8
    np.testing.assert_allclose(scale.statistics.mean, np.mean(sums))
    np.testing.assert_allclose(scale.value, np.std(sums), rtol=1e-6)
    fresh = np.asarray(fresh_rows(rollout.terminated | rollout.truncated, rollout.valid))
    assert fresh[3].all()
    assert not (fresh[:, 1] & (np.arange(6) % 3 > 0)).any()


# learning


def test_one_policy_for_all_finds_the_optimum_of_each(tmp_path: Path):
    run = st.train(Signals, "npg", steps=6_000, seed=0, out=tmp_path / "run", evaluation={"every": 10_000})
    assert run.steps == 8 * (1024 - 256)  # eight rollouts, without the ghosts, a fourth of the rows
    returns = st.evaluate(run.agent, Signals, episodes=12, seed=1)
    assert sorted(returns.tolist()) == [2.0] * 6 + [4.0] * 6
    assert st.evaluate(run.agent, Signals, episodes=5).shape == (5,)  # in four rows
    assert st.evaluate(run.agent, Signals(), episodes=4).mean() == 3.0


# masks


@pytest.mark.parametrize("env", [Gated, pytest.param(Shown, marks=pytest.mark.slow)])
def test_agents_never_do_what_is_forbidden_and_find_the_best(env: Any, tmp_path: Path):
    env.taken[:] = [0, 0]
    settings = {"evaluation": {"every": 10_000}, "workers": 0, "mask": "auto"}
    run = st.train(env, "npg", steps=6_000, seed=0, out=tmp_path / "run", **settings)
    returns = st.evaluate(st.load(run.path), env, episodes=12, seed=1)
    assert sorted(returns.tolist()) == [2.0] * 6 + [4.0] * 6
    assert env.taken[0] > 6000
    assert env.taken[1] == 0


def test_a_mask_in_the_observation_leaves_it_and_one_that_is_missing_is_a_fault():
    world: Any = make_world(Adapted(Shown, masks=True), 2)
    np.testing.assert_array_equal(world.reset(0)[:, :4].sum(1), [1, 1])
    number = world.obs[:, :4].argmax(1)
    np.testing.assert_array_equal(world.obs[:, 4:], np.arange(4) != (number[:, None] + 1) % 4)
    other: Any = make_world(Adapted(Gated, masks=True), 2)
    np.testing.assert_array_equal(other.reset(0), world.reset(0))
    for _ in range(9):
        action = world.obs[:, :4].argmax(1)
        for x, y in zip(world.step(action), other.step(action), strict=True):
            np.testing.assert_array_equal(x, y)

    class Over(Gated):  # whoever has ended may do nothing, and need not
        def mask(self, agent: str) -> np.ndarray:
            return super().mask(agent) * (self.time < self.lives[agent][0])

    ending: Any = make_world(Adapted(Over, masks=True), 2)
    ending.reset(0)
    rollout, _ = collect(ending, lambda obs, t: obs[:, :4].argmax(1), 9)
    assert rollout.terminated.any()
    assert rollout.obs[rollout.valid][:, 4:].any(1).all()
    silent: Any = make_world(Adapted(type("Silent", (Parallel,), {}), masks=True), 2)
    with pytest.raises(RunError, match="said nothing of what agent 'brief' may do"):
        silent.reset(0)
    assert not offers_masks(make_world(Parallel))
    assert offers_masks(make_world(Gated))
    assert offers_masks(make_world(Shown))


# faults and workers


def test_a_fault_of_an_environment_is_one_of_all_of_its_agents_who_are_there():
    class Once(Parallel):
        def step(self, actions: Any) -> Any:
            if self.first and self.time == 1:
                raise KeyError("wheel")
            return super().step(actions)

        def reset(self, seed: Any = None, options: Any = None) -> Any:
            self.first = seed == environment_seeds(0, 2)[0]
            return super().reset(seed, options)

    found: list[Fault] = []
    world: Any = make_world(Once, 4)
    world.bear(found.append)
    world.reset(0)
    rollout, episodes = collect(world, act, 6)
    assert [(fault.env, fault.step, fault.kind) for fault in found] == [(0, 2, "raised")]
    assert "environment 0 of 2 raised KeyError: 'wheel' (at step 2)" in found[0].message
    right, _ = collect(begun(rows=2), act, 6)
    np.testing.assert_array_equal(rollout.obs[:, 2:], right.obs)  # the other one
    np.testing.assert_array_equal(rollout.obs[2:, :2], right.obs[:4])  # and what began again
    np.testing.assert_array_equal(rollout.valid[:, :2].T, [[1, 0, 1, 0, 0, 1], [1, 0, 1, 1, 1, 1]])
    np.testing.assert_array_equal(rollout.truncated[:, :2].T, [[0] * 6, [0, 1, 0, 0, 1, 0]])
    assert not rollout.reward[1, :2].any()
    np.testing.assert_array_equal(rollout.next_obs[1, :2], rollout.obs[1, :2])
    assert [e.ret for e in episodes if e.env == 1] == [60]


def test_in_an_evaluation_a_fault_costs_the_episodes_of_its_agents_who_are_there():
    class Once(Parallel):
        def step(self, actions: Any) -> Any:
            if self.first and self.time == 1:  # the agent "brief" has ended
                raise KeyError("wheel")
            return super().step(actions)

        def reset(self, seed: Any = None, options: Any = None) -> Any:
            self.first = seed == environment_seeds(0, 2)[0]
            return super().reset(seed, options)

    world: Any = make_world(Once, 4)
    spaces = describe(world.observation_space, "observation"), describe(world.action_space, "action")
    agent = Agent(PolicySpec.for_spaces(*spaces, (4,)).build(jax.random.key(0)), *spaces)
    returns = play(agent, world, 8, 0, report=lambda fault: None)
    assert sorted(returns.tolist()) == [1.0] * 4 + [60.0] * 3


def test_an_environment_that_cannot_begin_again_ends_the_run():
    class Stuck(Parallel):
        def reset(self, seed: Any = None, options: Any = None) -> Any:
            raise OSError("no display")

    found: list[Fault] = []
    world: Any = make_world(Stuck, 4)
    world.bear(found.append)
    with pytest.raises(Irreparable, match=rf"OSError: no display, when it was made again .*{ATTEMPTS} times in a row"):
        world.reset(0)
    assert len(found) == ATTEMPTS + 1
    made: Any = make_world(Stuck())
    made.bear(found.append)
    with pytest.raises(RunError, match="environment 0 of 1 raised OSError"):
        made.reset(0)  # there is no other


def test_workers_and_faults_change_nothing_but_what_broke(tmp_path: Path):
    runs = {}
    for workers in (0, 2):
        log = tmp_path / f"log-{workers}"
        log.touch()
        runs[workers] = st.train(
            functools.partial(Moody, str(log)), "npg", steps=1200, seed=3, out=tmp_path / str(workers), envs=12,
            group=6, rollout=32, workers=workers, faults=10**6, critic={"minibatch": 96, "epochs": 1},
            evaluation={"every": 600, "episodes": 6, "final_episodes": 6},
        )  # fmt: skip
        assert runs[workers].faults == len(log.read_text().split()) > 20
    here, there = runs[0], runs[2]
    for x, y in zip(here.metrics, there.metrics, strict=True):
        assert repr({k: v for k, v in x.items() if k[:5] != "time/"}) == repr({k: y[k] for k in x if k[:5] != "time/"})
    np.testing.assert_array_equal(here.evaluation, there.evaluation)
    lines = [json.loads(line) for line in (there.path / "faults.jsonl").read_text().splitlines()]
    assert {line["kind"] for line in lines} == {"raised", "observation", "reward", "answer"}


# names, numbers, errors


def test_numbers_of_rows():
    assert begun().envs == begun().agents == 2
    assert begun(Noisy, 6).envs == 6
    assert make_up_to(Noisy, 10).envs == 9
    assert make_up_to(Noisy, 1).envs == 3
    assert make_up_to("CartPole-v1", 5).envs == 5
    for rows, near in ((4, "3 or 6"), (2, "3")):
        with pytest.raises(UsageError, match=f"Noisy has 3 agents.*multiple of 3, got {rows}; take {near}"):
            make_world(Noisy, rows)
    assert make_world(Parallel(), 2).envs == 2
    with pytest.raises(UsageError, match="is made already and has 2 agents, not 4"):
        make_world(Parallel(), 4)
    one = Parallel()
    with pytest.raises(UsageError, match="same object twice"):
        make_world(lambda: one, 4)
    masked = Gated()
    with pytest.raises(UsageError, match="same object twice"):
        make_world(Adapted(lambda: masked, masks=True), 4)


@pytest.mark.parametrize(("kind", "envs", "group"), [(Noisy, 6, 3), (lambda: Counting(5), 2, 1)])
def test_groups_have_no_environment_in_common(kind: Any, envs: int, group: int, tmp_path: Path):
    one = kind()
    with pytest.raises(UsageError, match="same object twice"):
        st.train(lambda: one, envs=envs, group=group, rollout=64, workers=0, steps=100, out=tmp_path / "run")


def test_the_number_of_environments_is_whole_by_rule():
    with ExitStack() as stack:
        config, world, workers = place(stack, TrainConfig("noisy"), Noisy)
        assert config.sampling.envs == config.sampling.group == 9  # of eight, with three agents each
        assert workers is None
        assert evaluation_world(stack, config, Noisy, world).envs == 9  # of ten


def test_what_such_a_world_has_not_is_refused(tmp_path: Path):
    with pytest.raises(UsageError, match="multiple of 3, got 8; take 6 or 9"):
        st.train(Noisy, steps=10, envs=8, out=tmp_path / "a")
    with pytest.raises(UsageError, match="group=8: a group has whole environments, of 3 agents each"):
        st.train(Noisy, steps=10, group=8, out=tmp_path / "b")
    with pytest.raises(UsageError, match="workers must be at most 1"):
        st.train(Noisy, steps=10, workers=2, out=tmp_path / "b")
    with pytest.raises(UsageError, match="says of no action whether it is allowed"):
        st.train(Noisy, steps=10, mask=True, out=tmp_path / "c")
    with pytest.raises(UsageError, match="hold an action_mask, which a policy without masks would not heed"):
        st.train(Shown, steps=10, out=tmp_path / "d")
    assert not list(tmp_path.iterdir())


def differing(role: int, *spaces: Any) -> Callable[[], Any]:
    class Differing(Noisy):
        def observation_space(self, agent: str) -> Any:
            return spaces[self.possible_agents.index(agent)] if role == 0 else super().observation_space(agent)

        def action_space(self, agent: str) -> Any:
            return spaces[self.possible_agents.index(agent)] if role == 1 else super().action_space(agent)

    return Differing


@pytest.mark.parametrize(
    ("env", "says"),
    [
        (
            differing(0, Discrete(2), Discrete(2), Discrete(3)),
            r"Differing.*observation spaces must be the same: 'one' has Discrete\(2\), but 'three' has Discrete\(3\)$",
        ),
        (
            differing(1, Discrete(2), Discrete(3), Discrete(4)),
            r"action spaces.*'two', 'three' have Discrete\(3\) and others$",
        ),
        (differing(0, *[gymnasium.spaces.Text(4)] * 3), r"Differing: the observation space Text.* is not supported"),
        (type("Nobody", (Parallel,), {"lives": {}}), "Nobody has no possible_agents"),
        (type("Turns", (Parallel,), {"agent_iter": None}), "aec_to_parallel"),
        (Adapted(type("Free", (Parallel,), {"spaces": (Parallel.spaces[0], Box(0, 1))}), masks=True), "a mask is for"),
    ],
)
def test_what_no_policy_can_share_is_refused(env: Any, says: str):
    with pytest.raises(UsageError, match=says):
        make_world(env)


def broken(**changes: Any) -> type[Parallel]:
    return type("Broken", (Parallel,), changes)


def with_answer(change: Callable[[Any, list[Any]], Any]) -> Callable[..., Any]:
    def step(self: Any, actions: Any) -> Any:
        answer = list(Parallel.step(self, actions))
        return change(self, answer) or answer

    return step


@pytest.mark.parametrize(
    ("step", "says"),
    [
        (
            lambda self, actions: 1 / 0,
            "Broken: environment 0 of 2 raised ZeroDivisionError: division by zero .at step 1",
        ),
        (with_answer(lambda self, answer: answer[:4]), "answer that is none"),
        (with_answer(lambda self, answer: answer[1].pop("long") and None), r"none \(KeyError: 'long'"),
        (
            with_answer(lambda self, answer: answer[1].update(long="much")),
            "agent 'long' of environment 0 of 2 returned a reward that is not a number",
        ),
        (
            with_answer(lambda self, answer: answer[1].update(long=np.nan)),
            "agent 'long' of environment 0 of 2 returned a reward that is not finite",
        ),
        (
            with_answer(lambda self, answer: answer[0].update(long=np.full(3, np.inf))),
            "agent 'long'.*observation that is not finite: inf in entry 0",
        ),
        (with_answer(lambda self, answer: answer[0].update(long=np.zeros(4))), r"agent 'long'.*shape \(4,\)"),
        (with_answer(lambda self, answer: setattr(self, "agents", None)), "answer that is none .TypeError"),
        (with_answer(lambda self, answer: answer[1].update(long=[[1], [2, 3]])), "answer that is none .ValueError"),
        (with_answer(lambda self, answer: self.agents.clear()), "agent 'long'.*is no more among the agents"),
    ],
)
def test_an_environment_that_breaks_names_the_agent(step: Any, says: str):
    world = begun(broken(step=step), 4)
    with pytest.raises(RunError, match=says):
        world.step(np.zeros(4, int))


def test_agents_are_there_from_the_start():
    def reset(self: Any, seed: Any = None, options: Any = None) -> Any:
        obs, infos = Parallel.reset(self, seed)
        return {"long": obs["long"]}, infos

    with pytest.raises(RunError, match=r"without its agent 'brief'.*at the reset"):
        begun(broken(reset=reset))


def test_costs_are_those_of_agents_who_reported_one():
    def step(self: Any, actions: Any) -> Any:
        *answer, infos = Parallel.step(self, actions)
        infos["long"]["cost"] = 2.0
        return (*answer, infos)

    rollout, _ = collect(begun(broken(step=step)), act, 2)
    np.testing.assert_array_equal(rollout.cost, [[np.nan, 2], [0, 2]])


# PettingZoo's own


def test_names_are_those_of_its_registry(capsys: pytest.CaptureFixture[str]):
    pytest.importorskip("pettingzoo")
    for name in ("classic.rps_v2", "classic/rps-v2", "classic/rps_v2"):
        world = make_world(f"pettingzoo:{name}", 4)
        assert (world.agents, world.name) == (2, name)  # type: ignore[attr-defined]
        world.close()
    with pytest.raises(UsageError, match=r"did you mean 'classic.rps_v2'"):
        make_world("pettingzoo:classic.rps_v3")
    with pytest.raises(UsageError, match="frames of the backend 'pettingzoo' are not stacked"):
        make_world("stack:2:pettingzoo:classic.rps_v2")
    assert main(["train", "pettingzoo:os.path", "--quiet"]) == 2
    assert "unknown parallel environment of PettingZoo 'os.path'" in capsys.readouterr().err


def test_what_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("pettingzoo")
    monkeypatch.setitem(sys.modules, "multi_agent_ale_py", None)
    with pytest.raises(UsageError, match=r"pettingzoo:atari.pong_v3.*multi_agent_ale_py.*pettingzoo\[atari\]"):
        make_world("pettingzoo:atari.pong_v3")
    monkeypatch.setitem(sys.modules, "pettingzoo", None)
    with pytest.raises(UsageError, match=r"steepest\[pettingzoo\]"):
        make_world("pettingzoo:classic.rps_v2")
