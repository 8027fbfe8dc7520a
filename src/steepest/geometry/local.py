"""The policy around θ: distributions at N states, and the Jacobian J = ∂z/∂θ, linearised once and multiplied often.

    z = predict(θ)      push: θ̇ ↦ Jθ̇      pull: c ↦ Jᵀc

One `jax.linearize` and its transpose serve the gradient, every Fisher product and every dense solve of an update:
no double backpropagation through the KL.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax

from steepest.distributions import Distribution, Policy
from steepest.parameters import merge, split


@dataclass(frozen=True)
class Local:
    """A policy linearised at θ over the N observations of a batch.

    params: θ, a pytree.
    predict: θ' ↦ distributions at the N states, leaves [N,…].
    distribution: predict(θ).
    push: θ̇ ↦ J·θ̇, a tangent on z: a distribution with the tangents as leaves.
    pull: c ↦ Jᵀ·c, the exact transpose of push.
    """

    params: Any
    predict: Callable[[Any], Distribution]
    distribution: Distribution
    push: Callable[[Any], Distribution]
    pull: Callable[[Distribution], Any]


def linearise(policy: Policy, obs: Any) -> Local:
    """Linearise `policy`, a map from one observation to a distribution, at its own θ over obs [N,…]."""
    params, rest = split(policy)

    def predict(theta: Any) -> Any:
        return jax.vmap(merge(theta, rest))(obs)

    distribution, push = jax.linearize(predict, params)
    transpose = jax.linear_transpose(push, params)

    def pull(cotangent: Any) -> Any:
        return transpose(cotangent)[0]

    return Local(params, predict, distribution, push, pull)
