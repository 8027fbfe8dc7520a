"""A critic upon the policy's network:  V(s) = net(φ_θ(s)), φ_θ what the policy's last layer is given.

V's gradient stops at φ: the policy's layers move by the policy's own step alone, whose KL is the trust region's, and
the fit costs what `net` costs, however large the network below is. After a step of the policy `net` is fitted to what
the new layers make of the batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Protocol

import equinox as eqx
import jax
from jax import Array
from jaxtyping import Float, PRNGKeyArray

from steepest.critics.value import MlpValue
from steepest.errors import UsageError
from steepest.policies.masked import MaskedPolicy
from steepest.sequences import is_recurrent

_ELSE = "leave critic.network at auto, with a network of its own"


class Featured(Protocol):
    """A policy upon whose network a critic can stand: an equinox module that has `features` beside `__call__`."""

    def features(self, obs: Any) -> Any:
        """What the policy's last layer is given: obs ↦ an array."""
        ...


class SharedValue(MlpValue):
    """features [...] (flattened) ↦ V: an `MlpValue` of what the policy's last layer is given, `inputs` of them."""

    def __init__(self, inputs: int, hidden: tuple[int, ...] = (64, 64), *, key: PRNGKeyArray, **layers: Any):
        super().__init__(inputs, hidden, key=key, **layers)


class Upon(eqx.Module):
    """obs ↦ critic(policy.features(obs))."""

    critic: SharedValue
    policy: Any

    def __call__(self, obs: Any) -> Float[Array, ""]:
        return self.critic(features(self.policy)(obs))


def upon(critic: Any, policy: Any) -> Any:
    """The critic as a function of observations, whatever it stands on."""
    return Upon(critic, policy) if isinstance(critic, SharedValue) else critic


def features(policy: Any) -> Callable[[Any], Any]:
    """obs ↦ what the policy's last layer is given, a constant to all derivatives.

    policy: `Featured`. Raises UsageError for one that is not, and for one that remembers.
    """
    inner = policy.policy if isinstance(policy, MaskedPolicy) else policy
    name = type(inner).__name__
    if is_recurrent(policy):
        raise UsageError(f"a shared critic stands on a network without memory, and {name} has one: {_ELSE}")
    if not callable(getattr(inner, "features", None)):
        raise UsageError(
            "a shared critic stands on what the policy's last layer is given, features(obs), and "
            f"{name} has no such method: {_ELSE}"
        )
    return lambda obs: jax.lax.stop_gradient(policy.features(obs))


def count_features(policy: Any, obs: Any) -> int:
    """How many numbers the policy's last layer is given of an observation; nothing is computed.

    Raises UsageError where that is no array, and as `features`.
    """
    of_one, name = features(policy), type(policy).__name__
    try:
        return math.prod(eqx.filter_eval_shape(of_one, obs).shape)
    except (TypeError, ValueError, AttributeError) as error:
        raise UsageError(f"{name}.features(obs) makes no array of an observation: {error!s:.200}") from error
