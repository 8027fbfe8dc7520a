"""Kakade's Tetris: gradient, natural gradient and greedy policy iteration on one budget of games an iteration.

    π(a|s) ∝ exp Σ_i θ_i s_i φ_i,sa        from θ = 0, that is, from pieces placed at random

Features are told in two units: as they are counted, s = 1; and as fractions of the most that they can be, a height by
the rows of the board and holes by its cells. The policies are the same, the coordinates are not. Every method sees as
many pieces in an iteration.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from steepest.algorithms import Algorithm, npg, pg
from steepest.geometry import Fixed, empirical_fisher
from steepest.reports.figures import COLOURS, column_figure, figure_style
from steepest.reproduce.experiment import Experiment, Outcome
from steepest.reproduce.tetris_learning import Sample, Score, policy_gradient, policy_iteration
from steepest.worlds.afterstates import AfterstateSoftmax
from steepest.worlds.tetris import Tetris

WORLD = Tetris(20, 10)
CELLS = WORLD.rows * WORLD.columns
FRACTIONS = np.array([1 / WORLD.rows] * (2 * WORLD.columns) + [1 / CELLS, 1.0])
DAMPING = 1e-3
TRACE = 0.9  # λ of policy iteration
POOL = 3  # iterations whose lines and lost games are added up for one point of a curve


class Setting(NamedTuple):
    """A method with its step, in some units. algorithm: None for policy iteration, which has neither."""

    method: str
    step: str
    units: str
    algorithm: Algorithm | None
    quick: bool


def _natural(delta: float, units: str, damping: float, *, quick: bool) -> Setting:
    algorithm = npg(delta, metric=empirical_fisher, damping=damping)
    return Setting(f"natural, λ={damping:.2g}", f"δ={delta:g}", units, algorithm, quick)


def _plain(rate: float, units: str, *, quick: bool) -> Setting:
    return Setting("gradient", f"rate {rate:g}", units, pg(step=Fixed(rate)), quick)


# A rate in fractions is one in counts times (rows)², as it is for a height
SETTINGS = (
    _natural(0.05, "counts", DAMPING, quick=False),
    _natural(0.2, "counts", DAMPING, quick=True),
    _plain(1.0, "counts", quick=True),
    _plain(10.0, "counts", quick=False),
    _plain(100.0, "counts", quick=True),
    _natural(0.2, "fractions", DAMPING, quick=False),
    _natural(0.2, "fractions", DAMPING / CELLS**2, quick=True),
    _plain(4e3, "fractions", quick=False),
    _plain(4e4, "fractions", quick=True),
    _plain(4e5, "fractions", quick=False),
    Setting("policy iteration", f"λ={TRACE:g}", "counts", None, True),
)


class Curve(NamedTuple):
    """Lines per game lost after each pool of iterations: iteration [K], one row a seed [S,K]."""

    iteration: np.ndarray
    score: np.ndarray

    @property
    def middle(self) -> np.ndarray:
        """Geometric mean over seeds, [K]."""
        return np.exp(np.log(self.score).mean(axis=0))


def learn(setting: Setting, sample: Sample, iterations: int, seed: int) -> Score:
    """One run."""
    if setting.algorithm is None:
        return policy_iteration(WORLD, TRACE, sample, iterations, seed)
    scale = FRACTIONS if setting.units == "fractions" else None
    start = AfterstateSoftmax(np.zeros(WORLD.features), WORLD, scale)
    return policy_gradient(setting.algorithm, start, sample, iterations, seed)


def lines_per_game(scores: list[Score]) -> Curve:
    """Pooled over `POOL` iterations; where no game was lost in a pool its lines count as one game: a lower bound."""
    pools = len(scores[0].lines) // POOL
    lines, lost = (
        np.array([getattr(s, name)[: pools * POOL].reshape(pools, POOL).sum(axis=1) for s in scores])
        for name in Score._fields
    )
    return Curve(POOL * (1 + np.arange(pools)), np.maximum(lines, 1) / np.maximum(lost, 1))


def run(quick: bool) -> Outcome:
    """All settings; quick takes six of them, two seeds, half the games and less than half the iterations."""
    if quick:
        return compare([s for s in SETTINGS if s.quick], Sample(128, 96), iterations=18, seeds=2, quick=True)
    return compare(SETTINGS, Sample(256, 96), iterations=45, seeds=5, quick=False)


def compare(settings: Sequence[Setting], sample: Sample, iterations: int, seeds: int, quick: bool) -> Outcome:
    """Learn by every setting from every seed, and tell what came of it."""
    runs = {s: [learn(s, sample, iterations, seed) for seed in range(seeds)] for s in settings}
    curves = {s: lines_per_game(runs[s]) for s in settings}
    rows = [
        {
            "method": s.method,
            "step": s.step,
            "units": s.units,
            "seed": seed,
            "iteration": i,
            "lines": int(one.lines[i]),
            "games lost": int(one.lost[i]),
        }
        for s in settings
        for seed, one in enumerate(runs[s])
        for i in range(iterations)
    ]
    table = [
        {
            "method": s.method,
            "step": s.step,
            "units": s.units,
            "best": c.middle.max(),
            "at iteration": int(c.iteration[c.middle.argmax()]),
            "at the end": c.middle[-1],
            "least of seeds": c.score[:, -1].min(),
            "most of seeds": c.score[:, -1].max(),
        }
        for s, c in curves.items()
    ]
    budget = sample.games * sample.steps
    return Outcome(_figure(curves), rows, _ours(curves, runs, budget, quick), DIFFERS, table)


def _end(curve: Curve) -> str:
    return f"{curve.middle[-1]:.3g} [{curve.score[:, -1].min():.3g}, {curve.score[:, -1].max():.3g}]"


def _of(curves: dict[Setting, Curve], method: str, units: str) -> dict[Setting, Curve]:
    return {s: c for s, c in curves.items() if s.method.startswith(method) and s.units == units}


def _best(curves: dict[Setting, Curve]) -> Setting:
    return max(curves, key=lambda s: curves[s].middle[-1])


def _ours(curves: dict[Setting, Curve], runs: dict[Setting, list[Score]], budget: int, quick: bool) -> str:
    natural, plain = (_of(curves, method, "counts") for method in ("natural", "gradient"))
    natural_fractions, plain_fractions = (_of(curves, method, "fractions") for method in ("natural", "gradient"))
    greedy = next(c for s, c in curves.items() if s.algorithm is None)
    best, fastest, slowest = _best(natural), _best(plain), min(plain, key=lambda s: plain[s].middle[-1])
    undamped, tuned = _best(natural_fractions), _best(plain_fractions)
    damped = "".join(
        f", {_end(c)} with {s.method.split(', ')[1]}" for s, c in natural_fractions.items() if s is not undamped
    )
    random = [one for s, scores in runs.items() if s.algorithm is not None for one in scores]
    first = sum(one.lines[0] for one in random) / sum(one.lost[0] for one in random)
    peak = greedy.score.max(axis=1)
    return (
        f"Lines per game lost over {POOL} iterations of {budget} pieces, the last of {natural[best].iteration[-1]}; "
        f"geometric mean over {len(runs[best])} seeds [least, most]. Placing at random, the start, gives {first:.2g}. "
        f"Natural gradient, {best.step}: {_end(natural[best])}. Gradient: {_end(plain[fastest])} at the best rate of "
        f"the grid ({fastest.step}), {_end(plain[slowest])} at the worst ({slowest.step}). With the features as "
        f"fractions: natural gradient {_end(natural_fractions[undamped])} with {undamped.method.split(', ')[1]}"
        f"{damped}; gradient {_end(plain_fractions[tuned])} at its best rate ({tuned.step}). Greedy policy iteration "
        f"peaks at {np.exp(np.log(peak).mean()):.3g} [{peak.min():.3g}, {peak.max():.3g}] and ends at {_end(greedy)}."
        + (" (Quick: six settings, two seeds, half the games, 18 iterations instead of 45.)" if quick else "")
    )


DIFFERS = ""


def _figure(curves: dict[Setting, Curve]) -> Any:
    with figure_style():
        figure, axes = column_figure(columns=3, height=3.0, sharey=True, sharex=True)
        for panel, units, title in (
            (axes[0, 0], "counts", "features as they are counted"),
            (axes[0, 1], "fractions", "features as fractions of their range"),
        ):
            _draw(panel, _of(curves, "natural", units), SOLID)
            _draw(panel, _of(curves, "gradient", units), BROKEN)
            panel.set_title(title)
        _draw(axes[0, 2], {s: c for s, c in curves.items() if s.algorithm is None}, SOLID[2:])
        best = _best(_of(curves, "natural", "counts"))
        _draw(axes[0, 2], {best: curves[best]}, SOLID)
        axes[0, 2].set_title("every seed, features as they are counted")
        for setting, curve in ((s, c) for s, c in curves.items() if s.algorithm is None or s is best):
            colour = SOLID[2 if setting.algorithm is None else 0][0]
            axes[0, 2].plot(curve.iteration, curve.score.T, color=colour, lw=0.5)
        for panel in axes[0]:
            panel.set(yscale="log", xlabel="iteration")
            panel.set_xlim(0, None)
            panel.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.17), ncols=2)
        axes[0, 0].set_ylabel("lines per game lost")
    return figure


SOLID = ((COLOURS[0], "-"), (COLOURS[5], "-"), (COLOURS[2], "-"))
BROKEN = ((COLOURS[1], "-"), (COLOURS[1], "--"), (COLOURS[1], ":"))


def _draw(panel: Any, curves: dict[Setting, Curve], looks: Sequence[tuple[str, str]]) -> None:
    for (colour, line), (setting, curve) in zip(looks, curves.items(), strict=False):
        low, high = curve.score.min(axis=0), curve.score.max(axis=0)
        panel.plot(curve.iteration, curve.middle, line, color=colour, label=f"{setting.method}, {setting.step}")
        panel.fill_between(curve.iteration, low, high, color=colour, alpha=0.15, lw=0)


EXPERIMENT = Experiment(
    title="Tetris: how far the gradient gets depends on its rate and on the units of the features",
    source="S. Kakade, A Natural Policy Gradient, NIPS 14 (2001), section 5, figure 3; features and greedy policy "
    "iteration after Bertsekas & Ioffe (1996)",
    shows="Points against iterations on Tetris with a log-linear policy over placements. The natural gradient needs "
    "orders of magnitude fewer iterations than the gradient, and unlike greedy policy iteration it does not degrade "
    "after its peak.",
    run=run,
    claims=("KC",),
)
