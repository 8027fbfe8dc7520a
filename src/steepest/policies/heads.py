"""The last part of a policy: a network's outputs ↦ the distribution that they are the parameters of.

head = head_for(action)      net: obs ↦ [head.outputs]      policy: obs ↦ head(net(obs))
"""

from __future__ import annotations

import math
from itertools import accumulate
from typing import Protocol, runtime_checkable

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Float

from steepest.distributions import (
    Bernoulli,
    Beta,
    Categorical,
    DiagonalGaussian,
    Distribution,
    MultiCategorical,
    Product,
    SquashedGaussian,
)
from steepest.errors import UsageError
from steepest.names import unknown
from steepest.spaces import Discrete, Joint, MultiBinary, MultiDiscrete, Space, brief, is_squashed
from steepest.taps import constant
from steepest.trees import AnyArray

DISTRIBUTIONS = ("gaussian", "squashed", "beta")
"""Of actions in a box."""
_SPREAD = 5.0


@runtime_checkable
class Head(Protocol):
    """An equinox module; what of it is trained, as a free ln σ, are its arrays."""

    @property
    def outputs(self) -> int:
        """How many numbers it takes."""
        ...

    def __call__(self, outputs: Float[AnyArray, " outputs"]) -> Distribution:
        """The distribution over actions."""
        ...


class CategoricalHead(eqx.Module):
    """Logits of so many actions."""

    outputs: int = eqx.field(static=True)

    def __call__(self, outputs: Float[AnyArray, " outputs"]) -> Categorical:
        return Categorical(outputs)


class MultiCategoricalHead(eqx.Module):
    """Logits of the parts side by side.  sizes: how many actions each has."""

    sizes: tuple[int, ...] = eqx.field(static=True)

    @property
    def outputs(self) -> int:
        return sum(self.sizes)

    def __call__(self, outputs: Float[AnyArray, " outputs"]) -> MultiCategorical:
        return MultiCategorical(outputs, self.sizes)


class BernoulliHead(eqx.Module):
    """Log-odds of so many switches."""

    outputs: int = eqx.field(static=True)

    def __call__(self, outputs: Float[AnyArray, " outputs"]) -> Bernoulli:
        return Bernoulli(outputs)


class GaussianHead(eqx.Module):
    """Means; log_std: [d], the logarithm of σ in the units of the action, the same in every state, trained."""

    log_std: Float[AnyArray, " d"]

    @property
    def outputs(self) -> int:
        return self.log_std.shape[0]

    def __call__(self, outputs: Float[AnyArray, " outputs"]) -> DiagonalGaussian:
        return DiagonalGaussian(outputs, constant(self.log_std))


class ProductHead(eqx.Module):
    """The parts' own heads on parts of the outputs, side by side."""

    parts: tuple[Head, ...]

    @property
    def outputs(self) -> int:
        return sum(head.outputs for head in self.parts)

    def __call__(self, outputs: Float[AnyArray, " outputs"]) -> Product:
        ends = list(accumulate(head.outputs for head in self.parts))
        pairs = zip(self.parts, ends, strict=True)
        return Product([head(jnp.asarray(outputs)[end - head.outputs : end]) for head, end in pairs])


class SpreadHead(eqx.Module):
    """Means and, bent into ±5 of `initial_log_std`, ln σ of so many dimensions, both of the state."""

    size: int = eqx.field(static=True)
    initial_log_std: float = eqx.field(static=True)

    @property
    def outputs(self) -> int:
        return 2 * self.size

    def __call__(self, outputs: Float[AnyArray, " outputs"]) -> DiagonalGaussian:
        mean, raw = jnp.split(jnp.asarray(outputs), 2)
        return DiagonalGaussian(mean, self.initial_log_std + _SPREAD * jnp.tanh(raw / _SPREAD))


class SquashedHead(eqx.Module):
    """The Gaussian of another head, squashed."""

    of: GaussianHead | SpreadHead

    @property
    def outputs(self) -> int:
        return self.of.outputs

    def __call__(self, outputs: Float[AnyArray, " outputs"]) -> SquashedGaussian:
        straight = self.of(outputs)
        return SquashedGaussian(straight.mean, straight.log_std)


class BetaHead(eqx.Module):
    """a and b of so many dimensions."""

    size: int = eqx.field(static=True)

    @property
    def outputs(self) -> int:
        return 2 * self.size

    def __call__(self, outputs: Float[AnyArray, " outputs"]) -> Beta:
        return Beta(*jnp.split(jnp.asarray(outputs), 2))


def head_for(
    action: Space,
    initial_log_std: float = -0.5,
    distribution: str = "gaussian",
    state_dependent_std: bool = False,
) -> Head:
    """The head of a space.

    Of boxes: initial_log_std; distribution: gaussian, squashed or beta; state_dependent_std: of the first two.

    Raises UsageError for another distribution, and for a box that is not squashed where the distribution is.
    """
    if distribution not in DISTRIBUTIONS:
        raise unknown("distribution", distribution, DISTRIBUTIONS)
    if isinstance(action, Joint):
        boxes = initial_log_std, distribution, state_dependent_std
        return ProductHead(tuple(head_for(part, *boxes) for part in action.parts))
    if isinstance(action, Discrete):
        return CategoricalHead(action.n)
    if isinstance(action, MultiDiscrete):
        return MultiCategoricalHead(action.sizes)
    if isinstance(action, MultiBinary):
        return BernoulliHead(action.n)
    size = math.prod(action.shape)
    if is_squashed(action) != (distribution != "gaussian"):
        raise UsageError(f"a {distribution} policy does not fit the actions {brief(action)}")
    if distribution == "beta":
        return BetaHead(size)
    constant_std = GaussianHead(jnp.full(size, initial_log_std, jnp.float32))
    gaussian = SpreadHead(size, initial_log_std) if state_dependent_std else constant_std
    return SquashedHead(gaussian) if distribution == "squashed" else gaussian
