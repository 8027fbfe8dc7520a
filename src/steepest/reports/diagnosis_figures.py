"""The figures of a diagnosis, one message each, one column wide: drawn from the plain data alone."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, MaxNLocator

from steepest.reports.diagnosis_text import pairs
from steepest.reports.figures import COLOURS, column_figure, figure_style

BINS = 25  # bars of the acceptance figure at most


def draw(name: str, data: Mapping[str, Any]) -> Figure:
    """The figure `name` of a diagnosis; the names are those of `FIGURES`."""
    with figure_style():
        figure, axes = column_figure()
        FIGURES[name](axes, data)
        handles, labels = axes.get_legend_handles_labels()
        if len(labels) > 1:
            figure.legend(handles, labels, loc="outside lower center", ncols=2, frameon=False)
        return figure


def _kl(axes: Axes, data: Mapping[str, Any]) -> None:
    steps, predicted, realised = pairs(data["updates"], "predicted_kl", "kl")
    axes.plot(steps, predicted, color=COLOURS[0], label="predicted, ½ΔᵀFΔ")
    axes.plot(steps, realised, "o", color=COLOURS[1], ms=2.5, mew=0, label="realised")
    axes.set_ylabel("KL of an update (nats per state)")
    axes.set_ylim(0, 1.1 * float(np.max([predicted.max(), realised.max()])) or 1)
    _steps(axes)


def _improvement(axes: Axes, data: Mapping[str, Any]) -> None:
    _, predicted, realised = pairs(data["updates"], "predicted_improvement", "improvement")
    shown = (predicted > 0) & (realised > 0)
    ends = np.array([predicted[shown].min(), predicted[shown].max()]) if shown.any() else np.array([0.1, 1.0])
    ends = ends * [0.8, 1.25]
    axes.plot(ends, ends, "--", color=COLOURS[6], lw=0.8, label="equal")
    axes.plot(predicted[shown], realised[shown], "o", color=COLOURS[0], ms=3, mew=0, alpha=0.7, label="an update")
    hidden = int(np.sum(~shown))
    if hidden:
        axes.plot([], [], " ", label=f"not drawn, realised ≤ 0: {hidden}")
    if ends[1] > 30 * ends[0]:  # within a decade the labels of a logarithmic axis lie over one another
        axes.set(xscale="log", yscale="log")
    axes.set_xlabel("predicted improvement (reward per state)")
    axes.set_ylabel("realised, of the surrogate")


def _acceptance(axes: Axes, data: Mapping[str, Any]) -> None:
    updates = data["updates"]
    kinds = [
        _kind(*row) for row in zip(updates["reason"], updates["accepted"], updates["backtracks"], strict=True)
    ]  # fmt: skip
    edges = np.unique(np.linspace(0, len(kinds), min(BINS, len(kinds)) + 1).astype(int))
    order = ["accepted", "accepted after backtracking"]
    order += sorted({k for k in kinds if k not in order})
    bottom = np.zeros(len(edges) - 1)
    for colour, kind in zip((COLOURS[5], COLOURS[0], *COLOURS[1:5], COLOURS[6], "0.6", "0.8"), order, strict=False):
        hits = np.array([k == kind for k in kinds])
        share = np.array([100 * hits[a:b].mean() for a, b in itertools.pairwise(edges)])
        if hits.any():
            label = kind.replace("_", " ")
            axes.bar(edges[:-1], share, np.diff(edges), bottom, align="edge", color=colour, label=label, lw=0)
            axes.margins(x=0)
        bottom += share
    axes.set(xlabel="update", ylabel="share of updates (%)", ylim=(0, 100))
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    if len(axes.get_legend_handles_labels()[1]) == 1:
        axes.set_title(f"all updates: {axes.get_legend_handles_labels()[1][0]}")


def _kind(reason: Any, accepted: Any, backtracks: Any) -> str:
    if reason is None:
        reason = {True: "accepted", False: "rejected"}.get(accepted, "not said")
    return "accepted after backtracking" if reason == "accepted" and backtracks else str(reason)


def _damping(axes: Axes, data: Mapping[str, Any]) -> None:
    rows = zip(data["updates"]["step"], data["updates"]["damping"], strict=True)
    steps, values = np.array([row for row in rows if row[1] is not None], float).T
    axes.plot(steps, values, color=COLOURS[0], marker="o", ms=2, mew=0)
    axes.set_ylabel("damping λ")
    if values.min() == values.max():
        axes.set_ylim(0, 2 * values[0] or 1)
    elif values.min() > 0:
        axes.set_yscale("log")
    _steps(axes)


def _gradient(axes: Axes, data: Mapping[str, Any]) -> None:
    gradient, natural, batch = data["gradient"], data["natural"], data["run"]["batch"]
    rows = np.array(gradient["rows"], float)
    mean = np.array([np.mean(c) for c in gradient["cosine"]])
    deviation = np.array([np.std(c, ddof=1) if len(c) > 1 else 0.0 for c in gradient["cosine"]])
    noise = gradient["noise_rows"]
    axes.axvline(batch, color="0.6", lw=0.8, ls=":", label=f"the run's batch, {batch:,}")
    if noise is not None and np.isfinite(noise):
        n = np.geomspace(rows[0] / 1.4, rows[-1] * 1.4, 100)
        axes.plot(n, 1 / np.sqrt(1 + noise / n), "--", color=COLOURS[6], lw=0.8, label="with the exact one, estimate")
    style: dict[str, Any] = {"capsize": 2, "lw": 1, "ms": 4}
    axes.errorbar(rows, mean, deviation, fmt="o-", color=COLOURS[0], label="gradient, mean ± sd", **style)
    if natural is not None:
        cosine = np.asarray(natural["cosine"])
        spread = np.std(cosine, ddof=1) if cosine.size > 1 else 0.0
        axes.errorbar(batch * 1.08, cosine.mean(), spread, fmt="s", color=COLOURS[1],
                      label="natural direction, metric F", **style)  # fmt: skip
    axes.set_xscale("log", base=2)
    axes.set_xticks(rows, [f"{n:,.0f}" for n in rows], rotation=30)
    axes.minorticks_off()
    axes.set_ylim(min(0.0, float(np.nanmin(mean - deviation)) - 0.05), 1.05)
    axes.set(xlabel="rows of the batch", ylabel="cosine with all other rows")


def _spectrum(axes: Axes, data: Mapping[str, Any]) -> None:
    spectrum = data["spectrum"]
    count = data["run"]["parameters"] * _share_above(axes, spectrum["values"], spectrum["weights"], data)
    axes.set(yscale="log", ylabel="eigenvalues at or above it, estimate")
    axes.set_ylim(max(0.3, float(count.min()) / 2), 2 * data["run"]["parameters"])
    axes.lines[0].set_ydata(np.append(count, 1e-9))


def _alignment(axes: Axes, data: Mapping[str, Any]) -> None:
    spectrum = data["spectrum"]
    share = _share_above(axes, spectrum["gradient_values"], spectrum["gradient_weights"], data)
    axes.lines[0].set_ydata(np.append(100 * share, 0))
    axes.set_ylabel("share of ‖g‖² at or above it (%)")
    axes.set_ylim(0, 103)


def _share_above(axes: Axes, values: Any, weights: Any, data: Mapping[str, Any]) -> np.ndarray:
    """Draw the steps at the eigenvalues, and λ; return the weight at or above each."""
    floor, damping = max(float(data["spectrum"]["floor"]), 1e-30), data["solver"]["used"]
    x = np.maximum(np.asarray(values), floor)
    above = np.cumsum(np.asarray(weights)[::-1])[::-1]
    axes.step(np.append(x, 1.3 * x[-1]), np.append(above, 0), where="pre", color=COLOURS[0])
    if damping > 0:
        axes.axvline(damping, color="0.4", lw=0.9, ls="--")
        axes.annotate(f" λ = {damping:.3g}", (damping, 0.02), xycoords=("data", "axes fraction"), fontsize=7)
    axes.set(xscale="log", xlabel="eigenvalue of F (left end: rounding)")
    return above


def _solver(axes: Axes, data: Mapping[str, Any]) -> None:
    solver = data["solver"]
    for colour, damping, curve in zip(COLOURS, solver["damping"], solver["residual"], strict=False):
        used = damping == solver["used"]
        label = f"λ = {damping:.3g}" + (" (the run's)" if used else "")
        axes.plot(np.maximum(curve, 1e-12), color=colour, label=label, lw=1.8 if used else 1, zorder=3 if used else 2)
    if solver["iterations"] is not None:
        axes.axvline(solver["iterations"], color="0.5", lw=0.8, ls=":", label=f"the run's {solver['iterations']}")
    axes.set(yscale="log", xlabel="iterations of conjugate gradients", ylabel="‖g − (M + λI)x‖ / ‖g‖")
    axes.set_xlim(left=0)


def _line(axes: Axes, data: Mapping[str, Any]) -> None:
    line = data["line"]
    delta = np.asarray(line["delta"])
    axes.plot(delta, delta, "--", color=COLOURS[6], lw=0.8, label="equal")
    for name, colour, label in (
        ("kl", COLOURS[0], "rows that made the step"),
        ("kl_elsewhere", COLOURS[1], "other rows"),
    ):
        axes.plot(delta, _positive(line[name]), "o-", ms=3, color=colour, label=label)
    axes.axvline(line["used"], color="0.5", lw=0.8, ls=":", label="the run's")
    axes.set(xscale="log", yscale="log", xlabel="predicted KL (nats per state)", ylabel="realised KL")


def _gain(axes: Axes, data: Mapping[str, Any]) -> None:
    line = data["line"]
    delta = np.asarray(line["delta"])
    axes.plot(delta, line["predicted"], "--", color=COLOURS[6], lw=0.8, label="predicted, gᵀΔ")
    axes.plot(delta, line["gain"], "o-", ms=3, color=COLOURS[0], label="rows that made the step")
    axes.plot(delta, line["gain_elsewhere"], "o-", ms=3, color=COLOURS[1], label="other rows")
    axes.axvline(line["used"], color="0.5", lw=0.8, ls=":", label="the run's")
    axes.set(xscale="log", xlabel="predicted KL (nats per state)", ylabel="improvement (reward per state)")


FIGURES: dict[str, Callable[[Axes, Mapping[str, Any]], None]] = {
    "kl": _kl,
    "improvement": _improvement,
    "acceptance": _acceptance,
    "damping": _damping,
    "gradient": _gradient,
    "spectrum": _spectrum,
    "alignment": _alignment,
    "solver": _solver,
    "line": _line,
    "gain": _gain,
}


def _positive(values: Any) -> np.ndarray:
    """With a gap where a logarithm has none."""
    values = np.asarray(values, float)
    return np.where(np.isfinite(values) & (values > 0), values, np.nan)


def _steps(axes: Axes) -> None:
    axes.set_xlabel("environment steps")
    axes.set_xlim(left=0)
    axes.xaxis.set_major_locator(MaxNLocator(6))
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
