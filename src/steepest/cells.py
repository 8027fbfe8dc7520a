"""Cells that remember: (memory, x) ↦ memory, with x encoded before the step, where no memory is needed for it.

GRU     r, u = σ(Wx + Uh)      n = tanh(W_n x + r∘(U_n h + c))      h' = (1−u)∘n + u∘h       Cho et al. 2014
LSTM    i, f, o = σ(Wx + Uh)   c' = f∘c + i∘tanh(W_g x + U_g h)      h' = o∘tanh c'           Hochreiter &
                                                                                               Schmidhuber 1997
"""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, PRNGKeyArray

from steepest.layers import Dense, orthogonal
from steepest.names import Registry
from steepest.trees import AnyArray

KEEP = 1.0
"""First bias of the gate that keeps what is remembered (Jozefowicz, Zaremba & Sutskever 2015): it keeps three fourths
from one step to the next. For longer spans of T steps it is ln x with x uniform in [1, T − 1], another one for each
unit (Tallec & Ollivier 2018), so that the times over which units forget are spread up to T."""


@runtime_checkable
class Cell(Protocol):
    """An equinox module."""

    def initial(self) -> Any:
        """The memory before an episode."""
        ...

    def encode(self, x: Any) -> Array:
        """What the gates take of an input."""
        ...

    def advance(self, memory: Any, encoded: Any) -> Any:
        """The memory after it."""
        ...

    def read(self, memory: Any) -> Array:
        """What is seen of a memory, [units]."""
        ...


class Gru(eqx.Module):
    """inputs: [in, 3·units] and biases, for the gates r and u and for n.  recurrent: U, [units, 3·units], each gate's
    part orthogonal.  bias: c, [units]."""

    inputs: Dense
    recurrent: Float[AnyArray, "units gates"]
    bias: Float[AnyArray, " units"]

    def __init__(self, inputs: int, units: int, *, span: int | None = None, key: PRNGKeyArray):
        """span: steps that it is to remember at first; None: a few."""
        self.inputs, self.recurrent = _gates(inputs, units, 3, {1: kept(units, span, key)}, key)
        self.bias = jnp.zeros(units)

    def initial(self) -> Array:
        """h, [units]: zeros."""
        return jnp.zeros(self.bias.shape, self.bias.dtype)

    def encode(self, x: Float[AnyArray, " in"]) -> Float[Array, " gates"]:
        """See `Cell`."""
        return self.inputs(x)

    def advance(self, memory: Float[AnyArray, " units"], encoded: Float[AnyArray, " gates"]) -> Array:
        """See `Cell`."""
        forget, keep, new = jnp.split(jnp.asarray(encoded), 3)
        f, k, n = jnp.split(jnp.matmul(memory, self.recurrent), 3)
        keep = jax.nn.sigmoid(keep + k)
        return (1 - keep) * jnp.tanh(new + jax.nn.sigmoid(forget + f) * (n + self.bias)) + keep * memory

    def read(self, memory: Array) -> Array:
        """See `Cell`."""
        return memory


class Lstm(eqx.Module):
    """inputs: [in, 4·units] and biases, for i, f, o and g.  recurrent: U, [units, 4·units], as of `Gru`."""

    inputs: Dense
    recurrent: Float[AnyArray, "units gates"]

    def __init__(self, inputs: int, units: int, *, span: int | None = None, key: PRNGKeyArray):
        """span: steps that it is to remember at first; None: a few."""
        keep = kept(units, span, key)
        biases = {1: keep} if span is None else {0: -keep, 1: keep}
        self.inputs, self.recurrent = _gates(inputs, units, 4, biases, key)

    def initial(self) -> tuple[Array, Array]:
        """(h, c), [units] each: zeros."""
        zeros = jnp.zeros(self.recurrent.shape[0], self.recurrent.dtype)
        return zeros, zeros

    def encode(self, x: Float[AnyArray, " in"]) -> Float[Array, " gates"]:
        """See `Cell`."""
        return self.inputs(x)

    def advance(self, memory: tuple[Any, Any], encoded: Float[AnyArray, " gates"]) -> tuple[Array, Array]:
        """See `Cell`."""
        h, c = memory
        *gates, new = jnp.split(encoded + jnp.matmul(h, self.recurrent), 4)
        i, f, o = map(jax.nn.sigmoid, gates)
        c = f * c + i * jnp.tanh(new)
        return o * jnp.tanh(c), c

    def read(self, memory: tuple[Array, Array]) -> Array:
        """See `Cell`."""
        return memory[0]


def kept(units: int, span: int | None, key: PRNGKeyArray) -> Float[Array, " units"]:
    """The first biases of the gate that keeps.  span: T, at least 2; None: KEEP."""
    if span is None:
        return jnp.full(units, KEEP)
    upper = max(span - 1.0, 1.0)
    return jnp.log(jax.random.uniform(jax.random.fold_in(key, 1), (units,), minval=1.0, maxval=upper))


def _gates(inputs: int, units: int, gates: int, biases: dict[int, Array], key: PRNGKeyArray) -> tuple[Dense, Array]:
    """The input's and the recurrent weights, a block for each gate.  biases: of some gates, by number; 0 of others."""
    into, *own = jax.random.split(key, gates + 1)
    blocks = [Dense(inputs, units, gain=1.0, key=k) for k in jax.random.split(into, gates)]
    dense = eqx.tree_at(
        lambda d: (d.weight, d.bias),
        blocks[0],
        (
            jnp.concatenate([block.weight for block in blocks], axis=1),
            jnp.concatenate([biases.get(gate, jnp.zeros(units)) for gate in range(gates)]),
        ),
    )
    return dense, jnp.concatenate([orthogonal(k, units, units, 1.0) for k in own], axis=1)


cells: Registry = Registry("memory")
cells.add("gru", Gru)
cells.add("lstm", Lstm)
