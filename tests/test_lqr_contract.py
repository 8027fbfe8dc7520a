"""What an exact LQR takes, and what it refuses with a sentence."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from steepest.distributions import Categorical, DiagonalGaussian
from steepest.errors import UsageError
from steepest.policies import MlpGaussian, TabularSoftmax
from steepest.policies.linear_gaussian import ExponentialGaussian, LinearGaussian
from steepest.worlds.lqr import LQR


@pytest.fixture(scope="module")
def world() -> LQR:
    return LQR(0.5 * np.eye(2), np.eye(2), np.eye(2), np.eye(2), np.eye(2), 4)


def bent(x):
    return DiagonalGaussian(x + 1e-3 * jnp.sin(x), jnp.zeros(2))


def loud(x):
    return DiagonalGaussian(x, 0.1 * x)


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        (bent, "mean is not affine"),
        (loud, "σ depends on x"),
        (lambda x: Categorical(x), "DiagonalGaussian, got Categorical"),
        (LinearGaussian(np.ones((1, 2)), [0.0]), "m=2 actions"),
        (lambda x: DiagonalGaussian(x, jnp.full(2, jnp.nan)), "not finite"),
        (MlpGaussian(2, 2, key=jax.random.key(0)), "mean is not affine"),
        (3, "expected a policy"),
        (TabularSoftmax(np.zeros((2, 2))), r"does not take a state of shape \[2\]"),
        (LinearGaussian(np.ones((1, 3)), [0.0]), r"does not take a state of shape \[2\]"),
    ],
)
def test_policies_that_are_not_affine_or_do_not_fit_are_refused(world, policy, message):
    for method in (world.cost, world.gradient, world.fisher, world.batch):
        with pytest.raises(UsageError, match=message):
            method(policy)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"control": np.ones((3, 1))}, "control must have shape"),
        ({"noise": -1.0}, "positive semidefinite"),
        ({"dynamics": np.nan}, r"dynamics\[0, 0\] is not finite"),
        ({"horizon": 0}, "horizon must be an integer"),
        ({"horizon": 2.0}, "horizon must be an integer"),
        ({"initial_mean": [0.0, 1.0]}, "initial_mean must have shape"),
        ({"state_cost": "x"}, "array of numbers"),
    ],
)
def test_worlds_that_make_no_sense_are_refused(change, message):
    good = {"dynamics": 0.7, "control": 1, "state_cost": 1, "control_cost": 1, "noise": 1, "horizon": 5}
    with pytest.raises(UsageError, match=message):
        LQR(**{**good, **change})


def test_an_asymmetric_cost_names_the_entry():
    with pytest.raises(UsageError, match=r"state_cost\[0, 1\] = 1.0"):
        LQR(np.eye(2), np.ones((2, 1)), [[1, 1], [0, 1]], 1, np.eye(2), 3)


def test_unstabilisable_dynamics_have_no_stationary_optimum():
    with pytest.raises(UsageError, match="Riccati"):
        LQR(2.0, 0.0, 1, 1, 1, 5).optimal_stationary()


def test_shapes_of_the_policies_are_checked():
    with pytest.raises(UsageError, match="gain"):
        LinearGaussian([[1.0]], [0.0, 1.0])
    with pytest.raises(UsageError, match="theta"):
        ExponentialGaussian([1.0])
