"""Learning curves: episode returns against environment steps, of one run, and of several methods with several seeds.

Drawn with matplotlib's objects, never pyplot: no display, no global state, safe in a thread. Sized for one column.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, MaxNLocator

from steepest.errors import RunError, UsageError
from steepest.reports.figures import COLOURS, STYLE, save_png
from steepest.runs import RunFolder, columns, read_lines

LINES = ("-", "--", ":", "-.")
DOTS = 5000  # drawn episodes; more only darken the picture
WINDOW = 100  # episodes in the running mean, fewer in a run of less than 1 000
BAND_FROM = 5  # seeds; below it a band would hide how few there are
Curve = tuple[np.ndarray, np.ndarray]  # (steps [n], values [n])


def learning_curve(run_path: Path | str, out_png: Path | str, title: str = "") -> None:
    """Draw one run: every training episode as a dot, their running mean, and the evaluations with ± one deviation.

    run_path: a run folder; what its logs lack is left out (without episodes: the means of each iteration).
    out_png: written atomically; 1050 × 870 pixels.
    Raises UsageError if `run_path` is no run folder, RunError if its logs are damaged or `out_png` cannot be written.
    """
    run = RunFolder.open(run_path)
    metrics = _rows(run.metrics_path)
    episodes = _sorted(columns(_rows(run.episodes_path), "return"))
    iterations = _sorted(columns(metrics, "return/mean"))
    evaluations = _sorted(columns(metrics, "evaluation/mean"))
    deviation = dict(zip(*columns(metrics, "evaluation/std"), strict=True))
    with matplotlib.rc_context(STYLE):
        figure, axes = _axes("episode return", title)
        if episodes[0].size:
            steps, returns = episodes
            shown = np.unique(np.linspace(0, steps.size - 1, min(steps.size, DOTS)).astype(int))
            dots = {"color": COLOURS[5], "alpha": 0.45, "ms": 2.5 if steps.size > 300 else 4, "mew": 0}
            axes.plot(steps[shown], returns[shown], ".", label="episodes", **dots)
            window = min(WINDOW, max(1, steps.size // 10))
            label = f"mean of the last {window} episodes" if window > 1 else "episodes, joined"
            last = np.append(steps[1:] != steps[:-1], True)  # one point where many episodes are logged at one step
            axes.plot(steps[last], running_mean(returns, window)[last], color=COLOURS[0], label=label)
        elif iterations[0].size:
            axes.plot(*iterations, color=COLOURS[0], label="mean of each iteration's episodes")
        if evaluations[0].size:
            error = np.array([deviation.get(step, 0.0) for step in evaluations[0]])
            label = "evaluation: mean ± std of its episodes" if error.any() else "evaluation: mean"
            style = {"color": COLOURS[1], "ms": 3.5, "lw": 0.8, "capsize": 1.5, "zorder": 3}
            axes.errorbar(*evaluations, yerr=error if error.any() else None, fmt="o", label=label, **style)
        axes.set_xlim(left=0)
        if not (episodes[0].size or iterations[0].size or evaluations[0].size):
            axes.set(xticks=[], yticks=[])
            axes.text(0.5, 0.5, "no episode has ended yet", transform=axes.transAxes, ha="center", va="center")
        else:
            _legend(figure)
        save_png(figure, out_png)


def compare_curves(curves: Mapping[str, Sequence[Path | str]], out_png: Path | str, title: str = "") -> None:
    """Draw several methods, each the mean over its seeds' runs on a common grid of environment steps.

    curves: label ↦ run folders, one for each seed. Evaluations are drawn where all runs have them, else training
        returns. The mean spans the steps that all seeds of a label have reached. With fewer than five seeds each is a
        thin line, from five on they are a band from the smallest to the largest; the legend says which.
    out_png: written atomically; 1050 × 870 pixels.
    Raises UsageError if there is nothing to draw or a path is no run folder, RunError if a run has no curve.
    """
    if not curves or not all(curves.values()):
        raise UsageError("nothing to compare: at least one label, and one run for each, are expected")
    metrics = {
        label: [(path, _rows(RunFolder.open(path).metrics_path)) for path in paths] for label, paths in curves.items()
    }
    every = [rows for runs in metrics.values() for _, rows in runs]
    evaluated = all(columns(rows, "evaluation/mean")[0].size for rows in every)
    name = "evaluation/mean" if evaluated else "return/mean"
    ylabel = "episode return (evaluation)" if evaluated else "episode return (training)"
    draw_curves({k: [_curve(p, rows, name) for p, rows in runs] for k, runs in metrics.items()}, out_png, ylabel, title)


def draw_curves(
    curves: Mapping[str, Sequence[Curve]], out_png: Path | str, ylabel: str = "episode return", title: str = ""
) -> None:
    """`compare_curves` of curves that are in memory: label ↦ one (steps [n], values [n]) for each seed."""
    with matplotlib.rc_context(STYLE):
        figure, axes = _axes(ylabel, title)
        drawn = set()
        for index, (label, seeds) in enumerate(curves.items()):
            colour = COLOURS[index % len(COLOURS)]
            line = LINES[index // len(COLOURS) % len(LINES)]
            drawn.add(_draw_seeds(axes, seeds, colour))
            steps, values = common_grid(seeds)
            plural = "s" if len(seeds) > 1 else ""
            axes.plot(steps, values.mean(0), line, color=colour, label=f"{label} ({len(seeds)} seed{plural})")
        explained = ", ".join(part for part in ("thin: each seed", "band: min–max") if part in drawn)
        ncols = 2 if len(curves) > 1 and max(map(len, curves)) < 16 else 1
        _legend(figure, f"line: mean over seeds; {explained}" if explained else "", ncols)
        save_png(figure, out_png)


def running_mean(values: np.ndarray, window: int) -> np.ndarray:
    """The mean of the last `window` values at each of the n, of fewer at the beginning: [n] → [n]."""
    total = np.concatenate([[0.0], np.cumsum(values, dtype=np.float64)])
    end = np.arange(1, values.size + 1)
    start = np.maximum(0, end - window)
    return (total[end] - total[start]) / (end - start)


def common_grid(seeds: Sequence[Curve], points: int = 200) -> tuple[np.ndarray, np.ndarray]:
    """Curves of several seeds, linearly interpolated: (steps [points], values [seeds, points]).

    The grid spans the steps that every seed has: nothing is extrapolated. It is empty where they have none in common.
    """
    first, last = max(steps[0] for steps, _ in seeds), min(steps[-1] for steps, _ in seeds)
    grid = np.linspace(first, last, points) if first <= last else np.empty(0)
    return grid, np.stack([np.interp(grid, steps, values) for steps, values in seeds])


def _draw_seeds(axes: Axes, seeds: Sequence[Curve], colour: str) -> str:
    """Draw what the mean line is the mean of; returns the words that explain it."""
    if len(seeds) == 1:
        return ""
    if len(seeds) < BAND_FROM:
        for steps, values in seeds:
            axes.plot(steps, values, color=colour, lw=0.6, alpha=0.45)
        return "thin: each seed"
    steps, values = common_grid(seeds)
    axes.fill_between(steps, values.min(0), values.max(0), color=colour, alpha=0.18, lw=0)
    return "band: min–max"


def _curve(path: Path | str, rows: list[dict], name: str) -> Curve:
    curve = _sorted(columns(rows, name))
    if not curve[0].size:
        raise RunError(f"{path} has no {name!r} in its metrics: nothing to compare")
    return curve


def _rows(path: Path) -> list[dict]:
    return read_lines(path) if path.exists() else []


def _sorted(curve: Curve) -> Curve:
    order = np.argsort(curve[0], kind="stable")
    return curve[0][order], curve[1][order]


def _axes(ylabel: str, title: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(3.5, 2.9), dpi=300, layout="constrained")
    axes = figure.add_subplot()
    axes.set(xlabel="environment steps", ylabel=ylabel, title=title)
    axes.grid(alpha=0.25, lw=0.5)
    axes.xaxis.set_major_locator(MaxNLocator(6))
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))  # 200k, 1M
    return figure, axes


def _legend(figure: Figure, title: str = "", ncols: int = 1) -> None:
    """Below the axes, where it cannot lie over a curve."""
    legend = figure.legend(title=title or None, loc="outside lower center", ncols=ncols, frameon=False, markerscale=1.5)
    for handle in legend.legend_handles:
        if handle is not None:
            handle.set_alpha(1)
