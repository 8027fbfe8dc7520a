"""The linear-quadratic regulator as a functional world: Gaussian policies act on x, and earn what it does not cost.

r_h = −(x_hᵀQx_h + u_hᵀRu_h),  less x_HᵀQ_f x_H in the last step          x_{h+1} = Ax_h + Bu_h + ε
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import PRNGKeyArray

from steepest.worlds.lqr.model import LQR


class LQRMatrices(NamedTuple):
    """A, B, Q, R, Q_f; roots of W and of the covariance of x_0, whose mean is `mean`. float32."""

    dynamics: Any
    control: Any
    state_cost: Any
    control_cost: Any
    final_cost: Any
    noise: Any
    mean: Any
    spread: Any


class FunctionalLQR:
    """One copy of an `LQR`; the observation is x, and the state is (x, h).

    Step H returns terminated: the end of the horizon is part of the world, no cut.
    """

    def __init__(self, lqr: LQR, name: str = "lqr"):
        from gymnasium.spaces import Box

        self.lqr, self.name = lqr, name
        self.observation_space = Box(-np.inf, np.inf, (lqr.states,), np.float32)
        self.action_space = Box(-np.inf, np.inf, (lqr.actions,), np.float32)
        p = lqr.problem
        costs = p.state_cost, p.control_cost, p.final_cost
        matrices = p.dynamics, p.control, *costs, _root(p.noise), p.mean, _root(p.covariance)
        self.default_params = LQRMatrices(*(np.asarray(matrix, np.float32) for matrix in matrices))

    def reset(self, key: PRNGKeyArray, params: LQRMatrices) -> tuple[Array, tuple[Array, Array]]:
        """x_0 ~ N(mean, covariance), h = 0."""
        x = params.mean + params.spread @ jax.random.normal(key, params.mean.shape)
        return x, (x, jnp.zeros((), jnp.int32))

    def step(
        self, key: PRNGKeyArray, state: tuple[Array, Array], action: Array, params: LQRMatrices
    ) -> tuple[Array, tuple[Array, Array], Array, Array, Array, dict[str, Any]]:
        """x' and r_h."""
        x, h = state
        p = params
        after = p.dynamics @ x + p.control @ action + p.noise @ jax.random.normal(key, x.shape)
        ended = h + 1 >= self.lqr.horizon
        cost = x @ p.state_cost @ x + action @ p.control_cost @ action
        cost = cost + jnp.where(ended, after @ p.final_cost @ after, 0.0)
        return after, (after, h + 1), -cost, ended, jnp.zeros((), bool), {}


def _root(covariance: np.ndarray) -> np.ndarray:
    """L with LLᵀ = C, also where C is singular."""
    values, vectors = np.linalg.eigh(covariance)
    return vectors * np.sqrt(np.maximum(values, 0.0))
