"""Training within a limit: what an environment charges reaches the update, and what cannot be meant is refused."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

import steepest as st
from environments import MODES, Counting, Effort, vector
from steepest.batch import Rollout
from steepest.critics import AdamFit, StateValue
from steepest.errors import RunError, UsageError
from steepest.runs import read_lines
from steepest.sampling.cost_meter import CostMeter, Limited, Sums
from steepest.sampling.rollout import Collector, collect
from steepest.training import learner as learning
from steepest.training.learner import Learner
from steepest.worlds.gymnasium import GymnasiumWorld

SMALL: dict[str, Any] = {
    "envs": 4,
    "rollout": 64,
    "tensorboard": False,
    "evaluation": {"every": 0, "final_episodes": 1},
    "critic": {"hidden": (16,), "epochs": 2, "minibatch": 64},
}


class Charged(Counting):
    """`Counting` that charges the number of the step; `silent` in its second step."""

    def __init__(self, limit: int, silent: bool = False):
        super().__init__(limit)
        self.silent = silent

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        *rest, info = super().step(action)
        info = {} if self.silent and self.count == 2 else {"cost": float(self.count)}
        return *rest, info  # type: ignore[return-value]


def still(obs: np.ndarray, t: int) -> np.ndarray:
    return np.zeros(len(obs), np.int32)


def charged(mode: Any, *limits: int, silent: bool = False) -> GymnasiumWorld:
    world = GymnasiumWorld(vector([Charged(limit, silent) for limit in limits], mode), "Charged")
    world.reset(0)
    return world


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("limits", [(3, 3), (3, 4)])
def test_every_step_brings_its_cost_in_every_autoreset_mode(mode: Any, limits: tuple[int, ...]) -> None:
    """The last step of an episode too, whose info may be of the reset; and where all rows are ghosts at once."""
    rollout, episodes = collect(charged(mode, *limits), still, 10)
    assert rollout.cost is not None
    assert rollout.cost.dtype == np.float32
    for b, limit in enumerate(limits):
        valid = rollout.valid[:, b]
        np.testing.assert_array_equal(rollout.cost[valid, b], np.arange(valid.sum()) % limit + 1)
        assert not rollout.cost[~valid, b].any()
    assert {(e.env, e.cost) for e in episodes} == {(b, limit * (limit + 1) / 2) for b, limit in enumerate(limits)}


def test_a_cost_that_was_not_reported_is_not_0() -> None:
    rollout, episodes = collect(charged(MODES[0], 3, silent=True), still, 8)
    assert rollout.cost is not None
    assert np.isnan(rollout.cost[[1, 5], 0]).all()
    assert [e.cost for e in episodes] == [None, None]
    with pytest.raises(RunError, match=r"Charged: environment 0 of 1 reported no finite info\['cost'\] in step 1 of"):
        CostMeter.empty(1.0, 1).updated(rollout, episodes, 0.9, "Charged")


@pytest.mark.parametrize("mode", MODES)
def test_a_world_without_costs_has_none(mode: Any) -> None:
    world = GymnasiumWorld(vector([Counting(3), Counting(3)], mode), "Counting")
    world.reset(0)
    rollout, episodes = collect(world, still, 10)
    assert rollout.cost is None
    assert {e.cost for e in episodes} == {None}
    with pytest.raises(RunError, match="environment 0 of 2 reported no finite"):
        CostMeter.empty(1.0, 2).updated(rollout, episodes, 0.9, "Counting")


def test_the_meter_takes_whole_episodes_and_the_fewest_rollouts_that_hold_them() -> None:
    """Costs 1, 2, …: 6 of an episode of 3 steps, 10 of one of 4. Rollouts of 5 steps hold one end of each."""
    collector = Collector(charged(MODES[1], 3, 4))
    meter = CostMeter.empty(7.0, 2)
    excess = []
    for steps in (2, 5, 5, 1, 1):
        meter = meter.updated(*collector.collect(still, steps), 0.9, "Charged")
        excess.append(float(meter.limited.excess))
    # two under way with costs 1 + 2 each; after 7 steps 2 and 1 have ended; after 12 two more of each …
    expected = [(6 - 14) / 4, (2 * 6 + 10 - 21) / 10, (2 * 6 + 2 * 10 - 28) / 14]
    np.testing.assert_allclose(excess[:3], expected, rtol=1e-6)
    assert meter.cost == pytest.approx((2 * 6 + 2 * 10) / 4)  # none ended since: the last rollouts that hold two
    assert len(meter.window) == 3
    assert meter.all.cost == pytest.approx(4 * 6 + 3 + 3 * 10 + 3)


def test_the_cost_of_a_batch_is_the_advantage_of_the_cost() -> None:
    """Where the cost is the reward, and the critics are one, so are the advantages, in raw units."""
    rng = np.random.default_rng(0)
    shape = (6, 2)
    obs, after = rng.integers(0, 3, (2, *shape)).astype(np.int32)
    cost = rng.normal(size=shape).astype(np.float32)
    ended = np.zeros(shape, bool)
    ended[2, 0] = True
    rollout = Rollout(obs, obs, cost, after, ended, np.zeros(shape, bool), np.ones(shape, bool), cost)
    critic = StateValue(3, (4,), key=jax.random.key(0))
    learner = Learner(st.npg(), AdamFit(epochs=1, minibatch=4), 0.9, 0.8, True, None, 0.9, 0.8)
    limited = Limited(np.float32(0.3), np.float32(2.0), np.float32(1.0))
    state = learner.init(st.TabularSoftmax(np.zeros((3, 2))), critic, critic)
    found, _, (_, value, target) = learning._cost(learner, state, rollout, limited, None)
    value_2d, after_2d = (jax.vmap(jax.vmap(critic))(x) for x in (obs, after))
    advantage, expected = learning.gae(
        cost / 2, value_2d, after_2d, ended, rollout.truncated, rollout.valid, gamma=0.9, lam=0.8
    )
    advantage = 2 * (advantage - advantage.mean())
    np.testing.assert_allclose(found.advantage.ravel(), advantage.ravel(), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(target, expected.ravel())
    np.testing.assert_array_equal(value, value_2d.ravel())
    assert float(found.excess) == np.float32(0.3)
    none_seen = learning._cost(learner, state, rollout, limited._replace(seen=np.float32(0.0)), None)
    np.testing.assert_array_equal(none_seen[0].advantage, 0.0)  # a critic that was fitted to no cost has only noise


def test_episodes_under_way_count_as_ended_beside_those_that_are() -> None:
    """Of four episodes two have ended, with fewer than one an environment: J_C is over all six that have begun."""
    meter = CostMeter(6.0, 4, CostMeter.empty(6.0, 4).scale, Sums(40.0, 40, 2), (Sums(10.0, 10, 2),))
    assert meter.cost == pytest.approx(40 / 6)
    assert float(meter.limited.excess) == pytest.approx((40 - 6 * 6) / 40)
    assert meter.limited.seen == 0.0


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> st.Run:
    """Constrained policy optimisation from a policy that costs 8 times the limit."""
    path = tmp_path_factory.mktemp("runs") / "cpo"
    settings = {**SMALL, "envs": 8, "rollout": 128, "critic": {"hidden": (32,), "epochs": 10}}
    return st.train(Effort, "cpo", steps=24 * 1024, out=path, cost_limit=6.0, **settings)


def test_cpo_recovers_and_then_improves_within_the_limit(run: st.Run) -> None:
    rows = run.metrics
    assert rows[0]["cost/mean"] > 40
    assert rows[0]["update/recovery"]
    late = rows[-8:]
    assert np.mean([row["cost/mean"] for row in late]) < 7.0
    assert late[-1]["return/mean"] > -60 > min(row["return/mean"] for row in rows)
    assert all(row["update/kl"] <= 0.03 + 1e-6 for row in rows)


def test_a_run_writes_down_its_costs(run: st.Run) -> None:
    row = run.metrics[-1]
    assert row["cost/limit"] == 6.0
    assert {"cost/now", "cost_critic/loss", "update/cost_excess", "update/cost_multiplier"} <= row.keys()
    episodes = read_lines(run.path / "episodes.jsonl")
    assert all(episode["cost"] >= 0 for episode in episodes)
    assert json.loads((run.path / "config.json").read_text())["constraint"] == {
        "cost_limit": 6.0,
        "cost_gamma": 0.99,
        "cost_gae_lambda": 0.95,
    }


def test_a_run_that_is_resumed_goes_on_with_its_costs(run: st.Run) -> None:
    before = run.metrics[-1]
    more = st.resume(run.path, env=Effort, steps=25 * 1024)
    row = more.metrics[-1]
    assert len(more.metrics) == len(run.metrics)
    assert row["cost/now"] == pytest.approx(before["cost/now"], abs=3)
    assert row["cost_critic/loss"] < 10 * before["cost_critic/loss"] + 0.1


def test_the_lagrangian_trains_and_reports_its_price(tmp_path: Path) -> None:
    run = st.train(Effort, "trpo-lagrangian", steps=512, out=tmp_path / "run", cost_limit=6.0, **SMALL)
    prices = [row["update/multiplier"] for row in run.metrics]
    assert prices[-1] > 0
    assert run.metrics[-1]["update/cost_excess"] > 0


def test_what_an_unconstrained_run_costs_is_written_down(tmp_path: Path) -> None:
    run = st.train(Effort, "trpo", steps=256, out=tmp_path / "run", **SMALL)
    assert run.metrics[0]["cost/mean"] > 40
    assert "cost/limit" not in run.metrics[0]


@pytest.mark.parametrize(
    ("algorithm", "env", "settings", "message"),
    [
        ("cpo", Effort, {}, r"cpo keeps the cost .* set cost_limit .* or choose trpo"),
        ("npg", Effort, {"cost_limit": 1.0}, r"npg would ignore cost_limit: choose cpo or trpo-lagrangian"),
        ("cpo", functools.partial(Effort, costs=False), {"cost_limit": 1.0}, r"reports no cost.*info\[\"cost\"\]"),
        ("cpo", Effort, {"cost_limit": 1.0, "scheme": "vine"}, r"vine's branches report no costs"),
        ("cpo", Effort, {"cost_limit": float("nan")}, r"cost_limit must be a finite number"),
        ("trpo", Effort, {"cost_gamma": 0.9}, r"cost_gamma says nothing without a limit"),
        ("cpo", Effort, {"cost_limit": 1.0, "cost_gamma": 1.1}, r"cost_gamma must be in \[0, 1\]"),
    ],
)
def test_what_cannot_be_meant_is_refused_before_anything_is_written(
    tmp_path: Path, algorithm: str, env: Any, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        st.train(env, algorithm, steps=256, out=tmp_path / "run", **SMALL, **settings)
    assert not (tmp_path / "run").exists()
