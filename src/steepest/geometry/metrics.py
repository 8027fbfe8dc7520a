"""Which M: the length of a step. Euclidean in θ, or in what the policy does.

    euclidean           I
    fisher              SᵀS,  S = √w·R·J                       E_s I(z) pulled back to θ: integrates over actions
    empirical_fisher    SᵀS,  one row √(w v)·uᵀRJ a sample     Σ w v ∇ln π ∇ln πᵀ over the actions that were taken

A metric is a value with two methods: its operator at a policy, and the dual y with Sᵀy = g of a gradient, or None.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jax import Array

from steepest.batch import Batch
from steepest.geometry.kernel import sample_kernel
from steepest.geometry.local import Local
from steepest.geometry.objectives import Gradient
from steepest.linear import Gram, Identity, Operator


@runtime_checkable
class Metric(Protocol):
    """A quadratic form on steps in θ."""

    def operator(self, local: Local, batch: Batch) -> Operator:
        """M at the policy of `local`, undamped."""
        ...

    def dual(self, local: Local, batch: Batch, gradient: Gradient) -> Array | None:
        """y with Sᵀy = g, in the shape of the rows of S; None if there is none, and a sample-space solve refuses."""
        ...


@dataclass(frozen=True)
class Euclidean:
    """‖Δ‖² in the coordinates θ happens to have: gradient ascent."""

    def operator(self, local: Local, batch: Batch) -> Operator:
        return Identity()

    def dual(self, local: Local, batch: Batch, gradient: Gradient) -> Array | None:
        return None


@dataclass(frozen=True)
class Fisher:
    """F = E_s[Jᵀ I(z) J], Kakade 2001: the Hessian of the mean KL per state (theory R15)."""

    def operator(self, local: Local, batch: Batch) -> Gram:
        root = _root(batch.weight)[:, None]

        def forward(v: Any) -> Array:
            return root * local.distribution.whiten(local.push(v))

        def spread(y: Array) -> Any:
            return local.distribution.whiten_transpose(root * y)

        return _factored(local, forward, spread)

    def dual(self, local: Local, batch: Batch, gradient: Gradient) -> Array:
        return _over(local.distribution.whiten_cotangent(gradient.cotangent), _root(batch.weight)[:, None])


@dataclass(frozen=True)
class EmpiricalFisher:
    """F̂ = Σ w v ∇ln π ∇ln πᵀ over the sampled actions: unbiased for F, noisier, one row a sample."""

    def operator(self, local: Local, batch: Batch) -> Gram:
        distribution = local.distribution
        root = _root(batch.weight[:, None] * batch.action_weight)
        score = jax.vmap(lambda d, actions: jax.vmap(d.whitened_score)(actions))(distribution, batch.action)

        def forward(v: Any) -> Array:
            return root * jnp.einsum("nmk,nk->nm", score, distribution.whiten(local.push(v)))

        def spread(y: Array) -> Any:
            return distribution.whiten_transpose(jnp.einsum("nm,nmk->nk", root * y, score))

        return _factored(local, forward, spread)

    def dual(self, local: Local, batch: Batch, gradient: Gradient) -> Array | None:
        if gradient.coefficient is None:
            return None
        return _root(batch.weight[:, None] * batch.action_weight) * gradient.coefficient


euclidean = Euclidean()
fisher = Fisher()
empirical_fisher = EmpiricalFisher()


def _factored(local: Local, forward: Callable[[Any], Array], spread: Callable[[Array], Any]) -> Gram:
    """SᵀS of rows [N,k].  forward: v ↦ S·v.  spread: y ↦ the cotangent c on z with Sᵀy = Jᵀc."""
    return Gram(forward, lambda y: local.pull(spread(y)), products=lambda: sample_kernel(local, forward, spread))


def _root(weight: Array) -> Array:
    return jnp.sqrt(weight)


def _over(y: Array, root: Array) -> Array:
    """y/√w, 0 where w = 0."""
    return jnp.where(root > 0, y / jnp.where(root > 0, root, 1.0), 0.0)
