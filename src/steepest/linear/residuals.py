"""How the true residual of conjugate gradients falls: ‖b − (M + λI)x_k‖ / ‖b‖ for k = 0 … K.

The recurrences are those of `ConjugateGradient`, with the same rules for stopping, after which x stays. Its own
residual is the one that it carries along, which in float32 goes on falling where the true one no longer does.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from steepest import trees
from steepest.linear.conjugate_gradient import ConjugateGradient
from steepest.linear.operators import Measured, Operator, Preconditioned


def residual_history(solver: ConjugateGradient, operator: Operator, rhs: Any) -> Float[Array, " K"]:
    """The true relative residual of what `solver` would give with k = 0 … K of its K iterations, [K + 1].

    solver: from x = 0, whether it is warm or not.  operator: M + λI, with its preconditioner if it brings one.
    rhs: b, a pytree.  Costs two products an iteration.

    0 everywhere for b = 0, ∞ for a b that is not finite.
    """
    vector, unravel = trees.ravel(rhs)
    size = trees.norm(vector)
    usable = jnp.isfinite(size) & (size > 0)
    b = trees.where(usable, trees.scale(1.0 / jnp.where(usable, size, 1.0), vector), trees.zeros_like(vector))
    eps = jnp.finfo(size.dtype).eps
    direction = operator.direction if isinstance(operator, Measured) else operator
    preconditioned = isinstance(direction, Preconditioned)
    multiply = trees.on_vectors(operator, unravel)
    solve = trees.on_vectors(direction.by.solve, unravel) if preconditioned else lambda r: r

    def advance(carry: tuple, _: None) -> tuple[tuple, Array]:
        x, r, p, rz, largest, running = carry
        product = multiply(p)
        pp, curvature = trees.dot(p, p), trees.dot(p, product)
        largest = jnp.maximum(largest, curvature / jnp.where(pp > 0, pp, 1.0))
        running = running & (curvature > eps * largest * pp)
        alpha = rz / jnp.where(running, curvature, 1.0)
        further, rest = trees.axpy(alpha, p, x), trees.axpy(-alpha, product, r)
        running = running & trees.all_finite((further, rest))
        x, r = trees.where(running, further, x), trees.where(running, rest, r)
        z = solve(r)
        new = trees.dot(r, z)
        p = trees.axpy(new / jnp.where(rz > 0, rz, 1.0), p, z)
        running = running & (trees.norm(r) > solver.tolerance) & (new > 0)
        return (x, r, p, new, largest, running), trees.norm(trees.subtract(b, multiply(x)))

    z = solve(b)
    carry = (trees.zeros_like(b), b, z, trees.dot(b, z), jnp.zeros_like(size), usable)
    _, later = jax.lax.scan(advance, carry, None, length=solver.iterations)
    history = jnp.concatenate([usable.astype(later.dtype)[None], later])
    return jnp.where(jnp.isfinite(size), history, jnp.inf)
