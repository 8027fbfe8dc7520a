"""How long a path of the covariant metric may be: the variance of its estimate against the length of a segment.

    python benchmarks/segments.py            # docs/figures/segments.png and benchmarks/results/segments.csv, a minute

A finite MDP with a long horizon, whose F is known. Of each of many batches with as many rows every time, cut into
segments of L steps: the error of the estimate of F, and the cosine between its natural direction and the exact one, in
the metric F. The gradient is exact, so that nothing but the metric varies.
"""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from steepest.batch import Batch
from steepest.geometry import linearise, trajectory
from steepest.policies import TabularSoftmax
from steepest.reports.figures import COLOURS, column_figure, figure_style, save_png
from steepest.worlds.finite import FiniteHorizonMDP, random, sample_paths

HERE = Path(__file__).parent
LENGTHS = (1, 2, 4, 8, 16, 32, 64)
HORIZON = 64
PATHS = (8, 32, 128)


class Spread(NamedTuple):
    """Of the batches with segments of `length` steps.

    error: √E‖F̂ − F‖² / ‖F‖, Frobenius.  cosine: the mean of x̂ᵀFx / √(x̂ᵀFx̂ · xᵀFx), x = F⁻¹g, x̂ = (F̂ + λI)⁻¹g.
    low, high: its 10th and 90th percentile.
    """

    length: int
    error: float
    cosine: float
    low: float
    high: float


def segment_variance(
    mdp: FiniteHorizonMDP,
    policy: TabularSoftmax,
    *,
    paths: int,
    repeats: int,
    lengths: tuple[int, ...] = LENGTHS,
    damping: float = 1e-3,
    seed: int = 0,
) -> list[Spread]:
    """The spread of the metric on paths, for segments of each length.

    mdp, policy: whose F is exact.  paths: a batch has paths·H rows.  repeats: batches, the same for each length.
    lengths: steps of a segment.  damping: λ.
    """
    exact, gradient = mdp.fisher(policy), np.concatenate([np.ravel(x) for x in jax.tree.leaves(mdp.gradient(policy))])
    best = np.linalg.pinv(exact, rcond=1e-10, hermitian=True) @ gradient
    ridge = damping * np.eye(len(gradient))
    errors, cosines = np.zeros((len(lengths), repeats)), np.zeros((len(lengths), repeats))
    for repeat in range(repeats):
        states, actions, _ = sample_paths(mdp, policy, paths, np.random.default_rng([seed, repeat]))
        for i, length in enumerate(lengths):
            estimate = _estimate(policy, states, actions, length)
            x = np.linalg.solve(estimate + ridge, gradient)
            errors[i, repeat] = np.sum((estimate - exact) ** 2) / np.sum(exact**2)
            cosines[i, repeat] = x @ exact @ best / np.sqrt((x @ exact @ x) * (best @ exact @ best))
    low, high = np.percentile(cosines, [10, 90], axis=1)
    rows = zip(lengths, np.sqrt(errors.mean(axis=1)), cosines.mean(axis=1), low, high, strict=True)
    return [Spread(length, *map(float, numbers)) for length, *numbers in rows]


def _estimate(policy: TabularSoftmax, states: np.ndarray, actions: np.ndarray, length: int) -> np.ndarray:
    """F̂ of sampled paths [N,H] cut into segments of `length` steps, float64."""
    paths, horizon = states.shape
    number = np.arange(horizon) // length + horizon * np.arange(paths)[:, None]
    with jax.enable_x64(True):
        given = [jnp.asarray(x) for x in (policy.logits, states.ravel(), actions.ravel(), number.ravel())]
        return np.asarray(_matrix(*given))


@jax.jit
def _matrix(logits: Any, states: Any, actions: Any, segment: Any) -> Any:
    rows = len(states)
    one = jnp.ones((rows, 1))
    batch = Batch(states, jnp.full(rows, 1.0 / rows), actions[:, None], one, one, segment)
    local = linearise(TabularSoftmax(logits), batch.obs)
    return trajectory.operator(local, batch).matrix(local.params)


def main() -> None:
    mdp = random(6, 3, HORIZON, 1)
    policy = TabularSoftmax(np.random.default_rng(2).normal(size=(6, 3)))
    found = {paths: segment_variance(mdp, policy, paths=paths, repeats=200) for paths in PATHS}
    table = HERE / "results" / "segments.csv"
    with table.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["rows", *Spread._fields])
        for paths, spreads in found.items():
            for spread in spreads:
                writer.writerow([paths * HORIZON, spread.length, *(f"{x:.4g}" for x in spread[1:])])
    figure = HERE.parent / "docs" / "figures" / "segments.png"
    draw(found, figure)
    print(table, figure, sep="\n")


def draw(found: dict[int, list[Spread]], out: Path) -> None:
    """Error and cosine against the length of a segment, a line for each size of a batch."""
    with figure_style():
        figure, _ = column_figure(columns=2)
        left, right = figure.axes
        for colour, (paths, spreads) in zip(COLOURS, found.items(), strict=False):
            length, label = [x.length for x in spreads], f"{paths * HORIZON:,} rows"
            left.loglog(length, [x.error for x in spreads], "o-", ms=3, color=colour, label=label)
            right.semilogx(length, [x.cosine for x in spreads], "o-", ms=3, color=colour, label=label)
            right.fill_between(
                length, [x.low for x in spreads], [x.high for x in spreads], color=colour, alpha=0.15, lw=0
            )
        first = found[PATHS[-1]][0].error
        root = np.sqrt(np.array(LENGTHS, float))
        left.loglog(LENGTHS, 0.75 * first * root, "--", color="0.4", lw=1, label="∝ √L")
        left.set_ylabel("relative error of the estimate of F")
        right.set_ylabel("cosine with the exact direction")
        right.set_ylim(top=1.02)
        right.text(0.03, 0.06, "bands: 10 % to 90 % of the batches", transform=right.transAxes, fontsize=7, color="0.3")
        for axes in (left, right):
            axes.set_xlabel("steps L of a segment")
            axes.set_xticks(LENGTHS, [str(n) for n in LENGTHS])
            axes.minorticks_off()
        left.legend(frameon=False)
        save_png(figure, out)


if __name__ == "__main__":
    main()
