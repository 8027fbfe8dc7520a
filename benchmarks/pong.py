"""Pong from pixels in an hour: returns of the episodes of training against minutes, and an evaluation at the end.

    python benchmarks/pong.py                                # seed 0, an hour, in runs/pong-0
    python benchmarks/pong.py --seed 1 --minutes 30
    python benchmarks/pong.py --plot                         # only rebuild the figure and the table from the CSV

A run whose folder is there goes on from where it is, until it has had its minutes, without those of its start-up and of
its evaluation. Then its rows come to benchmarks/results/pong.csv, one for each hundredth of the time.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import rows

from steepest.reports.figures import column_figure, figure_style, save_png
from steepest.runs import read_lines

HERE = Path(__file__).parent
TABLE, FIGURE = HERE / "results" / "pong.csv", HERE.parent / "docs" / "figures" / "pong.png"
ENV, MOST = "ALE/Pong-v5,img_height=42,img_width=42", 20_000_000
OPTIONS = (
    "--policy.network a3c --envs 16 --rollout 256 --subsample 0.125 --delta 0.01 --gae-lambda 0.95 --critic.epochs 5 "
    "--evaluation.every 0 --evaluation.final-episodes 10 --no-tensorboard"
)
FIELDS = (
    "env", "seed", "minutes", "steps", "return", "episodes", "entropy", "kl", "evaluation_mean", "evaluation_std",
    "options", "cores", "commit", "versions",
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--out", type=Path, help="folder of the run; runs/pong-SEED if not said")
    parser.add_argument("--plot", action="store_true", help="only the figure and the table")
    arguments = parser.parse_args()
    if not arguments.plot:
        if (str(arguments.seed),) in rows.done(rows.read(TABLE), "seed"):
            sys.exit(f"{TABLE} has the rows of seed {arguments.seed}: delete them to measure again")
        out = arguments.out or Path("runs") / f"pong-{arguments.seed}"
        train(out, arguments.seed, arguments.minutes)
        for row in curve(out, arguments.seed, arguments.minutes):
            rows.append(TABLE, row, FIELDS)
    found = rows.read(TABLE)
    draw(found)
    print(markdown(found))


def train(out: Path, seed: int, minutes: float) -> None:
    """Begin, or go on, until the run has had its minutes."""
    begin = ["train", ENV, *OPTIONS.split(), "--steps", str(MOST), "--seed", str(seed), "--out", str(out)]
    left = minutes - had(out)
    if left <= 0:
        return
    command = ["resume", str(out)] if out.exists() else begin
    process = subprocess.Popen([sys.executable, "-m", "steepest.cli", *command], stdout=subprocess.DEVNULL)
    while process.poll() is None and had(out) < minutes:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(2)
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    process.wait()


def had(out: Path) -> float:
    """The minutes that a run has trained."""
    found = read_lines(out / "metrics.jsonl") if (out / "metrics.jsonl").exists() else []
    return found[-1]["time/total"] / 60 if found else 0.0


def curve(out: Path, seed: int, minutes: float) -> list[dict[str, Any]]:
    """A row for each hundredth of the time; the last one has the evaluation of the policy as it is then."""
    metrics, episodes = read_lines(out / "metrics.jsonl"), read_lines(out / "episodes.jsonl")
    same = {"env": ENV, "seed": seed, "options": OPTIONS, **rows.where()}
    time = np.array([row["time/total"] / 60 for row in metrics])
    steps, returns = np.array([e["step"] for e in episodes]), np.array([e["return"] for e in episodes])
    found, before = [], 0
    for end in np.linspace(0, minutes, 101)[1:]:
        last = int(np.searchsorted(time, end, side="right")) - 1
        if last < 0 or metrics[last]["step"] == before:
            continue
        row, ended = metrics[last], returns[(steps > before) & (steps <= metrics[last]["step"])]
        before = row["step"]
        if len(ended):
            numbers = {"minutes": round(float(time[last]), 2), "return": round(float(ended.mean()), 2)}
            found.append({**same, **numbers, "steps": before, "episodes": len(ended),
                          "entropy": round(row["update/entropy"], 4), "kl": f"{row['update/kl']:.3g}"})  # fmt: skip
    said = subprocess.run(
        [sys.executable, "-m", "steepest.cli", "evaluate", str(out), "--episodes", "10", "--json"],
        check=True, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    evaluated = np.array(json.loads(said.stdout)["returns"])
    found[-1] |= {"evaluation_mean": evaluated.mean(), "evaluation_std": round(float(evaluated.std()), 2)}
    return found


def draw(found: list[dict[str, str]]) -> None:
    with figure_style():
        figure, axes = column_figure()
        for seed in dict.fromkeys(row["seed"] for row in found):
            mine = [row for row in found if row["seed"] == seed]
            axes.plot(*([float(row[name]) for row in mine] for name in ("minutes", "return")), label=f"seed {seed}")
        axes.axhline(-15, color="black", lw=0.6, ls=":")
        axes.set(xlabel="minutes", ylabel="return of an episode (training)", title="ALE/Pong-v5, two cores")
        axes.legend(frameon=False)
        save_png(figure, FIGURE)


def markdown(found: list[dict[str, str]]) -> str:
    lines = [
        "| seed | minutes | steps | return of the last episodes | evaluation, 10 episodes |",
        "|---|---|---|---|---|",
    ]
    for row in found:
        if row["evaluation_mean"]:
            lines.append(
                f"| {row['seed']} | {float(row['minutes']):.0f} | {int(row['steps']):,} | {row['return']} | "
                f"{float(row['evaluation_mean']):.1f} ± {float(row['evaluation_std']):.1f} |"
            )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
