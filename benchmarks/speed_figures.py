"""The figures of docs/speed.md: updates, throughput, scale, returns. One colour a side, the same in all of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import EngFormatter, FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from steepest.reports.figures import COLOURS, COLUMN, column_figure, figure_style, save_png
from steepest.reports.learning_curve import common_grid
from steepest.reports.statistics import stratified_bootstrap

Row = dict[str, str]
STYLES = {  # side: colour, marker
    "steepest": (COLOURS[0], "o"),
    "sb3-contrib TRPO": (COLOURS[1], "s"),
    "SB3 PPO": (COLOURS[4], "^"),
    "Tianshou TRPO": (COLOURS[2], "D"),
    "Tianshou NPG": (COLOURS[3], "v"),
}


VARIANTS = {"16 processes": "X", "1 thread": "P"}  # a third and a fourth of one library


def style(side: str) -> tuple[str, str]:
    """Colour and marker of the side that the name begins with."""
    return next((look for name, look in STYLES.items() if side.startswith(name)), (COLOURS[6], "|"))


def draw_update(found: Sequence[Row], out: Path) -> bool:
    """Seconds of an update, a line a size: the median as a point, least to greatest as a bar. Whether it was drawn."""
    with figure_style():
        figure, axes = column_figure(height=1.3 + 0.45 * len(_names(found, "case")))
        _dots(axes, found, "time of one update [s]")
        axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
        _legend_below(figure, axes, 2)
        save_png(figure, out)
    return True


def draw_throughput(found: Sequence[Row], out: Path) -> bool:
    """Steps a second, a line an environment, on a logarithmic scale; the environments alone as a stroke."""
    with figure_style():
        figure, axes = column_figure(height=1.2 + 0.36 * len(_names(found, "case")))
        _dots(axes, found, "environment steps per second, all in")
        figure.set_figwidth(1.5 * COLUMN)
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        figure.legend(*axes.get_legend_handles_labels(), loc="outside right upper", frameon=False)
        save_png(figure, out)
    return True


def draw_scale(found: Sequence[Row], out: Path) -> bool:
    """An update against the products of its solver, and steps a second against the number of environments."""
    with figure_style():
        figure, axes = column_figure(columns=2)
        units = ("product", "environment")
        for panel, unit in zip(axes[0], units, strict=True):
            for side in _names(found, "side"):
                colour, marker = style(side)
                at = [(_number(r["case"]), float(r["value"])) for r in found if unit in r["case"] and r["side"] == side]
                x = sorted({number for number, _ in at})
                if x:
                    y = [np.median([value for number, value in at if number == n]) for n in x]
                    panel.plot(x, y, marker + "-", ms=3.5, color=colour, label=side)
            panel.set_ylim(bottom=0)
        left, right = axes[0]
        left.set(xlabel="conjugate-gradient products", ylabel="time of one update [s]")
        right.set(xlabel="environments", ylabel="steps per second, all in")
        right.set_xscale("log", base=2)
        right.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
        right.yaxis.set_major_formatter(EngFormatter(sep=""))
        _legend_below(figure, left, 2)
        save_png(figure, out)
    return True


def draw_returns(found: Sequence[Row], out: Path) -> bool:
    """Evaluations against steps and against minutes: interquartile mean over seeds, and its 95 % interval."""
    found = [row for row in found if len(row["curve_steps"].split()) > 1]
    if not found:
        return False
    envs = _names(found, "env")
    with figure_style():
        figure, axes = column_figure(2, len(envs), height=2.0, sharey="col")
        figure.set_size_inches(0.62 * COLUMN * len(envs), 4.2)
        for column, env in enumerate(envs):
            for row, (name, scale) in enumerate((("curve_steps", 1.0), ("curve_seconds", 60.0))):
                for side in _names(found, "side"):
                    mine = [r for r in found if r["env"] == env and r["side"] == side]
                    mine = [r for r in mine if name == "curve_steps" or r["disturbed"] == "0"]
                    if mine:
                        _band(
                            axes[row, column], [(_list(r[name]) / scale, _list(r["curve_means"])) for r in mine], side
                        )
            axes[0, column].set_title(env)
            axes[0, column].set_xlabel("steps")
            axes[0, column].xaxis.set_major_formatter(EngFormatter(sep=""))
            axes[0, column].xaxis.set_major_locator(MaxNLocator(4))
            axes[1, column].set_xlabel("minutes")
            axes[1, column].set_xscale("log")
            axes[1, column].xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
            axes[1, column].xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
            axes[1, column].xaxis.set_minor_formatter(NullFormatter())
        for panel in axes[:, 0]:
            panel.set_ylabel("evaluation return")
        _legend_below(figure, axes[0, 0], len(STYLES))
        save_png(figure, out)
    return True


def _band(axes: Axes, curves: list[tuple[np.ndarray, np.ndarray]], side: str) -> None:
    """The interquartile mean of the curves where all of them are, and its interval."""
    colour, _ = style(side)
    grid, each = common_grid(curves)
    if not grid.size:
        return
    found = stratified_bootstrap([each], resamples=500)
    axes.plot(grid, found.estimate, color=colour, label=side)
    axes.fill_between(grid, found.low, found.high, color=colour, alpha=0.18, lw=0)


def _dots(axes: Axes, found: Sequence[Row], label: str) -> None:
    cases, sides = _names(found, "case"), _names(found, "side")
    for index, side in enumerate(sides):
        colour, marker = style(side)
        if side.startswith("sb3-contrib TRPO, "):
            marker = VARIANTS.get(side.rpartition(", ")[2], marker)
        face = "white" if side.endswith("16 envs") else colour
        offset = 0.6 * ((index + 0.5) / len(sides) - 0.5)
        for line, case in enumerate(cases):
            numbers = [float(row["value"]) for row in found if row["case"] == case and row["side"] == side]
            if numbers:
                y = line + offset
                axes.plot([min(numbers), max(numbers)], [y, y], "-", color=colour, lw=0.8)
                label_once = side if line == 0 else None
                axes.plot(np.median(numbers), y, marker, ms=4, color=colour, mfc=face, label=label_once, ls="")
    axes.set_yticks(range(len(cases)), cases)
    axes.set_ylim(len(cases) - 0.5, -0.5)
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel(label)
    axes.grid(axis="y", visible=False)


def _legend_below(figure: Any, axes: Axes, columns: int) -> None:
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=columns, frameon=False)


def _names(found: Sequence[Row], column: str) -> list[str]:
    return list(dict.fromkeys(row[column] for row in found))


def _number(case: str) -> int:
    return int(case.split()[0])


def _list(text: str) -> np.ndarray:
    return np.array(text.split(), float)
