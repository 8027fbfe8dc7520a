"""What the tuned settings of single environments return, beside the rules and the numbers that RL Zoo publishes.

    python benchmarks/tuned.py                              # every environment, ten seeds, tuned and by the rules
    python benchmarks/tuned.py --envs Pendulum-v1 --seeds 1000
    python benchmarks/tuned.py --table                      # only the table, into docs/tuned.md

A row is added to benchmarks/results/tuned.csv as a run ends, and a run whose row is there is not made again. A run is
`steepest train ENV --steps N --seed S [--tuned]` on one core, and its evaluation 100 deterministic episodes of the last
policy, in environments of fresh seeds. As many runs are made at once as there are cores.
"""

from __future__ import annotations

import argparse
import itertools
import os
import queue
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import rows
from learning import FIELDS, one
from speed_tables import filled

from steepest.reports.statistics import stratified_bootstrap
from steepest.training.tuned import TUNED

HERE = Path(__file__).parent
TABLE, PAGE = HERE / "results" / "tuned.csv", HERE.parent / "docs" / "tuned.md"
SEEDS = tuple(range(1000, 1010))
"""By none of which a setting was chosen."""
STEPS = {
    "CartPole-v1": 100_000,
    "Acrobot-v1": 100_000,
    "MountainCar-v0": 100_000,
    "MountainCarContinuous-v0": 50_000,
    "Pendulum-v1": 100_000,
    "LunarLander-v3": 200_000,
    "LunarLanderContinuous-v3": 200_000,
}
"""As many as RL Zoo's TRPO had."""
ZOO = {
    "CartPole-v1": "500",
    "Acrobot-v1": "−83",
    "MountainCar-v0": "−107",
    "Pendulum-v1": "−175",
    "LunarLander-v3": "133 (v2)",
    "LunarLanderContinuous-v3": "262 (v2)",
}
"""Mean returns of its trained TRPO agents: one run each, deterministic."""
LABELS = {"tuned": ["--tuned"], "rules": []}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--envs", nargs="+", default=list(TUNED), choices=list(TUNED))
    parser.add_argument("--seeds", nargs="+", type=int, default=SEEDS)
    parser.add_argument("--table", action="store_true", help="only the table")
    arguments = parser.parse_args()
    failed = [] if arguments.table else run(arguments.envs, arguments.seeds)
    text = markdown(rows.read(TABLE))
    PAGE.write_text(filled(PAGE.read_text(), {"tuned": text}))
    print(text)
    sys.exit(bool(failed))


def run(envs: list[str], seeds: list[int]) -> list[str]:
    """Every run that has no row yet, one on each core; what failed. Where nothing is tuned, the rules alone."""
    done, cores = rows.done(rows.read(TABLE), "env", "label", "seed"), queue.SimpleQueue[int]()
    for core in os.sched_getaffinity(0):
        cores.put(core)
    every = itertools.product(seeds, envs, LABELS)
    wanted = [each for each in every if TUNED[each[1]] or each[2] == "rules"]

    def make(seed: int, env: str, label: str) -> str | None:
        core = cores.get()
        try:
            found = one(env, [*LABELS[label], "--workers", "0"], STEPS[env], seed, core=core, episodes=100)
        except Exception as error:
            return f"{env}, {label}, seed {seed}: {error}"
        finally:
            cores.put(core)
        rows.append(TABLE, {"env": env, "label": label, "seed": seed} | found | {"cores": 1}, FIELDS)
        print(f"{env}, {label}, seed {seed}: {found['mean']:.1f}", file=sys.stderr, flush=True)
        return None

    todo = [(seed, env, label) for seed, env, label in wanted if (env, label, str(seed)) not in done]
    with ThreadPoolExecutor(cores.qsize()) as pool:
        failed = [said for said in pool.map(lambda job: make(*job), todo) if said]
    for said in failed:
        print(said, file=sys.stderr)
    return failed


def markdown(found: list[dict[str, str]]) -> str:
    """A line for each environment and way: the interquartile mean over seeds with its interval, and the extremes."""
    lines = [
        "| | settings | steps | seeds | IQM, 95 % | mean | worst seed | best seed | RL Zoo's TRPO |",
        "|---|---|--:|--:|---|--:|--:|--:|--:|",
    ]
    for env, label in itertools.product(TUNED, LABELS):
        means = [float(row["mean"]) for row in found if (row["env"], row["label"]) == (env, label)]
        if not means:
            continue
        settings = " ".join(f"`{k} = {v:g}`" for k, v in TUNED[env].items()) if label == "tuned" else "the rules"
        iqm = stratified_bootstrap([means])
        interval = f"**{iqm.estimate:.1f}** [{iqm.low:.1f}, {iqm.high:.1f}]"
        extremes = f"{np.mean(means):.1f} | {min(means):.1f} | {max(means):.1f}"
        steps = f"{STEPS[env]:,}"
        lines.append(f"| {env} | {settings} | {steps} | {len(means)} | {interval} | {extremes} | {ZOO.get(env, '–')} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
