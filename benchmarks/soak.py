"""One training for hours, and what it takes of the machine: memory, files, threads, and the time of a step.

    python benchmarks/soak.py                    two hours of CartPole-v1 → results/soak.csv, docs/figures/soak.png
    python benchmarks/soak.py --minutes 100
    python benchmarks/soak.py figure             the figure again, of the rows that are there

The training is a process of its own, `steepest train` as anybody would start it; every ten seconds its numbers are read
from /proc and from its metrics. Others on the machine change the seconds of a step, not its processor seconds.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from rows import append, read, where

TABLE = Path(__file__).parent / "results" / "soak.csv"
FIGURE = Path(__file__).parents[1] / "docs" / "figures" / "soak.png"
FIELDS = ("run", "seconds", "resident_mib", "files", "threads", "processor_seconds", "steps", "iterations", "env",
          "cores", "commit", "versions")  # fmt: skip
EVERY = 10.0
SETTINGS = ["--steps", "1e12", "--evaluation.every", "2e6", "--max-failures", "1e9"]
"""It does not end by itself, and goes on where nothing is left to be learnt."""


def watch(env: str, minutes: float) -> None:
    """Train for so long, and write down a row every ten seconds."""
    folder = Path(tempfile.mkdtemp(prefix="soak-"))
    said = {"run": time.strftime("%Y-%m-%dT%H:%M"), "env": env, **where()}
    command = [sys.executable, "-m", "steepest.cli", "train", env, *SETTINGS, "--out", str(folder / "run"), "--quiet"]
    process = subprocess.Popen(command)
    began = time.monotonic()
    try:
        while process.poll() is None and time.monotonic() - began < 60 * minutes:
            time.sleep(EVERY)
            if process.poll() is None and (line := _last_line(folder / "run" / "metrics.jsonl")) is not None:
                seconds = round(time.monotonic() - began, 1)
                append(TABLE, {**said, "seconds": seconds, **_taken(process.pid), **_done(line)}, FIELDS)
        assert process.poll() is None, f"it ended by itself, with {process.returncode}"
        process.send_signal(signal.SIGTERM)
        assert process.wait(600) == 128 + signal.SIGTERM
    finally:
        process.kill()
        process.wait()
        shutil.rmtree(folder, ignore_errors=True)


def _taken(pid: int) -> dict[str, Any]:
    """Resident memory, open files, threads and processor time of a process."""
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    times = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    ticks = int(times[11]) + int(times[12])
    return {
        "resident_mib": round(int(status["VmRSS"].split()[0]) / 1024, 1),
        "threads": int(status["Threads"]),
        "files": len(os.listdir(f"/proc/{pid}/fd")),
        "processor_seconds": ticks / os.sysconf("SC_CLK_TCK"),
    }


def _done(line: dict[str, Any]) -> dict[str, int]:
    return {"steps": line["step"], "iterations": line["iteration"]}


def _last_line(path: Path) -> dict[str, Any] | None:
    if not path.exists():
        return None
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 20_000))
        lines = file.read().splitlines()
    return json.loads(lines[-2]) if len(lines) > 2 else None


def draw() -> None:
    """The last run's rows, as a figure; and what they come to, in a line."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    rows = read(TABLE)
    rows = [row for row in rows if row["run"] == rows[-1]["run"]]
    t, memory, files, cpu, steps = (
        np.array([float(row[name]) for row in rows])
        for name in ("seconds", "resident_mib", "files", "processor_seconds", "steps")
    )
    width = max(1, len(t) // 40)  # a point of the speed is of so many rows
    speed = (steps[width::width] - steps[:-width:width]) / (cpu[width::width] - cpu[:-width:width]) / 1000
    figure, axes = plt.subplots(1, 3, figsize=(10, 2.8), layout="constrained")
    for axis, x, y, label in zip(
        axes,
        (t, t, t[width::width]),
        (memory, files, speed),
        ("resident memory [MiB]", "open files", "1000 steps a processor second"),
        strict=True,
    ):
        axis.plot(np.asarray(x) / 60, y, color="#1f4e79", lw=1)
        axis.set(xlabel="minutes", title=label, ylim=(0, 1.25 * float(np.max(y))))
        axis.spines[["top", "right"]].set_visible(False)
    FIGURE.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(FIGURE, dpi=120)
    quarter = max(1, len(t) // 4)
    late = t > t[-1] / 4
    growth = np.polyfit(t[late] / 3600, memory[late], 1)[0]
    print(
        f"{rows[0]['env']}: {t[-1] / 60:.0f} minutes, {steps[-1]:,.0f} steps, {rows[-1]['iterations']} iterations; "
        f"memory {np.median(memory[:quarter]):.0f} MiB in the first quarter, {np.median(memory[-quarter:]):.0f} in the "
        f"last, {growth:+.1f} MiB an hour after the first quarter; open files {files.min():.0f} to {files.max():.0f}; "
        f"speed of the last quarter {speed[-len(speed) // 4 :].mean() / speed[: len(speed) // 4].mean():.3f} of the "
        "first"
    )


def main() -> None:
    """See above."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="?", choices=("watch", "figure"), default="watch")
    parser.add_argument("--env", default="CartPole-v1")
    parser.add_argument("--minutes", type=float, default=120.0)
    given = parser.parse_args()
    if given.what == "watch":
        watch(given.env, given.minutes)
    draw()


if __name__ == "__main__":
    main()
