"""The critic's fit: weighted least squares, a report of what was there before, and never a critic of NaN."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from steepest.critics import AdamFit, FitInfo, MlpValue, StateValue
from steepest.errors import UsageError
from steepest.parameters import split


class Affine(eqx.Module):
    """V(x) = wᵀx + b: what its fit converges to is known."""

    weight: jax.Array
    bias: jax.Array

    def __call__(self, obs: Any) -> jax.Array:
        return jnp.vdot(self.weight, obs) + self.bias


ZERO = Affine(jnp.zeros(2), jnp.zeros(()))


def problem(rows: int = 64) -> tuple[jax.Array, jax.Array, jax.Array]:
    """(obs [N,2], target [N] = 2x₁ − x₂ + 3, weight [N], a quarter of it 0)."""
    rng = np.random.default_rng(0)
    obs = rng.normal(size=(rows, 2)).astype(np.float32)
    weight = np.where(np.arange(rows) % 4 == 0, 0.0, 1.0).astype(np.float32)
    return (
        jnp.asarray(obs),
        jnp.asarray(obs @ np.array([2.0, -1.0], np.float32) + 3.0),
        jnp.asarray(weight / weight.sum()),
    )


def fit(fitter: AdamFit, critic: Any, obs: Any, target: Any, weight: Any, seed: int = 0) -> tuple[Any, Any, FitInfo]:
    value = jax.vmap(critic)(obs)
    return fitter(critic, fitter.init(critic), obs, target, weight, value, jax.random.key(seed))


def leaves(tree: Any) -> list[np.ndarray]:
    return [np.asarray(x) for x in jax.tree.leaves(tree)]


def test_a_linear_target_is_learnt() -> None:
    critic, _, _ = fit(AdamFit(0.05, epochs=200, minibatch=16), ZERO, *problem())
    np.testing.assert_allclose(critic.weight, [2.0, -1.0], atol=1e-3)
    np.testing.assert_allclose(critic.bias, 3.0, atol=1e-3)


def test_the_fit_minimises_the_weighted_squares() -> None:
    """Of all constants the weighted mean is nearest: not the mean of the rows, nor the median."""
    target, weight = jnp.array([0.0, 1.0, 10.0, 0.0]), jnp.array([0.1, 0.5, 0.3, 0.1])
    critic, _, _ = fit(AdamFit(0.02, epochs=1500, minibatch=4), ZERO, jnp.zeros((4, 2)), target, weight)
    np.testing.assert_allclose(critic.bias, 3.5, atol=2e-3)


def test_rows_of_weight_zero_are_ignored() -> None:
    obs, target, weight = problem()
    other_obs, other_target = (jnp.where(weight > 0, x.T, 50.0).T for x in (obs, target))
    fitter = AdamFit(1e-2, epochs=3, minibatch=8)
    one, _, info = fit(fitter, ZERO, obs, target, weight)
    other, _, other_info = fit(fitter, ZERO, other_obs, other_target, weight)
    for x, y in zip(leaves((one, info)), leaves((other, other_info)), strict=True):
        np.testing.assert_array_equal(x, y)


def test_a_minibatch_of_masked_rows_alone_changes_nothing() -> None:
    obs, target, _ = problem(8)
    fitter = AdamFit(1e-2, epochs=3, minibatch=4)
    critic, _, info = fit(fitter, ZERO, obs, target, jnp.eye(8)[0])  # one minibatch of each epoch has no weight
    assert info.kept
    assert all(np.isfinite(x).all() for x in leaves(critic))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_fit_that_is_not_finite_keeps_critic_and_optimiser(bad: float) -> None:
    obs, target, weight = problem()
    fitter = AdamFit(minibatch=16)
    good, state, info = fit(fitter, ZERO, obs, target, weight)
    assert info.kept
    value = jax.vmap(good)(obs)
    kept, after, info = fitter(good, state, obs, target.at[5].set(bad), weight, value, jax.random.key(1))
    assert not info.kept
    for x, y in zip(leaves((kept, after)), leaves((good, state)), strict=True):
        np.testing.assert_array_equal(x, y)


def test_the_optimiser_is_carried_from_fit_to_fit() -> None:
    """Two fits with the state handed on are not two fits from a fresh one; Adam has counted every minibatch."""
    obs, target, weight = problem()
    fitter = AdamFit(epochs=3, minibatch=16)
    critic, state, _ = fit(fitter, ZERO, obs, target, weight)
    assert [int(x) for x in jax.tree.leaves(state) if jnp.issubdtype(x.dtype, jnp.integer)] == [3 * 4]
    value, key = jax.vmap(critic)(obs), jax.random.key(1)
    carried, after, _ = fitter(critic, state, obs, target, weight, value, key)
    fresh, _, _ = fitter(critic, fitter.init(critic), obs, target, weight, value, key)
    assert [int(x) for x in jax.tree.leaves(after) if jnp.issubdtype(x.dtype, jnp.integer)] == [2 * 3 * 4]
    assert not np.array_equal(carried.weight, fresh.weight)


def test_the_shuffles_are_those_of_the_key() -> None:
    fitter = AdamFit(epochs=2, minibatch=16)
    one, same, other = (fit(fitter, ZERO, *problem(), seed=seed)[0] for seed in (0, 0, 1))
    np.testing.assert_array_equal(one.weight, same.weight)
    assert not np.array_equal(one.weight, other.weight)


def test_every_epoch_has_every_row_once() -> None:
    """With a minibatch of one row each, Adam's first moment after an epoch is the decayed sum of all rows' gradients:
    for V = b near 0 and equal targets it is the same in any order, and no row is missing or doubled."""
    target = jnp.full(8, 1e6)
    _, state, _ = fit(AdamFit(1e-6, epochs=1, minibatch=1), ZERO, jnp.eye(8)[:, :2], target, jnp.full(8, 1 / 8))
    decay = 0.1 * 0.9 ** np.arange(8)
    first = state[0].mu
    np.testing.assert_allclose(first.bias, -2e6 * decay.sum(), rtol=1e-5)
    seen = np.asarray(first.weight) / -2e6  # rows 0 and 1 alone have a feature: each was seen at one of the 8 times
    assert all(np.isclose(decay, x, rtol=1e-4).sum() == 1 for x in seen)
    assert seen[0] != seen[1]


def test_every_epoch_has_an_order_of_its_own() -> None:
    """As above, over two epochs: a row's place in the first is not its place in the second, for most rows."""
    decay = 0.1 * 0.9 ** np.arange(16)
    both = decay[8:, None] + decay[None, :8]  # [place in the first epoch, in the second], from the end
    places = []
    for seed in range(4):
        fitter = AdamFit(1e-6, epochs=2, minibatch=1)
        _, state, _ = fit(fitter, ZERO, jnp.eye(8)[:, :2], jnp.full(8, 1e6), jnp.full(8, 1 / 8), seed)
        for seen in np.asarray(state[0].mu.weight) / -2e6:
            places.append(np.unravel_index(np.argmin(np.abs(both - seen)), both.shape))
    assert sum(one != two for one, two in places) >= 4


def test_the_report_is_of_the_critic_before_the_fit() -> None:
    obs, _, _ = problem(4)
    target, value = jnp.array([1.0, 2.0, 4.0, 99.0]), jnp.array([1.0, 1.0, 2.0, 0.0])
    weight = jnp.array([0.5, 0.25, 0.25, 0.0])
    fitter = AdamFit(minibatch=4)
    _, _, info = fitter(ZERO, fitter.init(ZERO), obs, target, weight, value, jax.random.key(0))
    np.testing.assert_allclose(info.loss, 0.25 * 1 + 0.25 * 4)
    variance = 0.5 * 1 + 0.25 * 4 + 0.25 * 16 - 2.0**2
    error = 1.25 - 0.75**2
    np.testing.assert_allclose(info.explained, 1 - error / variance, rtol=1e-6)
    _, _, info = fitter(ZERO, fitter.init(ZERO), obs, jnp.ones(4), weight, value, jax.random.key(0))
    assert float(info.explained) == 0.0  # targets that do not vary


def test_a_batch_that_is_not_divisible_is_refused() -> None:
    with pytest.raises(UsageError, match="64 rows is not divisible into minibatches of 24"):
        fit(AdamFit(minibatch=24), ZERO, *problem())


@pytest.mark.parametrize("bad", [{"learning_rate": 0.0}, {"learning_rate": np.inf}, {"epochs": 0}, {"minibatch": 0}])
def test_bad_settings(bad: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="critic"):
        AdamFit(**bad)


def test_built_in_critics_start_near_zero_and_tell_states_apart() -> None:
    key = jax.random.key(0)
    table, net = StateValue(3, (8,), key=key), MlpValue(4, (8,), key=key)
    values = np.array([float(table(jnp.int32(s))) for s in range(3)])
    assert 0 < np.abs(values).max() < 0.1
    assert len(set(values)) == 3
    assert abs(float(net(jnp.ones((2, 2))))) < 0.1  # flattened
    assert all(np.issubdtype(x.dtype, np.floating) for x in leaves(split(table)[0]))
