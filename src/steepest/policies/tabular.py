"""Softmax policies on a finite state space, whose observation is a state index: π ∝ exp θ_sa and π ∝ exp θᵀφ_sa."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Float

from steepest.distributions import Categorical
from steepest.errors import UsageError
from steepest.parameters import Frozen, frozen
from steepest.trees import AnyArray


class TabularSoftmax(eqx.Module):
    """π(a|s) ∝ exp θ_sa.  logits: θ, [S, A]. One null direction of the Fisher matrix for each state."""

    logits: Float[AnyArray, "S A"]

    def __init__(self, logits: Any):
        logits = _floating(logits)
        if logits.ndim != 2 or logits.shape[1] < 1:
            raise UsageError(f"TabularSoftmax takes logits of shape [S, A], got {tuple(logits.shape)}")
        self.logits = logits

    def __call__(self, state: Any) -> Categorical:
        return Categorical(jnp.asarray(self.logits)[state])


class LogLinearSoftmax(eqx.Module):
    """π(a|s) ∝ exp θᵀφ_sa.  theta: θ, [P]; features: φ, [S, A, P], frozen."""

    theta: Float[AnyArray, " P"]
    features: Frozen[Float[AnyArray, "S A P"]]

    def __init__(self, theta: Any, features: Any):
        theta, features = _floating(theta), _floating(features)
        if theta.ndim != 1 or features.ndim != 3 or features.shape[2] != theta.shape[0]:
            raise UsageError(
                "LogLinearSoftmax takes theta of shape [P] and features of shape [S, A, P], got "
                f"{tuple(theta.shape)} and {tuple(features.shape)}"
            )
        self.theta = theta
        self.features = frozen(features)

    def __call__(self, state: Any) -> Categorical:
        return Categorical(jnp.asarray(self.features.value)[state] @ self.theta)


def _floating(x: Any) -> AnyArray:
    """An array of a float dtype; keeps a NumPy float64 array as it is, which jnp outside x64 would round."""
    if eqx.is_inexact_array(x):
        return x
    return jnp.asarray(x, float)
