"""What it costs to know where the environments stand after every rollout, as exact resume needs it.

    python benchmarks/keeping.py        results/keeping.csv, and a line for each environment

A group of eight environments takes the 128 steps of a rollout; then their state is kept and pickled, as a worker does.
Medians of 30, in turns.
"""

from __future__ import annotations

import pickle
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from rows import append, where

from steepest.spaces import describe
from steepest.worlds import make_world
from steepest.worlds.settable import keepable, keeps

TABLE = Path(__file__).parent / "results" / "keeping.csv"
FIELDS = ("env", "steps_ms", "keep_ms", "bytes", "percent", "trial_ms", "cores", "commit", "versions")
ENVIRONMENTS = ("CartPole-v1", "HalfCheetah-v5", "Hopper-v5", "Ant-v5", "Humanoid-v5")
GROUP, STEPS, ROUNDS = 8, 128, 30


def measure(env: str) -> dict[str, Any]:
    """A row of one environment."""
    one = make_world(env, GROUP)
    trial = _milliseconds(lambda: keeps(one))
    one.close()
    world = make_world(env, GROUP)
    found, space = keepable(world), world.action_space
    assert found is not None
    space.seed(0)
    start = describe(space, "action")
    action = np.stack([space.sample() for _ in range(GROUP)]) - getattr(start, "start", 0)
    world.reset(0)

    def roll() -> None:
        for _ in range(STEPS):
            world.step(action)

    rolled, kept = [], []
    for _ in range(ROUNDS):
        rolled.append(_milliseconds(roll))
        kept.append(_milliseconds(lambda: pickle.dumps(found.keep())))
    size = len(pickle.dumps(found.keep()))
    world.close()
    steps, keep = float(np.median(rolled)), float(np.median(kept))
    row = {"env": env, "steps_ms": steps, "keep_ms": keep, "percent": 100 * keep / steps, "trial_ms": trial}
    return {**{k: v if isinstance(v, str) else round(v, 3) for k, v in row.items()}, "bytes": size, **where()}


def _milliseconds(what: Callable[[], Any]) -> float:
    began = time.perf_counter()
    what()
    return 1e3 * (time.perf_counter() - began)


if __name__ == "__main__":
    for env in ENVIRONMENTS:
        row = measure(env)
        append(TABLE, row, FIELDS)
        print(f"{env}: {row['keep_ms']:.3f} ms for {row['steps_ms']:.1f} ms of steps, {row['percent']:.2f} %")
