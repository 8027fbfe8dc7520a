"""Images as convolutions take them: [H,W,C], floats.

    [H,W,C]      as it is                     [N,H,W,C]    N of them one after another: [H,W,N·C]
    [C,H,W]      turned around                uint8        divided by 255

Of three axes the channels' is the one that differs where the other two are as long: boards of 7×7 may have 20 planes.
Else it is the smaller of the first and the last (as in Stable-Baselines3); unless it is said.
"""

from __future__ import annotations

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Float, Num

from steepest.errors import UsageError
from steepest.spaces import Box, Space
from steepest.trees import AnyArray

CHANNELS = ("auto", "first", "last")


class Pixels(eqx.Module):
    """What an environment shows ↦ [H,W,C].

    first: the channels are the first axis of an image.  stacked: there is one more axis before it, of images.
    divide: by 255.  size: (H, W, C) of what comes out.
    """

    first: bool = eqx.field(static=True)
    stacked: bool = eqx.field(static=True)
    divide: bool = eqx.field(static=True)
    size: tuple[int, int, int] = eqx.field(static=True)

    def __init__(self, box: Box, channels: str = "auto"):
        if channels not in CHANNELS:
            raise UsageError(f"channels is one of {', '.join(CHANNELS)}, got {channels!r}")
        shape = box.shape[-3:]
        self.first = channels == "first" or (channels == "auto" and _is_first(*shape))
        self.stacked, self.divide = len(box.shape) == 4, box.dtype == "uint8"
        height, width, each = (shape[1], shape[2], shape[0]) if self.first else shape
        self.size = height, width, each * (box.shape[0] if self.stacked else 1)

    def __call__(self, image: Num[AnyArray, "..."]) -> Float[AnyArray, "H W C"]:
        x = jnp.asarray(image)
        x = x / 255.0 if self.divide else x.astype(jnp.result_type(x.dtype, jnp.float32))
        if self.first:
            x = jnp.moveaxis(x, -3, -1)
        if self.stacked:  # [N,H,W,C] ↦ [H,W,N,C] ↦ [H,W,N·C]
            x = jnp.moveaxis(x, 0, -2).reshape(self.size)
        return x


def _is_first(a: int, b: int, c: int) -> bool:
    return b == c if (a == b) != (b == c) else a < c


def is_image(space: Space) -> bool:
    """Whether a space is one of images: a Box of three axes, or of four, several images in each observation."""
    return isinstance(space, Box) and len(space.shape) in (3, 4) and min(space.shape) > 0
