"""Which g: an objective gives its gradient at θ_old and its change at a trial policy.

    L(θ) = Σ_n w_n Σ_m v_nm A_nm π_θ(a_nm|s_n)/π_old(a_nm|s_n)        ∇L(θ_old) = Σ w v A ∇ln π

A `Gradient` carries, beside the vector, what a solver in sample space needs: the cotangent on each state's
distribution, and the coefficient of each sample's score.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from steepest.batch import Batch
from steepest.distributions import Distribution
from steepest.geometry.divergences import weighted
from steepest.geometry.local import Local


class Gradient(NamedTuple):
    """∇L at θ_old, in three readings.

    vector: g, a pytree like θ: ascent.
    cotangent: ∂L/∂z at each state, a distribution of cotangents with leaves [N,…]: g = Jᵀ·cotangent.
    coefficient: c [N,m] with g = Σ w v c ∇ln π(a), or None if the objective is not of that form.
    """

    vector: Any
    cotangent: Any
    coefficient: Float[Array, "N m"] | None


@runtime_checkable
class Objective(Protocol):
    """What is to be made larger."""

    def gradient(self, local: Local, batch: Batch) -> Gradient:
        """∇L at the policy of `local`."""
        ...

    def gain(self, old: Distribution, new: Distribution, batch: Batch) -> Float[Array, ""]:
        """L(new) − L(old), exactly 0 for new = old."""
        ...


def log_probs(distribution: Distribution, action: Any) -> Float[Array, "N m"]:
    """ln π(a_nm|s_n) for actions [N,m,…]."""
    return jax.vmap(lambda d, actions: jax.vmap(d.log_prob)(actions))(distribution, action)


@dataclass(frozen=True)
class ExpectedAdvantage:
    """The surrogate of policy improvement: the mean advantage per state, raw reward units (×H for V).

    Its gradient on an exact batch is ∇V/H (policy gradient theorem); its change is L_π(π') − L_π(π) of Kakade &
    Langford 2002 and Schulman et al. 2015, eq. 14, per step.
    """

    def gradient(self, local: Local, batch: Batch) -> Gradient:
        weight, advantage = _masked(batch)

        def total(distribution: Distribution) -> Array:
            return jnp.sum(weighted(weight, advantage * log_probs(distribution, batch.action)))

        cotangent = jax.grad(total)(local.distribution)
        return Gradient(local.pull(cotangent), cotangent, advantage)

    def gain(self, old: Distribution, new: Distribution, batch: Batch) -> Float[Array, ""]:
        weight, advantage = _masked(batch)
        before, after = log_probs(old, batch.action), log_probs(new, batch.action)
        change = jnp.expm1(jnp.where(weight > 0, after - before, 0.0))
        return jnp.sum(weighted(weight, advantage * change))


expected_advantage = ExpectedAdvantage()


def _masked(batch: Batch) -> tuple[Array, Array]:
    """(w·v, A) [N,m], A = 0 where w·v = 0, whatever is there: even a derivative must not see it."""
    weight = jnp.asarray(batch.weight[:, None] * batch.action_weight)
    return weight, jnp.where(weight > 0, batch.advantage, 0.0)
