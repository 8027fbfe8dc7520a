"""Statistics of runs, exactly on cases small enough to count."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from steepest.errors import UsageError
from steepest.reports.statistics import (
    interquartile_mean,
    iqm_of_tasks,
    probability_of_improvement,
    stratified_bootstrap,
)


def test_the_interquartile_mean_is_that_of_the_middle_half():
    assert interquartile_mean([100.0, 3.0, -50.0, 1.0]) == 2.0  # one of four at each end
    assert interquartile_mean([9.0, 1.0, 2.0, 3.0, -9.0]) == 2.0  # ⌊5/4⌋ = 1
    assert interquartile_mean(np.arange(8.0)) == 3.5  # 2, 3, 4, 5
    assert interquartile_mean([1.0, 2.0, 6.0]) == 3.0  # too few to leave any out
    curves = np.array([[0.0, 9.0], [1.0, 1.0], [2.0, 2.0], [9.0, 0.0]])
    np.testing.assert_array_equal(interquartile_mean(curves), [1.5, 1.5])  # each point has its own order


def test_the_bootstrap_agrees_with_every_resample_counted():
    runs = np.array([0.0, 1.0, 4.0])
    every = [np.mean(draw) for draw in itertools.product(runs, repeat=3)]
    found = stratified_bootstrap([runs], level=0.8, resamples=20_000)
    assert found.estimate == runs.mean()
    ordered = np.sort(every)  # 27 equally probable means: their own 10 % and 90 % quantiles are no borderline cases
    assert (found.low, found.high) == (ordered[2], ordered[24]) == (pytest.approx(1 / 3), pytest.approx(3.0))


def test_runs_stay_with_their_task():
    found = stratified_bootstrap([[0.0, 0.0], [10.0, 10.0, 10.0]], lambda tasks: np.mean([t.mean() for t in tasks]))
    assert tuple(found) == (5.0, 5.0, 5.0)  # nothing varies within a task


def test_the_interval_of_a_curve_is_that_of_each_point():
    curves = np.array([[0.0, 5.0, 1.0], [2.0, 5.0, 3.0], [4.0, 5.0, 2.0], [6.0, 5.0, 0.0], [8.0, 5.0, 9.0]])
    found = stratified_bootstrap([curves])
    assert found.low.shape == (3,)
    assert (found.low[1], found.high[1]) == (5.0, 5.0)
    alone = stratified_bootstrap([curves[:, 2]])
    assert (found.low[2], found.high[2]) == (alone.low, alone.high)


def test_the_same_seed_gives_the_same_interval():
    runs = [np.random.default_rng(0).normal(size=7), np.random.default_rng(1).normal(size=4)]
    first, second, other = (stratified_bootstrap(runs, resamples=200, seed=seed) for seed in (3, 3, 4))
    assert tuple(first) == tuple(second) != tuple(other)
    assert first.estimate == iqm_of_tasks(runs) == interquartile_mean(np.concatenate(runs))


def test_the_probability_of_improvement_counts_pairs_and_halves_ties():
    assert probability_of_improvement([[2.0, 3.0]], [[0.0, 1.0]]) == 1.0
    assert probability_of_improvement([[1.0, 3.0]], [[1.0, 2.0]]) == (0.5 + 0 + 1 + 1) / 4
    tasks = [[1.0], [0.0, 0.0]], [[0.0, 2.0, 0.0], [1.0]]
    assert probability_of_improvement(*tasks) == (2 / 3 + 0) / 2  # tasks weigh the same, whatever their runs
    assert probability_of_improvement(*tasks) + probability_of_improvement(*tasks[::-1]) == 1.0


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: interquartile_mean([]), "at least one run"),
        (lambda: stratified_bootstrap([]), "at least one task"),
        (lambda: stratified_bootstrap([[1.0], []]), "at least one run"),
        (lambda: stratified_bootstrap([[1.0]], level=95), "got 95"),
        (lambda: stratified_bootstrap([[1.0]], resamples=0), "got 0"),
        (lambda: probability_of_improvement([[1.0]], [[1.0], [2.0]]), "1 and 2"),
    ],
)
def test_what_cannot_be_meant_is_refused(call, says):
    with pytest.raises(UsageError, match=says):
        call()
