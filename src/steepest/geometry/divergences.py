"""How far a policy has moved: KL(π_old‖π_new), summed over action dimensions, in each state; then over the states.

The mean over the states is what a batch estimates and TRPO constrains. The largest is what the theory of Schulman et
al. 2015 bounds the improvement by; that of a sample of states is at most that of all.
"""

from __future__ import annotations

from collections.abc import Callable

import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from steepest.distributions import Distribution

OverStates = Callable[[Array, Array], Array]
"""(weight [N], value [N]) ↦ one number: `mean` or `largest`."""


def mean_kl(old: Distribution, new: Distribution, weight: Float[Array, " N"]) -> Float[Array, ""]:
    """Σ_n w_n KL(old_n‖new_n), nats per state: exactly 0 for old = new. Rows of weight 0 take no part, NaN or not."""
    return mean(weight, old.kl(new))


def max_kl(old: Distribution, new: Distribution, weight: Float[Array, " N"]) -> Float[Array, ""]:
    """max_n KL(old_n‖new_n), nats: exactly 0 for old = new. Rows of weight 0 take no part, NaN or not."""
    return largest(weight, old.kl(new))


def mean(weight: Float[Array, " N"], value: Float[Array, " N"]) -> Float[Array, ""]:
    """Σ_n w_n x_n over the rows of positive weight."""
    return jnp.sum(weighted(weight, value))


def largest(weight: Float[Array, " N"], value: Float[Array, " N"]) -> Float[Array, ""]:
    """max_n x_n over the rows of positive weight, of x ≥ 0; 0 where there is none."""
    return jnp.max(jnp.where(weight > 0, value, 0.0))


def weighted(weight: Array, value: Array) -> Array:
    """w·x with 0 where w = 0, whatever x is there."""
    return weight * jnp.where(weight > 0, value, 0.0)
