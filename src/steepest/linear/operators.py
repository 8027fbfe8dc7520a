"""Symmetric positive semi-definite operators on pytrees, M + λI with M either SᵀS, a matrix, or the identity.

`Gram` never holds M: it has S and Sᵀ as functions, and everything dense is built from products, a few columns at a
time. Vectors are pytrees of one structure; rows (where S maps to) are arrays of any shape.

Two pairs say more than one operator can: `Measured`, one form for the direction of a step and another for its length;
`Preconditioned`, an operator and a cheap inverse that resembles its own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from steepest import trees

_COLUMNS_AT_A_TIME = 64


@runtime_checkable
class Operator(Protocol):
    """M + λI, symmetric positive semi-definite."""

    @property
    def damping(self) -> Any:
        """λ ≥ 0."""
        ...

    def __call__(self, v: Any) -> Any:
        """(M + λI)·v."""
        ...

    def damped(self, damping: Any) -> Operator:
        """The same M with another λ."""
        ...

    def quadratic(self, v: Any) -> Float[Array, ""]:
        """vᵀ(M + λI)v."""
        ...

    def matrix(self, like: Any) -> Float[Array, "P P"]:
        """M + λI, dense, in the flat order of `ravel_pytree(like)`."""
        ...


@runtime_checkable
class Invertible(Operator, Protocol):
    """An operator that is cheap to invert: diagonal, or of Kronecker factors."""

    def damped(self, damping: Any) -> Invertible:
        """The same M with another λ."""
        ...

    def solve(self, b: Any) -> Any:
        """(M + λI)⁻¹·b, finite where λ > 0."""
        ...


class Identity(eqx.Module):
    """I: Euclidean geometry."""

    damping: Any = 0.0

    def __call__(self, v: Any) -> Any:
        return trees.scale(1.0 + self.damping, v)

    def damped(self, damping: Any) -> Identity:
        return Identity(damping)

    def quadratic(self, v: Any) -> Float[Array, ""]:
        return (1.0 + self.damping) * trees.dot(v, v)

    def matrix(self, like: Any) -> Float[Array, "P P"]:
        flat, _ = trees.ravel(like)
        return (1.0 + self.damping) * jnp.eye(flat.size, dtype=flat.dtype)


class Dense(eqx.Module):
    """A symmetric matrix [P, P], in the flat order of the vectors that it multiplies."""

    entries: Float[Array, "P P"]
    damping: Any = 0.0

    def __call__(self, v: Any) -> Any:
        flat, unravel = trees.ravel(v)
        return unravel(self.entries @ flat + self.damping * flat)

    def damped(self, damping: Any) -> Dense:
        return Dense(self.entries, damping)

    def quadratic(self, v: Any) -> Float[Array, ""]:
        return trees.dot(v, self(v))

    def matrix(self, like: Any) -> Float[Array, "P P"]:
        return self.entries + self.damping * jnp.eye(self.entries.shape[0], dtype=self.entries.dtype)


class Diagonal(eqx.Module):
    """diag(d) + λI.  entries: d ≥ 0, a pytree like the vectors that it multiplies."""

    entries: Any
    damping: Any = 0.0

    def __call__(self, v: Any) -> Any:
        return jax.tree.map(lambda d, x: ((d + self.damping) * x).astype(x.dtype), self.entries, v)

    def damped(self, damping: Any) -> Diagonal:
        return Diagonal(self.entries, damping)

    def quadratic(self, v: Any) -> Float[Array, ""]:
        return trees.dot(v, self(v))

    def matrix(self, like: Any) -> Float[Array, "P P"]:
        flat, _ = trees.ravel(self.entries)
        return jnp.diag(flat + self.damping)

    def solve(self, b: Any) -> Any:
        """b/(d + λ), 0 where d + λ = 0."""

        def divide(d: Array, x: Array) -> Array:
            whole = d + self.damping
            return jnp.where(whole > 0, x / jnp.where(whole > 0, whole, 1.0), 0.0).astype(x.dtype)

        return jax.tree.map(divide, self.entries, b)


class Gram(eqx.Module):
    """SᵀS + λI.  forward: v ↦ S·v, an array of rows of any shape;  transpose: y ↦ Sᵀ·y, its exact transpose.

    products: () ↦ SSᵀ [R,R] where that can be had for less than R products with M, else None: by those.
    """

    forward: Callable[[Any], Array]
    transpose: Callable[[Array], Any]
    damping: Any = 0.0
    products: Callable[[], Array | None] | None = None

    def __call__(self, v: Any) -> Any:
        return trees.axpy(self.damping, v, self.transpose(self.forward(v)))

    def damped(self, damping: Any) -> Gram:
        return Gram(self.forward, self.transpose, damping, self.products)

    def quadratic(self, v: Any) -> Float[Array, ""]:
        """‖Sv‖² + λ‖v‖²: never negative, however rounded."""
        y = self.forward(v)
        return jnp.vdot(y, y) + self.damping * trees.dot(v, v)

    def factor(self, like: Any) -> Float[Array, "R P"]:
        """S, dense: of size rows × parameters, for the pseudo-inverse alone."""
        flat, unravel = trees.ravel(like)
        return _columns(lambda e: self.forward(unravel(e)).ravel(), flat.size, flat.dtype).T

    def matrix(self, like: Any) -> Float[Array, "P P"]:
        flat, unravel = trees.ravel(like)
        return _columns(lambda e: trees.ravel(self(unravel(e)))[0], flat.size, flat.dtype)

    def kernel(self, like: Any) -> Float[Array, "R R"]:
        """SSᵀ + λI in sample space, R rows, flattened."""
        kernel = None if self.products is None else self.products()
        if kernel is not None:
            return kernel.at[jnp.diag_indices(len(kernel))].add(self.damping)
        row = jax.eval_shape(self.forward, like)

        def column(e: Array) -> Array:
            return self.forward(self.transpose(e.reshape(row.shape))).ravel() + self.damping * e

        return _columns(column, row.size, row.dtype)

    def rows(self, like: Any) -> int:
        """R, the number of rows of S."""
        return jax.eval_shape(self.forward, like).size


class Measured(eqx.Module):
    """M + λI for the direction of a step, and another form of the same mean for its length.

    direction: M + λI.  length: what `quadratic` is taken of, with the same λ.

    A direction M̂⁻¹g is longest where M̂ happens to be smallest: an M̂ of few samples, or an approximation, would measure
    it far too short, and a step of δ could realise a hundred times δ.
    """

    direction: Operator
    length: Operator

    @property
    def damping(self) -> Any:
        """λ ≥ 0."""
        return self.direction.damping

    def __call__(self, v: Any) -> Any:
        return self.direction(v)

    def damped(self, damping: Any) -> Measured:
        return Measured(self.direction.damped(damping), self.length.damped(damping))

    def quadratic(self, v: Any) -> Float[Array, ""]:
        return self.length.quadratic(v)

    def matrix(self, like: Any) -> Float[Array, "P P"]:
        return self.direction.matrix(like)


class Preconditioned(eqx.Module):
    """M + λI with N + λI beside it, which resembles it and is cheap to invert.

    operator: M + λI.  by: N + λI; its `solve` is what conjugate gradients are preconditioned by.
    """

    operator: Operator
    by: Invertible

    @property
    def damping(self) -> Any:
        """λ ≥ 0."""
        return self.operator.damping

    def __call__(self, v: Any) -> Any:
        return self.operator(v)

    def damped(self, damping: Any) -> Preconditioned:
        return Preconditioned(self.operator.damped(damping), self.by.damped(damping))

    def quadratic(self, v: Any) -> Float[Array, ""]:
        return self.operator.quadratic(v)

    def matrix(self, like: Any) -> Float[Array, "P P"]:
        return self.operator.matrix(like)


def _columns(function: Callable[[Array], Array], size: int, dtype: Any) -> Array:
    """f(e_0), f(e_1), … stacked on the first axis, computed a few at a time to bound the memory."""

    def one(i: Array) -> Array:
        return function(jnp.zeros(size, dtype).at[i].set(1))

    return jax.lax.map(one, jnp.arange(size), batch_size=min(size, _COLUMNS_AT_A_TIME))
