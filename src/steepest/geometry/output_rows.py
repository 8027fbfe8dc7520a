"""Whitened rows y with Σ_j E[y_j y_jᵀ] = I: what the output factors of a network are made of.

G = Σ_n w_n Σ_j b_nj b_njᵀ,  b_nj = pull-back of Rᵀy_nj            Σ_j E[Rᵀy_j y_jᵀR] = I(z)

every_row       y_j = e_j                 exact: the expectation over the actions is taken; k pull-backs
Probes(n)       y_j ~ N(0, I)/√n          unbiased, n pull-backs
taken_actions   y_j = √v_j·u(a_j)         the scores of the batch's own actions; m pull-backs, no draw
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from steepest.batch import Batch
from steepest.errors import UsageError
from steepest.geometry.local import Local


class Rows(NamedTuple):
    """number: of rows.  row: j ↦ y_j at the N states, [N,k]."""

    number: int
    row: Callable[[Array], Float[Array, "N k"]]


OutputRows = Callable[[Local, Batch, Any], Rows]
"""(local, batch, key or None) ↦ Rows."""


def every_row(local: Local, batch: Any = None, key: Any = None) -> Rows:
    """e_1 … e_k: the expectation over the actions, exactly."""
    shape, dtype = _rows(local)
    return Rows(shape[1], lambda j: jnp.broadcast_to(jax.nn.one_hot(j, shape[1], dtype=dtype), shape))


@dataclass(frozen=True)
class Probes:
    """Random rows, standard normal over √count: unbiased, for actions of many dimensions.  count: ≥ 1."""

    count: int = 1

    def __post_init__(self) -> None:
        if self.count < 1:
            raise UsageError(f"Probes needs count ≥ 1, got {self.count}")

    def __call__(self, local: Local, batch: Batch, key: Any = None) -> Rows:
        if key is None:
            raise UsageError("Probes draws its rows when an update begins: call begin first")
        shape, dtype = _rows(local)
        scale = self.count**-0.5
        return Rows(self.count, lambda j: scale * jax.random.normal(jax.random.fold_in(key, j), shape, dtype))


def taken_actions(local: Local, batch: Batch, key: Any = None) -> Rows:
    """The whitened scores of the actions that were taken: noisier than `every_row`, and for any number of actions."""
    score = jax.vmap(lambda d, actions: jax.vmap(d.whitened_score)(actions))(local.distribution, batch.action)
    weighted = jnp.sqrt(jnp.asarray(batch.action_weight))[..., None] * score
    return Rows(weighted.shape[1], lambda j: weighted[:, j])


def _rows(local: Local) -> tuple[tuple[int, int], Any]:
    """The shape [N,k] of whitened tangents, and their dtype."""
    like = jax.eval_shape(local.distribution.whiten, local.distribution)
    return (like.shape[0], like.shape[1]), like.dtype
