"""Tetris in JAX, one step a piece: an action is a placement, a rotation and a column from which the piece is dropped.

A board is one integer a column, bit y the cell at height y, so that everything is bit arithmetic:

    height = 32 − leading zeros        holes = height − number of bits        full rows = AND of the columns

The reward is the number of rows that a placement completes. Pieces are drawn uniformly; a game is over when the next
piece has no placement within the board, as it lies before rows are removed. All functions are pure and of one game;
`jax.vmap` makes them of many, and `rollout` scans over time.

Features of the board after a placement, with full rows removed: the height of each column, the absolute difference of
neighbours, the greatest height, the number of holes (empty cells below a filled one), and 1; 2·columns + 2 in all.
Source: Bertsekas & Ioffe, Temporal differences-based policy iteration (1996), section 4.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Bool, Float, Int, PRNGKeyArray, UInt32

from steepest.distributions import Categorical
from steepest.errors import UsageError

PIECES = {  # rows from the top
    "I": ("####",),
    "O": ("##", "##"),
    "T": ("###", ".#."),
    "S": (".##", "##."),
    "Z": ("##.", ".##"),
    "L": ("###", "#.."),
    "J": ("###", "..#"),
}
MOST_ROWS = 28  # a piece that sticks out of the top still fits 32 bits
FAR = 64  # the base of a column that a placement does not touch: below any height


class Board(NamedTuple):
    """What a player sees. columns: [W], bit y the cell at height y.  piece: the one to be placed, 0 … 6."""

    columns: UInt32[Any, " W"]
    piece: Int[Any, ""]


class Placements(NamedTuple):
    """What each of A actions leads to. columns: [A,W] afterwards.  lines: [A] rows removed.  legal: [A]."""

    columns: UInt32[Array, "A W"]
    lines: Int[Array, " A"]
    legal: Bool[Array, " A"]


class Steps(NamedTuple):
    """T steps of B games. board: what was seen, leaves [T,B,…].  action, lines: [T,B].  over: [T,B], the step ended the
    game; the next row is a new one."""

    board: Board
    action: Int[Array, "T B"]
    lines: Int[Array, "T B"]
    over: Bool[Array, "T B"]


class Tetris:
    """The rules for a board of `rows` × `columns`.

    actions: A, the most placements that a piece has; a piece with fewer has the first ones.  shapes: for each piece,
    the (rotation, column) of each action.

    Raises UsageError for a board that is too narrow for the pieces or too high for 32 bits.
    """

    def __init__(self, rows: int = 20, columns: int = 10):
        if not (isinstance(rows, int) and isinstance(columns, int)):
            raise UsageError(f"a board has whole numbers of rows and columns, got {rows!r} × {columns!r}")
        if columns < 4 or not 4 <= rows <= MOST_ROWS:
            raise UsageError(f"a board has at least 4 columns and 4 … {MOST_ROWS} rows, got {rows} × {columns}")
        self.rows = rows
        self.columns = columns
        self.shapes = tuple(tuple(_placements(piece, columns)) for piece in PIECES.values())
        self.actions = max(len(shapes) for shapes in self.shapes)
        self._cells = np.zeros((len(PIECES), self.actions, columns), np.uint32)
        self._base = np.full(self._cells.shape, FAR, np.int32)
        self._size = np.full(self._cells.shape[:2], 4 * FAR, np.int32)  # where there is no placement: too high
        for piece, shapes in enumerate(self.shapes):
            for action, (cells, column) in enumerate(shapes):
                self._size[piece, action] = 1 + max(y for _, y in cells)
                for x, y in cells:
                    self._cells[piece, action, column + x] |= np.uint32(1 << y)
                    self._base[piece, action, column + x] = min(self._base[piece, action, column + x], y)

    def __repr__(self) -> str:
        return f"Tetris({self.rows}, {self.columns})"

    # Two worlds of one size are the same world, and compile once

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Tetris) and (self.rows, self.columns) == (other.rows, other.columns)

    def __hash__(self) -> int:
        return hash((self.rows, self.columns))

    @property
    def features(self) -> int:
        """How many features a board has: 22 for 10 columns."""
        return 2 * self.columns + 2

    def reset(self, key: PRNGKeyArray) -> Board:
        """An empty board and a piece."""
        return Board(jnp.zeros(self.columns, jnp.uint32), _piece(key))

    def placements(self, board: Board) -> Placements:
        """What each action would do. A piece drops until it rests on a column or the floor."""
        rest, legal = self._landing(board)
        shift = jnp.where(legal, rest, 0).astype(jnp.uint32)[:, None]
        filled = board.columns | (jnp.asarray(self._cells)[board.piece] << shift)
        columns, lines = remove_full_rows(filled)
        return Placements(columns, lines, legal)

    def afterstate_features(self, columns: UInt32[Array, "... W"]) -> Float[Array, "... P"]:
        """φ of boards: heights, |differences| of neighbours, greatest height, holes, 1."""
        heights = column_heights(columns)
        holes = jnp.sum(heights - jax.lax.population_count(columns).astype(jnp.int32), axis=-1, keepdims=True)
        parts = (
            heights,
            jnp.abs(jnp.diff(heights, axis=-1)),
            jnp.max(heights, axis=-1, keepdims=True),
            holes,
            jnp.ones_like(holes),
        )
        return jnp.concatenate(parts, axis=-1).astype(jnp.float32)

    def step(self, board: Board, action: Int[Array, ""], key: PRNGKeyArray) -> tuple[Board, Array, Array]:
        """Place the piece: (the board with the next piece, rows removed, whether the game is over).

        The action must be legal. A board whose game is over is as the last placement left it.
        """
        options = self.placements(board)
        after = Board(options.columns[action], _piece(key))
        return after, options.lines[action], ~jnp.any(self._landing(after)[1])

    def _landing(self, board: Board) -> tuple[Int[Array, " A"], Bool[Array, " A"]]:
        """The height at which each placement comes to rest, and whether it lies within the board."""
        gap = column_heights(board.columns) - jnp.asarray(self._base)[board.piece]
        rest = jnp.max(gap, axis=-1)
        return rest, rest + jnp.asarray(self._size)[board.piece] <= self.rows


@eqx.filter_jit
def rollout(
    world: Tetris, policy: Callable[[Board], Categorical], boards: Board, key: PRNGKeyArray, steps: int
) -> tuple[Board, Steps]:
    """T = `steps` steps of B games by `policy`; a game that is over starts anew: (the boards afterwards, the steps).

    policy: a pytree, Board ↦ Categorical over A actions, −∞ for those that are not legal.  boards: leaves [B,…].
    """

    def one(board: Board, key: PRNGKeyArray):
        choose, draw, again = jax.random.split(key, 3)
        action = policy(board).sample(choose)
        after, lines, over = world.step(board, action, draw)
        fresh = world.reset(again)
        after = jax.tree.map(lambda new, old: jnp.where(over, new, old), fresh, after)
        return after, Steps(board, action, lines, over)

    def forward(boards: Board, key: PRNGKeyArray):
        return jax.vmap(one)(boards, jax.random.split(key, boards.piece.shape[0]))

    return jax.lax.scan(forward, boards, jax.random.split(key, steps))


def column_heights(columns: UInt32[Array, "... W"]) -> Int[Array, "... W"]:
    """The height of the highest filled cell, counted from 1; 0 for an empty column."""
    return 32 - jax.lax.clz(columns).astype(jnp.int32)


def remove_full_rows(columns: UInt32[Array, "... W"]) -> tuple[UInt32[Array, "... W"], Int[Array, "..."]]:
    """The columns without the rows that are full, and how many these were, at most 4: a piece has four cells."""
    full = jax.lax.reduce(columns, jnp.uint32(0xFFFFFFFF), jax.lax.bitwise_and, (columns.ndim - 1,))
    lines = jax.lax.population_count(full).astype(jnp.int32)
    for _ in range(4):  # the lowest full row first: what lies above it comes down by one
        below = ((full & (~full + 1)) - 1)[..., None]  # all bits where no row is full: nothing moves
        columns = (columns & below) | ((columns >> 1) & ~below)
        full = (full & (full - 1)) >> 1
    return columns, lines


def _piece(key: PRNGKeyArray) -> Int[Array, ""]:
    return jax.random.randint(key, (), 0, len(PIECES))


Cells = frozenset[tuple[int, int]]


def _placements(rows: tuple[str, ...], columns: int) -> list[tuple[Cells, int]]:
    """(cells (x, y), column) of every rotation that differs, at every column where it fits."""
    cells = frozenset((x, len(rows) - 1 - y) for y, row in enumerate(rows) for x, mark in enumerate(row) if mark == "#")
    rotations: list[Cells] = []
    for _ in range(4):
        if cells not in rotations:
            rotations.append(cells)
        widest = max(x for x, _ in cells)
        cells = frozenset((y, widest - x) for x, y in cells)  # a quarter turn
    return [(r, c) for r in rotations for c in range(columns - max(x for x, _ in r))]
