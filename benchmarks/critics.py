"""TRPO with its critic fitted by Adam and by Gauss–Newton, the same seeds of several environments, into a CSV.

    python benchmarks/critics.py                # the comparison: seeds 0, 1, 2
    python benchmarks/critics.py --screen       # what chose Gauss–Newton's settings: seeds 30, 31, fewer steps
    python benchmarks/critics.py --table        # only rebuild the table from the CSV

A row is added to benchmarks/results/critics.csv as a run ends, and a run whose row is there is not done again. The
seconds are those that the run's process had a processor, on one core the seconds of a machine that does nothing else:
`taskset -c 1 python …`. (In critics-screened.csv they are wall seconds of a busy machine, the tenth percentile.)
"""

from __future__ import annotations

import argparse
import itertools
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import rows

from steepest.runs import read_lines

RESULTS = Path(__file__).parent / "results"
FIELDS = [
    "env", "label", "options", "seed", "steps", "mean", "area", "learn", "collect", "explained", "kept",
    "seconds", "bin_steps", "bin_returns", "cores", "commit", "versions",
]  # fmt: skip

ADAM = ["--critic.fit", "adam"]
NEWTON = ["--critic.fit", "gauss-newton"]
SCREENED = {
    "adam": ADAM,
    **{
        f"gauss-newton, {steps} × {delta}": [*NEWTON, "--critic.newton-steps", steps, "--critic.newton-delta", delta]
        for steps, delta in (("1", "0.3"), ("2", "0.1"), ("3", "0.3"))
    },
}
METHODS = {name: SCREENED[label] for name, label in (("adam", "adam"), ("gauss-newton", "gauss-newton, 1 × 0.3"))}
STEPS = {
    "CartPole-v1": 50_000,
    "InvertedDoublePendulum-v5": 200_000,
    "Hopper-v5": 200_000,
    "HalfCheetah-v5": 200_000,
    "Walker2d-v5": 200_000,
    "Swimmer-v5": 200_000,
}
SCREENED_STEPS = {"CartPole-v1": 50_000, "Hopper-v5": 100_000, "HalfCheetah-v5": 100_000}
TRAIN = "import sys, time; time.perf_counter = time.process_time; from steepest.cli import main; sys.exit(main())"
"""The command line, with processor time for a clock."""
BINS = 20
"""The training returns are averaged over so many equal parts of a run's steps."""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--screen", action="store_true", help="the runs that chose the settings, on other seeds")
    parser.add_argument("--table", action="store_true", help="only rebuild the table")
    arguments = parser.parse_args()
    table = RESULTS / ("critics-screened.csv" if arguments.screen else "critics.csv")
    if not arguments.table:
        if arguments.screen:
            run(SCREENED_STEPS, SCREENED, (30, 31), table)
        else:
            run(STEPS, METHODS, (0, 1, 2), table)
    print(markdown(rows.read(table)))


def run(environments: dict[str, int], methods: dict[str, list[str]], seeds: tuple[int, ...], table: Path) -> None:
    """Do every run that has no row yet."""
    done = rows.done(rows.read(table), "env", "label", "seed")
    for seed, env, label in itertools.product(seeds, environments, methods):
        if (env, label, str(seed)) in done:
            continue
        row = {"env": env, "label": label, "options": " ".join(methods[label]), "seed": seed}
        row |= one(env, methods[label], environments[env], seed)
        rows.append(table, row, FIELDS)
        print(f"{env}, {label}, seed {seed}: {row['mean']:.1f}, area {row['area']:.1f}", file=sys.stderr, flush=True)


def one(env: str, options: list[str], steps: int, seed: int) -> dict:
    """One run of the command line, and what its folder says."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        command = [
            sys.executable,
            "-c",
            TRAIN,
            "train",
            env,
            *options,
            "--steps",
            str(steps),
            "--seed",
            str(seed),
            "--out",
            str(out),
        ]
        command += ["--evaluation.every", "0", "--no-tensorboard", "--json"]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        said, metrics = json.loads(done.stdout), read_lines(out / "metrics.jsonl")
        at, means = binned(read_lines(out / "episodes.jsonl"), said["steps"])
        column = {key: np.array([row[key] for row in metrics], float) for key in METRICS}
        learn, collect = (np.median(column[key]) for key in ("time/learn", "time/collect"))
        return {
            "steps": said["steps"],
            "mean": round(said["return_mean"], 2),
            "area": round(float(np.mean(means)), 2),
            "learn": f"{learn:.4g}",
            "collect": f"{collect:.4g}",
            "explained": f"{np.median(column['critic/explained']):.3g}",
            "kept": f"{np.mean(column['critic/kept']):.3g}",
            "seconds": round(said["seconds"], 2),
            "bin_steps": " ".join(f"{x:.0f}" for x in at),
            "bin_returns": " ".join(f"{x:.2f}" for x in means),
            **rows.where(),
        }


METRICS = ("time/learn", "time/collect", "critic/explained", "critic/kept")


def binned(episodes: list[dict], steps: int) -> tuple[np.ndarray, np.ndarray]:
    """The ends of equal parts of the steps, and the mean return of the training episodes that ended in each.

    A part in which none ended has the return of the part before; the first, that of the first episodes.
    """
    edges = np.linspace(0, steps, BINS + 1)
    at = np.array([row["step"] for row in episodes])
    value = np.array([row["return"] for row in episodes], float)
    means = [value[(at > low) & (at <= high)] for low, high in itertools.pairwise(edges)]
    last, filled = value[at == at.min()].mean(), []
    for part in means:
        last = part.mean() if len(part) else last
        filled.append(last)
    return edges[1:], np.array(filled)


def markdown(found: list[dict[str, str]]) -> str:
    """For each environment and method, means over seeds ± their standard errors.

    At equal seconds: the training return when the faster method of the environment has just done its steps, an
    iteration taking the collection's seconds, the same for all, and its own method's of learning.
    """
    lines = [
        "| environment | critic | seeds | final return | mean return in training | "
        "return at equal seconds | explained | ms to learn | ms to collect |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for env in dict.fromkeys(row["env"] for row in found):
        here = [row for row in found if row["env"] == env]
        collect = np.median([float(row["collect"]) for row in here])
        labels = list(dict.fromkeys(row["label"] for row in here))
        learn = {x: np.median([float(row["learn"]) for row in here if row["label"] == x]) for x in labels}
        least = min(learn.values())
        for label in labels:
            mine = [row for row in here if row["label"] == label]
            share = (collect + least) / (collect + learn[label])
            at_equal = [float(np.interp(share * float(row["steps"]), *curve(row))) for row in mine]
            cells = [
                env, label, str(len(mine)), said([float(row["mean"]) for row in mine]),
                said([float(row["area"]) for row in mine]), said(at_equal),
                f"{np.mean([float(row['explained']) for row in mine]):.2f}",
                f"{1e3 * learn[label]:.1f}", f"{1e3 * collect:.0f}",
            ]  # fmt: skip
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def curve(row: dict[str, str]) -> tuple[np.ndarray, np.ndarray]:
    """(steps, mean training return of the part that ends there)."""
    return np.array(row["bin_steps"].split(), float), np.array(row["bin_returns"].split(), float)


def said(values: list[float]) -> str:
    error = np.std(values, ddof=1) / np.sqrt(len(values)) if len(values) > 1 else np.nan
    return f"{np.mean(values):.0f} ± {error:.0f}"


if __name__ == "__main__":
    main()
