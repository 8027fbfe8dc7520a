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
from steepest.worlds.tetris import AfterstateSoftmax, Tetris

WORLD = Tetris(20, 10)
CELLS = WORLD.rows * WORLD.columns
FRACTIONS = np.array([1 / WORLD.rows] * (2 * WORLD.columns) + [1 / CELLS, 1.0])
DAMPING = 1e-3
TRACE = 0.9  # λ of policy iteration
MARK = 100  # lines per game lost: a thousand times the start
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

    def first(self, mark: float) -> int | str:
        """The first iteration by which the mean is at the mark, or "never"."""
        there = np.flatnonzero(self.middle >= mark)
        return int(self.iteration[there[0]]) if len(there) else "never"


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
            f"iteration of {MARK} lines": c.first(MARK),
            "best": c.middle.max(),
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


def _ends(curves: dict[Setting, Curve], name: str) -> str:
    """What each setting came to, told apart by its step or by the λ in its method."""
    return ", ".join(f"{_end(c)} with {getattr(s, name).split(', ')[-1]}" for s, c in curves.items())


def _worst(curves: dict[Setting, Curve]) -> Setting:
    return min(curves, key=lambda s: curves[s].middle[-1])


def _best(curves: dict[Setting, Curve]) -> Setting:
    return max(curves, key=lambda s: curves[s].middle[-1])


def _ours(curves: dict[Setting, Curve], runs: dict[Setting, list[Score]], budget: int, quick: bool) -> str:
    natural, plain = (_of(curves, method, "counts") for method in ("natural", "gradient"))
    natural_fractions, plain_fractions = (_of(curves, method, "fractions") for method in ("natural", "gradient"))
    greedy = next(c for s, c in curves.items() if s.algorithm is None)
    fastest, slowest, tuned = _best(plain), _worst(plain), _best(plain_fractions)
    random = [one for s, scores in runs.items() if s.algorithm is not None for one in scores]
    first = sum(one.lines[0] for one in random) / sum(one.lost[0] for one in random)
    peak, after = after_peak(greedy)
    return (
        f"Lines per game lost, over {POOL} iterations of {budget} pieces, the last of {greedy.iteration[-1]}; "
        f"geometric mean of {len(greedy.score)} seeds [least, most]. Placing at random, where the policies start, "
        f"gives {first:.2g}. With the features as counts: natural gradient {_ends(natural, 'step')}; gradient "
        f"{_end(plain[fastest])} at the best rate of the grid ({fastest.step}), {_end(plain[slowest])} at the worst "
        f"({slowest.step}). As fractions: natural gradient {_ends(natural_fractions, 'method')}; gradient "
        f"{_end(plain_fractions[tuned])} at its best rate ({tuned.step}). Greedy policy iteration, from a policy made "
        f"by hand, peaks at {peak.min():.0f} to {peak.max():.0f} lines, falls to {_percent(after)} of that later "
        f"(geometric mean) and ends at {_end(greedy)}."
        + (" (Quick: six settings, two seeds, half the games, 18 iterations instead of 45.)" if quick else "")
    )


def _percent(parts: np.ndarray) -> str:
    return f"{100 * np.exp(np.log(parts).mean()):.0f} %"


def after_peak(curve: Curve) -> tuple[np.ndarray, np.ndarray]:
    """The most that each seed reached, and the least it came to from then on, as a part of that: [S] and [S]."""
    peak = curve.score.max(axis=1)
    lowest = [row[row.argmax() :].min() for row in curve.score]
    return peak, np.array(lowest) / peak


DIFFERS = (
    "The natural gradient is not ahead of the gradient as such, but of one whose rate or units do not suit the task. "
    "Counts happen to suit it: at a rate found by trying, the gradient keeps up. At a hundredth of that rate, or with "
    "the same features told as fractions at any rate of the grid, it falls behind, while steps of a given KL need no "
    "such search. Damping limits this: λ = 1e-3, little for counts, is much for fractions, where λ has to be smaller "
    "as the square of the unit is. The long steps of δ = 0.2 learn faster and less surely than those of δ = 0.05: "
    "some seeds stay at a few hundred lines. Greedy policy iteration goes up and down after its first peak, by more "
    "than the few lost games behind a point explain, but does not collapse in this setting (least squares without "
    "discount, λ = 0.9). The paper gives neither start, discount and step nor the games of an iteration, and counts "
    "points: its scores cannot be compared with ours."
)


def _figure(curves: dict[Setting, Curve]) -> Any:
    with figure_style():
        figure, axes = column_figure(columns=2, height=3.2, sharey=True, sharex=True)
        for panel, units, title in (
            (axes[0, 0], "counts", "features as they are counted"),
            (axes[0, 1], "fractions", "features as fractions of their range"),
        ):
            _draw(panel, _of(curves, "natural", units), SOLID)
            _draw(panel, _of(curves, "gradient", units), BROKEN)
            _draw(panel, _of(curves, "policy iteration", units), GREEDY)
            panel.set(title=title, yscale="log", xlabel="iteration", xlim=(0, None))
            panel.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.17), ncols=2)
        axes[0, 0].set_ylabel("lines per game lost")
    return figure


SOLID = ((COLOURS[0], "-"), (COLOURS[5], "-"))
BROKEN = ((COLOURS[1], "-"), (COLOURS[1], "--"), (COLOURS[1], ":"))
GREEDY = ((COLOURS[2], "-."),)


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
