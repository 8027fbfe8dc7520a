"""The critic by the geometry: one step is least squares, the loss never rises, what is not finite changes nothing."""

from __future__ import annotations

import dataclasses
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from steepest.critics import AdamFit, CriticFit, FitInfo, MlpValue, NaturalFit, StateValue, trust_region
from steepest.critics.natural_fit import Observed, targets_as_actions
from steepest.distributions import UnitGaussian
from steepest.errors import UsageError
from steepest.geometry import Reason, TrustRegion, fisher, least_squares, linearise
from steepest.linear import ConjugateGradient, Dense, Direct, Solution
from steepest.parameters import frozen, split

FREE = trust_region(1e6)
SHORT = NaturalFit(1, solver=Direct(), damping=0.1, step=TrustRegion(1e-3, shrink=0.999, longest=1.0))
SOME = NaturalFit(2, 16, step=trust_region(0.1), damping=1e-2)
EXACT = NaturalFit(iterations=1, solver=Direct(), step=FREE, damping=0.0)


class Affine(eqx.Module):
    """V(x) = wᵀx + b."""

    weight: Any
    bias: Any

    def __call__(self, obs: Any) -> jax.Array:
        return jnp.vdot(self.weight, obs) + self.bias


@pytest.fixture
def x64() -> Any:
    with jax.enable_x64(True):
        yield


def problem(rows: int = 64) -> tuple[jax.Array, jax.Array, jax.Array]:
    """(obs [N,3], target [N] that no critic here can equal, weight [N], uneven, a quarter of it 0)."""
    rng = np.random.default_rng(0)
    obs = rng.normal(size=(rows, 3))
    weight = np.where(np.arange(rows) % 4 == 0, 0.0, rng.uniform(0.5, 2.0, rows))
    target = 5 * np.sin(2 * obs[:, 0]) + obs[:, 1] * obs[:, 2] + 3 + rng.normal(size=rows)
    return jnp.asarray(obs), jnp.asarray(target), jnp.asarray(weight)


def fit(fitter: Any, critic: Any, obs: Any, target: Any, weight: Any, state: Any = None, seed: int = 0) -> Any:
    state = fitter.init(critic) if state is None else state
    return _fit(fitter, critic, state, obs, target, weight, jax.random.key(seed))


@eqx.filter_jit
def _fit(fitter: Any, critic: Any, state: Any, obs: Any, target: Any, weight: Any, key: Any) -> Any:
    return fitter(critic, state, obs, target, weight, jax.vmap(critic)(obs), key)


def squares(critic: Any, obs: Any, target: Any, weight: Any) -> float:
    error = np.asarray(jax.vmap(critic)(obs) - target)[np.asarray(weight) > 0]
    return float(np.average(error**2, weights=np.asarray(weight)[np.asarray(weight) > 0]))


def flat(tree: Any) -> np.ndarray:
    return np.asarray(ravel_pytree(split(tree)[0])[0])


def test_one_undamped_step_is_the_least_squares_solution(x64: None) -> None:
    """From anywhere, with the weights of the rows, and whatever masked rows hold."""
    obs, target, weight = problem()
    root = np.sqrt(np.asarray(weight))[:, None]
    rows = np.hstack([np.asarray(obs), np.ones((len(root), 1))])
    expected, *_ = np.linalg.lstsq(root * rows, root[:, 0] * np.asarray(target), rcond=None)
    masked = weight == 0
    obs, target = jnp.where(masked[:, None], jnp.nan, obs), jnp.where(masked, jnp.nan, target)
    for solver in (Direct(), ConjugateGradient(8)):
        start = Affine(jnp.array([1.0, -2.0, 0.5]), jnp.array(7.0))
        critic, state, info = fit(dataclasses.replace(EXACT, solver=solver), start, obs, target, weight)
        assert info.kept
        assert float(state.damping) == 0.0
        np.testing.assert_allclose(flat(critic), expected, atol=1e-10)
        np.testing.assert_allclose(info.loss, squares(start, obs, target, weight), rtol=1e-12)


def test_the_scale_of_the_targets_and_weights_does_not_matter(x64: None) -> None:
    """A linear critic in other units is the same critic in other units, damped and with a trust region."""
    obs, target, weight = problem()
    zero = Affine(jnp.zeros(3), jnp.array(0.0))
    one, state, _ = fit(SHORT, zero, obs, target, weight)
    other, other_state, _ = fit(SHORT, zero, obs, 1e3 * target, 7.0 * weight)
    np.testing.assert_allclose(flat(other), 1e3 * flat(one), rtol=1e-9)
    np.testing.assert_allclose(other_state.damping, state.damping)


def test_the_trust_region_is_half_the_squared_change_over_the_error(x64: None) -> None:
    """½E(V − V')²/σ² = δ where the whole step is longer: of a linear critic the quadratic KL is the true one."""
    obs, target, weight = problem()
    start = Affine(jnp.zeros(3), jnp.array(7.0))
    critic, _, info = fit(SHORT, start, obs, target, weight)
    moved = np.asarray(jax.vmap(critic)(obs) - jax.vmap(start)(obs))
    np.testing.assert_allclose(0.5 * np.average(moved**2, weights=weight) / info.loss, 1e-3, rtol=3e-3)


def test_gradient_gain_and_metric_are_those_of_the_squares(x64: None) -> None:
    obs, target, weight = problem()
    critic = Observed(MlpValue(3, (5,), key=jax.random.key(0)), frozen(jnp.array(2.0)))
    critic = jax.tree.map(lambda x: jnp.asarray(x, float) if eqx.is_inexact_array(x) else x, critic)
    batch = targets_as_actions(obs, target, weight)
    local = linearise(critic, batch.obs)
    w = weight / weight.sum()

    def objective(theta: Any) -> jax.Array:
        return -0.5 * jnp.sum(w * (target - local.predict(theta).mean[:, 0]) ** 2)

    gradient = least_squares.gradient(local, batch)
    np.testing.assert_allclose(flat(gradient.vector), flat(jax.grad(objective)(local.params)), atol=1e-14)
    np.testing.assert_allclose(flat(local.pull(gradient.cotangent)), flat(gradient.vector), atol=1e-15)
    moved = jax.tree.map(lambda x: x + 0.3, local.params)
    gain = least_squares.gain(local.distribution, local.predict(moved), batch)
    np.testing.assert_allclose(gain, objective(moved) - objective(local.params), atol=1e-13)
    assert float(least_squares.gain(local.distribution, local.distribution, batch)) == 0.0
    vector, unravel = ravel_pytree(local.params)
    jacobian = jax.jacobian(lambda v: local.predict(unravel(v)).mean[:, 0])(vector)
    metric = fisher.operator(local, batch)
    np.testing.assert_allclose(metric.matrix(local.params), jacobian.T @ (w[:, None] * jacobian), atol=1e-14)
    dual = fisher.dual(local, batch, gradient)
    np.testing.assert_allclose(flat(metric.transpose(dual)), flat(gradient.vector), atol=1e-14)


@pytest.mark.parametrize("fitter", [dataclasses.replace(SOME, rows=None, step=FREE, damping=1e-3), SOME])
def test_the_loss_never_rises(fitter: NaturalFit) -> None:
    """Also with steps that are far too long, or that see other rows: what they spoil is not kept."""
    obs, target, weight = (x.astype(jnp.float32) for x in problem())
    critic: Any = MlpValue(3, (8,), key=jax.random.key(0))
    state, kept, losses = fitter.init(critic), 0, [squares(critic, obs, target, weight)]
    for seed in range(30):
        critic, state, info = fit(fitter, critic, obs, target, weight, state, seed)
        losses.append(squares(critic, obs, target, weight))
        assert (losses[-1] < losses[-2]) if info.kept else (losses[-1] == losses[-2])
        kept += bool(info.kept)
    assert kept > 3
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_fit_that_is_not_finite_keeps_critic_and_state(bad: float) -> None:
    obs, target, weight = (x.astype(jnp.float32) for x in problem())
    critic, state, info = fit(SOME, MlpValue(3, (8,), key=jax.random.key(0)), obs, target, weight)
    assert info.kept
    after, after_state, info = fit(SOME, critic, obs, target.at[5].set(bad), weight, state)
    assert not info.kept
    np.testing.assert_array_equal(flat(after), flat(critic))
    np.testing.assert_array_equal(after_state.damping, state.damping)


def test_a_perfect_critic_and_a_batch_without_rows_stay() -> None:
    obs, _, weight = (x.astype(jnp.float32) for x in problem())
    critic = MlpValue(3, (8,), key=jax.random.key(0))
    for target, w in ((jax.vmap(critic)(obs), weight), (jnp.ones(len(weight)), jnp.zeros(len(weight)))):
        after, state, info = fit(SOME, critic, obs, target, w)
        assert not info.kept
        np.testing.assert_array_equal(flat(after), flat(critic))
        assert np.isfinite(state.damping)


def test_levenberg_marquardt() -> None:
    """λ falls where the model holds, grows where a step is refused, and stays between its bounds."""
    obs, target, weight = (x.astype(jnp.float32) for x in problem())
    affine = Affine(jnp.zeros(3), jnp.zeros(()))
    fitter = NaturalFit(1, damping=0.04, factor=2.0, largest=0.3, step=trust_region(0.01))
    backwards, state = dataclasses.replace(fitter, solver=Backwards()), fitter.init(affine)
    for expected in (0.08, 0.16, 0.3, 0.3):
        affine, state, info = fit(backwards, affine, obs, target, weight, state)
        assert not info.kept
        np.testing.assert_allclose(state.damping, expected)
    for expected in (0.15, 0.075, 0.04, 0.04):
        affine, state, info = fit(fitter, affine, obs, target, weight, state)
        assert info.kept
        np.testing.assert_allclose(state.damping, expected)


class Backwards(eqx.Module):
    """A solver that points downhill."""

    def __call__(self, operator: Any, rhs: Any, dual: Any = None) -> Solution:
        found = ConjugateGradient(10)(operator, rhs, dual)
        return found._replace(x=jax.tree.map(jnp.negative, found.x))


def test_a_critic_of_state_indices() -> None:
    rng = np.random.default_rng(1)
    state = jnp.asarray(rng.integers(0, 4, 64), jnp.int32)
    target = jnp.array([1.0, -2.0, 0.5, 3.0])[state]
    critic, fitter = StateValue(4, (8,), key=jax.random.key(0)), NaturalFit(10, step=FREE, damping=1e-3)
    critic, _, _ = fit(fitter, critic, state, target, jnp.ones(64))
    np.testing.assert_allclose(jax.vmap(critic)(state), target, atol=0.02)


def test_the_rows_of_a_step_are_those_of_the_key() -> None:
    obs, target, weight = (x.astype(jnp.float32) for x in problem())
    critic = MlpValue(3, (8,), key=jax.random.key(0))
    some, same, other = (fit(SOME, critic, obs, target, weight, seed=s)[0] for s in (0, 0, 1))
    np.testing.assert_array_equal(flat(some), flat(same))
    assert not np.array_equal(flat(some), flat(other))


def test_all_of_a_step_that_is_inside_the_region_is_taken(x64: None) -> None:
    theta, g = jnp.zeros(2), jnp.array([2.0, 1.0])
    metric = Dense(jnp.diag(jnp.array([4.0, 1.0])))
    solution = Direct()(metric, g)

    def trial(t: jax.Array) -> tuple[jax.Array, jax.Array]:
        return jnp.vdot(g, t) - 0.5 * metric.quadratic(t), 0.5 * metric.quadratic(t)

    whole = trust_region(10.0)(theta, g, solution, metric, trial)
    np.testing.assert_allclose(whole.params, [0.5, 1.0], atol=1e-14)
    part = trust_region(0.25)(theta, g, solution, metric, trial)
    assert 0.25 * 0.49 - 1e-12 < float(part.kl) <= 0.25
    worse = FREE(theta, g, solution, metric, lambda t: (-trial(t)[0], trial(t)[1]))
    assert int(worse.reason) == Reason.LINE_SEARCH
    np.testing.assert_array_equal(worse.params, theta)


def test_both_fits_are_fits() -> None:
    assert isinstance(AdamFit(), CriticFit)
    assert isinstance(NaturalFit(), CriticFit)
    assert FitInfo._fields == ("loss", "explained", "kept")


@pytest.mark.parametrize(
    "bad",
    [
        {"iterations": 0},
        {"rows": 0},
        {"damping": -1.0},
        {"damping": np.inf},
        {"factor": 0.5},
        {"largest": np.inf},
        {"damping": 2.0},
    ],
)
def test_bad_settings(bad: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="critic"):
        NaturalFit(**bad)
    with pytest.raises(UsageError, match="longest > 0"):
        TrustRegion(0.1, longest=0.0)


def test_the_unit_gaussian_is_a_gaussian_of_deviation_one(x64: None) -> None:
    p = UnitGaussian(jnp.array([0.3, -1.0]))
    draws = jax.vmap(p.sample)(jax.random.split(jax.random.key(0), 20_000))
    np.testing.assert_allclose(jnp.cov(draws.T), np.eye(2), atol=0.03)
    np.testing.assert_allclose(jnp.mean(draws, axis=0), p.mode(), atol=0.03)
