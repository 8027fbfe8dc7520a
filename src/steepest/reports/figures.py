"""How every figure looks and is written: one column wide, colour-blind safe, without a display, whole or not at all.

    with figure_style():
        figure, axes = column_figure(columns=2)
        …
        save_png(figure, path)

Drawn with matplotlib's objects, never pyplot: no display, no global state, safe in a thread.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from steepest.runs import write_bytes

# Okabe & Ito's palette: told apart with every common colour blindness, and in print
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
STYLE: dict[Any, Any] = {
    "font.size": 8,
    "axes.labelsize": 8,
    "axes.titlesize": 8,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7,
    "legend.title_fontsize": 7,
    "lines.linewidth": 1.4,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "svg.hashsalt": "steepest",  # the same figure is the same file
}
COLUMN = 3.5  # inches: the column of a journal


@contextmanager
def figure_style() -> Iterator[None]:
    """matplotlib's settings within, as they were afterwards."""
    with matplotlib.rc_context(STYLE):
        yield


def column_figure(rows: int = 1, columns: int = 1, *, height: float = 2.6, **subplots: Any) -> tuple[Figure, Any]:
    """A figure with rows × columns axes, each `COLUMN` inches wide and `height` inches high: (figure, axes [r,c]).

    subplots: further arguments of `Figure.subplots`, such as sharey. One axes alone is not in an array.
    """
    figure = Figure(figsize=(COLUMN * columns, height * rows), dpi=300, layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, **subplots)
    for one in np.ravel(axes):
        one.grid(alpha=0.25, lw=0.5)
    return figure, axes[0, 0] if rows == columns == 1 else axes


def save_png(figure: Figure, path: Path | str) -> None:
    """Write a PNG of 300 dots per inch, atomically."""
    image = io.BytesIO()
    FigureCanvasAgg(figure).print_png(image)
    write_bytes(path, image.getvalue())


def save_svg(figure: Figure, path: Path | str) -> None:
    """Write an SVG, atomically; the same figure gives the same bytes."""
    image = io.BytesIO()
    with figure_style():
        FigureCanvasSVG(figure).print_svg(image, metadata={"Date": None})
    write_bytes(path, image.getvalue())
