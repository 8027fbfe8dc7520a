"""How far apart two policies are, and what a policy's parameters say: KL, score, Fisher, of steps and of whole paths.

    ψ_sa = ∇ ln π(a|s)            Ψ = Σ_h ψ_{s_h a_h},  the score of a path: ρ and P do not depend on θ

    F = Σ_s d(s) Σ_a π(a|s) ψ_sa ψ_saᵀ        Fisher matrix per step
    G = E[ΨΨᵀ]                                Fisher matrix of the path (Bagnell & Schneider 2003)

F is made of enumerated outer products and G of the second moment of the path, both without the factor R of the
distributions: they are what the geometry is tested against, and G = H·F (the cross terms vanish) is not assumed.

V, and d(s)π(a|s), are given as functions of the tables and π: of a finite horizon, discounted, or averages.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import Array
from jax.flatten_util import ravel_pytree
from jaxtyping import Float, Int

from steepest import parameters, trees
from steepest.distributions import Categorical
from steepest.errors import UsageError
from steepest.worlds.finite import evaluation
from steepest.worlds.finite.actions import distributions
from steepest.worlds.finite.tables import Tables, at

DENSE_LIMIT = 5_000  # parameters: a dense [P,P] of 200 MB


@eqx.filter_jit
def gradient(value: Callable[[Any, Array], Array], model: Any, policy: Any) -> Any:
    """∇V(θ) by differentiating `value`, which maps the tables and π to V; θ's structure."""
    params, rest = parameters.split(policy)
    return jax.grad(lambda params: value(model, _said(model, parameters.merge(params, rest)).probs))(params)


@eqx.filter_jit
def trajectory_kl(model: Tables, p: Any, q: Any) -> Float[Array, ""]:
    """KL(Pr^p‖Pr^q) = Σ_h E_{s_h~p} KL(p(·|s_h)‖q(·|s_h)) by the chain rule; ∞ where q excludes what p does."""
    said, other = _said(model, p), _said(model, q)
    visited = evaluation.state_distributions(model, said.probs)
    return jnp.sum(visited * jnp.where(visited > 0, _kl(said, other), 0.0))


@eqx.filter_jit
def fisher(occupancy: Callable[[Any, Array], Array], model: Any, policy: Any) -> Float[Array, "P P"]:
    """F = Σ_sa d(s,a) ψ_sa ψ_saᵀ; `occupancy` maps the tables and π to d(s,a)."""
    probs, score = _scores(model, policy)
    return _outer(occupancy(model, probs), score)


@eqx.filter_jit
def trajectory_fisher(model: Tables, policy: Any) -> Float[Array, "P P"]:
    """G = E[ΨΨᵀ]."""
    return second_moment(model, *_scores(model, policy))


def second_moment(model: Tables, probs: Float[Array, "S A"], score: Float[Array, "S A P"]) -> Float[Array, "P P"]:
    """E[ΨΨᵀ] of Ψ = Σ_h ψ(s_h,a_h), for any ψ, by the forward recursion of the moments of Ψ_h = Σ_{t<h} ψ_t

        m_h(s) = E[Ψ_h 1{s_h=s}]        m_{h+1}(s') = Σ_sa π(a|s) P(s'|s,a) (m_h(s) + P_h(s) ψ_sa)
        C_h    = E[Ψ_h Ψ_hᵀ]            C_{h+1}     = C_h + Σ_sa π(a|s) (m_h ψ_saᵀ + ψ_sa m_hᵀ + P_h ψ_sa ψ_saᵀ)(s)

    and C_H is the answer. C need not be kept for each state, as Σ_s' P(s'|s,a) = 1.
    """
    visited = evaluation.state_distributions(model, probs)
    mean = jnp.einsum("sa,sap->sp", probs, score)

    def forward(carry: tuple[Array, Array], h: Int[Array, ""]):
        m, second = carry
        now = visited[h][:, None]
        cross = m.T @ mean
        moment = m[:, None, :] + now[:, :, None] * score
        later = jnp.einsum("sa,sat,sap->tp", probs, at(model.transition, h, 3), moment)
        return (later, second + cross + cross.T + _outer(now * probs, score)), None

    states, _, size = score.shape
    start = jnp.zeros((states, size)), jnp.zeros((size, size))
    return jax.lax.scan(forward, start, jnp.arange(model.horizon))[0][1]


def require_dense(policy: Any) -> None:
    """UsageError if θ is too large for a dense [P,P]."""
    size = trees.size(parameters.split(policy)[0])
    if size > DENSE_LIMIT:
        raise UsageError(f"the policy has P = {size} parameters; a dense Fisher matrix takes at most {DENSE_LIMIT}")


def _said(model: Any, policy: Any) -> Categorical:
    return distributions(policy, *model.reward.shape[-2:])


def _scores(model: Any, policy: Any) -> tuple[Float[Array, "S A"], Float[Array, "S A P"]]:
    """π and ψ. ψ is finite also where ln π = −∞ (a masked action), and has no weight there."""
    params, rest = parameters.split(policy)
    flat, unravel = ravel_pytree(params)
    probs = _said(model, policy).probs

    def log_probs(flat: Array) -> Array:
        return _said(model, parameters.merge(unravel(flat), rest)).log_probs

    jacobian = jax.jacfwd if flat.size < probs.size else jax.jacrev
    return probs, jacobian(log_probs)(flat)


def _outer(weight: Float[Array, "S A"], score: Float[Array, "S A P"]) -> Float[Array, "P P"]:
    """Σ_sa w_sa ψ_sa ψ_saᵀ."""
    return jnp.einsum("sap,saq->pq", weight[:, :, None] * score, score)


def _kl(p: Categorical, q: Categorical) -> Float[Array, " S"]:
    """Σ_a [p ln(p/q) + q − p]: the sum of KL in terms that are all ≥ 0, so that a small KL keeps its digits.

    With x = ln(q/p) a term is p(eˣ − 1 − x), or q − p − px where eˣ might overflow; it is q where p = 0.
    """
    x = jnp.where(p.probs > 0, q.log_probs - p.log_probs, 0.0)
    small = jnp.abs(x) < 1.0
    near = jnp.where(small, x, 0.0)
    term = jnp.where(small, p.probs * (jnp.expm1(near) - near), q.probs - p.probs - p.probs * x)
    return jnp.sum(jnp.where(p.probs > 0, term, q.probs), axis=-1)
