"""Large finite MDPs with sparse transitions: a random graph, and a grid with slippery cells."""

from __future__ import annotations

import numpy as np
import scipy.sparse

from steepest.errors import UsageError
from steepest.worlds.finite.sparse import SparseMDP


def random_graph(
    states: int = 1000, actions: int = 4, successors: int = 5, horizon: int = 100, seed: int = 0
) -> SparseMDP:
    """k = `successors` successors of every (s,a), drawn uniformly, with probabilities uniform on the simplex; the same
    for a seed.

    Rewards are N(0,1). ρ is uniform on a tenth of the states (at least one): the first ones. Entries: S·A·k, fewer by
    those drawn twice.
    """
    if min(states, actions, successors) < 1:
        raise UsageError(
            f"a random graph has at least one state, action and successor, got {states}, {actions} and {successors}"
        )
    rng = np.random.default_rng(seed)
    rows = states * actions
    where = rng.integers(states, size=(rows, successors))
    probability = rng.dirichlet(np.ones(successors), size=rows)
    starts = np.repeat(np.arange(rows), successors)
    transition = scipy.sparse.csr_array((probability.ravel(), (starts, where.ravel())), shape=(rows, states))
    first = max(1, states // 10)
    initial = np.where(np.arange(states) < first, 1.0 / first, 0.0)
    return SparseMDP(transition, rng.normal(size=(states, actions)), initial, horizon)


def sparse_grid(
    width: int = 100, height: int = 100, slip: float = 0.1, horizon: int = 100, goal: tuple[int, int] | None = None
) -> SparseMDP:
    """A walk on a grid: 0 left, 1 right, 2 up, 3 down; with probability `slip` the move is one of the four at random.

    State y·width + x; a wall keeps the walker where it is. An episode starts at (0,0). Every step in the cell
    goal = (x,y), the opposite corner if None, earns 1, all else nothing. Cells farther away than H − 1 moves are never
    visited.
    """
    x_goal, y_goal = goal or (width - 1, height - 1)
    if min(width, height) < 1 or not 0 <= slip <= 1:
        raise UsageError(f"a grid has width, height ≥ 1 and slip in [0, 1], got {width}, {height} and {slip}")
    if not (0 <= x_goal < width and 0 <= y_goal < height):
        raise UsageError(f"goal must be a cell (x,y) of the grid, x < {width} and y < {height}, got {goal}")
    y, x = np.divmod(np.arange(width * height), width)
    moves = ((0, -1), (0, 1), (-1, 0), (1, 0))
    ends = [np.clip(y + dy, 0, height - 1) * width + np.clip(x + dx, 0, width - 1) for dy, dx in moves]
    states, count = width * height, len(moves)
    end = np.broadcast_to(np.stack(ends, axis=-1)[:, None, :], (states, count, count))  # s, a, the move that is made
    probability = np.broadcast_to((1 - slip) * np.eye(count) + slip / count, (states, count, count))
    rows = np.repeat(np.arange(states * count), count)
    transition = scipy.sparse.csr_array((probability.ravel(), (rows, end.ravel())), shape=(states * count, states))
    reward = np.zeros((states, count))
    reward[y_goal * width + x_goal] = 1.0
    initial = np.zeros(states)
    initial[0] = 1.0
    return SparseMDP(transition, reward, initial, horizon)
