"""The linear-quadratic regulator over a finite horizon: a continuous world in which every quantity is exact.

    x_{h+1} = Ax_h + Bu_h + ε_h,  ε ~ N(0,W)        J(π) = E[Σ_{h<H} (x_hᵀQx_h + u_hᵀRu_h) + x_HᵀQ_f x_H]

J is a cost: V = −J. The cost of x_h is counted for h = 0 … H−1 with the action u_h taken there, and the last state x_H
by Q_f, which is 0 unless it is given. The cost Σ x_t² over t = 1 … H from x_0 = 0 is Q = Q_f = 1, R = 0.

A policy is any callable pytree  x [n] ↦ st.DiagonalGaussian over u [m]  whose mean is affine in x and whose σ does not
depend on x; others are refused. Every method is exact up to rounding in float64 and returns NumPy float64.
"""

from __future__ import annotations

import itertools
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.flatten_util import ravel_pytree
from jaxtyping import Float

from steepest import parameters
from steepest.batch import Batch
from steepest.errors import UsageError
from steepest.worlds.finite.precision import exact
from steepest.worlds.lqr import affine, quadratic
from steepest.worlds.lqr.affine import Affine
from steepest.worlds.lqr.quadratic import Problem


class LQR:
    """H steps of x' = Ax + Bu + ε with quadratic costs.

    dynamics: A, [n,n].  control: B, [n,m].  state_cost: Q, [n,n], symmetric ⪰ 0.  control_cost: R, [m,m], symmetric
    ⪰ 0.  noise: W, [n,n], the covariance of ε.  horizon: H ≥ 1.  initial_mean, initial_covariance: of x_0, [n] and
    [n,n]; 0 if not given.  final_cost: Q_f, [n,n]; 0 if not given.  Numbers stand for 1×1 matrices.

    Raises UsageError for shapes that disagree, numbers that are not finite, and matrices that are not symmetric or not
    positive semidefinite. All methods raise it for a policy that is not affine or does not fit.
    """

    def __init__(
        self,
        dynamics: Any,
        control: Any,
        state_cost: Any,
        control_cost: Any,
        noise: Any,
        horizon: int,
        *,
        initial_mean: Any = None,
        initial_covariance: Any = None,
        final_cost: Any = None,
    ):
        a = _array("dynamics", dynamics, 2)
        b = _array("control", control, 2)
        states, actions = len(a), b.shape[-1]
        if isinstance(horizon, bool) or not isinstance(horizon, int | np.integer) or horizon < 1:
            raise UsageError(f"horizon must be an integer ≥ 1, got {horizon!r}")
        nothing = np.zeros((states, states))
        self.problem = Problem(
            _shaped("dynamics", a, (states, states)),
            _shaped("control", b, (states, actions)),
            _semidefinite("state_cost", state_cost, states),
            _semidefinite("control_cost", control_cost, actions),
            _semidefinite("final_cost", nothing if final_cost is None else final_cost, states),
            _semidefinite("noise", noise, states),
            _shaped(
                "initial_mean",
                _array("initial_mean", np.zeros(states) if initial_mean is None else initial_mean, 1),
                (states,),
            ),
            _semidefinite("initial_covariance", nothing if initial_covariance is None else initial_covariance, states),
            int(horizon),
        )

    @property
    def states(self) -> int:
        """n, the dimension of x."""
        return self.problem.control.shape[0]

    @property
    def actions(self) -> int:
        """m, the dimension of u."""
        return self.problem.control.shape[1]

    @property
    def horizon(self) -> int:
        """H, steps."""
        return self.problem.horizon

    def __repr__(self) -> str:
        return f"LQR(n={self.states}, m={self.actions}, H={self.horizon})"

    # What a policy does

    @exact
    def law(self, policy: Any) -> Affine:
        """The policy as u ~ N(Kx + c, diag(σ²)): gain K [m,n], offset c [m], log_std ln σ [m]."""
        return _laws(self._checked(policy), self.states)

    @exact
    def cost(self, policy: Any) -> Float[Any, ""]:
        """J(π), a float64 scalar."""
        return _cost(self.problem, self._checked(policy))

    def value(self, policy: Any) -> np.float64:
        """V(π) = −J(π): what policies are improved by."""
        return -self.cost(policy)

    @exact
    def moments(self, policy: Any) -> tuple[Float[Any, "H+1 n"], Float[Any, "H+1 n n"]]:
        """Mean and covariance of x_h, h = 0 … H."""
        return quadratic.moments(self.problem, _laws(self._checked(policy), self.states))

    @exact
    def gradient(self, policy: Any) -> Any:
        """∇V(θ) = −∇J(θ), not divided by H; a pytree like the policy with None for what is not trainable."""
        return _gradient(self.problem, self._checked(policy))

    @exact
    def fisher(self, policy: Any) -> Float[Any, "P P"]:
        """F = (1/H) Σ_{h<H} E_{x_h}[Jᵀ I(z) J], per step (Kakade 2001), dense; I(z) = diag(1/σ², 2)."""
        return _fisher(self.problem, self._checked(policy))

    @exact
    def trajectory_kl(self, p: Any, q: Any) -> Float[Any, ""]:
        """KL(Pr^p‖Pr^q) of whole paths, nats: H times the mean KL per step."""
        return _trajectory_kl(self.problem, self._checked(p), self._checked(q))

    def batch(self, policy: Any, nodes: int = 3) -> Batch:
        """The weighted batch that every estimator takes, by Gauss–Hermite nodes in x_h and u: float64.

        nodes: q per dimension, in x and in u. N = H·qⁿ states with qᵐ actions each: exact for polynomials of degree
        2q − 1 per dimension, so that the gradient and both Fisher matrices are exact from q = 3. The surrogate of a
        *different* policy is no polynomial (a ratio of densities) and converges as q grows; the KL is always exact.

        weight: 1/H times the weight of the node in N(m_h, C_h); advantage: A_h(x, u); segment: each row its own path.
        Raises UsageError for q < 1.
        """
        if not isinstance(nodes, int) or isinstance(nodes, bool) or nodes < 1:
            raise UsageError(f"a quadrature has a whole number of nodes, at least one, got nodes={nodes!r}")
        law = self.law(policy)
        form = _advantage(self.problem, law)
        mean, covariance = (moment[:-1] for moment in self.moments(policy))
        points, weight = _gauss_hermite(nodes, self.states)
        noise, action_weight = _gauss_hermite(nodes, self.actions)
        obs = mean[:, None, :] + np.einsum("hij,sj->hsi", _root(covariance), points)
        error = np.exp(law.log_std) * noise
        linear = np.einsum("hmn,hsn->hsm", form.slope, obs) + form.constant[:, None, :]
        square = np.einsum("am,hmk,ak->ha", error, form.curvature, error)
        rise = np.einsum("hmm,m->h", form.curvature, np.exp(2 * law.log_std))
        excess = square[:, None, :] - rise[:, None, None] + 2 * np.einsum("am,hsm->hsa", error, linear)
        rows = self.horizon * len(points)
        obs = obs.reshape(rows, self.states)
        return Batch(
            obs=obs,
            weight=np.tile(weight / self.horizon, self.horizon),
            action=(obs @ law.gain.T + law.offset)[:, None, :] + error,
            action_weight=np.tile(action_weight, (rows, 1)),
            advantage=-excess.reshape(rows, len(noise)),
            segment=np.arange(rows, dtype=np.int32),
        )

    # The best there is

    def optimal(self) -> tuple[np.float64, Float[np.ndarray, "H m n"]]:
        """V* = −J* and the optimal gains K_h of u_h = K_h x_h, by the Riccati recursion from P_H = Q_f

            K_h = −(R + BᵀP'B)⁻¹BᵀP'A        P_h = Q + AᵀP'(A + BK_h)

        The best linear policy of one gain for all h may fall short of it. Where R + BᵀP'B is singular K_h is the least
        one: an action that changes nothing is 0.
        """
        a, b, q, r, p, noise, mean, covariance, horizon = self.problem
        gains, cost = [], 0.0
        for _ in range(horizon):
            cost += np.sum(p * noise)
            gain = -np.linalg.lstsq(r + b.T @ p @ b, b.T @ p @ a, rcond=None)[0]
            p = q + a.T @ p @ (a + b @ gain)
            gains.append(gain)
        cost += mean @ p @ mean + np.sum(p * covariance)
        return np.float64(-cost), np.stack(gains[::-1])

    def optimal_stationary(self) -> tuple[Float[np.ndarray, "n n"], Float[np.ndarray, "m n"]]:
        """P and K of the infinite horizon, u = Kx, by the discrete algebraic Riccati equation; J per step is tr PW.

        Raises UsageError where no stabilising solution exists.
        """
        from scipy.linalg import LinAlgError, solve_discrete_are

        a, b, q, r = self.problem[:4]
        try:
            p = solve_discrete_are(a, b, q, r)
            return p, -np.linalg.solve(r + b.T @ p @ b, b.T @ p @ a)
        except (LinAlgError, ValueError) as error:
            raise UsageError(f"the Riccati equation of this LQR has no stabilising solution: {error}") from None

    def _checked(self, policy: Any) -> Any:
        return affine.checked(policy, self.states, self.actions)


# Compiled once for each structure of policy


@eqx.filter_jit
def _laws(policy: Any, dimension: int) -> Affine:
    return affine.law(policy, dimension)


@eqx.filter_jit
def _cost(problem: Problem, policy: Any) -> Array:
    return quadratic.cost(problem, affine.law(policy, len(problem.dynamics)))


@exact
def _advantage(problem: Problem, law: Affine) -> quadratic.Advantage:
    return quadratic.advantage(problem, law)


@eqx.filter_jit
def _gradient(problem: Problem, policy: Any) -> Any:
    params, rest = parameters.split(policy)
    return jax.grad(lambda theta: -_cost(problem, parameters.merge(theta, rest)))(params)


@eqx.filter_jit
def _fisher(problem: Problem, policy: Any) -> Float[Array, "P P"]:
    """F = Σ_i Σ_ab ∂(c,K)_ia/∂θ · E[(1,x)(1,x)ᵀ]_ab · ∂(c,K)_ib/∂θ / σ_i² + 2 Σ_i ∂ln σ_i ∂ln σ_iᵀ."""
    params, rest = parameters.split(policy)
    flat, unravel = ravel_pytree(params)

    def law(theta: Array) -> Affine:
        return affine.law(parameters.merge(unravel(theta), rest), len(problem.dynamics))

    here = law(flat)
    slope = jax.jacfwd(law)(flat)
    rows = jnp.concatenate([slope.offset[:, None], slope.gain], axis=1) * jnp.exp(-here.log_std)[:, None, None]
    second = quadratic.visited(problem, here)
    return jnp.einsum("map,ab,mbq->pq", rows, second, rows) + 2 * slope.log_std.T @ slope.log_std


@eqx.filter_jit
def _trajectory_kl(problem: Problem, p: Any, q: Any) -> Array:
    mine, other = (affine.law(policy, len(problem.dynamics)) for policy in (p, q))
    return problem.horizon * quadratic.divergence(quadratic.visited(problem, mine), mine, other)


def _gauss_hermite(nodes: int, dimension: int) -> tuple[Float[np.ndarray, "k d"], Float[np.ndarray, " k"]]:
    """Points and weights (Σ = 1) for N(0, I) in d dimensions: the tensor product, k = nodes^d."""
    points, weight = np.polynomial.hermite_e.hermegauss(nodes)
    grid = np.array(list(itertools.product(points, repeat=dimension)))
    product = np.array([np.prod(w) for w in itertools.product(weight, repeat=dimension)])
    return grid, product / product.sum()


def _root(covariance: Float[np.ndarray, "H n n"]) -> Float[np.ndarray, "H n n"]:
    """L with LLᵀ = C, also where C is singular, as it is for a state that is known."""
    values, vectors = np.linalg.eigh(covariance)
    return vectors * np.sqrt(np.maximum(values, 0.0))[:, None, :]


def _array(name: str, given: Any, axes: int) -> np.ndarray:
    try:
        if np.asarray(given).dtype.kind not in "biuf":
            raise TypeError
        array = np.array(given, np.float64)
    except (TypeError, ValueError):
        raise UsageError(f"{name} must be an array of numbers, got {given!r}") from None
    array = array.reshape((1,) * axes) if array.ndim == 0 else array
    if array.ndim != axes:
        raise UsageError(f"{name} must have {axes} axes, got shape {list(array.shape)}")
    if not np.all(np.isfinite(array)):
        raise UsageError(f"{name}{np.argwhere(~np.isfinite(array))[0].tolist()} is not finite")
    array.setflags(write=False)
    return array


def _shaped(name: str, array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    if array.shape != shape:
        raise UsageError(
            f"{name} must have shape {list(shape)} by the shapes of dynamics and control, got {list(array.shape)}"
        )
    return array


def _semidefinite(name: str, given: Any, size: int) -> np.ndarray:
    matrix = _shaped(name, _array(name, given, 2), (size, size))
    scale = max(1.0, float(np.abs(matrix).max()))
    skew = np.abs(matrix - matrix.T)
    if np.any(skew > 1e-9 * scale):
        i, j = np.argwhere(skew > 1e-9 * scale)[0]
        raise UsageError(f"{name} must be symmetric: {name}[{i}, {j}] = {matrix[i, j]} and [{j}, {i}] = {matrix[j, i]}")
    least = np.linalg.eigvalsh(matrix)[0]
    if least < -1e-9 * scale:
        raise UsageError(f"{name} must be positive semidefinite; its smallest eigenvalue is {least:.3g}")
    return matrix
