"""Multilayer-perceptron policies for Discrete and Box actions: obs ↦ Categorical or diagonal Gaussian."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Float, PRNGKeyArray

from steepest.distributions import Categorical, DiagonalGaussian
from steepest.layers import Mlp
from steepest.taps import constant
from steepest.trees import AnyArray

HEAD_GAIN = 0.01
"""Of the last layer: the first policy is almost the same in all states (Andrychowicz et al. 2021)."""


class MlpCategorical(eqx.Module):
    """obs [...] (flattened) ↦ Categorical over `actions` actions.

    hidden: units of each hidden layer.  head_gain: of the last layer.  activation, initialisation: of the layers.
    """

    net: Mlp

    def __init__(
        self,
        inputs: int,
        actions: int,
        hidden: tuple[int, ...] = (64, 64),
        *,
        head_gain: float = HEAD_GAIN,
        activation: str = "tanh",
        initialisation: str = "orthogonal",
        key: PRNGKeyArray,
    ):
        self.net = Mlp(
            inputs,
            hidden,
            actions,
            last_gain=head_gain,
            activation=activation,
            initialisation=initialisation,
            key=key,
        )

    def __call__(self, obs: Any) -> Categorical:
        return Categorical(self.net(jnp.ravel(obs)))


class MlpGaussian(eqx.Module):
    """obs [...] (flattened) ↦ diagonal Gaussian on ℝᵈ with a state-independent ln σ (Schulman et al. 2015).

    hidden, head_gain, activation, initialisation: as of `MlpCategorical`.
    log_std: [d], the logarithm of σ in the units of the action, the same in every state, trained.
    """

    net: Mlp
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
        key: PRNGKeyArray,
    ):
        self.net = Mlp(
            inputs,
            hidden,
            actions,
            last_gain=head_gain,
            activation=activation,
            initialisation=initialisation,
            key=key,
        )
        self.log_std = jnp.full(actions, initial_log_std, jnp.float32)

    def __call__(self, obs: Any) -> DiagonalGaussian:
        return DiagonalGaussian(self.net(jnp.ravel(obs)), constant(self.log_std))
