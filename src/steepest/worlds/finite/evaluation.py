"""Value and occupancy of a policy by recursion over time, differentiable in π.   (H, S, A as in `Tables`)

    forward    P_0 = ρ                P_{h+1}(s') = Σ_sa P_h(s) π_h(a|s) P_h(s'|s,a)
    backward   V_H = 0                Q_h(s,a) = r_h(s,a) + Σ_s' P_h(s'|s,a) V_{h+1}(s')
                                      V_h(s) = Σ_a π_h(a|s) Q_h(s,a)
    occupancy  d(s,a) = (1/H) Σ_h P_h(s) π_h(a|s)

Everything here is traceable and takes π as a table [S,A] or [H,S,A].
"""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int

from steepest.worlds.finite.tables import Tables, at

Policy = Float[Any, "*H S A"]


@eqx.filter_jit
def value(model: Tables, policy: Policy) -> Float[Array, ""]:
    """V^π(ρ) = Σ_s ρ(s) V_0(s): the expected sum of H rewards."""
    first = action_values(model, policy)[0]
    return jnp.sum(model.initial[:, None] * at(policy, 0, 2) * first)


@eqx.filter_jit
def action_values(model: Tables, policy: Policy) -> Float[Array, "H S A"]:
    """Q_h(s,a): the expected sum of the rewards from step h on."""

    def backward(later: Float[Array, " S"], h: Int[Array, ""]):
        q = at(model.reward, h, 2) + at(model.transition, h, 3) @ later
        return jnp.sum(at(policy, h, 2) * q, axis=-1), q

    last = jnp.zeros(model.initial.shape)
    return jax.lax.scan(backward, last, jnp.arange(model.horizon), reverse=True)[1]


@eqx.filter_jit
def state_distributions(model: Tables, policy: Policy) -> Float[Array, "H S"]:
    """P_h(s), h = 0 … H−1."""

    def forward(now: Float[Array, " S"], h: Int[Array, ""]):
        taken = now[:, None] * at(policy, h, 2)
        return jnp.einsum("sa,sat->t", taken, at(model.transition, h, 3)), now

    return jax.lax.scan(forward, jnp.asarray(model.initial), jnp.arange(model.horizon))[1]


@eqx.filter_jit
def occupancy(model: Tables, policy: Policy) -> Float[Array, "S A"]:
    """d(s,a), sums to 1 (R1)."""
    return jnp.mean(state_distributions(model, policy)[:, :, None] * policy, axis=0)
