"""Attention over the last N observations, as `stack:N:ENV` shows them: what matters now is looked up in the window.

    x_t = [o_t, 1_t]·W                                   a row of W for each place in the window: learned positions
    y   = x_N + O·Σ_t softmax_t(q_h·k_ht/√d_h)·v_ht      q of N(x_N), k and v of N(x_t), for every head h
    z   = N(y + W₂·φ(W₁·N(y)))                           N: `layer_norm`

One block of a transformer with the norms before its layers (Vaswani et al. 2017; Xiong et al. 2020), of which only the
last place is read: there is one query, and nothing to hide from it.
"""

from __future__ import annotations

import math

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Num, PRNGKeyArray

from steepest.errors import UsageError
from steepest.layers import ACTIVATIONS, Dense, layer_norm
from steepest.spaces import Box, Space, brief
from steepest.taps import tapped
from steepest.trees import AnyArray

HEADS = 4


class Attention(eqx.Module):
    """obs [N,k] ↦ [d].

    window: N.  entries: k.  hidden: (units of W₁, d), or d for both; a multiple of 4, the number of heads.
    activation, initialisation: of the layers. The keys have no bias, as the softmax would not see it.

    Raises UsageError for other hidden layers.
    """

    embed: Dense
    query: Dense
    keys: Float[AnyArray, "d d"]
    values: Dense
    out: Dense
    up: Dense
    down: Dense
    activation: str = eqx.field(static=True)

    def __init__(
        self,
        window: int,
        entries: int,
        hidden: tuple[int, ...],
        *,
        activation: str,
        initialisation: str,
        key: PRNGKeyArray,
    ):
        if len(hidden) not in (1, 2) or hidden[-1] % HEADS:
            raise UsageError(
                f"attention has hidden=(units of its layer, width), the width a multiple of {HEADS}, got {hidden}"
            )
        units, width = hidden[0], hidden[-1]
        sizes = [(entries + window, width), *[(width, width)] * 4, (width, units), (units, width)]
        gains = [1.0, 1.0, 1.0, 1.0, 1.0, None, 1.0]
        self.embed, self.query, keys, self.values, self.out, self.up, self.down = (
            Dense(i, o, gain=gain, initialisation=initialisation, key=one)
            for (i, o), gain, one in zip(sizes, gains, jax.random.split(key, len(sizes)), strict=True)
        )
        self.keys, self.activation = keys.weight, activation

    @property
    def features(self) -> int:
        return self.keys.shape[1]

    def __call__(self, obs: Num[AnyArray, "N k"]) -> Float[Array, " d"]:
        x = jnp.asarray(obs)
        x = x.astype(jnp.result_type(x.dtype, jnp.float32))
        tokens = self.embed(jnp.concatenate([x, jnp.eye(len(x), dtype=x.dtype)], axis=1))
        seen = jax.vmap(layer_norm)(tokens)
        y = tokens[-1] + self.out(self._attended(seen))
        return layer_norm(y + self.down(ACTIVATIONS[self.activation](self.up(layer_norm(y)))))

    def _attended(self, x: Float[Array, "N d"]) -> Float[Array, " d"]:
        keys = tapped(jnp.matmul(x, self.keys), "dense", weight=self.keys, x=lambda: x)
        query, keys, values = (
            of.reshape(*of.shape[:-1], HEADS, -1) for of in (self.query(x[-1]), keys, self.values(x))
        )
        scores = jnp.einsum("hd,thd->ht", query, keys) / math.sqrt(query.shape[-1])
        return jnp.einsum("ht,thd->hd", jax.nn.softmax(scores, axis=1), values).ravel()


def window_of(observation: Space) -> tuple[int, int]:
    """(N, k) of an observation [N,k], whose first axis is time. Raises UsageError for another."""
    if not isinstance(observation, Box) or len(observation.shape) != 2 or min(observation.shape) < 1:
        raise UsageError(
            f"attention is over a window of observations, a Box [N, entries] as stack:8:CartPole-v1 shows, not "
            f"{brief(observation)}: choose mlp, or stack vectors"
        )
    return observation.shape[0], observation.shape[1]
