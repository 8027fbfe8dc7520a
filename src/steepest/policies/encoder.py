"""Observations of every space as one vector of numbers, which dense layers take.

Box                       its entries
Discrete, MultiDiscrete   one-hot, each
MultiBinary               0 and 1
an image                  the features of a convolutional network
Dict, Tuple               those of the parts, side by side
"""

from __future__ import annotations

import math
from itertools import accumulate
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float
from numpy.typing import NDArray

from steepest.policies.images import is_image
from steepest.spaces import Box, Joint, MultiBinary, Space


class Numbers(eqx.Module):
    """The entries of an array, as floats.  features: how many."""

    features: int = eqx.field(static=True)

    def __call__(self, obs: Any) -> Float[Array, " features"]:
        x = jnp.ravel(jnp.asarray(obs))
        return x.astype(jnp.result_type(x.dtype, jnp.float32))


class OneHot(eqx.Module):
    """Each of several whole numbers from 0 as a vector with a 1 in its place.  counts: how many values each has."""

    counts: tuple[int, ...] = eqx.field(static=True)

    @property
    def features(self) -> int:
        return sum(self.counts)

    def __call__(self, obs: Any) -> Float[Array, " features"]:
        x = jnp.ravel(jnp.asarray(obs))
        dtype = jnp.result_type(x.dtype, jnp.float32)
        each = [jax.nn.one_hot(x[i].astype(jnp.int32), n, dtype=dtype) for i, n in enumerate(self.counts)]
        return jnp.concatenate(each)


class Within(eqx.Module):
    """What a network makes of a part of a vector.  shape: the part's own.  network: an encoder or a trunk."""

    network: Any
    shape: tuple[int, ...] = eqx.field(static=True)

    @property
    def features(self) -> int:
        return self.network.features

    def __call__(self, obs: Any) -> Float[Array, " features"]:
        return self.network(jnp.reshape(obs, self.shape))


class Parts(eqx.Module):
    """The parts of a vector, each encoded.  sizes: entries of each."""

    parts: tuple[Any, ...]
    sizes: tuple[int, ...] = eqx.field(static=True)

    @property
    def features(self) -> int:
        return sum(part.features for part in self.parts)

    def __call__(self, obs: Any) -> Float[Array, " features"]:
        pairs = zip(self.parts, self.sizes, accumulate(self.sizes), strict=True)
        return jnp.concatenate([part(obs[end - size : end]) for part, size, end in pairs])


def plain_encoder(space: Space) -> Any:
    """Of a space without parts, and without a network of its own."""
    if isinstance(space, Box | MultiBinary):
        return Numbers(math.prod(space.shape))
    return OneHot(tuple(int(n) for n in np.ravel(space.counts)))


def leaves(space: Space) -> list[Space]:
    """The spaces without parts in it, in the order of the vector."""
    return [leaf for part in space.parts for leaf in leaves(part)] if isinstance(space, Joint) else [space]


def has_image(space: Space) -> bool:
    """Whether it is one, or holds one."""
    return any(map(is_image, leaves(space)))


def left_alone(space: Space) -> NDArray[np.bool_]:
    """[entries] of an observation, in the order of its vector: those that no running statistics make sense of, whole
    numbers and pixels."""
    each = [np.full(math.prod(leaf.shape), not isinstance(leaf, Box) or is_image(leaf)) for leaf in leaves(space)]
    return np.concatenate(each)
