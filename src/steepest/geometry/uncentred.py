"""The metric of Q-NPG (Agarwal, Kakade, Lee & Mahajan 2021, section 6): the Fisher matrix without its centring.

    fisher          √w √p_a (∇z_a − Σ_b p_b ∇z_b)        the scores of a softmax, z its logits
    uncentred       √w √p_a  ∇z_a

Its natural direction (SᵀS)⁺g is the least-squares fit of the advantages by the *uncentred* features ∇z_a, over all
actions of all states. It is not invariant to adding a function of the state to the logits; on a table of logits, where
the features are the unit vectors, the two agree.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
from jax import Array

from steepest.batch import Batch
from steepest.distributions import Categorical
from steepest.errors import UsageError
from steepest.geometry.local import Local
from steepest.geometry.objectives import Gradient
from steepest.linear import Gram


@dataclass(frozen=True)
class Uncentred:
    """E_s[Σ_a p_a ∇z_a ∇z_aᵀ] of the logits z. Raises UsageError for a policy that is not Categorical."""

    def operator(self, local: Local, batch: Batch) -> Gram:
        root = _root(local, batch)

        def forward(v: Any) -> Array:
            tangent: Any = local.push(v)
            return root * jnp.where(root > 0, tangent.logits, 0.0)

        def transpose(y: Array) -> Any:
            return local.pull(Categorical(root * y))

        return Gram(forward, transpose)

    def dual(self, local: Local, batch: Batch, gradient: Gradient) -> Array:
        root = _root(local, batch)
        return jnp.where(root > 0, gradient.cotangent.logits / jnp.where(root > 0, root, 1.0), 0.0)


uncentred = Uncentred()


def _root(local: Local, batch: Batch) -> Array:
    """√(w p_a) [N,A]."""
    if not isinstance(local.distribution, Categorical):
        raise UsageError(
            "Q-NPG fits advantages by the features of a Categorical policy's logits; this policy gives a "
            f"{type(local.distribution).__name__}: use natural-actor-critic or npg"
        )
    return jnp.sqrt(batch.weight[:, None] * local.distribution.probs)
