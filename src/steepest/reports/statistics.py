"""Statistics of a few runs: interquartile mean, stratified bootstrap intervals, probability of improvement.

    IQM = mean of the middle half of all runs        P(X > Y) = mean over tasks of  #{x > y} + ½ #{x = y}  over pairs

After Agarwal, Schwarzer, Castro, Courville and Bellemare (2021), Deep Reinforcement Learning at the Edge of the
Statistical Precipice. A stratum is a task: its runs are drawn anew with replacement, and stay with their task.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from steepest.errors import UsageError

Floats = NDArray[np.float64]
Statistic = Callable[[list[Floats]], ArrayLike]
"""From the runs of each task, [runs, …], to what is estimated, […]."""


class Interval(NamedTuple):
    """estimate: of the runs themselves.  low, high: the bounds of its bootstrap interval.  Each […]."""

    estimate: Floats
    low: Floats
    high: Floats


def interquartile_mean(scores: ArrayLike) -> Floats:
    """The mean of the middle half of the runs: ⌊n/4⌋ are left out at each end (Agarwal et al. 2021, section 4.3).

    scores: [n, …], n runs, of one task or of several on a common scale; a score may be an array, such as a curve.

    Returns […]: the mean itself for fewer than four runs. Raises UsageError for no run.
    """
    runs = np.sort(_runs(scores), axis=0)
    cut = len(runs) // 4
    return runs[cut : len(runs) - cut].mean(axis=0)


def iqm_of_tasks(strata: list[Floats]) -> Floats:
    """The interquartile mean of the runs of all tasks together: the `Statistic` that Agarwal et al. (2021) report."""
    return interquartile_mean(np.concatenate(strata))


def stratified_bootstrap(
    strata: Sequence[ArrayLike],
    statistic: Statistic = iqm_of_tasks,
    *,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Interval:
    """A percentile interval of a statistic, the runs drawn anew within each task (Agarwal et al. 2021, section 4.2).

    strata: for each task its runs, [runs, …]; tasks may have different numbers of runs.
    statistic: of such a list.  level: of the interval, in (0, 1).  resamples: how often the runs are drawn.
    seed: of the drawing; the same runs and seed give the same interval.

    Returns the estimate and the interval. Raises UsageError for no task, a task without runs, or a level or a number of
    resamples that cannot be meant. With fewer than five runs a task the interval is too short: show the runs too.
    """
    if not 0 < level < 1:
        raise UsageError(f"level must be between 0 and 1, got {level}")
    if resamples < 1:
        raise UsageError(f"resamples must be at least 1, got {resamples}")
    tasks, rng = _tasks(strata), np.random.default_rng(seed)
    drawn = [
        np.asarray(statistic([runs[rng.integers(len(runs), size=len(runs))] for runs in tasks]), np.float64)
        for _ in range(resamples)
    ]
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return Interval(np.asarray(statistic(tasks), np.float64), low, high)


def probability_of_improvement(x: Sequence[ArrayLike], y: Sequence[ArrayLike]) -> float:
    """How probable it is that a run of X is better than a run of Y on a task drawn at random; ties count a half.

    x, y: for each task its runs, [runs of X], [runs of Y], of the same tasks in the same order.

    The mean over tasks of Mann and Whitney's U over the number of pairs (Agarwal et al. 2021, section 4.3). Raises
    UsageError for no task, a task without runs, or tasks that do not match.
    """
    first, second = _tasks(x), _tasks(y)
    if len(first) != len(second):
        raise UsageError(f"X and Y must have the same tasks, got {len(first)} and {len(second)}")
    pairs = [np.sign(a[:, None] - b[None, :]) for a, b in zip(first, second, strict=True)]
    return float(np.mean([(1 + sign.mean()) / 2 for sign in pairs]))


def _tasks(strata: Sequence[ArrayLike]) -> list[Floats]:
    if len(strata) == 0:
        raise UsageError("at least one task is needed, got none")
    return [_runs(scores) for scores in strata]


def _runs(scores: ArrayLike) -> Floats:
    runs = np.asarray(scores, np.float64)
    if runs.ndim == 0 or len(runs) == 0:
        raise UsageError("a task needs at least one run, got none")
    return runs
