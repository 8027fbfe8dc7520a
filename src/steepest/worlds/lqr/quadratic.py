"""Linear dynamics, quadratic cost and an affine Gaussian policy: moments, cost and advantages in closed form.

    x' = Ax + Bu + ε,  ε ~ N(0,W)        u = Kx + c + e,  e ~ N(0,Σ),  Σ = diag(σ²)

    forward    m_{h+1} = (A + BK)m_h + Bc           C_{h+1} = (A + BK)C_h(A + BK)ᵀ + BΣBᵀ + W
    cost       J = Σ_{h<H} E[xᵀQx + uᵀRu] + E[x_HᵀQ_f x_H]
    backward   P_H = Q_f, p_H = 0       P = Q + KᵀRK + (A + BK)ᵀP'(A + BK)
                                        p = KᵀRc + (A + BK)ᵀ(P'Bc + p')
    advantage  −A_h(x, Kx+c+e) = eᵀM_h e − tr M_h Σ + 2eᵀ(M_h c + D_h x + Bᵀp')
                                        M_h = R + BᵀP'B,  D_h = RK + BᵀP'(A + BK),  P' = P_{h+1}, p' = p_{h+1}

xᵀP_h x + 2p_hᵀx + const is the expected cost from step h on. Everything here is traceable.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from steepest.worlds.lqr.affine import Affine


class Problem(NamedTuple):
    """A [n,n], B [n,m], Q [n,n], R [m,m], Q_f [n,n], W [n,n]; mean [n] and covariance [n,n] of x_0; H."""

    dynamics: Any
    control: Any
    state_cost: Any
    control_cost: Any
    final_cost: Any
    noise: Any
    mean: Any
    covariance: Any
    horizon: int


class Advantage(NamedTuple):
    """The quadratic form of −A_h, for h = 0 … H−1: curvature M [H,m,m], slope D [H,m,n], constant M c + Bᵀp' [H,m]."""

    curvature: Float[Array, "H m m"]
    slope: Float[Array, "H m n"]
    constant: Float[Array, "H m"]


@eqx.filter_jit
def moments(problem: Problem, law: Affine) -> tuple[Float[Array, "H+1 n"], Float[Array, "H+1 n n"]]:
    """m_h and C_h, h = 0 … H."""
    closed = problem.dynamics + problem.control @ law.gain
    push = problem.control @ law.offset
    spread = problem.control @ law.covariance @ jnp.asarray(problem.control).T + problem.noise

    def forward(now: tuple[Array, Array], _: None):
        mean, covariance = now
        later = closed @ mean + push, closed @ covariance @ closed.T + spread
        return later, later

    start = jnp.asarray(problem.mean), jnp.asarray(problem.covariance)
    _, after = jax.lax.scan(forward, start, length=problem.horizon)
    return jax.tree.map(lambda first, rest: jnp.concatenate([first[None], rest]), start, after)


@eqx.filter_jit
def cost(problem: Problem, law: Affine) -> Float[Array, ""]:
    """J."""
    second = _second(*moments(problem, law))
    visited = second[:-1].sum(axis=0)
    return (
        _trace(problem.state_cost, visited[1:, 1:])
        + _trace(problem.control_cost, _actions(law) @ visited @ _actions(law).T + problem.horizon * law.covariance)
        + _trace(problem.final_cost, second[-1, 1:, 1:])
    )


@eqx.filter_jit
def visited(problem: Problem, law: Affine) -> Float[Array, "1+n 1+n"]:
    """(1/H) Σ_{h<H} E[(1, x_h)(1, x_h)ᵀ]: all that F and the KL need of the states."""
    return _second(*moments(problem, law))[:-1].mean(axis=0)


@eqx.filter_jit
def advantage(problem: Problem, law: Affine) -> Advantage:
    """−A_h as a quadratic form, by the backward recursion of P and p."""
    control = jnp.asarray(problem.control)
    closed = problem.dynamics + control @ law.gain
    push = control @ law.offset

    def backward(later: tuple[Array, Array], _: None):
        p, linear = later
        form = Advantage(
            problem.control_cost + control.T @ p @ control,
            problem.control_cost @ law.gain + control.T @ p @ closed,
            problem.control_cost @ law.offset + control.T @ (p @ push + linear),
        )
        before = (
            problem.state_cost + law.gain.T @ problem.control_cost @ law.gain + closed.T @ p @ closed,
            law.gain.T @ problem.control_cost @ law.offset + closed.T @ (p @ push + linear),
        )
        return before, form

    end = jnp.asarray(problem.final_cost), jnp.zeros(closed.shape[0])
    return jax.lax.scan(backward, end, length=problem.horizon, reverse=True)[1]


def divergence(second: Float[Array, "1+n 1+n"], p: Affine, q: Affine) -> Float[Array, ""]:
    """E_x KL(p(·|x)‖q(·|x)) in nats where E[(1,x)(1,x)ᵀ] = second."""
    gap = _actions(p) - _actions(q)
    error = jnp.einsum("mi,ij,mj->m", gap, second, gap) * jnp.exp(-2 * q.log_std)
    d = p.log_std - q.log_std
    return jnp.sum(0.5 * jnp.expm1(2 * d) - d + 0.5 * error)


def _actions(law: Affine) -> Float[Array, "m 1+n"]:
    """(c, K), so that the mean action is (c, K)·(1, x)."""
    return jnp.concatenate([law.offset[:, None], law.gain], axis=1)


def _second(mean: Float[Array, "T n"], covariance: Float[Array, "T n n"]) -> Float[Array, "T 1+n 1+n"]:
    extended = jnp.concatenate([jnp.ones_like(mean[:, :1]), mean], axis=1)
    return jnp.einsum("ti,tj->tij", extended, extended) + jnp.pad(covariance, ((0, 0), (1, 0), (1, 0)))


def _trace(form: Any, second: Array) -> Array:
    return jnp.sum(form * second)
