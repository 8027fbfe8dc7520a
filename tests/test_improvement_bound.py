"""The bound behind the trust region: it holds in 200 of 200 random MDPs, near and far, and it is needed."""

from __future__ import annotations

import numpy as np
import pytest

from steepest.algorithms.improvement_bound import Improvement, divergence, improvement, penalty, variation
from steepest.errors import UsageError
from steepest.worlds.finite.ensemble import log_softmax, random_ensemble

COUNT, STATES, ACTIONS = 200, 4, 3
DISTANCES = (1e-2, 1e-1, 1.0, 10.0)  # of the logits


@pytest.fixture(scope="module")
def steps() -> dict[tuple[float, float], Improvement]:
    """(γ, distance) ↦ a step in a random direction in each of 200 MDPs."""
    rng = np.random.default_rng(0)
    worlds = random_ensemble(COUNT, STATES, ACTIONS, seed=2)
    logits, direction = rng.normal(size=(2, COUNT, STATES, ACTIONS))
    old = log_softmax(logits)
    return {
        (discount, distance): improvement(worlds, old, log_softmax(logits + distance * direction), discount)
        for discount in (0.5, 0.9, 0.99)
        for distance in DISTANCES
    }


@pytest.mark.claim("B6")
def test_B6_a_new_policy_earns_at_least_the_surrogate_less_the_penalty_in_200_of_200(steps):
    tightest = 0.0
    for (discount, _), step in steps.items():
        rounding = 1e-12 / (1 - discount) ** 2
        for nats in (step.variation**2, step.divergence):
            lost = penalty(step.advantage, nats, discount)
            assert np.sum(step.after >= step.surrogate - lost - rounding) == COUNT
        tightest = max(
            tightest, np.max((step.surrogate - step.after) / penalty(step.advantage, step.variation**2, discount))
        )
    assert tightest > 0.01


@pytest.mark.claim("B6")
def test_B6_the_surrogate_alone_promises_too_much(steps):
    for step in steps.values():
        assert 0.2 < np.mean(step.after < step.surrogate) < 0.8


@pytest.mark.claim("B6")
def test_B6_the_surrogate_is_exact_to_first_order(steps):
    for discount in (0.5, 0.9):
        near, far = (np.abs(steps[discount, x].after - steps[discount, x].surrogate) for x in DISTANCES[:2])
        assert 1.9 < np.median(np.log10(far / near)) < 2.1
        moved = np.abs(steps[discount, DISTANCES[0]].after - steps[discount, DISTANCES[0]].before)
        assert np.median(near / moved) < 0.05


@pytest.mark.claim("B6")
def test_B6_the_square_of_the_variation_is_at_most_the_divergence(steps):
    for step in steps.values():
        assert np.all(step.variation**2 <= step.divergence * (1 + 1e-12))
    rng = np.random.default_rng(3)
    old, new = log_softmax(rng.normal(scale=3.0, size=(2, 10_000, ACTIONS)))
    assert np.all(2 * variation(old, new) ** 2 <= divergence(old, new))  # Pinsker's constant is better still


def test_divergences_are_those_of_their_definitions():
    old, new = np.log([[0.5, 0.25, 0.25], [0.2, 0.3, 0.5]])
    np.testing.assert_allclose(variation(old, new), 0.3, rtol=1e-14)
    np.testing.assert_allclose(divergence(old, new), np.sum(np.exp(old) * (old - new)), rtol=1e-14)


def test_a_discount_of_1_has_no_bound():
    with pytest.raises(UsageError, match=r"discount must be in \[0, 1\), got 1"):
        penalty(1.0, 0.1, 1.0)
