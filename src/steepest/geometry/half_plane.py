"""The best point of a disc in a half-plane: what is left of a constrained step once its two directions are known.

    max aᵀy   s.t.  ‖y‖ ≤ R,  bᵀy + c ≤ 0                    n = b/‖b‖,  e = c/‖b‖

    free        y = R·a/‖a‖                                where that has bᵀy + c ≤ 0
    bound       y = −e·n + √(R² − e²)·t                    t the unit vector of a − (aᵀn)n
    infeasible  y = −R·n                                   where e ≥ R: the disc has no point in the half-plane

In the coordinates of H⁻¹g and H⁻¹b, orthonormal in H, this is the dual of Achiam et al. 2017, eq. 11–12, solved:
‖a‖² = q, aᵀb = r, ‖b‖² = s, R² = 2δ, λ = √((q − r²/s)/(2δ − c²/s)) and ν = (r + λc)/s. The last line is their eq. 14.
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float


class Optimum(NamedTuple):
    """y: [2].  multiplier: ν ≥ 0, what the optimum gains per unit of c; 0 where it is free or infeasible.
    infeasible: no y within the disc satisfies the constraint, and this one is nearest to it."""

    y: Float[Array, "2"]
    multiplier: Float[Array, ""]
    infeasible: Bool[Array, ""]


def optimum(a: Float[Array, "2"], b: Float[Array, "2"], c: Float[Array, ""], radius: Float[Array, ""]) -> Optimum:
    """The optimum for finite a, b, c and R > 0; finite whatever they are, 0 where there is no direction."""
    n, size = _unit(b)
    upwards, _ = _unit(a)
    distance = jnp.where(size > 0, c / jnp.where(size > 0, size, 1.0), jnp.where(c > 0, jnp.inf, -jnp.inf))
    along = jnp.clip(-distance, -radius, radius)
    t, slope = _unit(a - jnp.dot(a, n) * n)
    across = jnp.sqrt(jnp.maximum(radius**2 - along**2, 0.0))
    free = jnp.dot(n, radius * upwards) <= -distance
    infeasible = distance >= radius
    y = jnp.where(free, radius * upwards, along * n + across * t)
    y = jnp.where(infeasible, -radius * n, y)
    bound = ~free & ~infeasible & (size > 0) & (across > 0)
    pressure = slope / jnp.where(bound, across, 1.0)  # λ
    multiplier = (jnp.dot(a, n) - pressure * along) / jnp.where(size > 0, size, 1.0)
    return Optimum(y, jnp.where(bound, jnp.maximum(multiplier, 0.0), 0.0), infeasible)


def _unit(x: Float[Array, "2"]) -> tuple[Array, Array]:
    """(x/‖x‖, ‖x‖); 0 for x = 0."""
    largest = jnp.max(jnp.abs(x))
    scaled = x / jnp.where(largest > 0, largest, 1.0)
    size = jnp.linalg.norm(scaled)
    return scaled / jnp.where(size > 0, size, 1.0), largest * size
