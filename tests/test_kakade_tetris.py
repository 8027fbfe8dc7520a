"""Tetris learnt: the estimators against plain loops, and what the experiment says on a small budget."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from steepest.reproduce.kakade_tetris import SETTINGS, Score, compare, lines_per_game
from steepest.reproduce.tetris_learning import AHEAD, DISCOUNT, Sample, fit_value, gradient_batch
from steepest.worlds.tetris import AfterstateSoftmax, Tetris, rollout


@pytest.fixture(scope="module")
def steps():
    world = Tetris(6, 5)
    policy = AfterstateSoftmax(jnp.zeros(world.features).at[-2].set(-1.0), world)
    boards = jax.vmap(world.reset)(jax.random.split(jax.random.key(0), 3))
    return rollout(world, policy, boards, jax.random.key(1), AHEAD + 8)[1]


def test_the_advantage_is_the_discounted_lines_to_the_end_of_the_game_less_their_mean(steps):
    batch = gradient_batch(steps)
    lines, over = np.asarray(steps.lines), np.asarray(steps.over)
    returns = np.zeros(lines.shape)
    for t, b in np.ndindex(*lines.shape):
        for k in range(t, len(lines)):
            returns[t, b] += DISCOUNT ** (k - t) * lines[k, b]
            if over[k, b]:
                break
    assert lines.sum() > 5
    assert over.sum() > 5
    kept = returns[:8].reshape(-1)
    np.testing.assert_allclose(batch.advantage[:, 0], kept - kept.mean(), atol=1e-5)
    np.testing.assert_array_equal(batch.action[:, 0], np.asarray(steps.action)[:8].reshape(-1))
    np.testing.assert_array_equal(batch.obs.columns, np.asarray(steps.board.columns)[:8].reshape(24, 5))
    assert float(batch.weight.sum()) == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize("trace", [0.0, 0.6, 1.0])
def test_the_value_is_fitted_to_lambda_returns(steps, trace):
    world = Tetris(6, 5)
    weights = jnp.asarray(np.random.default_rng(0).normal(size=world.features), jnp.float32)
    options = jax.vmap(jax.vmap(world.placements))(steps.board)
    features = np.asarray(world.afterstate_features(options.columns), np.float64)
    features = np.take_along_axis(features, np.asarray(steps.action)[..., None, None], axis=2)[:, :, 0]
    lines, over = np.asarray(steps.lines), np.asarray(steps.over)
    value = features @ np.asarray(weights, np.float64)
    target = value[:-1].copy()
    for t, b in np.ndindex(*target.shape):
        for k in range(t, len(lines) - 1):
            following = 0.0 if over[k, b] else lines[k + 1, b] + value[k + 1, b]
            target[t, b] += trace ** (k - t) * (following - value[k, b])
            if over[k, b]:
                break
    expected = features[:-1].reshape(-1, world.features)
    fitted = expected @ np.asarray(fit_value(world, weights, steps, trace), np.float64)
    best = expected @ np.linalg.lstsq(expected, target.reshape(-1))[0]
    np.testing.assert_allclose(fitted, best, atol=2e-3)


def test_scores_are_pooled_and_no_lost_game_counts_as_one():
    scores = [Score(np.arange(7), np.array([1, 0, 1, 0, 0, 0, 5])), Score(np.full(7, 10), np.full(7, 2))]
    curve = lines_per_game(scores)
    np.testing.assert_array_equal(curve.iteration, [3, 6])
    np.testing.assert_allclose(curve.score, [[1.5, 12.0], [5.0, 5.0]])
    np.testing.assert_allclose(curve.middle, np.sqrt([1.5 * 5.0, 12.0 * 5.0]))


@pytest.fixture(scope="module")
def outcome():
    return compare([s for s in SETTINGS if s.quick], Sample(96, 80), iterations=12, seeds=1, quick=True)


def at_the_end(outcome, method: str, step: str, units: str) -> float:
    (row,) = (r for r in outcome.table if r["method"].startswith(method) and (r["step"], r["units"]) == (step, units))
    return row["at the end"]


@pytest.mark.slow
@pytest.mark.claim("KC")
def test_KC_natural_gradient_does_not_see_the_units_and_the_gradient_does(outcome):
    natural = [at_the_end(outcome, "natural", "δ=0.2", units) for units in ("counts", "fractions")]
    assert min(natural) > 30
    assert 0.2 < natural[0] / natural[1] < 5
    # rate 40000 moves a height told as a fraction of 20 as rate 100 moves one that is counted: 20² = 400
    assert at_the_end(outcome, "gradient", "rate 100", "counts") > 4 * at_the_end(
        outcome, "gradient", "rate 40000", "fractions"
    )
    assert natural[1] > 2 * at_the_end(outcome, "gradient", "rate 40000", "fractions")


@pytest.mark.slow
@pytest.mark.claim("KC")
def test_KC_at_a_small_rate_the_gradient_is_orders_of_magnitude_behind(outcome):
    assert at_the_end(outcome, "natural", "δ=0.2", "counts") > 30 * at_the_end(outcome, "gradient", "rate 1", "counts")


def test_rows_hold_every_iteration_with_the_same_columns(outcome):
    assert len(outcome.rows) == 6 * 12
    assert {tuple(row) for row in outcome.rows} == {
        ("method", "step", "units", "seed", "iteration", "lines", "games lost")
    }
    assert len(outcome.table) == 6
