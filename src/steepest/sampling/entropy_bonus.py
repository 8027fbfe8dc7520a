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

from steepest import chunks
from steepest.distributions import Policy
from steepest.sequences import Sequences


def entropy_bonus(policy: Policy, obs: Any, valid: Bool[Any, "T B"], temperature: float | Array) -> Float[Array, "T B"]:
    """τ H(π(·|s_t)), to be added to the rewards before generalised advantage estimation, in raw reward units.

    policy: the one that acted.  obs: [T,B,…] as the policy takes it (normalised), or for one that remembers their
    `Sequences`.  valid: [T,B]; a ghost row gets 0.  temperature: τ ≥ 0, raw reward units per nat.

    Where the bonus is in the rewards, the scale that the critic sees them by divides it too.
    """
    rows = obs
    if not isinstance(obs, Sequences):
        rows = jax.tree.map(lambda x: jnp.reshape(x, (-1, *x.shape[2:])), obs)
    entropy = chunks.each(policy, rows).entropy().reshape(jnp.shape(valid))
    return jnp.where(valid, temperature * entropy, 0.0)
