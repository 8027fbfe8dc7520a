"""Dense layers stored [in, out], convolutions [height, width, in, out]: the fast order for Fisher products on a CPU.

(`eqx.nn.Linear` stores [out, in]; under `vmap` that costs 1.7× in the Jacobian products of an MLP.) Every layer is
tapped (`taps.py`), which is what Kronecker factors and sample-space solves need of a network.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.core import Tracer
from jaxtyping import Float, Num, PRNGKeyArray

from steepest.names import unknown
from steepest.taps import tapped
from steepest.trees import AnyArray

ACTIVATIONS: dict[str, Callable[[Any], Array]] = {
    "tanh": jnp.tanh,
    "relu": jax.nn.relu,
    "elu": jax.nn.elu,
    "silu": jax.nn.silu,
    "gelu": jax.nn.gelu,
}
"""silu: x·σ(x), also called swish.  gelu: by tanh (Hendrycks & Gimpel 2016)."""
INITIALISATIONS = ("orthogonal", "uniform")
"""Of weights [in, out]: orthogonal, with biases 0; or uniform in ±1/√in, biases too, as PyTorch's layers are."""
EPSILON = 1e-5
"""Of `layer_norm`."""


class Dense(eqx.Module):
    """x ↦ xW + b, of one x or of several in a row.  weight: [in, out]; bias: [out].

    gain: of the weights; uniform ones, and their biases, are multiplied by it. Default: √2, or 1 if uniform.
    """

    weight: Float[AnyArray, "in out"]
    bias: Float[AnyArray, " out"]

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        gain: float | None = None,
        initialisation: str = "orthogonal",
        key: PRNGKeyArray,
    ):
        self.weight, self.bias = _initial(inputs, outputs, gain, initialisation, key)

    def __call__(self, x: Num[AnyArray, "... in"]) -> Float[Array, "... out"]:
        narrow = jnp.ndim(x) == 1 and is_narrow(*self.weight.shape)
        s = _narrow(x, self.weight) if narrow else jnp.matmul(x, self.weight)
        return tapped(s + self.bias, "dense", weight=self.weight, bias=self.bias, x=lambda: x)


def is_narrow(inputs: int, outputs: int) -> bool:
    """Whether a product that gives [inputs, outputs] is worth being computed as [outputs, inputs]."""
    return inputs >= 8 * outputs


@jax.custom_jvp
def _narrow(x: Any, weight: Any) -> Array:
    """xW for few outputs, as of a policy's head, with Jacobian products that multiply by Ẇᵀ: on a CPU the sum over the
    rows of a batch that gives a [in, few] derivative takes forty times as long as the same one as [few, in]."""
    return jnp.matmul(x, weight)


@_narrow.defjvp
def _narrow_jvp(primals: Any, tangents: Any) -> tuple[Array, Array]:
    (x, weight), (dx, dweight) = primals, tangents
    transposed = jax.lax.optimization_barrier(dweight.T)  # which the compiler would undo
    return _narrow(x, weight), jnp.matmul(dx, weight) + jnp.matmul(transposed, x)


class Conv(eqx.Module):
    """A convolution of an image [H,W,in] ↦ [H',W',out]: s_t = x_t·W + β for every patch x_t.

    weight: [height, width, in, out]; bias: [out].  gain, initialisation: as of `Dense`, whose inputs are the patch.
    stride: of both axes, in pixels.  padding: "VALID" for none; "SAME": zeros, so that H' = ⌈H/stride⌉.
    """

    weight: Float[AnyArray, "height width in out"]
    bias: Float[AnyArray, " out"]
    stride: int = eqx.field(static=True)
    padding: str = eqx.field(static=True)

    def __init__(
        self,
        inputs: int,
        outputs: int,
        size: int,
        *,
        stride: int = 1,
        padding: str = "VALID",
        gain: float | None = None,
        initialisation: str = "orthogonal",
        key: PRNGKeyArray,
    ):
        flat, self.bias = _initial(size * size * inputs, outputs, gain, initialisation, key)
        self.weight = flat.reshape(size, size, inputs, outputs)
        self.stride, self.padding = stride, padding

    def __call__(self, image: Num[AnyArray, "H W in"]) -> Float[Array, "H2 W2 out"]:
        height, width, inputs, outputs = self.weight.shape
        cut = windows(jnp.asarray(image, self.weight.dtype), (height, width), self.stride, self.padding)
        flat = jnp.concatenate(cut, axis=-1).reshape(-1, height * width * inputs)
        s = jnp.matmul(flat, jnp.reshape(self.weight, (-1, outputs))).reshape(*cut[0].shape[:2], outputs) + self.bias
        return tapped(s, "conv", weight=self.weight, bias=self.bias, x=lambda: flat)


def windows(
    image: Float[AnyArray, "H W C"], size: tuple[int, int], stride: int, padding: str, fill: float = 0.0
) -> list[Array]:
    """What a window of that size sees at each of its places, each step of it apart: [H',W',C], row by row.

    As products of matrices a convolution has linear maps that take a tenth to a twentieth of the time of XLA's own on a
    CPU, of which the products of conjugate gradients are made.
    """
    if padding == "SAME":
        short = [max((math.ceil(n / stride) - 1) * stride + k - n, 0) for n, k in zip(image.shape, size, strict=False)]
        image = jnp.pad(image, [*((n // 2, n - n // 2) for n in short), (0, 0)], constant_values=fill)
    height, width = ((n - k) // stride * stride + 1 for n, k in zip(image.shape, size, strict=False))
    places = [(i, j) for i in range(size[0]) for j in range(size[1])]
    return [jnp.asarray(image)[i : i + height : stride, j : j + width : stride] for i, j in places]


def _initial(
    inputs: int, outputs: int, gain: float | None, initialisation: str, key: PRNGKeyArray
) -> tuple[Array, Array]:
    """W [inputs, outputs] and β [outputs]."""
    if initialisation not in INITIALISATIONS:
        raise unknown("initialisation", initialisation, INITIALISATIONS)
    if initialisation == "orthogonal":
        return orthogonal(key, inputs, outputs, math.sqrt(2.0) if gain is None else gain), jnp.zeros(outputs)
    most, keys = (1.0 if gain is None else gain) / math.sqrt(inputs), jax.random.split(key)
    weight = jax.random.uniform(keys[0], (inputs, outputs), minval=-most, maxval=most)
    return weight, jax.random.uniform(keys[1], (outputs,), minval=-most, maxval=most)


def layer_norm(x: Float[AnyArray, "..."]) -> Float[Array, "..."]:
    """(x − mean)/√(variance + ε) over all of x (Ba, Kiros & Hinton 2016), with nothing trained: a gain and a bias would
    be parameters of no layer that Kronecker factors know."""
    centred = jnp.asarray(x) - jnp.mean(x)
    return centred / jnp.sqrt(jnp.mean(centred**2) + EPSILON)


def orthogonal(key: PRNGKeyArray, inputs: int, outputs: int, gain: float) -> Float[Array, "in out"]:
    """gain times a uniformly distributed matrix with orthonormal rows, or columns, whichever are fewer.

    Saxe, McClelland & Ganguli 2014; the Q of a Gaussian matrix, its signs those of a positive diagonal of R.
    """
    gaussian = jax.random.normal(key, (max(inputs, outputs), min(inputs, outputs)))
    # NumPy where there are numbers: to lower JAX's for a program takes longer than the start of a run has
    module: Any = jnp if isinstance(gaussian, Tracer) else np
    q, r = module.linalg.qr(gaussian)
    q = gain * q * module.sign(module.diagonal(r))
    return jnp.asarray(q if inputs >= outputs else q.T, gaussian.dtype)


class Mlp(eqx.Module):
    """Dense layers with an activation between them. The last layer's gain is its own: small at a policy's head.

    norm: `layer_norm` before each activation.
    """

    layers: tuple[Dense, ...]
    activation: str = eqx.field(static=True)
    norm: bool = eqx.field(static=True)

    def __init__(
        self,
        inputs: int,
        hidden: tuple[int, ...],
        outputs: int,
        *,
        last_gain: float,
        activation: str = "tanh",
        initialisation: str = "orthogonal",
        norm: bool = False,
        key: PRNGKeyArray,
    ):
        if activation not in ACTIVATIONS:
            raise unknown("activation", activation, ACTIVATIONS)
        sizes = (inputs, *hidden, outputs)
        keys = jax.random.split(key, len(sizes) - 1)
        gains = [None] * len(hidden) + [last_gain]
        self.layers = tuple(
            Dense(i, o, gain=g, initialisation=initialisation, key=k)
            for i, o, g, k in zip(sizes[:-1], sizes[1:], gains, keys, strict=True)
        )
        self.activation, self.norm = activation, norm

    def features(self, x: Num[AnyArray, " in"]) -> Num[AnyArray, " features"]:
        """What the last layer is given."""
        for layer in self.layers[:-1]:
            x = layer(x)
            x = ACTIVATIONS[self.activation](layer_norm(x) if self.norm else x)
        return x

    def __call__(self, x: Num[AnyArray, " in"]) -> Float[Array, " out"]:
        return self.layers[-1](self.features(x))
