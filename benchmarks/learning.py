"""Learning on one environment: methods and seeds, each run a `steepest train`, into a CSV and a figure.

    python benchmarks/learning.py hopper            # pg, npg and trpo on Hopper-v5, 300 000 steps, seeds 0, 1, 2
    python benchmarks/learning.py hopper-fresh      # trpo on seeds that no default was chosen by
    python benchmarks/learning.py hopper-pg-grid    # which δ is pg's best
    python benchmarks/learning.py exact-resume --apart   # what it costs to begin all episodes afresh at checkpoints
    python benchmarks/learning.py pendulum-masked --apart   # a pendulum whose velocity nobody sees, with a GRU
    python benchmarks/learning.py minatar --apart   # Breakout of gymnax's MinAtar, ten million frames, hours
    python benchmarks/learning.py hopper --plot     # only rebuild the figure and the table from the CSV

A row is added to benchmarks/results/<name>.csv as a run ends, and a run whose row is there is not done again: what was
interrupted goes on. Returns do not depend on what else the machine does, but on the number of cores the process may
use (sums are added in another order): it is in every row. The committed rows had one core: `taskset -c 1 python …`.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rows
import turns
from cores import each_on_a_core

from steepest.reports import draw_curves
from steepest.runs import read_lines

HERE = Path(__file__).parent
FIELDS = [
    "env", "label", "algorithm", "options", "seed", "steps", "mean", "std", "min", "seconds", "wall_seconds",
    "evaluation_steps", "evaluation_means", "kl_mean", "kl_max", "failures", "cores", "commit", "versions",
]  # fmt: skip


@dataclass(frozen=True)
class Study:
    """env, steps.  methods: label ↦ options of `steepest train`.  seeds.  figure: in docs/figures, or none."""

    env: str
    steps: int
    methods: dict[str, list[str]]
    seeds: tuple[int, ...]
    figure: str | None = None


VINE = {
    "vine": ["--scheme", "vine"],
    "single path": ["--scheme", "single-path"],
}
"""Simulator steps, trunk and branches, are what both have as many of."""

STUDIES = {
    "hopper": Study(
        "Hopper-v5",
        300_000,
        {name: ["--algorithm", name] for name in ("trpo", "npg", "pg")},
        (0, 1, 2),
        "hopper.png",
    ),
    "hopper-fresh": Study("Hopper-v5", 300_000, {"trpo": ["--algorithm", "trpo"]}, tuple(range(10, 20))),
    "hopper-pg-grid": Study(
        "Hopper-v5",
        300_000,
        {
            f"pg, delta {d:g}": ["--algorithm", "pg", "--delta", str(d)]
            for d in (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1)
        },
        (20, 21),
    ),
    "cartpole": Study(
        "CartPole-v1",
        50_000,
        {name: ["--algorithm", name] for name in ("trpo", "npg", "pg")},
        (0, 1, 2, 3, 4),
        "cartpole.png",
    ),
    "cartpole-covariant": Study(
        "CartPole-v1",
        50_000,
        {name: ["--algorithm", name] for name in ("covariant", "natural-actor-critic", "q-npg")},
        (0, 1, 2, 3, 4),
    ),
    "hopper-covariant": Study(
        "Hopper-v5",
        300_000,
        {name: ["--algorithm", name] for name in ("npg", "covariant", "natural-actor-critic")},
        (0, 1, 2),
    ),
    "hopper-vine": Study("Hopper-v5", 300_000, VINE, (0, 1, 2)),
    "swimmer-vine": Study("Swimmer-v5", 300_000, VINE, (0, 1, 2)),
    "exact-resume": Study(
        "LunarLanderContinuous-v3",
        200_000,
        {"as it is": [], "--exact-resume": ["--exact-resume"]},
        tuple(range(40, 50)),
    ),
    "pendulum-masked": Study(
        "steepest/PendulumMasked-v0",
        300_000,
        {
            "gru": ["--policy.memory", "gru", "--gamma", ".95", "--envs", "8", "--rollout", "256"],
            "without memory": ["--gamma", ".95", "--envs", "8", "--rollout", "256"],
        },
        (0, 1, 2),
    ),
    "minatar": Study(
        "gymnax:Breakout-MinAtar",
        10_000_000,
        {
            "trpo": [
                *("--envs", "64", "--rollout", "128", "--delta", ".03", "--damping", ".01"),
                *("--entropy", ".01", "--subsample", ".1"),
            ]
        },
        (0, 1, 2),
        "minatar.png",
    ),
    "halfcheetah": Study("HalfCheetah-v5", 300_000, {"trpo": ["--algorithm", "trpo"]}, (0, 1, 2)),
}


def main() -> None:
    turns.end_on_signals()
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("study", choices=sorted(STUDIES))
    parser.add_argument("--apart", action="store_true", help="one run on each core at once: their time is no evidence")
    parser.add_argument("--plot", action="store_true", help="only rebuild the figure and the table")
    arguments = parser.parse_args()
    study, table = STUDIES[arguments.study], HERE / "results" / f"{arguments.study}.csv"
    failed = [] if arguments.plot else run(study, table, apart=arguments.apart)
    found = rows.read(table)
    print(markdown(found))
    if study.figure is not None:
        out = HERE.parent / "docs" / "figures" / study.figure
        out.parent.mkdir(parents=True, exist_ok=True)
        draw(study, found, out)
        print(out)
    sys.exit(bool(failed))


def run(study: Study, table: Path, *, apart: bool) -> list[str]:
    """Do every run that has no row yet; what failed.  apart: one on each core at once."""
    done = rows.done(rows.read(table), "label", "seed")
    jobs = [(seed, label) for seed in study.seeds for label in study.methods if (label, str(seed)) not in done]

    def make(job: tuple[int, str], core: int | None = None) -> None:
        seed, label = job
        options = study.methods[label]
        row = {"env": study.env, "label": label, "options": " ".join(options), "seed": seed}
        row |= one(study.env, options, study.steps, seed, core=core) | ({} if core is None else {"cores": 1})
        rows.append(table, row, FIELDS)
        print(f"{label}, seed {seed}: {row['mean']:.1f}", file=sys.stderr, flush=True)

    if apart:
        return each_on_a_core(jobs, make, str)
    for job in jobs:
        make(job)
    return []


def one(
    env: str, options: list[str], steps: int, seed: int, *, core: int | None = None, episodes: int = 20
) -> dict[str, Any]:
    """One run of the command line, and what its folder says.  core: the only one that it may use, if any.  episodes: of
    its evaluation."""
    steepest = [sys.executable, "-m", "steepest.cli"]
    if core is not None:
        steepest = ["taskset", "-c", str(core), *steepest]
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        command = ["train", env, *options, "--steps", str(steps), "--seed", str(seed), "--out", str(out), "--json"]
        said, metrics = json.loads(_output([*steepest, *command])), read_lines(out / "metrics.jsonl")
        again = _output([*steepest, "evaluate", str(out), "--episodes", str(episodes), "--json"])
        returns = np.array(json.loads(again)["returns"])
        evaluated = [row for row in metrics if "evaluation/mean" in row]
        return {
            "algorithm": json.loads((out / "config.json").read_text())["algorithm"],
            "steps": said["steps"],
            "mean": round(float(returns.mean()), 2),
            "std": round(float(returns.std()), 2),
            "min": round(float(returns.min()), 2),
            "seconds": round(said["seconds"], 2),
            "wall_seconds": round(said["wall_seconds"], 2),
            "evaluation_steps": " ".join(str(row["step"]) for row in evaluated),
            "evaluation_means": " ".join(f"{row['evaluation/mean']:.2f}" for row in evaluated),
            "kl_mean": f"{np.mean([row['update/kl'] for row in metrics]):.3g}",
            "kl_max": f"{np.max([row['update/kl'] for row in metrics]):.3g}",
            "failures": metrics[-1]["failures"],
            **rows.where(),
        }


def _output(command: list[str]) -> str:
    code, out, err = turns.run(command)
    if code:
        raise RuntimeError(f"exit code {code}: {(err.strip().splitlines() or ['no output'])[-1]}")
    return out


def draw(study: Study, found: list[dict[str, str]], out: Path) -> None:
    """Evaluations against steps, the mean over seeds of each method."""
    curves = {
        label: [
            (np.array(row["evaluation_steps"].split(), float), np.array(row["evaluation_means"].split(), float))
            for row in found
            if row["label"] == label
        ]
        for label in study.methods
    }
    draw_curves(curves, out, "episode return (evaluation)", study.env)


def markdown(found: list[dict[str, str]]) -> str:
    """The final evaluations: each seed's, and their mean with its standard error."""
    lines = [
        "| method | mean of each seed | over seeds | lowest episode | mean KL | steps/s |",
        "|---|---|---|---|---|---|",
    ]
    for label in dict.fromkeys(row["label"] for row in found):
        mine = [row for row in found if row["label"] == label]
        means = np.array([float(row["mean"]) for row in mine])
        error = means.std(ddof=1) / np.sqrt(len(means)) if len(means) > 1 else np.nan
        rate = np.median([float(row["steps"]) / float(row["seconds"]) for row in mine])
        each = ", ".join(f"{m:.0f}" for m in means)
        lowest, kl = min(float(row["min"]) for row in mine), np.mean([float(row["kl_mean"]) for row in mine])
        lines.append(f"| {label} | {each} | {means.mean():.0f} ± {error:.0f} | {lowest:.0f} | {kl:.3g} | {rate:,.0f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
