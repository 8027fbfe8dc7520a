"""The same policies in other coordinates: π_φ = π_{h(φ)}, with θ = h(φ) in the flat order of `ravel_pytree`.

    reparameterise(policy, A, b)          θ = Aφ + b
    reparameterise_by(policy, h, start)   θ = h(φ), any differentiable h

    ∇_φ = (∂h/∂φ)ᵀ ∇_θ          F_φ = (∂h/∂φ)ᵀ F_θ (∂h/∂φ)

The behaviour at the start is the same, and so are the natural steps from there; the gradient's are not. Nothing else in
the library knows of this: a reparameterised policy is one more module whose trainable array happens to be φ.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float

from steepest import trees
from steepest.distributions import Distribution
from steepest.errors import UsageError
from steepest.parameters import Frozen, frozen, merge, split
from steepest.trees import AnyArray

_SAME = 1e-6  # relative: what float32 keeps of θ


class Affine(eqx.Module):
    """φ ↦ Aφ + b.  matrix: A, [P, P'].  offset: b, [P]."""

    matrix: Float[AnyArray, "P Q"]
    offset: Float[AnyArray, " P"]

    def __call__(self, phi: Float[AnyArray, " Q"]) -> Float[Array, " P"]:
        return jnp.asarray(self.matrix) @ phi + self.offset


class Reparameterised(eqx.Module):
    """obs ↦ π_{h(φ)}(·|obs).  Made by `reparameterise` and `reparameterise_by`.

    phi: φ, [P'], all that is trained.
    map: h, φ [P'] ↦ θ [P]; frozen.
    policy: the policy in θ, frozen: its structure and whatever is not θ; the value of its own θ is not read.

    An attribute that is not here is that of the policy in θ: `reparameterised.logits` is a table of logits.
    """

    phi: Float[AnyArray, " Q"]
    map: Frozen[Callable[[Any], Any]]
    policy: Frozen[Any]

    def __call__(self, obs: Any) -> Distribution:
        return self.in_theta()(obs)

    def in_theta(self) -> Any:
        """The policy that it is, in the coordinates θ = h(φ): of the class that was reparameterised."""
        params, rest = split(self.policy.value)
        like, unravel = trees.ravel(jax.tree.map(jnp.asarray, params))
        return merge(unravel(jnp.asarray(self.map.value(self.phi)).astype(like.dtype)), rest)

    def __getattr__(self, name: str) -> Any:
        # What looks at a policy's tables, to see whether they fit a world, must see these as well.
        if name.startswith("_") or name in ("phi", "map", "policy"):
            raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")
        return getattr(self.in_theta(), name)


def reparameterise(policy: Any, matrix: Any, offset: Any = None) -> Reparameterised:
    """The policy in φ, with θ = Aφ + b, its behaviour unchanged: φ starts at A⁻¹(θ − b).

    policy: any policy, with P trainable entries.
    matrix: A, [P, P'], in the flat order of `ravel_pytree`. P' = P is a change of coordinates. With P' < P the policies
        are those of a subspace, in which θ − b must lie; with P' > P coordinates are redundant, and φ starts at the
        least norm.
    offset: b, [P]; 0 if None.

    Returns a policy whose θ is φ [P']. Raises UsageError for shapes that do not fit, NaN, an A of less than full rank
    in float64, and a θ that Aφ + b cannot reach.
    Source: Kakade & Brantley, Natural Policy Gradient, lecture of CS 6789.
    """
    theta = _theta(policy)
    a = _numbers("matrix", matrix)
    b = np.zeros(theta.size) if offset is None else _numbers("offset", offset)
    if a.ndim != 2 or a.shape[0] != theta.size or a.shape[1] < 1:
        raise UsageError(f"matrix must have shape [P, P'] with P = {theta.size}, as θ has; got {list(a.shape)}")
    if b.shape != theta.shape:
        raise UsageError(f"offset must have shape {[theta.size]}, as θ has; got {list(b.shape)}")
    u, sigma, vt = np.linalg.svd(a, full_matrices=False)
    if sigma[-1] <= sigma[0] * max(a.shape) * np.finfo(np.float64).eps:
        raise UsageError(
            f"matrix must have full rank {sigma.size}; its singular values go from {sigma[0]:.3g} to {sigma[-1]:.3g}, "
            "which is singular in float64"
        )
    phi = vt.T @ ((u.T @ (theta - b)) / sigma)
    _require_same(a @ phi + b, theta, "the policy's θ is not in the range of Aφ + b")
    return Reparameterised(phi.astype(_dtype(policy)), frozen(Affine(a, b)), frozen(policy))


def reparameterise_by(policy: Any, map: Any, start: Any) -> Reparameterised:
    """The policy in φ, with θ = h(φ) for any differentiable h, its behaviour unchanged.

    policy: any policy, with P trainable entries.
    map: h, φ [P'] ↦ θ [P] in the flat order of `ravel_pytree`, in JAX; arrays in it are frozen.
    start: φ, [P'], with h(φ) = θ: the inverse of h, if it has one, at the policy's θ.

    Returns a policy whose θ is φ [P']. Raises UsageError for an h that is not callable or gives no [P], NaN, and a
    start that is another policy.
    """
    if not callable(map):
        raise UsageError(f"map must be a function φ ↦ θ, got {type(map).__name__}")
    theta, phi = _theta(policy), _numbers("start", start)
    if phi.ndim != 1 or phi.size < 1:
        raise UsageError(f"start must have shape [P'], got {list(phi.shape)}")
    with jax.enable_x64(True):
        reached = np.asarray(map(jnp.asarray(phi)))
    if reached.shape != theta.shape:
        raise UsageError(f"map must give shape {[theta.size]}, as θ has; from start it gives {list(reached.shape)}")
    _require_same(reached, theta, "map(start) is not the policy's θ")
    return Reparameterised(phi.astype(_dtype(policy)), frozen(map), frozen(policy))


def _theta(policy: Any) -> np.ndarray:
    """θ [P] in NumPy float64: `ravel_pytree` would round it outside 64-bit mode. Its order is the same."""
    leaves = jax.tree.leaves(split(policy)[0])
    if not leaves:
        raise UsageError("the policy has no trainable parameters: there is nothing to reparameterise")
    return np.concatenate([np.ravel(np.asarray(leaf, np.float64)) for leaf in leaves])


def _dtype(policy: Any) -> Any:
    return np.result_type(*(leaf.dtype for leaf in jax.tree.leaves(split(policy)[0])))


def _numbers(name: str, given: Any) -> np.ndarray:
    """A float64 copy; UsageError for what is no array of finite real numbers."""
    try:
        if np.asarray(given).dtype.kind not in "biuf":
            raise TypeError(f"entries of type {np.asarray(given).dtype}")
        array = np.array(given, np.float64)
    except (TypeError, ValueError) as error:
        raise UsageError(f"{name} must be an array of real numbers: {error}") from error
    if not np.all(np.isfinite(array)):
        index = [int(i) for i in np.argwhere(~np.isfinite(array))[0]]
        raise UsageError(f"{name}{index} is {array[tuple(index)]}; expected a finite number")
    return array


def _require_same(reached: np.ndarray, theta: np.ndarray, complaint: str) -> None:
    """UsageError at the first entry that is not θ's."""
    gap = np.abs(reached - theta)
    wrong = ~(gap <= _SAME * max(1.0, float(np.max(np.abs(theta)))))
    if np.any(wrong):
        index = int(np.argwhere(wrong)[0, 0])
        raise UsageError(f"{complaint}: entry {index} is {reached[index]:.6g}, expected {theta[index]:.6g}")
