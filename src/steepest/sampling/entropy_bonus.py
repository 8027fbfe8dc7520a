"""The entropy bonus in the rewards of a rollout: what makes the critic and the advantages those of V_τ.

    r_t ← r_t + τ H(π(·|s_t))          V_τ = E[Σ_t γᵗ (r_t + τ H(π(·|s_t)))]

Not −τ ln π(a_t|s_t), which has the same mean and more noise: with the entropy of the *state*, whatever was done there,
the advantage of a step is Q_τ − E_π Q_τ, without the bonus of its own step, which the objective `EntropyRegularised`
adds, exactly. With −τ ln π(a_t|s_t) it would be counted twice.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float

from steepest.distributions import Policy


def entropy_bonus(policy: Policy, obs: Any, valid: Bool[Any, "T B"], temperature: float | Array) -> Float[Array, "T B"]:
    """τ H(π(·|s_t)), to be added to the rewards before generalised advantage estimation, in raw reward units.

    policy: the one that acted.  obs: [T,B,…] as the policy takes it (normalised).  valid: [T,B]; a ghost row gets 0.
    temperature: τ ≥ 0, raw reward units per nat.

    Where the bonus is in the rewards, the scale that the critic sees them by divides it too.
    """
    entropy = jax.vmap(jax.vmap(lambda x: policy(x).entropy()))(obs)
    return jnp.where(valid, temperature * entropy, 0.0)
