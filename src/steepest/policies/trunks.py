"""Networks up to their last hidden layer: obs ↦ [features].

    mlp         dense layers of `hidden` units
    trpo-conv   16 4×4 /2 · 16 4×4 /2 · 20                          Schulman et al. 2015, Atari
    a3c         16 8×8 /4 · 32 4×4 /2 · 256                         Mnih et al. 2013, 2016
    nature      32 8×8 /4 · 64 4×4 /2 · 64 3×3 · 512                Mnih et al. 2015
    impala      16, 32, 32, each 3×3 · maximum 3×3 /2 · residual block; 256
    minatar     16 3×3 · 128                                        Young & Tian 2019
    attention   of observations [N,k]                               `attention.py`

"16 4×4 /2" are 16 channels of a convolution 4×4 with stride 2. A residual block is x + conv(φ(conv(φ(x)))); impala is
the deep network of Espeholt et al. 2018 with one block in a section instead of two.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple, Protocol, runtime_checkable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float, PRNGKeyArray

from steepest.errors import UsageError
from steepest.layers import ACTIVATIONS, Conv, Dense, layer_norm, windows
from steepest.names import unknown
from steepest.policies.attention import Attention, window_of
from steepest.policies.encoder import Parts, Within, has_image, plain_encoder
from steepest.policies.images import Pixels, is_image
from steepest.spaces import Box, Discrete, Joint, Space, brief


@runtime_checkable
class Trunk(Protocol):
    """An equinox module."""

    @property
    def features(self) -> int:
        """How many numbers it makes of an observation."""
        ...

    def __call__(self, obs: Any) -> Float[Array, " features"]:
        """What the last layer is given."""
        ...


class Layers(NamedTuple):
    """What all layers of a network have in common.  activation: by name; auto: relu in convolutional ones, gelu in
    attention, else tanh.  initialisation: as of `Dense`.  norm: `layer_norm` before each activation.  channels: as of
    `Pixels`."""

    activation: str = "auto"
    initialisation: str = "orthogonal"
    norm: bool = False
    channels: str = "auto"

    def settled(self, auto: str) -> Layers:
        """With an activation. Raises UsageError for an unknown one."""
        if self.activation not in ("auto", *ACTIVATIONS):
            raise unknown("activation", self.activation, ACTIVATIONS)
        return self._replace(activation=auto if self.activation == "auto" else self.activation)

    def activate(self, x: Any) -> Array:
        """φ(x), or of x normalised."""
        return ACTIVATIONS[self.activation](layer_norm(x) if self.norm else x)


ORDINARY = Layers()


class Plain(eqx.Module):
    """Dense layers upon what an encoder makes of an observation, an activation after each."""

    encoder: Any
    layers: tuple[Dense, ...]
    how: Layers = eqx.field(static=True)

    def __init__(self, encoder: Any, hidden: tuple[int, ...], how: Layers, *, key: PRNGKeyArray):
        sizes, keys = (encoder.features, *hidden), jax.random.split(key, len(hidden) + 1)
        self.layers = tuple(
            Dense(i, o, initialisation=how.initialisation, key=k)
            for i, o, k in zip(sizes[:-1], sizes[1:], keys[:-1], strict=True)
        )
        self.how, self.encoder = how.settled("tanh"), encoder

    @property
    def features(self) -> int:
        return self.layers[-1].weight.shape[1] if self.layers else self.encoder.features

    def __call__(self, obs: Any) -> Float[Array, " features"]:
        x = self.encoder(obs)
        for layer in self.layers:
            x = self.how.activate(layer(x))
        return x


class Flat(eqx.Module):
    """An image as a vector of pixels."""

    pixels: Pixels

    @property
    def features(self) -> int:
        return math.prod(self.pixels.size)

    def __call__(self, obs: Any) -> Float[Array, " features"]:
        return jnp.ravel(self.pixels(obs))


class Convolutional(eqx.Module):
    """Convolutions one after another, then a dense layer of `units`.

    convolutions: (channels, size, stride) of each.  name: of the network, for errors.

    Raises UsageError for an image that is too small.
    """

    pixels: Pixels
    convs: tuple[Conv, ...]
    dense: Dense
    how: Layers = eqx.field(static=True)

    def __init__(
        self,
        pixels: Pixels,
        convolutions: tuple[tuple[int, int, int], ...],
        units: int,
        how: Layers,
        name: str,
        *,
        key: PRNGKeyArray,
    ):
        height, width, channels = pixels.size
        _large_enough(name, pixels, smallest(convolutions))
        keys, convs = jax.random.split(key, len(convolutions) + 1), []
        for (outputs, size, stride), one in zip(convolutions, keys[:-1], strict=True):
            convs.append(Conv(channels, outputs, size, stride=stride, initialisation=how.initialisation, key=one))
            height, width, channels = (height - size) // stride + 1, (width - size) // stride + 1, outputs
        self.pixels, self.convs, self.how = pixels, tuple(convs), how.settled("relu")
        self.dense = Dense(height * width * channels, units, initialisation=how.initialisation, key=keys[-1])

    @property
    def features(self) -> int:
        return self.dense.weight.shape[1]

    def __call__(self, obs: Any) -> Float[Array, " features"]:
        x = self.pixels(obs)
        for conv in self.convs:
            x = self.how.activate(conv(x))
        return self.how.activate(self.dense(x.ravel()))


class Residual(eqx.Module):
    """Sections of a convolution, a maximum over 3×3 with stride 2, and a residual block; then a dense layer.

    channels: of each section.  units: of the dense layer.
    """

    pixels: Pixels
    sections: tuple[tuple[Conv, Conv, Conv], ...]
    dense: Dense
    how: Layers = eqx.field(static=True)

    def __init__(self, pixels: Pixels, channels: tuple[int, ...], units: int, how: Layers, *, key: PRNGKeyArray):
        height, width, before = pixels.size
        _large_enough("impala", pixels, 2 ** len(channels))
        sections, keys = [], jax.random.split(key, (len(channels) + 1, 3))
        for outputs, three in zip(channels, keys[:-1], strict=True):
            inputs = (before, outputs, outputs)
            sections.append(
                tuple(
                    Conv(i, outputs, 3, padding="SAME", initialisation=how.initialisation, key=one)
                    for i, one in zip(inputs, three, strict=True)
                )
            )
            height, width, before = math.ceil(height / 2), math.ceil(width / 2), outputs
        self.pixels, self.sections, self.how = pixels, tuple(sections), how.settled("relu")
        self.dense = Dense(height * width * before, units, initialisation=how.initialisation, key=keys[-1, 0])

    @property
    def features(self) -> int:
        return self.dense.weight.shape[1]

    def __call__(self, obs: Any) -> Float[Array, " features"]:
        x = self.pixels(obs)
        for begin, one, other in self.sections:
            x = _pooled(begin(x))
            x = x + other(self.how.activate(one(self.how.activate(x))))
        return self.how.activate(self.dense(self.how.activate(x).ravel()))


def _pooled(x: Float[Array, "H W C"]) -> Array:
    """The greatest of 3×3 at every other place: [⌈H/2⌉, ⌈W/2⌉, C]."""
    return jnp.max(jnp.stack(windows(x, (3, 3), 2, "SAME", -jnp.inf)), axis=0)


NETWORKS: dict[str, tuple[tuple[tuple[int, int, int], ...], int]] = {
    "trpo-conv": (((16, 4, 2), (16, 4, 2)), 20),
    "a3c": (((16, 8, 4), (32, 4, 2)), 256),
    "nature": (((32, 8, 4), (64, 4, 2), (64, 3, 1)), 512),
    "minatar": (((16, 3, 1),), 128),
}
"""Those of convolutions one after another: (channels, size, stride) of each, and units of the dense layer."""
NAMES = ("auto", "mlp", "attention", "impala", *NETWORKS)


def smallest(convolutions: tuple[tuple[int, int, int], ...]) -> int:
    """Pixels that an image must have in each direction, for convolutions without padding to leave one."""
    side = 1
    for _, size, stride in reversed(convolutions):
        side = (side - 1) * stride + size
    return side


def network_for(observation: Space, network: str = "auto", channels: str = "auto") -> str:
    """What auto means: nature for images of 36×36 or more, minatar for smaller ones, an MLP for those of less than 3
    pixels and for all else. Of a Dict or Tuple the network is that of its images, and auto remains: of each its own.

    Raises UsageError for an unknown network, for one of convolutions where there is no image, and for attention where
    there is no window.
    """
    if network not in NAMES:
        raise unknown("network", network, NAMES)
    if network == "attention":
        window_of(observation)
        return network
    if not has_image(observation):
        if network not in ("auto", "mlp"):
            what = f"observations of {brief(observation)}"
            raise UsageError(f"the network {network} is of images, not of {what}: choose mlp, or leave it at auto")
        return "mlp"
    if network != "auto" or not isinstance(observation, Box):
        return network
    side = min(Pixels(observation, channels).size[:2])
    fitting = [name for name in ("nature", "minatar") if side >= smallest(NETWORKS[name][0])]
    return fitting[0] if fitting else "mlp"


def is_simple(observation: Space, network: str) -> bool:
    """Whether a network of dense layers takes it as it is: a state, or a vector of numbers of one kind.  network: as
    settled by `network_for`."""
    vector = isinstance(observation, Box) and observation.inside is np.float32
    return network == "mlp" and (vector or isinstance(observation, Discrete))


def trunk_for(
    observation: Space, network: str, hidden: tuple[int, ...], how: Layers = ORDINARY, *, key: PRNGKeyArray
) -> Trunk:
    """The network for a space, but for its last layer.

    network: by name, as of `network_for`.  hidden: units of an MLP's layers, or as of `Attention`; others have their
    own. Of a Dict or Tuple an MLP takes the features of its images and all else.

    Raises UsageError for a network that does not fit the space.
    """
    keys, network = jax.random.split(key), network_for(observation, network, how.channels)
    if network == "attention":
        given = how.settled("gelu")
        layers = {"activation": given.activation, "initialisation": given.initialisation}
        return Attention(*window_of(observation), tuple(hidden), **layers, key=keys[0])
    encoder = _encoder(observation, network, how, keys[0])
    if isinstance(encoder, Convolutional | Residual):
        return encoder
    return Plain(encoder, tuple(hidden), how, key=keys[1])


def _encoder(space: Space, network: str, how: Layers, key: PRNGKeyArray) -> Any:
    """What makes a vector of an observation."""
    if isinstance(space, Joint):
        keys = jax.random.split(key, len(space.parts))
        each = [_encoder(part, network, how, one) for part, one in zip(space.parts, keys, strict=True)]
        pairs = zip(each, space.parts, strict=True)
        return Parts(tuple(Within(encoder, part.shape) for encoder, part in pairs), space.sizes)
    if not isinstance(space, Box) or not is_image(space):
        return plain_encoder(space)
    pixels, name = Pixels(space, how.channels), network_for(space, network, how.channels)
    if name == "mlp":
        return Flat(pixels)
    if name == "impala":
        return Residual(pixels, (16, 32, 32), 256, how, key=key)
    convolutions, units = NETWORKS[name]
    return Convolutional(pixels, convolutions, units, how, name, key=key)


def _large_enough(name: str, pixels: Pixels, least: int) -> None:
    height, width, channels = pixels.size
    if min(height, width) < least:
        raise UsageError(
            f"the network {name} takes images of at least {least}×{least} pixels, these have {height}×{width} (and "
            f"{channels} channels): choose another network, or say where the channels are (channels=first or last)"
        )
