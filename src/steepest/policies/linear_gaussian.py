"""Gaussian policies with a mean affine in the observation and a σ that does not depend on it.

LinearGaussian        u ~ N(Kx + c, diag(σ²))                    θ = (K, c, ln σ)
ExponentialGaussian   π(u|x) ∝ exp(θ₁s₁u² + θ₂s₂xu)              N(−θ₂s₂x/(2θ₁s₁), −1/(2θ₁s₁))
"""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from steepest.distributions import DiagonalGaussian
from steepest.errors import UsageError
from steepest.parameters import Frozen, frozen
from steepest.trees import AnyArray


class LinearGaussian(eqx.Module):
    """u ~ N(Kx + c, diag(exp(log_std))²).

    gain: K, [m,n], action units per observation unit.  log_std: ln σ, [m].  offset: c, [m], from 0 if
    it is not given. All three are trained.

    Raises UsageError for shapes that disagree.
    """

    gain: Float[AnyArray, "m n"]
    offset: Float[AnyArray, " m"]
    log_std: Float[AnyArray, " m"]

    def __init__(self, gain: Any, log_std: Any, offset: Any = None):
        self.gain = _floating(gain)
        self.log_std = _floating(log_std)
        rows = self.gain.shape[:1]
        self.offset = np.zeros(rows) if offset is None else _floating(offset)
        if self.gain.ndim != 2 or self.log_std.shape != rows or self.offset.shape != rows:
            raise UsageError(
                "LinearGaussian takes gain [m,n], log_std [m] and offset [m], got "
                f"{list(self.gain.shape)}, {list(self.log_std.shape)} and {list(self.offset.shape)}"
            )

    def __call__(self, obs: Any) -> DiagonalGaussian:
        return DiagonalGaussian(jnp.asarray(self.gain) @ obs + self.offset, jnp.asarray(self.log_std))


class ExponentialGaussian(eqx.Module):
    """π(u|x) ∝ exp(θ₁s₁u² + θ₂s₂xu) for scalar x and u: a Gaussian in its natural parameters.

    theta: (θ₁, θ₂).  scale: (s₁, s₂), frozen: it changes the coordinates, not the class of policies.
    θ₁s₁ < 0, else there is no such density and its log_std is NaN.

    Raises UsageError for other shapes.  Source: Kakade, A Natural Policy Gradient (2001), section 5, figure 1.
    """

    theta: Float[AnyArray, "2"]
    scale: Frozen[Float[AnyArray, "2"]]

    def __init__(self, theta: Any, scale: Any = (1.0, 1.0)):
        theta, scale = _floating(theta), _floating(scale)
        if theta.shape != (2,) or scale.shape != (2,):
            raise UsageError(
                f"ExponentialGaussian takes theta [2] and scale [2], got {list(theta.shape)} and {list(scale.shape)}"
            )
        self.theta = theta
        self.scale = frozen(scale)

    def __call__(self, obs: Any) -> DiagonalGaussian:
        square, cross = jnp.asarray(self.theta) * self.scale.value
        return DiagonalGaussian(-cross * obs / (2 * square), -0.5 * jnp.log(-2 * square)[None])


def _floating(x: Any) -> AnyArray:
    """An array of a float dtype; NumPy float64 where it was no array, which jnp outside x64 would round."""
    return x if eqx.is_inexact_array(x) else np.asarray(x, np.float64)
