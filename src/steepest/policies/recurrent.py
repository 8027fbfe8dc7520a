"""Policies that remember: obs → features → cell → outputs → head, the features of any network. A module of yours needs
`initial` and `step` alone.

m' , π(·|o_0 … o_t) = step(m, o_t)        `sequences.Recurrent`
"""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
from jax import Array
from jaxtyping import Float, PRNGKeyArray

from steepest.cells import Cell, cells
from steepest.layers import Dense
from steepest.policies.encoder import plain_encoder
from steepest.policies.networks import HEAD_GAIN
from steepest.policies.trunks import ORDINARY, Layers, Plain, Trunk, is_simple, network_for, trunk_for
from steepest.spaces import Space


class RecurrentNetwork(eqx.Module):
    """(memory, obs) ↦ (memory', head(outputs)).

    features: obs ↦ [F], of the observation alone.  cell: what remembers.  last: its units ↦ the outputs of the head.
    head: outputs ↦ a distribution, or for a critic a value.
    """

    features: Any
    cell: Cell
    last: Dense
    head: Any

    def __init__(
        self,
        features: Trunk,
        head: Any,
        *,
        memory: str = "gru",
        units: int = 64,
        span: int | None = None,
        gain: float = HEAD_GAIN,
        key: PRNGKeyArray,
    ):
        """memory: "gru" or "lstm".  units: that remember.  span: as of the cells.  gain: of the last layer. Raises
        UsageError for another memory."""
        remember, say = jax.random.split(key)
        self.features, self.head = features, head
        self.cell = cells[memory](features.features, units, span=span, key=remember)
        self.last = Dense(units, head.outputs, gain=gain, key=say)

    def initial(self) -> Any:
        """See `Recurrent`."""
        return self.cell.initial()

    def step(self, memory: Any, obs: Any) -> tuple[Any, Any]:
        """See `Recurrent`."""
        memory = self.advance(memory, self.encode(obs))
        return memory, self.decode(memory)

    def encode(self, obs: Any) -> Any:
        """See `Staged`."""
        return self.cell.encode(self.features(obs))

    def advance(self, memory: Any, encoded: Any) -> Any:
        """See `Staged`."""
        return self.cell.advance(memory, encoded)

    def decode(self, memory: Any) -> Any:
        """See `Staged`."""
        return self.head(self.last(self.cell.read(memory)))


def recurrent_network(
    observation: Space,
    head: Any,
    hidden: tuple[int, ...] = (64, 64),
    *,
    network: str = "auto",
    how: Layers = ORDINARY,
    key: PRNGKeyArray,
    **remembers: Any,
) -> RecurrentNetwork:
    """A GRU or an LSTM behind the network of any observation.

    observation: a space.  head: as of `head_for`.  hidden, network, how: as of `trunk_for`, before the memory.
    remembers: memory, units, span, gain: as of `RecurrentNetwork`.

    Raises UsageError for another memory, network, activation or initialisation.
    """
    first, then = jax.random.split(key)
    if is_simple(observation, network_for(observation, network, how.channels)):
        features: Trunk = Plain(plain_encoder(observation), tuple(hidden), how, key=first)
    else:
        features = trunk_for(observation, network, hidden, how, key=first)
    return RecurrentNetwork(features, head, **remembers, key=then)


class Value(eqx.Module):
    """The head of a critic: its only output."""

    outputs = 1

    def __call__(self, outputs: Float[Array, "1"]) -> Float[Array, ""]:
        return outputs[0]
