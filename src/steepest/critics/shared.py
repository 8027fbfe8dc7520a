"""A critic upon the policy's network:  V(s) = net(φ_θ(s)), φ_θ what the policy's last layer is given.

V's gradient stops at φ: the policy's layers move by the policy's own step alone, whose KL is the trust region's, and
the fit costs what `net` costs, however large the network below is. After a step of the policy `net` is fitted to what
the new layers make of the batch.
"""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, PRNGKeyArray

from steepest.errors import UsageError
from steepest.layers import Mlp
from steepest.sequences import is_recurrent
from steepest.trees import AnyArray


@runtime_checkable
class Featured(Protocol):
    """A policy upon whose network a critic can stand: an equinox module that has `features` beside `__call__`."""

    def features(self, obs: Any) -> Any:
        """What the policy's last layer is given: obs ↦ an array."""
        ...


class SharedValue(eqx.Module):
    """features [...] (flattened) ↦ V. The first V is near 0.

    hidden: units of each layer upon the features.  layers: activation, initialisation, norm, as of `Mlp`.
    """

    net: Mlp

    def __init__(self, features: int, hidden: tuple[int, ...] = (64, 64), *, key: PRNGKeyArray, **layers: Any):
        self.net = Mlp(features, hidden, 1, last_gain=0.01, key=key, **layers)

    def __call__(self, features: Float[AnyArray, "..."]) -> Float[Array, ""]:
        return self.net(jnp.ravel(features))[0]


class Upon(eqx.Module):
    """obs ↦ critic(policy.features(obs))."""

    critic: SharedValue
    policy: Any

    def __call__(self, obs: Any) -> Float[Array, ""]:
        return self.critic(features(self.policy)(obs))


def upon(critic: Any, policy: Any) -> Any:
    """The critic as a function of observations, whatever it stands on."""
    return Upon(critic, policy) if isinstance(critic, SharedValue) else critic


def features(policy: Any) -> Any:
    """obs ↦ what the policy's last layer is given, a constant to all derivatives.

    Raises UsageError for a policy that does not say.
    """
    inner = policy
    while hasattr(inner, "policy"):  # of a policy with a mask
        inner = inner.policy
    if is_recurrent(inner) or not isinstance(inner, Featured):
        raise UsageError(
            "a shared critic stands on what the policy's last layer is given of one observation, and "
            f"{type(inner).__name__} has no features(obs) that says it: write that, or leave critic.network at auto"
        )
    return lambda obs: jax.lax.stop_gradient(policy.features(obs))
