"""Any network with any head:  π(·|s) = head(W·trunk(s) + β)."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
from jaxtyping import PRNGKeyArray

from steepest.distributions import Distribution
from steepest.layers import Dense
from steepest.policies.heads import Head
from steepest.policies.networks import HEAD_GAIN
from steepest.policies.trunks import ORDINARY, Layers, Trunk, trunk_for
from steepest.spaces import Space


class NetworkPolicy(eqx.Module):
    """obs ↦ distribution.  trunk: obs ↦ features.  last: the layer that makes the parameters of `head` of them."""

    trunk: Trunk
    last: Dense
    head: Head

    @classmethod
    def of(
        cls,
        observation: Space,
        head: Head,
        hidden: tuple[int, ...] = (64, 64),
        *,
        network: str = "auto",
        how: Layers = ORDINARY,
        gain: float = HEAD_GAIN,
        key: PRNGKeyArray,
    ) -> NetworkPolicy:
        """With first weights.  head: as of `head_for`.  hidden, network, how: as of `trunk_for`.  gain: of the last
        layer."""
        keys = jax.random.split(key)
        trunk = trunk_for(observation, network, hidden, how, key=keys[0])
        last = Dense(trunk.features, head.outputs, gain=gain, initialisation=how.initialisation, key=keys[1])
        return cls(trunk, last, head)

    def features(self, obs: Any) -> Any:
        """What the last layer is given; see `Featured`."""
        return self.trunk(obs)

    def __call__(self, obs: Any) -> Distribution:
        return self.head(self.last(self.features(obs)))
