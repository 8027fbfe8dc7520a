"""What the command line says of runs that have ended."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from rich.console import Console

from steepest.training.display import summary
from steepest.training.running import Run


def report(run: Run | list[Run], console: Console, *, as_json: bool) -> int:
    """Print the end of a run, or of runs that were trained together, and return the exit code."""
    runs = run if isinstance(run, list) else [run]
    if as_json:
        print(json.dumps(_record(run) if isinstance(run, Run) else _together(run)))
    else:
        summary(console, _rows(runs))
        done = [each.evaluation for each in runs if len(each.evaluation)]
        if done:
            print(evaluation_line(np.concatenate(done)))
    return max(each.exit_code for each in runs)


def evaluation_line(returns: Any) -> str:
    """returns: [episodes]."""
    return f"evaluation mean={np.mean(returns):.2f} std={np.std(returns):.2f} episodes={len(returns)}"


def _record(run: Run) -> dict[str, Any]:
    return {
        "run": str(run.path),
        "steps": run.steps,
        "seconds": run.seconds,
        "wall_seconds": run.wall_seconds,
        "return_mean": float(run.evaluation.mean()) if len(run.evaluation) else None,
        "ended": run.ended,
        "faults": run.faults,
    }


def _together(runs: Sequence[Run]) -> dict[str, Any]:
    means = [float(run.evaluation.mean()) for run in runs if len(run.evaluation)]
    return {
        "runs": [_record(run) for run in runs],
        "seconds": sum(run.seconds for run in runs),
        "wall_seconds": max(run.wall_seconds for run in runs),
        "return_mean": float(np.mean(means)) if means else None,
    }


def _rows(runs: Sequence[Run]) -> dict[str, str]:
    first, seconds, steps = runs[0], sum(run.seconds for run in runs), sum(run.new_steps for run in runs)
    wall = max(run.wall_seconds for run in runs)
    rows = {
        "run": str(first.path),
        "ended": first.ended,
        "steps": f"{first.steps:,}",
        "seconds": f"{seconds:.1f} ({steps / max(seconds, 1e-9):,.0f} steps/s), {wall:.1f} "
        "with start-up and evaluation",
    }
    if faults := sum(run.faults for run in runs):
        rows["faults"] = f"{faults:,} of environments: faults.jsonl says which"
    if len(runs) > 1:
        each = [f"{run.evaluation.mean():.2f}" if len(run.evaluation) else "–" for run in runs]
        del rows["run"]
        rows |= {"runs": f"{first.path} … {runs[-1].path.name}", "means": " ".join(each)}
    elif len(first.evaluation):
        rows["learning curve"] = str(first.path / "learning_curve.png")
    if not all(len(run.evaluation) for run in runs):
        rows["go on with"] = f"steepest resume {first.path}"
    return rows
