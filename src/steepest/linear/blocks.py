"""Operators that do not couple the rows of θ, as the Fisher matrix of a table of logits: one small solve a row.

    M = diag(M_1, …, M_S),  M_s [A,A]            M·(e_a in every row) = column a of every block

So A products give all S blocks, and x_s = (M_s + λI)⁻¹b_s, or M_s⁺b_s where λ = 0, costs O(S·A³) and O(S·A²) memory:
no iterations, no P×P matrix. The rank is decided in each block on its own, so that a row which hardly matters is solved
as well as the others. With M_s = d_s(diag p − ppᵀ), the Fisher matrix of a softmax table, and b_s = d_s·p∘A_s, x_s is
A_s up to a constant.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from steepest import trees
from steepest.errors import UsageError
from steepest.linear.direct import checked, cholesky_solve, pseudo_solve, undamped
from steepest.linear.operators import Operator
from steepest.linear.solution import Solution, Status


@dataclass(frozen=True)
class Blocks:
    """Solve (M + λI)x = b exactly, for a b that is one array [S,…] and an M that does not couple its rows.

    With λ = 0 (a Python number) x is the solution of least norm, M⁺b; with any other λ, Cholesky. After A products for
    the blocks, A the size of a row, one more shows whether M is what they say: where Mx is farther from the blocks'
    own product than tolerance·‖b‖, x is 0, the status STRUCTURE, the residual that of the x found, and a step keeps θ.

    tolerance: relative.

    Raises UsageError, naming conjugate gradients instead, where θ is not one array of two axes or more.
    """

    tolerance: float = 1e-4

    def __post_init__(self) -> None:
        if not self.tolerance > 0:
            raise UsageError(f"Blocks needs tolerance > 0, got {self.tolerance}")

    def __call__(self, operator: Operator, rhs: Any, dual: Array | None = None) -> Solution:
        leaves, structure = jax.tree.flatten(rhs)
        if len(leaves) != 1 or leaves[0].ndim < 2:
            shapes = ", ".join(str(list(leaf.shape)) for leaf in leaves) or "none"
            raise UsageError(
                f"Blocks solves for one array of two axes or more, such as logits [S,A], got arrays of shape {shapes}; "
                "use ConjugateGradient"
            )
        b = leaves[0].reshape(len(leaves[0]), -1)

        def product(v: Float[Array, "S A"]) -> Float[Array, "S A"]:
            given = jax.tree.unflatten(structure, [v.reshape(leaves[0].shape)])
            return jax.tree.leaves(operator(given))[0].reshape(b.shape)

        blocks = rows_of(product, b)
        solve = pseudo_solve if undamped(operator) else cholesky_solve
        x = jax.vmap(solve)(blocks, b)
        solution = checked(operator, rhs, jax.tree.unflatten(structure, [x.reshape(leaves[0].shape)]))
        apart = trees.norm(product(x) - jnp.einsum("sij,sj->si", blocks, x))
        coupled = (solution.status == Status.CONVERGED) & ~(apart <= self.tolerance * trees.norm(b))
        return Solution(
            trees.where(coupled, trees.zeros_like(solution.x), solution.x),
            jnp.where(coupled, Status.STRUCTURE, solution.status).astype(jnp.int32),
            solution.residual,
            jnp.asarray(b.shape[1], jnp.int32),
        )


def rows_of(product: Any, like: Float[Array, "S A"]) -> Float[Array, "S A A"]:
    """The diagonal blocks of an operator on [S,A] that has no others, by A products."""

    def column(a: Array) -> Float[Array, "S A"]:
        return product(jnp.zeros_like(like).at[:, a].set(1.0))

    return jnp.moveaxis(jax.lax.map(column, jnp.arange(like.shape[1])), 0, -1)
