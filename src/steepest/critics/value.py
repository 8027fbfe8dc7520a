"""Value functions: obs ↦ V(obs), a scalar in the units of the rewards that it is fitted to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int, PRNGKeyArray

from steepest.layers import Dense, Mlp
from steepest.policies.recurrent import RecurrentNetwork, Value, recurrent_network
from steepest.policies.trunks import ORDINARY, Layers, Trunk, trunk_for
from steepest.sequences import Recurrent
from steepest.spaces import MaskedForm, Space

Critic = Callable[[Any], Float[Array, ""]] | Recurrent
"""Any callable pytree that maps one observation to a scalar; or one that remembers those before it."""


class MlpValue(eqx.Module):
    """obs [...] (flattened) ↦ V. The first V is near 0: the last layer starts small.

    hidden: units of each hidden layer.  layers: activation, initialisation, norm, as of `Mlp`.
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


class NetworkValue(eqx.Module):
    """obs ↦ V, by any network.  trunk: obs ↦ features.  last: [features] ↦ [1], small at the start."""

    trunk: Trunk
    last: Dense

    @classmethod
    def for_space(
        cls,
        observation: Space,
        hidden: tuple[int, ...] = (64, 64),
        *,
        network: str = "auto",
        how: Layers = ORDINARY,
        key: PRNGKeyArray,
    ) -> NetworkValue:
        """With first weights; parameters as of `trunk_for`."""
        keys = jax.random.split(key)
        trunk = trunk_for(observation, network, hidden, how, key=keys[0])
        return cls(trunk, Dense(trunk.features, 1, gain=0.01, initialisation=how.initialisation, key=keys[1]))

    def __call__(self, obs: Any) -> Float[Array, ""]:
        return self.last(self.trunk(obs))[0]


class Unmasked(eqx.Module):
    """[obs, mask] ↦ critic(obs), or features(obs): what may be done there is no part of what it sees."""

    critic: Any
    form: MaskedForm = eqx.field(static=True)

    def __call__(self, obs: Any) -> Float[Array, "..."]:
        return self.critic(self.form.split(obs)[0])


def unmasked(critic: Any, form: MaskedForm) -> Any:
    """The critic of observations with a mask; of one that remembers, the layers before its memory are `Unmasked`."""
    if isinstance(critic, RecurrentNetwork):
        return eqx.tree_at(lambda c: c.features, critic, Unmasked(critic.features, form))
    return Unmasked(critic, form)


def recurrent_value(
    observation: Space, hidden: tuple[int, ...] = (64, 64), *, key: PRNGKeyArray, **network: Any
) -> RecurrentNetwork:
    """(memory, obs) ↦ (memory', V).  network: network, how, memory, units, as of `recurrent_network`."""
    return recurrent_network(observation, Value(), hidden, gain=0.01, key=key, **network)
