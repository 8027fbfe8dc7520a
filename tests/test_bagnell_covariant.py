"""BS: covariant flows are one in all coordinates, gradient flows are not; the metric by paths varies most."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import steepest as st
from steepest.batch import Batch
from steepest.geometry import linearise
from steepest.geometry.trajectory import trajectory
from steepest.reproduce.bagnell_covariant import (
    COORDINATES,
    COUNTS,
    EXPERIMENT,
    HORIZONS,
    SAMPLED,
    STARTS,
    WORLD,
    at,
    errors,
    estimates,
    velocity,
)
from steepest.reproduce.experiment import Outcome
from steepest.worlds.finite import sample_paths, two_state

pytestmark = pytest.mark.usefixtures("x64_off")


@pytest.fixture(scope="module")
def outcome() -> Outcome:
    return EXPERIMENT.run(True)


@pytest.mark.claim("BS", "R8", "R9")
def test_BS_covariant_fields_and_flows_are_one_in_all_coordinates(outcome: Outcome):
    gradient, covariant = outcome.table
    angle, distance = "largest angle between fields, degrees", "largest distance between flows of one start"
    assert covariant[angle] < 1e-10
    assert covariant[distance] < 1e-4  # of a quick integration
    assert gradient[angle] > 90
    assert gradient[distance] > 1


@pytest.mark.claim("BS")
def test_BS_the_metric_of_the_flow_changes_with_the_coordinates_as_a_tensor():
    policy = at(STARTS[0])
    theta = [np.asarray(x) for x in velocity(COORDINATES["θ = φ"](policy), policy.theta)]
    sheared = COORDINATES["sheared, θ = (φ₁ + 2φ₂, φ₂)"](policy)
    phi = [np.asarray(x) for x in velocity(sheared, sheared.phi)]
    a = np.array([[1.0, 2.0], [0.0, 1.0]])
    np.testing.assert_allclose(phi[0], a.T @ theta[0], rtol=1e-12)
    np.testing.assert_allclose(phi[1], a.T @ theta[1] @ a, rtol=1e-12)
    np.testing.assert_allclose(theta[1], WORLD.horizon * WORLD.fisher(policy), rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(theta[0], WORLD.gradient(policy).theta, rtol=1e-12)
    np.testing.assert_allclose(theta[3], WORLD.value(policy), rtol=1e-12)


@pytest.mark.claim("BS", "R18")
def test_BS_R18_the_estimates_are_those_of_the_metrics_that_train():
    paths, horizon, seed = 50, 7, 3
    by_steps, by_paths = estimates(paths, horizon, 1, seed)
    policy = at(SAMPLED)
    states, actions, _ = sample_paths(two_state(horizon), policy, paths, np.random.default_rng(seed))
    size = states.size
    batch = Batch(
        obs=states.reshape(size),
        weight=np.full(size, 1 / size),
        action=actions.reshape(size, 1),
        action_weight=np.ones((size, 1)),
        advantage=np.zeros((size, 1)),
        segment=np.repeat(np.arange(paths), horizon),
    )
    with jax.enable_x64(True):
        batch = jax.tree.map(jnp.asarray, batch)
        local = linearise(policy, batch.obs)
        steps = np.asarray(st.empirical_fisher.operator(local, batch).matrix(local.params))
        whole = np.asarray(trajectory.operator(local, batch).matrix(local.params))
    np.testing.assert_allclose(by_steps[0], steps, rtol=1e-11, atol=1e-15)
    np.testing.assert_allclose(by_paths[0], whole, rtol=1e-11, atol=1e-15)


@pytest.mark.claim("R18")
def test_R18_both_estimates_are_unbiased():
    repeats, paths, horizon = 4000, 10, 20
    truth = two_state(horizon).fisher(at(SAMPLED))
    for found in estimates(paths, horizon, repeats, seed=0):
        z = (found.mean(axis=0) - truth) / (found.std(axis=0) / np.sqrt(repeats) + 1e-15)
        assert np.max(np.abs(z)) < 4


@pytest.mark.claim("BS", "R18")
def test_BS_R18_by_paths_the_error_does_not_fall_with_the_horizon(outcome: Outcome):
    found = {(row["case"], row["x"]): (row["y1"], row["y2"]) for row in outcome.rows if "error" in row["what"]}
    steps, paths = np.array([found["against H", h] for h in HORIZONS]).T
    assert steps[0] == pytest.approx(paths[0], rel=1e-12)  # one step is a path
    assert np.all(paths[1:] > steps[1:])
    assert np.all(np.diff(steps) < 0)
    assert paths[-1] == pytest.approx(paths[-3], rel=0.2)
    for errors_of in np.array([found["against N", n] for n in COUNTS]).T:
        assert np.polyfit(np.log(COUNTS), np.log(errors_of), 1)[0] == pytest.approx(-0.5, abs=0.05)


def test_the_error_is_relative_to_the_exact_matrix():
    steps, paths = errors(10, 2, 3, seed=1)
    truth = two_state(2).fisher(at(SAMPLED))
    for error, found in zip((steps, paths), estimates(10, 2, 3, seed=1), strict=True):
        each = [np.linalg.norm(one - truth) for one in found]
        assert error == pytest.approx(np.sqrt(np.mean(np.square(each))) / np.linalg.norm(truth), rel=1e-12)


def test_the_experiment_has_rows_of_the_same_columns(outcome: Outcome):
    assert len({tuple(row) for row in outcome.rows}) == len({tuple(row) for row in outcome.table}) == 1
    flows = {(row["what"].split()[0], row["case"]) for row in outcome.rows if "flow" in row["what"]}
    assert len(flows) == 2 * len(COORDINATES) * len(STARTS)
