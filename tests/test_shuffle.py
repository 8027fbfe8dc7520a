"""Minibatches: every row once an epoch, and any two rows together as often as chance has it."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from steepest.shuffle import permutation, shuffled

DRAWS = 4000


@pytest.mark.parametrize(("count", "size"), [(256, 32), (384, 128), (96, 8), (12, 12), (12, 1)])
def test_every_row_is_in_one_minibatch(count: int, size: int) -> None:
    found = np.asarray(jax.vmap(lambda key: shuffled(key, count, size))(jax.random.split(jax.random.key(0), 50)))
    assert found.shape == (50, count // size, size)
    np.testing.assert_array_equal(np.sort(found.reshape(50, -1)), np.tile(np.arange(count), (50, 1)))


@pytest.mark.parametrize(("count", "size"), [(256, 32), (384, 128), (96, 8)])
def test_rows_meet_as_often_as_in_uniform_permutations(count: int, size: int) -> None:
    """z-scores of the meetings of 400 pairs, neighbours among them, have the variance of chance; so have places."""
    keys = jax.random.split(jax.random.key(1), DRAWS)
    rows = np.asarray(jax.vmap(lambda key: shuffled(key, count, size))(keys)).reshape(DRAWS, -1)
    place = np.argsort(rows, axis=1)
    rng = np.random.default_rng(0)
    near = [(i, i + 1) for i in range(0, 90, 3)] + [(i, (i + size) % count) for i in range(0, 90, 3)]
    pairs = np.array([*near, *(rng.choice(count, 2, replace=False) for _ in range(340))])
    together = (place[:, pairs[:, 0]] // size == place[:, pairs[:, 1]] // size).mean(0)
    p = (size - 1) / (count - 1)
    z = (together - p) / np.sqrt(p * (1 - p) / DRAWS)
    assert np.mean(z**2) < 1.3  # 400 terms of mean 1: the standard deviation is 0.07
    assert np.abs(z).max() < 5
    for row in (0, 1, count // 2, count - 1):
        expected = DRAWS / count
        chi = ((np.bincount(place[:, row], minlength=count) - expected) ** 2 / expected).sum() / (count - 1)
        assert chi < 1 + 6 * np.sqrt(2 / (count - 1))


def test_the_first_rows_of_a_permutation_are_drawn_without_replacement_and_as_chance_has_it() -> None:
    """256 = 16·16 by the network and 251, a prime, by a sort: every row once, and pairs of rows among the first 64."""
    for count in (256, 251):
        keys = jax.random.split(jax.random.key(2), DRAWS)
        drawn = np.asarray(jax.vmap(lambda key, count=count: permutation(key, count))(keys))
        np.testing.assert_array_equal(np.sort(drawn, axis=1), np.tile(np.arange(count), (DRAWS, 1)))
        inside = np.zeros((DRAWS, count), bool)
        np.put_along_axis(inside, drawn[:, :64], True, axis=1)
        p = 64 / count * 63 / (count - 1)
        pairs = [(i, i + 1) for i in range(0, 200, 2)] + [(i, i + 16) for i in range(0, 200, 2)]
        z = np.array([(inside[:, a] & inside[:, b]).mean() - p for a, b in pairs]) / np.sqrt(p * (1 - p) / DRAWS)
        assert np.mean(z**2) < 1.5  # 200 terms of mean 1: the standard deviation is 0.1
        assert np.abs(z).max() < 5
