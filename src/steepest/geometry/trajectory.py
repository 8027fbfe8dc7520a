"""The metric on paths (Bagnell & Schneider 2003), per state: G/H with G = E_τ[∇ln Pr(τ) ∇ln Pr(τ)ᵀ].

    trajectory      SᵀS,  one row s_i = Σ_{t in segment i} √(w_t v_t) ∇ln π(a_t|o_t) a segment

A path's score is the sum of its steps' scores, since ρ and P do not depend on θ: the rows are a segment sum of those of
the empirical Fisher matrix. The cross terms of two steps of a path have mean 0 (a martingale), so the estimate tends to
F, as that of the steps does, whatever the segments; they have a variance of their own, which grows with the length of a
segment. A path that is cut where a rollout ends, or shorter, gives an unbiased estimate all the same.

The form that accumulates ψψᵀ step by step beside a running gradient (GPOMDP) leaves the cross terms out: it is
`empirical_fisher`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from steepest.batch import Batch
from steepest.geometry.local import Local
from steepest.geometry.metrics import empirical_fisher, fisher
from steepest.geometry.objectives import Gradient
from steepest.linear import Gram, Measured


@dataclass(frozen=True)
class Trajectory:
    """Ĝ/H by paths: outer products of the scores of the batch's segments, which `Batch.segment` numbers.

    Rows of S are [N, m], those of segment numbers that do not occur are 0. With a segment for each state and all its
    actions, as in an exact batch, this is F exactly. Steps are measured by F, whose mean over the actions is known:
    G = H·F, so that δ is the KL per state, as ever. There is no dual: a gradient with a coefficient for each step is no
    combination of whole paths.
    """

    def operator(self, local: Local, batch: Batch) -> Measured:
        steps = empirical_fisher.operator(local, batch)
        count = len(batch.weight)
        path = jnp.unique(batch.segment, size=count, return_inverse=True)[1]  # any labels, as 0 … N − 1

        def forward(v: Any) -> Array:
            return jax.ops.segment_sum(steps.forward(v), path, num_segments=count)

        def transpose(y: Array) -> Any:
            return steps.transpose(y[path])

        return Measured(Gram(forward, transpose), fisher.operator(local, batch))

    def dual(self, local: Local, batch: Batch, gradient: Gradient) -> Array | None:
        return None


trajectory = Trajectory()
