"""TRPO's settings on MuJoCo's tasks: how the defaults were chosen, and what each habit of PPO's code is worth.

    python benchmarks/tuning.py settings                     # every setting, by the seeds that choose
    python benchmarks/tuning.py habits                       # the defaults with one habit less, or one more
    python benchmarks/tuning.py settings --only "σ₀ = 18/d², δ .03" --envs Hopper-v5 --seeds 200
    python benchmarks/tuning.py settings --table             # only the table

A row is added to benchmarks/results/tuning-STUDY.csv as a run ends, and a run whose row is there is not made again.
Each run has one core, and as many are made at once as there are cores: returns depend on how many threads a run has,
but not on what else the machine does.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import sys
from pathlib import Path
from typing import Any

import rows
from cores import each_on_a_core
from tuning_settings import DIMENSIONS, SEEDS, STUDIES, Setting
from turns import Side, end_on_signals, measure

HERE = Path(__file__).parent
FIELDS = (
    "env", "setting", "options", "seed", "mean", "std", "min", "steps", "seconds", "curve_steps", "curve_means",
    "returns", "cores", "commit", "versions",
)  # fmt: skip


def main() -> None:
    end_on_signals()
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("study", choices=sorted(STUDIES))
    parser.add_argument("--envs", nargs="+", default=list(DIMENSIONS))
    parser.add_argument("--seeds", nargs="+", type=int, default=SEEDS)
    parser.add_argument("--only", nargs="+", default=(), help="only these settings")
    parser.add_argument("--steps", type=int, default=1_000_000)
    parser.add_argument("--results", type=Path, default=HERE / "results", help="folder of the tables")
    parser.add_argument("--table", action="store_true", help="only the table")
    arguments = parser.parse_args()
    table, chosen = arguments.results / f"tuning-{arguments.study}.csv", STUDIES[arguments.study]
    if arguments.only:
        chosen = {name: s for name, s in chosen.items() if name in arguments.only}
    failed = [] if arguments.table else run(chosen, arguments, table)
    print(markdown(rows.read(table)))
    sys.exit(int(bool(failed)))


def run(chosen: dict[str, Setting], arguments: argparse.Namespace, table: Path) -> list[str]:
    """Every run that has no row yet, one on each core; what failed."""
    done = rows.done(rows.read(table), "env", "setting", "seed")
    wanted = itertools.product(arguments.seeds, chosen, arguments.envs)

    def make(job: tuple[int, str, str], core: int) -> None:
        seed, name, env = job
        row = train(env, name, chosen[name](DIMENSIONS[env]), seed, arguments.steps, core)
        rows.append(table, row, FIELDS)
        print(f"{env}, {name}, seed {seed}: {row['mean']:.0f} in {row['seconds']:.0f} s", file=sys.stderr, flush=True)

    return each_on_a_core((job for job in wanted if (job[2], job[1], str(job[0])) not in done), make, str)


def train(env: str, name: str, options: dict[str, Any], seed: int, steps: int, core: int) -> dict[str, Any]:
    """One run on one core, and its row: the last policy's twenty deterministic episodes, five at each quarter."""
    given = [f"--set={key}={json.dumps(value)}" for key, value in options.items()]
    command = [sys.executable, str(HERE / "ours.py"), "learn", env, "--seed", str(seed), "--steps", str(steps)]
    command += ["--every", str(steps // 4), "--set=sampling.workers=0", *given]
    said = measure(Side(f"{env}, {name}, seed {seed}", tuple(command)), (core,))
    returns, curve = said["returns"], said["curve"]
    return rows.where() | {
        "cores": 1,
        "env": env,
        "setting": name,
        "options": " ".join(given),
        "seed": seed,
        "mean": round(statistics.fmean(returns), 2),
        "std": round(statistics.pstdev(returns), 2),
        "min": min(returns),
        "steps": said["steps"],
        "seconds": round(said["seconds"], 1),
        "curve_steps": " ".join(str(point[0]) for point in curve),
        "curve_means": " ".join(str(point[2]) for point in curve),
        "returns": " ".join(map(str, returns)),
    }


def markdown(found: list[dict[str, str]]) -> str:
    """Each setting's mean over seeds by environment, and its seeds."""
    envs = [env for env in DIMENSIONS if any(row["env"] == env for row in found)]
    lines = ["| setting | " + " | ".join(envs) + " |", "|---|" + "---|" * len(envs)]
    for name in dict.fromkeys(row["setting"] for row in found):
        cells = []
        for env in envs:
            means = [float(row["mean"]) for row in found if (row["env"], row["setting"]) == (env, name)]
            each = ", ".join(f"{mean:.0f}" for mean in means)
            cells.append(f"**{statistics.fmean(means):.0f}** ({each})" if means else "")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
