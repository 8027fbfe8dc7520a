"""Small policies of every kind with a weighted batch each, and their dense float64 oracles, for the grids."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from steepest import parameters
from steepest.batch import Batch
from steepest.distributions import Bernoulli, Beta, Categorical, MultiCategorical, Product
from steepest.distributions.squashed import log_slope
from steepest.policies import (
    LogLinearSoftmax,
    MlpBernoulli,
    MlpCategorical,
    MlpGaussian,
    MlpMultiCategorical,
    MlpPolicy,
    TabularSoftmax,
)
from steepest.policies.heads import BernoulliHead, BetaHead, CategoricalHead, GaussianHead, ProductHead
from steepest.policies.masked import MaskedPolicy
from steepest.spaces import Discrete, MaskedForm, permitted

POLICIES = ("tabular", "log-linear", "mlp-categorical", "mlp-gaussian")
PRODUCT_POLICIES = ("mlp-multi-categorical", "mlp-bernoulli", "mlp-product", "mlp-masked", "mlp-beta")
"""Of several parts: what differs from one is in the distribution alone."""
UNLIKE = ("mlp-gaussian", *PRODUCT_POLICIES)
"""Whose actions are no single index: the uncentred form is of a categorical."""
DTYPES = {"float32": jnp.float32, "float64": jnp.float64}
DAMPINGS = [0.0, 1e-3, 0.1]

# dtype ↦ what is asked of the gradient and the products; (dtype, λ > 0) ↦ what is asked of a solution. With λ = 0 in
# float32 the smallest eigenvalues of F are below its rounding, so conjugate gradients cannot see those directions.
PRODUCTS = {"float32": 2e-6, "float64": 1e-13}
SOLUTIONS = {("float64", True): 1e-9, ("float64", False): 1e-6, ("float32", True): 2e-3}


def problem(kind: str) -> tuple[Any, Batch]:
    """A policy away from uniform and a batch: m = 2 actions a state, uneven weights, a masked row; NumPy float64."""
    rng = np.random.default_rng(7)
    key = jax.random.key(3)
    states = kind in ("tabular", "log-linear")
    n = 10 if states else 48
    obs: np.ndarray = rng.integers(0, 5, n) if states else rng.normal(size=(n, 3))
    if kind == "tabular":
        policy: Any = TabularSoftmax(rng.normal(size=(5, 3)))
    elif kind == "log-linear":
        policy = LogLinearSoftmax(rng.normal(size=4), rng.normal(size=(5, 3, 4)))
    elif kind == "mlp-categorical":
        policy = MlpCategorical(3, 3, (2,), key=key)
    elif kind == "mlp-multi-categorical":
        policy = MlpMultiCategorical(3, (2, 3), (2,), key=key)
    elif kind == "mlp-bernoulli":
        policy = MlpBernoulli(3, 2, (2,), key=key)
    elif kind == "mlp-masked":
        policy = MaskedPolicy(MlpCategorical(3, 3, (2,), key=key), MaskedForm((3,), "float64", 3))
    elif kind == "mlp-beta":
        policy = MlpPolicy(3, BetaHead(1), (2,), key=key)
    elif kind == "mlp-product":
        heads = CategoricalHead(3), ProductHead((BernoulliHead(1), GaussianHead(jnp.zeros(1))))
        policy = MlpPolicy(3, ProductHead(heads), (2,), key=key)
    else:
        policy = MlpGaussian(3, 2, (2,), key=key)
    if not states:  # not their own first weights: the heads start almost at 0, where much of J vanishes
        policy = jax.tree.map(lambda x: 0.8 * rng.normal(size=x.shape), policy)
    action: np.ndarray = rng.integers(0, 3, (n, 2))
    if kind == "mlp-multi-categorical":
        action = rng.integers(0, [2, 3], (n, 2, 2))
    if kind == "mlp-bernoulli":
        action = rng.integers(0, 2, (n, 2, 2))
    if kind == "mlp-masked":  # one of three is forbidden, and never taken
        mask = np.ones((n, 3))
        mask[np.arange(n), rng.integers(0, 3, n)] = 0
        obs = np.concatenate([obs, mask], axis=1)
        action = permitted(Discrete(3), action, mask[:, None])
    if kind == "mlp-product":
        action = np.concatenate([rng.integers(0, [3, 2], (n, 2, 2)), rng.normal(size=(n, 2, 1))], axis=2)
    if kind == "mlp-beta":
        action = rng.normal(size=(n, 2, 1))
    if kind == "mlp-gaussian":
        says = jax.vmap(policy)(jnp.asarray(obs))
        action = np.asarray(says.mean)[:, None] + np.exp(np.asarray(says.log_std))[:, None] * rng.normal(size=(n, 2, 2))
    weight = rng.uniform(0.2, 1.0, n)
    weight[3] = 0.0
    split = rng.uniform(0.2, 0.8, n)
    batch = Batch(
        obs=obs,
        weight=weight / weight.sum(),
        action=action,
        action_weight=np.stack([split, 1 - split], axis=1),
        advantage=rng.normal(size=(n, 2)),
        segment=rng.integers(0, n, n).astype(np.int32),
    )
    return policy, batch


def in_dtype(tree: Any, dtype: Any) -> Any:
    """JAX arrays, floats in `dtype`."""
    return jax.tree.map(
        lambda x: jnp.asarray(x, dtype if np.issubdtype(np.asarray(x).dtype, np.floating) else None), tree
    )


@jax.jit
def _log_probs(distribution: Any, action: Any) -> Any:
    """[N,m]: of actions [N,m,…] of N states."""
    return jax.vmap(lambda d, a: jax.vmap(d.log_prob)(a))(distribution, jnp.asarray(action))


class Oracle:
    """Everything dense, in float64, by brute force: call inside `jax.enable_x64(True)`."""

    def __init__(self, policy: Any, batch: Batch):
        params, rest = parameters.split(in_dtype(policy, jnp.float64))
        self.theta, unravel = ravel_pytree(params)
        obs = jnp.asarray(batch.obs)

        def predict(theta: Any) -> Any:
            return jax.vmap(parameters.merge(unravel(theta), rest))(obs)

        self.predict, self.batch = jax.jit(predict), batch

    def log_prob_jacobian(self, action: np.ndarray) -> np.ndarray:
        """[N,m,P]: ∇ln π(a_nm|s_n)."""

        def log_probs(theta: Any) -> Any:
            return _log_probs(self.predict(theta), action)

        return np.asarray(jax.jit(jax.jacobian(log_probs))(self.theta))

    def gradient(self) -> np.ndarray:
        b = self.batch
        return np.einsum("n,nm,nm,nmp->p", b.weight, b.action_weight, b.advantage, self.log_prob_jacobian(b.action))

    def empirical_fisher(self) -> np.ndarray:
        j = self.log_prob_jacobian(self.batch.action)
        return np.einsum("n,nm,nmp,nmq->pq", self.batch.weight, self.batch.action_weight, j, j)

    def trajectory_fisher(self) -> np.ndarray:
        """Outer products of the scores of segments, the roots of the weights within."""
        b = self.batch
        steps = np.sqrt(b.weight[:, None] * b.action_weight)[:, :, None] * self.log_prob_jacobian(b.action)
        paths = np.array([steps[b.segment == i].sum(axis=0) for i in np.unique(b.segment)])
        return np.einsum("imp,imq->pq", paths, paths)

    def uncentred_fisher(self) -> np.ndarray:
        """Outer products of the gradients of the logits, not centred, over every action."""
        distribution = self.predict(self.theta)
        j = np.asarray(jax.jit(jax.jacobian(lambda theta: self.predict(theta).logits))(self.theta))
        return np.einsum("n,na,nap,naq->pq", self.batch.weight, distribution.probs, j, j)

    def fisher(self) -> np.ndarray:
        """Outer products of scores over every action; for a Gaussian, over the nodes of a Gauss–Hermite rule, which is
        exact for scores that are quadratic in the action."""
        distribution = self.predict(self.theta)
        n = len(self.batch.weight)
        if isinstance(distribution, Categorical):
            probs = np.asarray(distribution.probs)
            action = np.tile(np.arange(probs.shape[1]), (n, 1))
        elif isinstance(distribution, MultiCategorical | Bernoulli):
            sizes = distribution.sizes if isinstance(distribution, MultiCategorical) else (2, 2)
            every = np.stack(np.meshgrid(*map(np.arange, sizes), indexing="ij"), axis=-1).reshape(-1, len(sizes))
            action = np.tile(every, (n, 1, 1))
            probs = np.exp(_log_probs(distribution, action))
        elif isinstance(distribution, Product):
            nodes, weights = np.polynomial.hermite_e.hermegauss(5)
            gaussian = distribution.parts[1].parts[1]
            mean, std = (np.asarray(x)[:, 0] for x in (gaussian.mean, jnp.exp(gaussian.log_std)))
            grid = [(i, j, k) for i in range(3) for j in range(2) for k in range(5)]
            action = np.array([[(i, j, mean[row] + std[row] * nodes[k]) for i, j, k in grid] for row in range(n)])
            whole = jax.vmap(lambda d: Product([d.parts[0], d.parts[1].parts[0]]))(distribution)
            log_probs = _log_probs(whole, action[..., :2])
            probs = np.exp(log_probs) * np.array([weights[k] for _, _, k in grid]) / np.sqrt(2 * np.pi)
        elif isinstance(distribution, Beta):  # by the trapezoid rule, exact for what falls off so fast on both sides
            action = np.tile(np.arange(-16.0, 16.0, 0.25)[:, None], (n, 1, 1))
            log_probs = _log_probs(distribution, action)
            probs = 0.25 * np.exp(log_probs + log_slope(action)[..., 0])
        else:
            nodes, weights = np.polynomial.hermite_e.hermegauss(5)
            grid = np.stack(np.meshgrid(nodes, nodes, indexing="ij"), axis=-1).reshape(-1, 2)
            mean, std = np.asarray(distribution.mean), np.exp(np.asarray(distribution.log_std))
            action = mean[:, None] + std[:, None] * grid
            probs = np.tile(np.outer(weights, weights).ravel() / (2 * np.pi), (n, 1))
        j = self.log_prob_jacobian(action)
        return np.einsum("n,nm,nmp,nmq->pq", self.batch.weight, probs, j, j)

    def kl_hessian(self) -> np.ndarray:
        """The automatic Hessian of the mean KL from θ_old, at θ_old."""
        old = self.predict(self.theta)
        weight = jnp.asarray(self.batch.weight)
        return np.asarray(jax.jit(jax.hessian(lambda theta: jnp.sum(weight * old.kl(self.predict(theta)))))(self.theta))


@functools.cache
def oracle(kind: str) -> dict[str, np.ndarray]:
    with jax.enable_x64(True):
        dense = Oracle(*problem(kind))
        uncentred = {} if kind in UNLIKE else {"uncentred": dense.uncentred_fisher()}
        return {
            **uncentred,
            "trajectory": dense.trajectory_fisher(),
            "gradient": dense.gradient(),
            "fisher": dense.fisher(),
            "kl_hessian": dense.kl_hessian(),
            "empirical": dense.empirical_fisher(),
        }


def relative(a: Any, b: np.ndarray) -> float:
    return float(np.linalg.norm(np.asarray(a, np.float64) - b) / np.linalg.norm(b))
