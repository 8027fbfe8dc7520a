"""Multilayer-perceptron policies: obs ↦ a distribution over actions of any space."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Float, PRNGKeyArray

from steepest.distributions import Bernoulli, Categorical, DiagonalGaussian, Distribution, MultiCategorical
from steepest.layers import Mlp
from steepest.policies.heads import Head
from steepest.taps import constant
from steepest.trees import AnyArray

HEAD_GAIN = 0.01
"""Of the last layer: the first policy is almost the same in all states (Andrychowicz et al. 2021)."""


class _OnMlp(eqx.Module):
    """What the policies here have in common.  net: [...] flattened ↦ the parameters of a distribution."""

    net: Mlp

    def features(self, obs: Any) -> Any:
        """What the last layer is given; see `Featured`."""
        return self.net.features(jnp.ravel(obs))


class MlpCategorical(_OnMlp):
    """obs [...] (flattened) ↦ Categorical over `actions` actions.

    hidden: units of each hidden layer.  head_gain: of the last layer.  activation, initialisation,
    norm: of the layers, as of `Mlp`.
    """

    def __init__(
        self,
        inputs: int,
        actions: int,
        hidden: tuple[int, ...] = (64, 64),
        *,
        head_gain: float = HEAD_GAIN,
        activation: str = "tanh",
        initialisation: str = "orthogonal",
        norm: bool = False,
        key: PRNGKeyArray,
    ):
        self.net = Mlp(
            inputs,
            hidden,
            actions,
            last_gain=head_gain,
            activation=activation,
            initialisation=initialisation,
            norm=norm,
            key=key,
        )

    def __call__(self, obs: Any) -> Categorical:
        return Categorical(self.net(jnp.ravel(obs)))


class MlpMultiCategorical(_OnMlp):
    """obs [...] (flattened) ↦ MultiCategorical with so many actions in each part.

    sizes: of the parts.  hidden, head_gain, activation, initialisation, norm: as of `MlpCategorical`.
    """

    sizes: tuple[int, ...] = eqx.field(static=True)

    def __init__(self, inputs: int, sizes: Sequence[int], hidden: tuple[int, ...] = (64, 64), **layers: Any):
        self.net = MlpCategorical(inputs, sum(sizes), hidden, **layers).net
        self.sizes = tuple(sizes)

    def __call__(self, obs: Any) -> MultiCategorical:
        return MultiCategorical(self.net(jnp.ravel(obs)), self.sizes)


class MlpBernoulli(_OnMlp):
    """obs [...] (flattened) ↦ Bernoulli over `actions` switches.

    hidden, head_gain, activation, initialisation, norm: as of `MlpCategorical`.
    """

    def __init__(self, inputs: int, actions: int, hidden: tuple[int, ...] = (64, 64), **layers: Any):
        self.net = MlpCategorical(inputs, actions, hidden, **layers).net

    def __call__(self, obs: Any) -> Bernoulli:
        return Bernoulli(self.net(jnp.ravel(obs)))


class MlpGaussian(_OnMlp):
    """obs [...] (flattened) ↦ diagonal Gaussian on ℝᵈ with a state-independent ln σ (Schulman et al. 2015).

    hidden, head_gain, activation, initialisation, norm: as of `MlpCategorical`.
    log_std: [d], the logarithm of σ in the units of the action, the same in every state, trained.
    """

    log_std: Float[AnyArray, " d"]

    def __init__(
        self,
        inputs: int,
        actions: int,
        hidden: tuple[int, ...] = (64, 64),
        *,
        initial_log_std: float = -0.5,
        head_gain: float = HEAD_GAIN,
        activation: str = "tanh",
        initialisation: str = "orthogonal",
        norm: bool = False,
        key: PRNGKeyArray,
    ):
        self.net = Mlp(
            inputs,
            hidden,
            actions,
            last_gain=head_gain,
            activation=activation,
            initialisation=initialisation,
            norm=norm,
            key=key,
        )
        self.log_std = jnp.full(actions, initial_log_std, jnp.float32)

    def __call__(self, obs: Any) -> DiagonalGaussian:
        return DiagonalGaussian(self.net(jnp.ravel(obs)), constant(self.log_std))


class MlpPolicy(_OnMlp):
    """obs [...] (flattened) ↦ whatever a head makes of a network's outputs.

    head: as of `head_for`.  hidden, head_gain, activation, initialisation: as of `MlpCategorical`.
    """

    head: Head

    def __init__(self, inputs: int, head: Head, hidden: tuple[int, ...] = (64, 64), **layers: Any):
        self.net = MlpCategorical(inputs, head.outputs, hidden, **layers).net
        self.head = head

    def __call__(self, obs: Any) -> Distribution:
        return self.head(self.net(jnp.ravel(obs)))
