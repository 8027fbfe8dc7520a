"""The last part of a policy: a network's outputs ↦ the distribution that they are the parameters of.

head = head_for(action)      net: obs ↦ [head.outputs]      policy: obs ↦ head(net(obs))
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Float

from steepest.distributions import Bernoulli, Categorical, DiagonalGaussian, Distribution, MultiCategorical
from steepest.spaces import Discrete, MultiBinary, MultiDiscrete, Space
from steepest.taps import constant
from steepest.trees import AnyArray


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


def head_for(action: Space, initial_log_std: float = -0.5) -> Head:
    """The head of a space.  initial_log_std: of a Box."""
    if isinstance(action, Discrete):
        return CategoricalHead(action.n)
    if isinstance(action, MultiDiscrete):
        return MultiCategoricalHead(action.sizes)
    if isinstance(action, MultiBinary):
        return BernoulliHead(action.n)
    return GaussianHead(jnp.full(action.shape[0], initial_log_std, jnp.float32))
