"""The objective of vine for sampled actions: a mean over each state's actions, weighted by their own ratios.

    L(θ) = Σ_n w_n · Σ_k v_nk r_nk Q_nk / Σ_k v_nk r_nk        r = π_θ/π_old        (Schulman et al. 2015, section 5.2)
    ∇L(θ_old) = Σ_n w_n Σ_k v_nk (Q_nk − Q̄_n) ∇ln π(a_nk|s_n)        Q̄_n = Σ_k v_nk Q_nk

A constant added to the values of a state changes nothing: no baseline is needed. Where every action is there once with
v = π_old, Σ_k v r = Σ_a π_θ = 1, and this is the expected advantage. Of K actions drawn from π_old, the mean Q̄ holds
the value of the action itself: the gradient has (K − 1)/K of its expectation.
"""

from __future__ import annotations

from dataclasses import dataclass

import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from steepest.batch import Batch
from steepest.distributions import Distribution
from steepest.errors import UsageError
from steepest.geometry.divergences import weighted
from steepest.geometry.local import Local
from steepest.geometry.objectives import Gradient, expected_advantage, log_probs


@dataclass(frozen=True)
class SelfNormalised:
    """The self-normalised surrogate, raw reward units. `Batch.advantage` may hold Q or advantages.

    Raises UsageError for a batch with one action a state, of which L says nothing.
    """

    def gradient(self, local: Local, batch: Batch) -> Gradient:
        return expected_advantage.gradient(local, batch._replace(advantage=_centred(batch)))

    def gain(self, old: Distribution, new: Distribution, batch: Batch) -> Float[Array, ""]:
        present = _present(batch)
        change = log_probs(new, batch.action) - log_probs(old, batch.action)
        excess = weighted(_shares(batch), jnp.expm1(jnp.where(present, change, 0.0)))  # v(r − 1): Σ v(Q − Q̄) is 0
        mean = jnp.sum(excess * _centred(batch), axis=1) / (1.0 + jnp.sum(excess, axis=1))
        return jnp.sum(weighted(jnp.asarray(batch.weight), mean))


self_normalised = SelfNormalised()


def _present(batch: Batch) -> Array:
    return jnp.asarray(batch.weight[:, None] * batch.action_weight) > 0


def _shares(batch: Batch) -> Array:
    """v, Σ_k v = 1 to the last digit."""
    return batch.action_weight / jnp.sum(batch.action_weight, axis=1, keepdims=True)


def _centred(batch: Batch) -> Array:
    """Q − Q̄ [N,m], 0 where w·v = 0, whatever is there."""
    if batch.action_weight.shape[1] < 2:
        raise UsageError(
            "the self-normalised objective compares the actions of a state: this batch has one a state, as a single "
            "path has; use expected_advantage"
        )
    q = jnp.where(_present(batch), batch.advantage, 0.0)
    mean = jnp.sum(weighted(_shares(batch), q), axis=1, keepdims=True)
    return jnp.where(_present(batch), q - mean, 0.0)
