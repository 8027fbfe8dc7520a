"""The natural gradient as the weights of a critic, fitted by least squares in features that the policy dictates.

    of steps       argmin_ω Σ w v (ω·∇ln π(a|o) − y)²             = F̂⁻¹Σ w v y ∇ln π      Kakade 2001, theorem 1
    of paths       argmin_ω,b Σ_i (ω·Σ_t ∇ln π(a_t|o_t) + b − R_i)²                       Peters & Schaal 2008
    uncentred      argmin_ω Σ w v (ω·∇z_a(o) − y)², z the logits                          Agarwal et al. 2021

With y the action values (whatever is added to them in each state: the scores have mean 0 there) the first is F⁻¹∇V/H,
and so is the second with R_i the return of a path. Dense, by the singular values of the features, of least norm where
these are dependent, in float64: to see the theory with, and for small policies. `natural_actor_critic` and `q_npg` are
the same fits as compositions that train networks.
"""

from __future__ import annotations

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
from steepest.chunks import each
from steepest.distributions import Categorical
from steepest.errors import UsageError
from steepest.geometry import log_probs
from steepest.linear.direct import least_norm
from steepest.worlds.finite.precision import exact, inwards


@exact
def compatible_weights(policy: Any, batch: Batch, target: Any = None, baseline: Any = None) -> Float[Any, " P"]:
    """ω of the compatible critic ω·∇ln π(a|o), fitted to a target with the weights of the batch: F̂⁺Σ w v y ∇ln π.

    policy: maps an observation to a distribution.  batch: N states with m actions each.
    target: y, [N,m]; action values, advantages or estimates of either. The batch's advantages, if not said.
    baseline: features of the state, [N,K], whose weights are fitted beside ω and left out of it.

    Returns the flat [P], float64, in the order of `ravel_pytree`. Raises UsageError for a target or baseline that does
    not have a row for each state.
    """
    weight = np.asarray(batch.weight)[:, None] * np.asarray(batch.action_weight)
    target = _rows("target", batch.advantage if target is None else target, batch.advantage.shape, weight)
    count = target.shape[1]
    nuisance = None
    if baseline is not None:
        width = np.shape(baseline)[1:] if np.ndim(baseline) == 2 else ("K",)
        features = _rows("baseline", baseline, (len(target), *width), np.asarray(batch.weight)[:, None])
        nuisance = np.repeat(features, count, axis=0)
    score = np.asarray(_scores(inwards(policy), _inwards(batch)))
    return _fit(score.reshape(target.size, -1), target.ravel(), weight.ravel(), nuisance)


@exact
def path_weights(policy: Any, batch: Batch, reward: Any) -> Float[Any, " P"]:
    """ω of the regression of a path's return on [Σ_t ∇ln π(a_t|o_t), 1], each of the batch's segments one path.

    batch: N steps with one action each; segment says on which path they lie; steps of weight 0 lie on none. A path
    counts with the weight that its steps have, the same in all of them.
    reward: [N], of each step; their sum over a path is its return.

    Returns the flat [P], float64: the natural gradient per state F⁻¹∇V/H in the limit of many whole paths. Raises
    UsageError for more than one action in a state.
    """
    if batch.advantage.shape[1] != 1:
        raise UsageError(f"a path has one action in a state, got {batch.advantage.shape[1]}")
    reward = _rows("reward", reward, batch.weight.shape, np.asarray(batch.weight))
    kept = np.asarray(batch.weight) > 0
    paths, path = np.unique(np.asarray(batch.segment)[kept], return_inverse=True)
    score = np.asarray(_scores(inwards(policy), _inwards(batch)))[kept, 0]
    features, returns, weight = np.zeros((len(paths), score.shape[1])), np.zeros(len(paths)), np.zeros(len(paths))
    np.add.at(features, path, score)
    np.add.at(returns, path, reward[kept])
    np.maximum.at(weight, path, np.asarray(batch.weight)[kept])
    return _fit(features, returns, weight, np.ones((len(paths), 1)))


@exact
def uncentred_weights(policy: Any, batch: Batch, target: Any = None) -> Float[Any, " P"]:
    """ω of the critic ω·∇z_a(o) in the gradients of the logits, not centred, fitted as in `compatible_weights`.

    On a table of logits, where these are the unit vectors, adding ω = Q or A to θ gives the same policy as NPG;
    elsewhere what is added to the target in each state matters. Raises UsageError for a policy that is not Categorical.
    """
    weight = np.asarray(batch.weight)[:, None] * np.asarray(batch.action_weight)
    target = _rows("target", batch.advantage if target is None else target, batch.advantage.shape, weight)
    gradients = np.asarray(_logit_gradients(inwards(policy), _inwards(batch)))
    rows = gradients[np.arange(len(target))[:, None], np.asarray(batch.action)]
    return _fit(rows.reshape(target.size, -1), target.ravel(), weight.ravel(), None)


@eqx.filter_jit
def _fit(features: Any, target: Any, weight: Any, nuisance: Any) -> Float[Array, " P"]:
    """argmin_ω min_b Σ w (ω·f + b·n − y)², of least norm in ω: what n explains is taken off f and y first."""
    root = jnp.sqrt(jnp.asarray(weight))
    rows, y = root[:, None] * features, root * target
    if nuisance is not None:
        u, sigma, _ = jnp.linalg.svd(root[:, None] * nuisance, full_matrices=False)
        basis = jnp.where(sigma > sigma[0] * max(u.shape) * jnp.finfo(u.dtype).eps, u, 0.0)
        rows, y = rows - basis @ (basis.T @ rows), y - basis @ (basis.T @ y)
    return least_norm(rows, rhs=rows.T @ y, dual=y)


@eqx.filter_jit
def _scores(policy: Any, batch: Batch) -> Float[Array, "N m P"]:
    """∇ln π(a_nm|o_n)."""

    def said(flat: Array, unravel: Any, rest: Any) -> Array:
        return log_probs(each(parameters.merge(unravel(flat), rest), batch.obs), batch.action)

    params, rest = parameters.split(policy)
    flat, unravel = ravel_pytree(params)
    return jax.jacfwd(said)(flat, unravel, rest)


@eqx.filter_jit
def _logit_gradients(policy: Any, batch: Batch) -> Float[Array, "N A P"]:
    """∇z_a(o_n)."""

    def said(flat: Array, unravel: Any, rest: Any) -> Array:
        distribution = each(parameters.merge(unravel(flat), rest), batch.obs)
        if not isinstance(distribution, Categorical):
            raise UsageError(f"only a Categorical policy has logits, this is a {type(distribution).__name__}")
        return jnp.asarray(distribution.logits)

    params, rest = parameters.split(policy)
    flat, unravel = ravel_pytree(params)
    return jax.jacfwd(said)(flat, unravel, rest)


def _inwards(batch: Batch) -> Batch:
    return jax.tree.map(jnp.asarray, batch)


def _rows(name: str, given: Any, shape: tuple[Any, ...], weight: np.ndarray) -> np.ndarray:
    """`given` in float64, 0 where it has no weight; UsageError for another shape and for what is not finite."""
    try:
        array = np.asarray(given, np.float64)
    except (TypeError, ValueError) as error:
        raise UsageError(f"{name} must be an array of numbers: {error}") from None
    if array.shape != shape:
        expected = "[" + ", ".join(map(str, shape)) + "]"
        raise UsageError(f"{name} must have shape {expected}, got {list(array.shape)}")
    array = np.where(weight > 0, array, 0.0)
    if not np.all(np.isfinite(array)):
        raise UsageError(f"{name}{np.argwhere(~np.isfinite(array))[0].tolist()} is not finite")
    return array
