"""Policies that remember: obs → features → cell → outputs → head. A module of yours needs `initial` and `step` alone.

m' , π(·|o_0 … o_t) = step(m, o_t)        `sequences.Recurrent`
"""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, PRNGKeyArray

from steepest.cells import Cell, cells
from steepest.errors import UsageError
from steepest.layers import ACTIVATIONS, Dense, Mlp


class Features(eqx.Module):
    """obs [...], flattened, or a state's number ↦ [F]: hidden layers, each with its activation; none: as it is.

    inputs: entries of an observation, or the number of states.  hidden, layers: as of `Mlp`.
    """

    net: Mlp | None
    inputs: int = eqx.field(static=True)

    def __init__(self, inputs: int, hidden: tuple[int, ...], *, key: PRNGKeyArray, **layers: Any):
        self.inputs, self.net = inputs, None
        if hidden:
            self.net = Mlp(inputs, hidden[:-1], hidden[-1], last_gain=2**0.5, key=key, **layers)

    def __call__(self, obs: Any) -> Float[Array, " F"]:
        whole = jnp.issubdtype(jnp.asarray(obs).dtype, jnp.integer) and jnp.ndim(obs) == 0
        x = jax.nn.one_hot(obs, self.inputs) if whole else jnp.ravel(obs)
        return x if self.net is None else ACTIVATIONS[self.net.activation](self.net(x))


class RecurrentNetwork(eqx.Module):
    """(memory, obs) ↦ (memory', head(outputs)).

    features: obs ↦ [F].  cell: what remembers.  last: its units ↦ the outputs of the head.
    head: outputs ↦ a distribution, or for a critic a value.
    """

    features: Any
    cell: Cell
    last: Dense
    head: Any

    def __init__(
        self,
        features: Any,
        width: int,
        memory: str,
        units: int,
        head: Any,
        outputs: int,
        *,
        last_gain: float,
        key: PRNGKeyArray,
    ):
        """width: F.  memory: "gru" or "lstm".  units: that remember.  outputs: that the head takes."""
        remember, say = jax.random.split(key)
        self.features, self.head = features, head
        self.cell = cells[memory](width, units, key=remember)
        self.last = Dense(units, outputs, gain=last_gain, key=say)

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
    inputs: int,
    head: Any,
    hidden: tuple[int, ...] = (64, 64),
    *,
    memory: str = "gru",
    units: int = 64,
    head_gain: float = 0.01,
    activation: str = "tanh",
    initialisation: str = "orthogonal",
    norm: bool = False,
    key: PRNGKeyArray,
) -> RecurrentNetwork:
    """A GRU or an LSTM behind hidden layers.

    inputs: entries of an observation, or the number of states.  head: as of `head_for`.  hidden: units of the layers
    before the memory.  memory: "gru" or "lstm".  units: that remember.  head_gain, activation, initialisation: of the
    layers, as of `MlpGaussian`.  norm: must be False.

    Raises UsageError for another memory, activation or initialisation, or for norm.
    """
    if norm:
        raise UsageError("there is no layer norm before a memory yet: leave layer_norm out")
    first, then = jax.random.split(key)
    features = Features(inputs, hidden, activation=activation, initialisation=initialisation, key=first)
    width = hidden[-1] if hidden else inputs
    return RecurrentNetwork(features, width, memory, units, head, head.outputs, last_gain=head_gain, key=then)


class Value(eqx.Module):
    """The head of a critic: its only output."""

    outputs = 1

    def __call__(self, outputs: Float[Array, "1"]) -> Float[Array, ""]:
        return outputs[0]
