"""Value functions: obs ↦ V(obs), a scalar in the units of the rewards that it is fitted to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int, PRNGKeyArray

from steepest.layers import Mlp
from steepest.policies.recurrent import RecurrentNetwork, Value, recurrent_network
from steepest.sequences import Recurrent

Critic = Callable[[Any], Float[Array, ""]] | Recurrent
"""Any callable pytree that maps one observation to a scalar; or one that remembers those before it."""


class MlpValue(eqx.Module):
    """obs [...] (flattened) ↦ V. The first V is near 0: the last layer starts small.

    hidden: units of each hidden layer.  layers: activation, initialisation, as of `Mlp`.
    """

    net: Mlp

    def __init__(self, inputs: int, hidden: tuple[int, ...] = (64, 64), *, key: PRNGKeyArray, **layers: Any):
        self.net = Mlp(inputs, hidden, 1, last_gain=0.01, key=key, **layers)

    def __call__(self, obs: Float[Array, "..."]) -> Float[Array, ""]:
        return self.net(jnp.ravel(obs))[0]


class StateValue(eqx.Module):
    """state index ↦ V, by an MLP on the one-hot state."""

    net: Mlp
    states: int = eqx.field(static=True)

    def __init__(self, states: int, hidden: tuple[int, ...] = (64, 64), *, key: PRNGKeyArray, **layers: Any):
        self.net = Mlp(states, hidden, 1, last_gain=0.01, key=key, **layers)
        self.states = states

    def __call__(self, state: Int[Array, ""]) -> Float[Array, ""]:
        return self.net(jax.nn.one_hot(state, self.states))[0]


def recurrent_value(
    inputs: int,
    hidden: tuple[int, ...] = (64, 64),
    *,
    memory: str = "gru",
    units: int = 64,
    key: PRNGKeyArray,
    **layers: Any,
) -> RecurrentNetwork:
    """(memory, obs) ↦ (memory', V), obs [...] (flattened) or a state's number.

    inputs: entries of an observation, or the number of states.  hidden: units of the layers before the memory.
    memory, units: as of `recurrent_network`.  layers: activation, initialisation, as of `Mlp`.
    """
    return recurrent_network(inputs, Value(), hidden, memory=memory, units=units, head_gain=0.01, key=key, **layers)
