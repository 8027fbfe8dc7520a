"""Least squares as an objective: what a regression on the batch's actions makes larger.

    L(θ) = −½ Σ_n w_n Σ_m v_nm |a_nm − μ_θ(s_n)|²        ∂L/∂μ_n = w_n Σ_m v_nm (a_nm − μ_n)

It is the log-likelihood of the actions under `UnitGaussian`, less its constant; `fisher` is then the Gauss–Newton
matrix, and M⁻¹∇L the step of Gauss and Newton.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from steepest.batch import Batch
from steepest.distributions import UnitGaussian
from steepest.geometry.local import Local
from steepest.geometry.objectives import Gradient


@dataclass(frozen=True)
class LeastSquares:
    """Half the mean squared distance of the actions [N,m,d] from the mean μ [N,d] of a `UnitGaussian`, less of it."""

    def gradient(self, local: Local, batch: Batch) -> Gradient:
        weight, action = _masked(batch)
        mean: Any = local.distribution
        cotangent = UnitGaussian(jnp.sum(weight * (action - mean.mean[:, None]), axis=1))
        return Gradient(local.pull(cotangent), cotangent, jnp.ones(batch.action_weight.shape))

    def gain(self, old: Any, new: Any, batch: Batch) -> Float[Array, ""]:
        """Σ w v (μ' − μ)·(a − ½(μ + μ')): the difference of the squares with nothing to cancel."""
        weight, action = _masked(batch)
        moved, middle = (new.mean - old.mean)[:, None], 0.5 * (new.mean + old.mean)[:, None]
        return jnp.sum(weight * moved * (action - middle))


least_squares = LeastSquares()


def _masked(batch: Batch) -> tuple[Array, Array]:
    """(w·v [N,m,1], a [N,m,d]), a = 0 where w·v = 0, whatever is there."""
    weight = jnp.asarray(batch.weight[:, None] * batch.action_weight)[..., None]
    return weight, jnp.where(weight > 0, batch.action, 0.0)
