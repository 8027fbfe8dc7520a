"""Constrained methods: against the linear programme on random MDPs, and in training against what ignores the cost.

    python benchmarks/constrained.py exact       # results/constrained-exact.csv; two minutes
    python benchmarks/constrained.py train       # results/constrained-training.csv; ten minutes

exact: five states, three actions, γ = 0.9, a limit 0.4 of the way from the least cost to that of the best policy; from
near the cheapest policy and from near the best one. train: HalfCheetah-v5 in episodes of 200 steps, charged for each
step faster than 0.5 m/s; it may be 40 of them. Means over the episodes of the last fifth of a run.
"""

from __future__ import annotations

import csv
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np

import steepest as st
from steepest.algorithms import cpo, trpo_lagrangian
from steepest.runs import RunFolder, read_lines
from steepest.worlds.finite import ConstrainedMDP, random

HERE = Path(__file__).parent
SPEED, LIMIT = 0.5, 40.0


class VelocityCost(gymnasium.Wrapper):
    """info["cost"] = 1 in a step with a velocity above `limit`, m/s, else 0 (the velocity tasks of Ji et al. 2023)."""

    def __init__(self, env: gymnasium.Env, limit: float):
        super().__init__(env)
        self.limit = limit

    def step(self, action: Any) -> Any:
        obs, reward, terminated, truncated, info = self.env.step(action)
        return obs, reward, terminated, truncated, {**info, "cost": float(info["x_velocity"] > self.limit)}


def cheetah() -> gymnasium.Env:
    """HalfCheetah-v5, charged for speed."""
    return VelocityCost(gymnasium.make("HalfCheetah-v5", max_episode_steps=200), SPEED)


def constrained(seed: int) -> tuple[ConstrainedMDP, np.ndarray, np.ndarray]:
    """A random world, and the plans that cost least and earn most."""
    mdp = random(5, 3, 1, seed).discounted(0.9)
    cost = np.random.default_rng(seed).uniform(size=(5, 3))
    cheap, best = ConstrainedMDP(mdp, -cost, 0.0).costs.optimal()[1], mdp.optimal()[1]
    costs = ConstrainedMDP(mdp, cost, 0.0)
    least, most = float(costs.cost(cheap)), float(costs.cost(best))
    return ConstrainedMDP(mdp, cost, least + 0.4 * (most - least)), cheap, best


def exact_rows(seeds: range = range(8)) -> Iterator[dict[str, Any]]:
    """One method, δ and start on one world a row."""
    methods: dict[str, Any] = {"cpo": cpo, "trpo-lagrangian": trpo_lagrangian}
    for seed in seeds:
        world, cheap, dear = constrained(seed)
        if world.cost(dear) - world.limit < 0.01:
            continue  # the best policy is the cheapest
        best = world.optimal()
        for (name, method), delta, (start, plan) in (
            (m, d, s) for m in methods.items() for d in (1e-2, 1e-3) for s in (("within", cheap), ("beyond", dear))
        ):
            steps = round(2 / np.sqrt(delta)) * 4
            policy = st.TabularSoftmax(3.0 * np.eye(3)[plan])
            policies, infos = st.iterate(policy, world, method(delta, solver=st.Direct()), steps)
            excess = np.array([world.cost(p) for p in policies]) - world.limit
            value = np.array([world.value(p) for p in policies])
            inside = np.flatnonzero(excess <= 0)
            back = int(inside[0]) if inside.size else -1
            yield {
                "seed": seed,
                "method": name,
                "delta": delta,
                "start": start,
                "steps": steps,
                "optimum": best.value,
                "limit": world.limit,
                "price": best.multiplier,
                "gap": best.value - value[-1],
                "excess": excess[-1],
                "steps_until_within": back,
                "largest_excess_after": excess[back:].max(),
                "refused": sum(not bool(info.accepted) for info in infos),
            }


def training_rows(seeds: range = range(3), steps: int = 200_000) -> Iterator[dict[str, Any]]:
    """One run a row."""
    limit = {"cost_limit": LIMIT}
    methods: dict[str, dict[str, Any]] = {"trpo": {}, "cpo": limit, "trpo-lagrangian": limit}
    for name, settings in methods.items():
        for seed in seeds:
            with tempfile.TemporaryDirectory() as folder:
                run = st.train(
                    cheetah,
                    name,
                    steps=steps,
                    seed=seed,
                    rollout=208,
                    out=Path(folder) / "run",
                    evaluation={"every": 0, "final_episodes": 1},
                    tensorboard=False,
                    **settings,
                )
                episodes = [e for e in read_lines(RunFolder(run.path).episodes_path) if e["step"] > 0.8 * steps]
                yield {
                    "method": name,
                    "seed": seed,
                    "steps": run.steps,
                    "limit": settings.get("cost_limit", ""),
                    "return": np.mean([e["return"] for e in episodes]),
                    "cost": np.mean([e["cost"] for e in episodes]),
                    "recoveries": sum(bool(row.get("update/recovery", False)) for row in run.metrics),
                    "updates": len(run.metrics),
                    "seconds": round(run.seconds, 1),
                }


def write(path: Path, rows: Iterator[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows, also printed as they come."""
    kept = []
    with path.open("w", newline="") as file:
        for row in rows:
            writer = csv.DictWriter(file, row)
            if not kept:
                writer.writeheader()
            writer.writerow({k: f"{v:.6g}" if isinstance(v, float) else v for k, v in row.items()})
            file.flush()
            print(*(f"{k}={v:.4g}" if isinstance(v, float) else f"{k}={v}" for k, v in row.items()), flush=True)
            kept.append(row)
    return kept


def main() -> None:
    what = sys.argv[1] if len(sys.argv) > 1 else "exact"
    if what == "exact":
        write(HERE / "results" / "constrained-exact.csv", exact_rows())
        return
    rows = write(HERE / "results" / "constrained-training.csv", training_rows())
    for name in dict.fromkeys(row["method"] for row in rows):
        for column in ("return", "cost"):
            values = np.array([row[column] for row in rows if row["method"] == name])
            print(f"{name}: {column} {values.mean():.1f} ± {values.std(ddof=1) / np.sqrt(len(values)):.1f} (s.e.)")


if __name__ == "__main__":
    main()
