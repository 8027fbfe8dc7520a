"""How far a policy has moved: KL(π_old‖π_new), summed over action dimensions, averaged with the batch's weights."""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from steepest.distributions import Distribution


def mean_kl(old: Distribution, new: Distribution, weight: Float[Array, " N"]) -> Float[Array, ""]:
    """Σ_n w_n KL(old_n‖new_n), nats per state: exactly 0 for old = new. Rows of weight 0 take no part, NaN or not."""
    return jnp.sum(weighted(weight, old.kl(new)))


def weighted(weight: Array, value: Array) -> Array:
    """w·x with 0 where w = 0, whatever x is there."""
    return weight * jnp.where(weight > 0, value, 0.0)
