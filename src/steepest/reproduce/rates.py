"""Published rates of convergence of tabular methods: measured gaps under their bounds, on many random MDPs.

gap_t / bound_t ≤ 1        for every method, step, MDP and iteration
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from steepest.algorithms import convergence
from steepest.algorithms.convergence import Trace
from steepest.reports.figures import COLOURS, column_figure, figure_style
from steepest.reproduce.experiment import Experiment, Outcome
from steepest.worlds.finite.ensemble import Ensemble, random_ensemble

COUNT, ACTIONS = 50, 3
DISCOUNTS, STEPS, PARTS = (0.5, 0.9, 0.99), (0.01, 0.1, 1.0, 10.0), (0.1, 0.5, 1.0)
ROUNDING = 1e-12  # times the square of the time scale: by how much float64 may blur a gap


@dataclass(frozen=True)
class Method:
    """One theorem.

    source: whose.  drawn: the setting in the figure.  settings: all that are tried.
    run: (worlds, count, **setting) ↦ Trace.  what: the axis of its gap.  log: whether that of the updates is, as fits
    a bound that is a power.
    """

    name: str
    source: str
    drawn: dict[str, float]
    settings: Sequence[dict[str, float]]
    run: Callable[..., Trace]
    what: str = "gap $V^* - V$"
    log: bool = True


def _regularised(worlds: Ensemble, count: int, discount: float, temperature: float, part: float) -> Trace:
    step = part * (1.0 - discount) / temperature
    return convergence.regularised(worlds, discount, temperature, step, count)[0]


def _by_step(run: Callable[..., Trace]) -> Callable[..., Trace]:
    return lambda worlds, count, discount, step: run(worlds, discount, step, count)


_DISCOUNTED = [{"discount": g, "step": e} for g in DISCOUNTS for e in STEPS]
METHODS = (
    Method(
        "multiplicative weights = NPG",
        "Agarwal et al. 2021, theorem 16",
        {"discount": 0.9, "step": 0.01},
        _DISCOUNTED,
        _by_step(convergence.multiplicative_weights),
    ),
    Method(
        "mirror descent, constant step",
        "Xiao 2022, theorem 8",
        {"discount": 0.9, "step": 1.0},
        _DISCOUNTED,
        _by_step(convergence.constant_mirror_descent),
    ),
    Method(
        "mirror descent, growing step",
        "Xiao 2022, theorem 10",
        {"discount": 0.9, "first": 0.01},
        [{"discount": g, "first": e} for g in DISCOUNTS for e in STEPS],
        lambda worlds, count, discount, first: convergence.growing_mirror_descent(worlds, discount, first, count),
        log=False,
    ),
    Method(
        "entropy-regularised NPG",
        "Cen et al. 2022, theorem 1",
        {"discount": 0.9, "temperature": 0.1, "part": 0.1},
        [
            {"discount": g, "temperature": t, "part": p}
            for g in DISCOUNTS
            for t in (0.01, 0.1, 1.0)
            for p in (0.1, 0.5, 1.0)
        ],
        _regularised,
        what=r"gap $\|Q^*_\tau - Q_\tau\|_\infty$",
        log=False,
    ),
    Method(
        "softmax per step, finite horizon",
        "Agarwal et al. 2021, by step",
        {"horizon": 20, "exponent": 0.01},
        [{"horizon": h, "exponent": a} for h in (1, 5, 20) for a in STEPS],
        lambda worlds, count, horizon, exponent: convergence.stepwise(worlds, horizon, exponent, count),
    ),
)
SYMBOLS = {
    "discount": r"$\gamma$",
    "step": r"$\eta$",
    "first": r"$\eta_0$",
    "temperature": r"$\tau$",
    "part": r"$\frac{\eta\tau}{1-\gamma}$",
    "horizon": "$H$",
    "exponent": r"$\alpha$",
}


def ratios(trace: Trace, scale: float) -> np.ndarray:
    """gap/bound [N,T], NaN before the first update and where the bound is too near to rounding to be compared.

    scale: the time scale, 1/(1−γ) or H.
    """
    comparable = (trace.bound > 1e3 * ROUNDING * scale**2) & (trace.updates > 0)
    return np.where(comparable, trace.gap / trace.bound, np.nan)


def timescale(setting: dict[str, float]) -> float:
    """1/(1−γ), or H."""
    return 1.0 / (1.0 - setting["discount"]) if "discount" in setting else setting["horizon"]


def run(quick: bool) -> Outcome:
    states, count, drawn = ((5,), 100, 300) if quick else ((2, 5, 10), 500, 1000)
    ensembles = [random_ensemble(COUNT, s, ACTIONS, seed=s) for s in states]
    swept = {method.name: _sweep(method, ensembles, count) for method in METHODS}
    worlds = random_ensemble(COUNT, 5, ACTIONS, seed=5)
    shown = {m.name: m.run(worlds, drawn if m.log else 120, **m.drawn) for m in METHODS}
    table = [{"method": m.name, "theorem": m.source, **swept[m.name]} for m in METHODS]
    compared, violated = (sum(row[key] for row in table) for key in ("compared", "violations"))
    tightest = "; ".join(f"{row['largest gap/bound']:.2f} {row['method']}" for row in table)
    sizes = ", ".join(map(str, states))
    return Outcome(
        figure=_figure(shown),
        rows=[row for method in METHODS for row in _rows(method, shown[method.name])],
        ours=f"On {COUNT} random MDPs each of S = {sizes} states and {ACTIONS} actions, with {count} updates from the "
        f"uniform policy: of {compared} gaps, {violated} exceed their bound. Largest ratio gap/bound: {tightest}. "
        f"No update lowered the value of any state by more than {max(row['largest fall'] for row in table):.1e}."
        + (" This quick version has one size of MDP and fewer updates." if quick else ""),
        differs="The papers prove these bounds and do not plot them. Theorems are about the worst MDP, and random ones "
        "are not: at all but small steps the 1/T bounds are loose by orders of magnitude, as the gap soon falls "
        "geometrically. Where a bound has fallen below the rounding of float64 it is not compared.",
        table=table,
    )


def _sweep(method: Method, ensembles: Sequence[Ensemble], count: int) -> dict[str, Any]:
    largest, fall, compared, violations = 0.0, 0.0, 0, 0
    for worlds in ensembles:
        for setting in method.settings:
            trace = method.run(worlds, count, **setting)
            ratio = ratios(trace, timescale(setting))
            largest = max(largest, float(np.nanmax(ratio)))
            fall = max(fall, float(np.max(-trace.change)))
            compared += int(np.sum(~np.isnan(ratio)))
            violations += int(np.sum(ratio > 1.0))
    return {
        "settings": len(method.settings) * len(ensembles),
        "compared": compared,
        "violations": violations,
        "largest gap/bound": largest,
        "largest fall": fall,
    }


def _rows(method: Method, trace: Trace) -> list[dict[str, Any]]:
    """The drawn curves, at updates spaced evenly on a log axis."""
    ratio = ratios(trace, timescale(method.drawn))
    wanted = np.unique(np.geomspace(1, trace.updates[-1], 40).astype(int))
    return [
        {
            "method": method.name,
            "setting": " ".join(f"{key}={value:g}" for key, value in method.drawn.items()),
            "updates": int(trace.updates[i]),
            "largest gap": float(np.max(trace.gap[:, i])),
            "smallest gap": float(np.min(trace.gap[:, i])),
            "smallest bound": float(np.min(trace.bound[:, i])),
            "largest gap/bound": float(np.max(ratio[:, i])),
        }
        for i in np.flatnonzero(np.isin(trace.updates, wanted))
    ]


def _figure(shown: dict[str, Trace]) -> Any:
    with figure_style():
        figure, axes = column_figure(rows=3, columns=2, height=2.2)
        *panels, last = np.ravel(axes)
        for ax, method, colour in zip(panels, METHODS, COLOURS, strict=False):
            _panel(ax, method, shown[method.name], colour)
        panels[0].legend(loc="lower left", frameon=False)
        for method, colour in zip(METHODS, COLOURS, strict=False):
            trace = shown[method.name]
            ratio = ratios(trace, timescale(method.drawn))
            seen = ~np.all(np.isnan(ratio), axis=0)
            last.loglog(trace.updates[seen], np.nanmax(ratio[:, seen], axis=0), color=colour)
        last.axhline(1.0, color="black", ls="--", lw=1.0)
        last.set(xlabel="updates", ylabel="gap / bound", ylim=(1e-4, 4))
        last.set_title(f"all five: largest ratio of {COUNT} MDPs\ncolours as in their panels")
    return figure


def _panel(ax: Any, method: Method, trace: Trace, colour: str) -> None:
    gap, below = np.maximum(trace.gap, 1e-16), 1e-12  # what is below is rounding, and off the axis
    ax.fill_between(trace.updates, gap.min(axis=0), gap.max(axis=0), color=colour, alpha=0.25, lw=0)
    ax.plot(trace.updates, np.median(gap, axis=0), color=colour, label=f"measured: median and range of {COUNT} MDPs")
    low, high = trace.bound.min(axis=0), trace.bound.max(axis=0)
    ax.fill_between(trace.updates, low, high, color="black", alpha=0.12, lw=0)
    ax.plot(trace.updates, np.median(trace.bound, axis=0), color="black", ls="--", lw=1.0, label="bound")
    ax.set_yscale("log")
    if method.log:
        ax.set(xscale="log", xlim=(0.8, 1.2 * trace.updates[-1]))
    ax.set(xlabel="updates", ylabel=method.what, ylim=(max(below, 0.3 * gap.min()), 4 * high.max()))
    ax.set_title(f"{method.name}\n{method.source.split(',')[0]}: {_said(method)}")


def _said(method: Method) -> str:
    return ", ".join(f"{SYMBOLS[key]} = {value:g}" for key, value in method.drawn.items())


EXPERIMENT = Experiment(
    title="Published rates of tabular policy optimisation, and what is measured",
    source="Agarwal, Kakade, Lee & Mahajan 2021; Xiao 2022; Cen, Cheng, Chen, Wei & Chi 2022",
    shows="Exact tabular updates converge to the best policy at rates that are theorems: as 1/T for the natural policy "
    "gradient of a softmax and for mirror descent with a constant step, geometrically with growing steps or with an "
    "entropy bonus. The bounds hold for every MDP with rewards in [0, 1], and do not contain the number of states.",
    run=run,
    claims=("B1", "B2", "B3", "B4", "N5"),
)
