"""The built-in networks in NumPy: what `jax.vmap(policy)(normalise(obs))` computes, to a float32's rounding, in 12 µs.

    x = clip((obs − shift)·scale, ±10)      x ← φ(xW + b) …      z = xW + b
    Gaussian       a = z + σ·ε              ε ~ N(0, I)
    Categorical    a = argmax (z + g)       g = −ln E, E ~ Exp(1): Gumbel's; of several, each over its own part of z
    Bernoulli      a = [z + l > 0]          l = ln U − ln(1 − U), U ~ uniform: logistic

π_old is recomputed in the update from the observations, so that this rounding is in no ratio.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from steepest.sampling.actor import NoMemory, finite

LARGEST = 2**18
"""Multiplications in a product of two matrices up to which OpenBLAS takes one thread, however many it has: with more,
the sums are of another order, and the actions would depend on the process that they are computed in."""

_CLIP = 10.0


class Weights(NamedTuple):
    """layers: (W [in,out], b [out]) of each.  activation: between them.  log_std: [d] of a Gaussian, else None.
    shift, scale: of the observations, or None.  norm: of what comes before an activation."""

    layers: list[tuple[NDArray[np.float32], NDArray[np.float32]]]
    activation: str
    log_std: NDArray[np.float32] | None
    shift: NDArray[np.float32] | None
    scale: NDArray[np.float32] | None
    norm: bool = False


class Head(NamedTuple):
    """noise: (generator, (T,B,outputs), weights) ↦ that of a rollout.  choose: (z, its noise) ↦ actions; z may go."""

    noise: Callable[[np.random.Generator, tuple[int, ...], Weights], NDArray[np.float32]]
    choose: Callable[[NDArray[np.float32], NDArray[np.float32]], NDArray[Any]]


def _normal(rng: np.random.Generator, shape: tuple[int, ...], weights: Weights) -> NDArray[np.float32]:
    assert weights.log_std is not None
    noise = rng.standard_normal(shape, np.float32)
    return np.multiply(noise, np.exp(weights.log_std), out=noise)


def _add(z: NDArray[np.float32], noise: NDArray[np.float32]) -> NDArray[Any]:
    return finite(np.add(z, noise, out=z))


def _gumbel(rng: np.random.Generator, shape: tuple[int, ...], weights: Weights) -> NDArray[np.float32]:
    exponential = np.maximum(rng.standard_exponential(shape, np.float32), np.finfo(np.float32).tiny)
    return -np.log(exponential)


def _most(z: NDArray[np.float32], noise: NDArray[np.float32]) -> NDArray[Any]:
    return np.add(z, noise, out=z).argmax(axis=-1)


def _most_each(begins: Sequence[int], z: NDArray[np.float32], noise: NDArray[np.float32]) -> NDArray[Any]:
    parts = np.split(np.add(z, noise, out=z), begins, axis=-1)
    return np.stack([part.argmax(axis=-1) for part in parts], axis=-1)


def _logistic(rng: np.random.Generator, shape: tuple[int, ...], weights: Weights) -> NDArray[np.float32]:
    uniform = np.maximum(rng.random(shape, np.float32), np.finfo(np.float32).tiny)
    return np.log(uniform) - np.log1p(-uniform)


def _above(z: NDArray[np.float32], noise: NDArray[np.float32]) -> NDArray[Any]:
    return (np.add(z, noise, out=z) > 0).astype(np.int32)


GAUSSIAN = Head(_normal, _add)
CATEGORICAL = Head(_gumbel, _most)
BERNOULLI = Head(_logistic, _above)


def multi_categorical(sizes: Sequence[int]) -> Head:
    """Of parts of so many actions each."""
    return Head(_gumbel, functools.partial(_most_each, list(accumulate(sizes))[:-1]))


def _sigmoid(x: NDArray[Any]) -> NDArray[Any]:
    return 0.5 + 0.5 * np.tanh(0.5 * x)


def _normalised(x: NDArray[np.float32]) -> None:
    """`steepest.layers.layer_norm` of each row, in place."""
    x -= x.mean(axis=-1, keepdims=True)
    x /= np.sqrt(np.square(x).mean(axis=-1, keepdims=True) + np.float32(1e-5))


_GELU = np.float32(2 * math.sqrt(2 / math.pi))
_ACTIVATIONS: dict[str, Callable[[NDArray[np.float32]], Any]] = {
    "tanh": lambda x: np.tanh(x, out=x),
    "relu": lambda x: np.maximum(x, 0.0, out=x),
    "elu": lambda x: np.copyto(x, np.expm1(np.minimum(x, 0.0)), where=x < 0),
    "silu": lambda x: np.multiply(x, _sigmoid(x), out=x),
    "gelu": lambda x: np.multiply(x, _sigmoid(_GELU * (x + np.float32(0.044715) * x**3)), out=x),
}
"""In place, by the names of `steepest.layers`."""


class MlpActor(NoMemory):
    """`Actor` of the built-in networks.  head: of their distribution."""

    def __init__(self, head: Head):
        self._head = head

    def export(self, params: Any, scaling: Any) -> Weights:
        """See `Actor`."""
        layers = [(np.asarray(layer.weight), np.asarray(layer.bias)) for layer in params.net.layers]
        log_std = getattr(params, "log_std", None)
        shift, scale = (None, None) if scaling is None else (scaling.shift.ravel(), scaling.scale.ravel())
        log_std = None if log_std is None else np.asarray(log_std)
        return Weights(layers, params.net.activation, log_std, shift, scale, params.net.norm)

    def begin(self, weights: Weights, entropy: Sequence[int], steps: int, envs: int) -> None:
        """See `Actor`."""
        widths = [bias.size for _, bias in weights.layers]
        self._weights = weights
        self._input = np.empty((envs, len(weights.layers[0][0])), np.float32)
        self._activate = _ACTIVATIONS[weights.activation]
        self._units = [np.empty((envs, width), np.float32) for width in widths]
        rng = np.random.default_rng(np.random.SeedSequence(entropy))
        self._noise = self._head.noise(rng, (steps, envs, widths[-1]), weights)

    def __call__(self, obs: NDArray[Any], t: int) -> NDArray[Any]:
        """See `Actor`."""
        return self._head.choose(self.parameters(obs), self._noise[t])

    def parameters(self, obs: NDArray[Any]) -> NDArray[np.float32]:
        """z [B,outputs]: logits, or means; good until the next call."""
        weights, x = self._weights, obs.reshape(self._input.shape)
        if weights.shift is not None and weights.scale is not None:
            x = np.subtract(x, weights.shift, out=self._input)
            np.multiply(x, weights.scale, out=x)
            np.minimum(np.maximum(x, -_CLIP, out=x), _CLIP, out=x)
        last = self._units[-1]
        for (matrix, bias), units in zip(weights.layers, self._units, strict=True):
            x = np.add(np.matmul(x, matrix, out=units), bias, out=units)
            if units is not last:
                if weights.norm:
                    _normalised(x)
                self._activate(x)
        return last
