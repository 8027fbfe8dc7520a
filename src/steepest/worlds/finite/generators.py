"""Named finite MDPs, small enough to know by heart."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from steepest.errors import UsageError
from steepest.names import Registry
from steepest.worlds.finite.model import FiniteHorizonMDP

MDPS: Registry[Callable[..., FiniteHorizonMDP]] = Registry("finite MDP")


def two_state(horizon: int = 20, initial: tuple[float, float] = (1.0, 0.0)) -> FiniteHorizonMDP:
    """The plateau of the plain gradient: states i = 0 and j = 1; action 0 stays, action 1 crosses over.

    Staying earns 1 in i and 2 in j, crossing nothing. From i, where an episode starts by default, V* = 2(H − 1) for
    H ≥ 2: cross once, then stay; staying in i earns H.
    Source: Kakade, A Natural Policy Gradient (2001), figure 2, there with average reward.
    """
    stay, cross = np.eye(2), np.eye(2)[::-1]
    return FiniteHorizonMDP(np.stack([stay, cross], axis=1), [[1.0, 0.0], [2.0, 0.0]], initial, horizon)


def chain(length: int = 5, horizon: int = 10) -> FiniteHorizonMDP:
    """A corridor of `length` states: action 0 goes left, 1 goes right, and a wall stops both.

    Going right in the last state earns 1, all else nothing. An episode starts in state 0: V* = max(0, H − length + 1).
    """
    if length < 1:
        raise UsageError(f"a chain has at least one state, got length {length}")
    here = np.arange(length)
    transition = np.zeros((length, 2, length))
    transition[here, 0, np.maximum(here - 1, 0)] = 1.0
    transition[here, 1, np.minimum(here + 1, length - 1)] = 1.0
    reward = np.zeros((length, 2))
    reward[-1, 1] = 1.0
    return FiniteHorizonMDP(transition, reward, np.eye(length)[0], horizon)


def random(states: int = 5, actions: int = 3, horizon: int = 10, seed: int = 0) -> FiniteHorizonMDP:
    """Rows of P and ρ drawn uniformly from the simplex (Dirichlet(1)), rewards from N(0, 1); the same for a seed."""
    if min(states, actions) < 1:
        raise UsageError(f"a random MDP has at least one state and one action, got {states} and {actions}")
    rng = np.random.default_rng(seed)
    transition = rng.dirichlet(np.ones(states), size=(states, actions))
    reward = rng.normal(size=(states, actions))
    return FiniteHorizonMDP(transition, reward, rng.dirichlet(np.ones(states)), horizon)


def grid(rows: int = 4, columns: int = 4, horizon: int = 20, slip: float = 0.0) -> FiniteHorizonMDP:
    """A gridworld of rows × columns cells, state row·columns + column: from the top left cell to the bottom right one.

    Actions 0 … 3 go up, right, down and left; a wall stops them. With probability `slip` the step goes to one of the
    two sides instead, each with slip/2. Each step taken in the last cell, which is never left, earns 1, all else
    nothing: V* = max(0, H − (rows + columns − 2)) without slipping.
    """
    if min(rows, columns) < 1:
        raise UsageError(f"a grid has at least one row and one column, got {rows} and {columns}")
    if not 0 <= slip <= 1:
        raise UsageError(f"slip is a probability, got {slip}")
    row, column = np.divmod(np.arange(rows * columns), columns)
    to = np.stack(
        [
            np.clip(row + down, 0, rows - 1) * columns + np.clip(column + right, 0, columns - 1)
            for down, right in ((-1, 0), (0, 1), (1, 0), (0, -1))
        ],
        axis=1,
    )
    step = np.eye(rows * columns)[to]  # [S,4,S]
    sides = (np.roll(step, 1, axis=1) + np.roll(step, -1, axis=1)) / 2
    transition = (1 - slip) * step + slip * sides
    transition[-1] = np.eye(rows * columns)[-1]
    reward = np.zeros((rows * columns, 4))
    reward[-1] = 1.0
    return FiniteHorizonMDP(transition, reward, np.eye(rows * columns)[0], horizon)


MDPS.add("two-state", two_state)
MDPS.add("chain", chain)
MDPS.add("random", random)
MDPS.add("grid", grid)
