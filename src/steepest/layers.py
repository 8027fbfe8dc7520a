"""Dense layers stored [in, out]: x @ W is the fast order for Fisher products on a CPU.

(`eqx.nn.Linear` stores [out, in]; under `vmap` that costs 1.7× in the Jacobian products of an MLP.)
"""

from __future__ import annotations

import math

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Num, PRNGKeyArray

from steepest.trees import AnyArray


class Dense(eqx.Module):
    """x ↦ xW + b.  weight: [in, out], orthogonal of the given gain; bias: [out], zeros."""

    weight: Float[AnyArray, "in out"]
    bias: Float[AnyArray, " out"]

    def __init__(self, inputs: int, outputs: int, *, gain: float = math.sqrt(2.0), key: PRNGKeyArray):
        self.weight = jax.nn.initializers.orthogonal(gain)(key, (inputs, outputs))
        self.bias = jnp.zeros(outputs)

    def __call__(self, x: Num[AnyArray, " in"]) -> Float[Array, " out"]:
        return jnp.matmul(x, self.weight) + self.bias


class Mlp(eqx.Module):
    """Dense layers with tanh between them. The last layer's gain is its own: small at a policy's head."""

    layers: tuple[Dense, ...]

    def __init__(self, inputs: int, hidden: tuple[int, ...], outputs: int, *, last_gain: float, key: PRNGKeyArray):
        sizes = (inputs, *hidden, outputs)
        keys = jax.random.split(key, len(sizes) - 1)
        gains = [math.sqrt(2.0)] * len(hidden) + [last_gain]
        self.layers = tuple(
            Dense(i, o, gain=g, key=k) for i, o, g, k in zip(sizes[:-1], sizes[1:], gains, keys, strict=True)
        )

    def __call__(self, x: Num[AnyArray, " in"]) -> Float[Array, " out"]:
        for layer in self.layers[:-1]:
            x = jnp.tanh(layer(x))
        return self.layers[-1](x)
