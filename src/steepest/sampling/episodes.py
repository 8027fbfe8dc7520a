"""The episodes that ended in a rollout, and those under way: they run on from one rollout to the next.

Column b of a rollout is cut after every end; the sums of its pieces are the episodes, the last piece is under way, and
the first goes on from the last piece of the rollout before. Ghost rows belong to no episode. A piece that a fault ends
is none: nobody knows what its episode would have come to.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from steepest.batch import Rollout


class Episode(NamedTuple):
    """One episode that ended.

    ret: undiscounted sum of raw rewards.
    length: steps.
    env: the index of its environment.
    terminated: False where it was only cut.
    cost: undiscounted sum of its costs; None where they were not reported.
    """

    ret: float
    length: int
    env: int
    terminated: bool
    cost: float | None = None


class Running(NamedTuple):
    """The episodes under way. returns: [B] float64, so far; lengths: [B] int64, so far; costs: [B] float64, NaN where
    one was not reported."""

    returns: np.ndarray
    lengths: np.ndarray
    costs: np.ndarray

    @classmethod
    def none(cls, envs: int) -> Running:
        """All at their beginning."""
        return cls(np.zeros(envs), np.zeros(envs, np.int64), np.zeros(envs))


def account(rollout: Rollout, running: Running) -> tuple[list[Episode], Running]:
    """The episodes that ended in `rollout`, in order of time and then of environment, and those under way after it.

    running: those under way before it.
    """
    steps, envs = rollout.valid.shape
    done = rollout.terminated | rollout.truncated
    first = np.zeros((envs, steps + 2), bool)  # of a piece: one entry from before the rollout, its steps, one beyond
    first[:, 0] = True
    first[:, 2:] = done.T
    begins, piece = np.flatnonzero(first), np.cumsum(first).reshape(first.shape) - 1
    unknown = np.where(rollout.valid, np.nan, 0.0)
    sums = [
        np.add.reduceat(_columns(before, rows), begins)
        for before, rows in zip(
            running,
            (rollout.reward, rollout.valid, unknown if rollout.cost is None else rollout.cost),
            strict=True,
        )
    ]
    episodes = []
    for t, b in np.argwhere(done & rollout.valid).tolist():
        ret, length, cost = (column[piece[b, t + 1]] for column in sums)
        terminated, known = bool(rollout.terminated[t, b]), not np.isnan(cost)
        episodes.append(Episode(float(ret), int(length), b, terminated, float(cost) if known else None))
    return episodes, Running(*(column[piece[:, -1]] for column in sums))


def _columns(before: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """[B·(T+2)] what was there before and every step of a column, one column after the other, each with a 0 behind."""
    columns = np.zeros((len(before), len(rows) + 2), before.dtype)
    columns[:, 0] = before
    columns[:, 1:-1] = rows.T
    return columns.ravel()
