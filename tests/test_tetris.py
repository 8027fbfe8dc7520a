"""Tetris in bit arithmetic against a plain implementation that drops pieces cell by cell, on random games."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from steepest.errors import UsageError
from steepest.worlds.tetris.afterstates import AfterstateGreedy, AfterstateSoftmax
from steepest.worlds.tetris.game import PIECES, Board, Tetris, column_heights, remove_full_rows, rollout

SIZES = {"I": 17, "O": 9, "T": 34, "S": 17, "Z": 17, "L": 34, "J": 34}  # placements on 10 columns


# The oracle: a board is a list of rows of booleans, from the floor


def cells_of(board: Board, rows: int) -> list[list[bool]]:
    return [[bool(int(column) >> y & 1) for column in board.columns] for y in range(rows)]


def drop(grid: list[list[bool]], cells, column: int) -> list[list[bool]] | None:
    """The grid after a piece came down from above, one row at a time; None where it does not fit under the top."""
    rows, level = len(grid), len(grid) + 4

    def free(level: int) -> bool:
        return all(y + level >= rows or not grid[y + level][x + column] for x, y in cells)

    while level > 0 and free(level - 1):
        level -= 1
    if any(y + level >= rows for _, y in cells):
        return None
    after = [row[:] for row in grid]
    for x, y in cells:
        after[y + level][x + column] = True
    return after


def clear(grid: list[list[bool]]) -> tuple[list[list[bool]], int]:
    kept = [row for row in grid if not all(row)]
    lines = len(grid) - len(kept)
    return kept + [[False] * len(grid[0]) for _ in range(lines)], lines


def features(grid: list[list[bool]]) -> list[int]:
    heights, holes = [], 0
    for x in range(len(grid[0])):
        filled = [y for y, row in enumerate(grid) if row[x]]
        heights.append(max(filled) + 1 if filled else 0)
        holes += heights[-1] - len(filled)
    gaps = [abs(a - b) for a, b in itertools.pairwise(heights)]
    return [*heights, *gaps, max(heights), holes, 1]


@pytest.mark.parametrize(("rows", "columns"), [(20, 10), (7, 5)])
def test_random_games_are_those_of_the_plain_rules(rows: int, columns: int):
    world = Tetris(rows, columns)
    look = jax.jit(lambda board: (o := world.placements(board), world.afterstate_features(o.columns)))
    step = jax.jit(world.step)
    rng = np.random.default_rng(0)
    # few heights are as low as chance leaves them: a policy that keeps low completes rows
    weights = np.zeros(world.features)
    weights[columns + columns - 1 :] = -1.0, -4.0, 0.0
    lines_seen, games, key = set(), 0, jax.random.key(1)
    board = world.reset(key)
    for _ in range(400):
        options, phi = jax.tree.map(np.asarray, look(board))
        grid = cells_of(board, rows)
        shapes = world.shapes[int(board.piece)]
        assert not options.legal[len(shapes) :].any()
        for action, (cells, column) in enumerate(shapes):
            after = drop(grid, cells, column)
            assert options.legal[action] == (after is not None)
            if after is not None:
                cleared, lines = clear(after)
                assert cells_of(Board(options.columns[action], board.piece), rows) == cleared
                assert options.lines[action] == lines
                np.testing.assert_array_equal(phi[action], features(cleared))
                lines_seen.add(lines)
        key, draw = jax.random.split(key)
        preference = phi @ weights + 2.0 * rng.gumbel(size=world.actions)
        action = int(np.argmax(np.where(options.legal, preference, -np.inf)))
        after, lines, over = step(board, action, draw)
        np.testing.assert_array_equal(after.columns, options.columns[action])
        assert lines == options.lines[action]
        grid = cells_of(after, rows)
        stuck = all(drop(grid, cells, column) is None for cells, column in world.shapes[int(after.piece)])
        assert bool(over) == stuck
        games += stuck
        board = world.reset(draw) if stuck else after
    assert games > 3
    assert {0, 1, 2} <= lines_seen


def test_placements_are_the_distinct_rotations_in_every_column():
    world = Tetris()
    assert world.actions == 34
    assert world.features == 22
    for shapes, (name, size) in zip(world.shapes, SIZES.items(), strict=True):
        assert len(shapes) == len(set(shapes)) == size, name
        assert {len(cells) for cells, _ in shapes} == {4}
    assert list(PIECES) == list(SIZES)


def test_four_rows_at_once_and_rows_with_a_gap_between():
    four = jnp.full(10, 0b1111, jnp.uint32).at[0].set(0b111111)
    columns, lines = remove_full_rows(four)
    assert int(lines) == 4
    np.testing.assert_array_equal(column_heights(columns), [2] + [0] * 9)
    apart = jnp.full(10, 0b10110, jnp.uint32).at[3].set(0b11111)  # rows 1, 2 and 4 are full, 0 and 3 are not
    columns, lines = remove_full_rows(apart)
    assert int(lines) == 3
    np.testing.assert_array_equal(columns, np.where(np.arange(10) == 3, 0b11, 0))


def test_rollouts_start_anew_when_a_game_is_over():
    world = Tetris(6, 5)
    policy = AfterstateSoftmax(jnp.zeros(world.features), world)
    boards = jax.vmap(world.reset)(jax.random.split(jax.random.key(0), 8))
    last, steps = rollout(world, policy, boards, jax.random.key(1), 50)
    assert steps.action.shape == steps.lines.shape == steps.over.shape == (50, 8)
    over = np.asarray(steps.over)
    assert over.sum() > 20
    empty = ~np.any(np.asarray(steps.board.columns), axis=-1)
    assert np.all(empty[1:][over[:-1]])
    follow = jax.vmap(jax.vmap(world.placements))(steps.board)
    legal = np.take_along_axis(np.asarray(follow.legal), np.asarray(steps.action)[..., None], axis=-1)
    assert np.all(legal)
    taken = np.take_along_axis(np.asarray(follow.columns), np.asarray(steps.action)[..., None, None], axis=2)[:, :, 0]
    np.testing.assert_array_equal(taken[:-1][~over[:-1]], np.asarray(steps.board.columns)[1:][~over[:-1]])
    np.testing.assert_array_equal(taken[-1][~over[-1]], np.asarray(last.columns)[~over[-1]])


def test_pieces_are_drawn_uniformly():
    world = Tetris()
    pieces = jax.vmap(lambda key: world.reset(key).piece)(jax.random.split(jax.random.key(2), 7_000))
    counts = np.bincount(pieces, minlength=7)
    assert np.sum((counts - 1_000) ** 2 / 1_000) < 22.5  # χ² with 6 degrees of freedom, one in a thousand


def test_softmax_is_over_legal_placements_and_greedy_takes_the_best():
    world = Tetris()
    rng = np.random.default_rng(3)
    weights = jnp.asarray(rng.normal(size=world.features), jnp.float32)
    board = Board(jnp.asarray(rng.integers(0, 2**19, size=10), jnp.uint32), jnp.asarray(0))
    options = world.placements(board)
    legal = np.asarray(options.legal)
    assert 0 < legal.sum() < legal.size
    phi = np.asarray(world.afterstate_features(options.columns), np.float64)
    preference = phi @ np.asarray(weights, np.float64)
    expected = np.where(legal, np.exp(preference - preference[legal].max()), 0.0)
    probs = AfterstateSoftmax(weights, world)(board).probs
    np.testing.assert_allclose(probs, expected / expected.sum(), atol=2e-5)
    best = int(np.argmax(np.where(legal, preference + np.asarray(options.lines), -np.inf)))
    assert int(AfterstateGreedy(weights, world)(board).mode()) == best
    assert float(AfterstateGreedy(weights, world)(board).probs[best]) == 1.0


@pytest.mark.parametrize("size", [(3, 10), (20, 3), (29, 10)])
def test_boards_that_do_not_fit_are_refused(size):
    with pytest.raises(UsageError, match="a board has at least"):
        Tetris(*size)
    with pytest.raises(UsageError, match="whole numbers of rows and columns, got 20"):
        Tetris(20.5, 10)  # type: ignore[arg-type]


def test_weights_that_do_not_fit_are_refused():
    with pytest.raises(UsageError, match=r"theta must have shape \[22\]"):
        AfterstateSoftmax(np.zeros(21), Tetris())
    with pytest.raises(UsageError, match=r"scale must have shape \[22\]"):
        AfterstateSoftmax(np.zeros(22), Tetris(), np.ones(2))


def test_worlds_of_one_size_are_equal():
    assert Tetris(20, 10) == Tetris() != Tetris(19, 10)
    assert hash(Tetris(20, 10)) == hash(Tetris())
