"""Block-diagonal operators whose blocks are Kronecker products, held by the eigenvectors of their factors.

    M = diag_l(A_l ⊗ G_l)        (A ⊗ G)W = AWG        [W; β], a layer's weight over its bias, as one matrix [in+1, out]

    A = U diag(a) Uᵀ,  G = V diag(g) Vᵀ:        (A ⊗ G + λI)⁻¹W = U [ UᵀWV / (a gᵀ + λ) ] Vᵀ

So the inverse is exact for every λ, without another factorisation: no splitting of λ between the factors (Martens &
Grosse 2015, section 6.3, add √λ to each) and no power of it lost.
"""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from steepest import trees


class Factor(eqx.Module):
    """A symmetric positive semi-definite matrix U diag(a) Uᵀ.  values: a ≥ 0, [n].  vectors: U, [n,n], columns."""

    values: Float[Array, " n"]
    vectors: Float[Array, "n n"]

    @property
    def kept(self) -> Float[Array, " n"]:
        """1 for the eigenvalues above rounding, 0 for the others."""
        cut = len(self.values) * jnp.finfo(self.values.dtype).eps * jnp.max(self.values)
        return (self.values > cut).astype(self.values.dtype)


def factor(matrix: Float[Array, "n n"]) -> Factor:
    """The eigendecomposition of a covariance, a sum of squares whose rounding below 0 is taken for 0.

    Where an eigenvalue is less than −√eps times the largest, or the matrix is not finite, the values are NaN, and so is
    every solve: as a Cholesky factorisation would have it.
    """
    values, vectors = jnp.linalg.eigh(matrix)
    rounding = jnp.sqrt(jnp.finfo(values.dtype).eps) * jnp.max(jnp.abs(values))
    good = jnp.all(values >= -rounding) & jnp.all(jnp.isfinite(values))
    return Factor(jnp.where(good, jnp.maximum(values, 0.0), jnp.nan), vectors)


class Block(eqx.Module):
    """A ⊗ G on the leaves of one layer.

    weight, bias: which leaves of the vectors, by number; None for what the layer has not.  A weight of shape [in,out],
    or [height,width,in,out], is a matrix of prod(all but the last) rows; the bias is one row more, the last.
    inputs: A, [rows].  outputs: G, [out].
    """

    weight: int | None = eqx.field(static=True)
    bias: int | None = eqx.field(static=True)
    inputs: Factor
    outputs: Factor

    def matrix_of(self, leaves: list[Any]) -> Float[Array, "rows out"]:
        """[W; β]."""
        width = len(self.outputs.values)
        return jnp.concatenate([jnp.reshape(leaves[n], (-1, width)) for n in self.leaves])

    def place(self, matrix: Float[Array, "rows out"], leaves: list[Any]) -> None:
        """Write [W; β] into the leaves that it came from."""
        start = 0
        for n in self.leaves:
            rows = leaves[n].size // matrix.shape[1]
            leaves[n] = matrix[start : start + rows].reshape(leaves[n].shape).astype(leaves[n].dtype)
            start += rows

    @property
    def leaves(self) -> list[int]:
        """The numbers of its leaves."""
        return [n for n in (self.weight, self.bias) if n is not None]

    def rotate(self, matrix: Float[Array, "rows out"]) -> Float[Array, "rows out"]:
        """UᵀWV."""
        return self.inputs.vectors.T @ matrix @ self.outputs.vectors

    def back(self, matrix: Float[Array, "rows out"]) -> Float[Array, "rows out"]:
        """UCVᵀ."""
        return self.inputs.vectors @ matrix @ self.outputs.vectors.T

    @property
    def spectrum(self) -> Float[Array, "rows out"]:
        """a gᵀ: the eigenvalues of A ⊗ G."""
        return self.inputs.values[:, None] * self.outputs.values


class KroneckerBlocks(eqx.Module):
    """diag_l(A_l ⊗ G_l) + λI.  blocks: each its own leaves; on a leaf that is in none of them M is 0."""

    blocks: tuple[Block, ...]
    damping: Any = 0.0

    def __call__(self, v: Any) -> Any:
        leaves, structure = jax.tree.flatten(v)
        product = [jnp.zeros_like(leaf) for leaf in leaves]
        for block in self.blocks:
            block.place(block.back(block.spectrum * block.rotate(block.matrix_of(leaves))), product)
        return trees.axpy(self.damping, v, jax.tree.unflatten(structure, product))

    def damped(self, damping: Any) -> KroneckerBlocks:
        return KroneckerBlocks(self.blocks, damping)

    def quadratic(self, v: Any) -> Float[Array, ""]:
        """Σ a_i g_j C_ij² + λ‖v‖²: never negative, however rounded."""
        leaves = jax.tree.leaves(v)
        forms = [jnp.sum(block.spectrum * block.rotate(block.matrix_of(leaves)) ** 2) for block in self.blocks]
        return sum(forms, self.damping * trees.dot(v, v))

    def matrix(self, like: Any) -> Float[Array, "P P"]:
        flat, unravel = trees.ravel(like)
        return jax.vmap(lambda e: trees.ravel(self(unravel(e)))[0])(jnp.eye(flat.size, dtype=flat.dtype)).T

    def solve(self, b: Any) -> Any:
        """(M + λI)⁻¹b; M⁺b where λ = 0, the rank decided in each factor. NaN where a factor is not a covariance."""
        leaves, structure = jax.tree.flatten(b)
        x = [_over(leaf, self.damping) for leaf in leaves]
        for block in self.blocks:
            kept = jnp.where(jnp.asarray(self.damping) > 0, 1.0, block.inputs.kept[:, None] * block.outputs.kept)
            whole = jnp.where(kept == 0, 1.0, block.spectrum + self.damping)
            rotated = block.rotate(block.matrix_of(leaves))
            block.place(block.back(kept * rotated / whole), x)
        return jax.tree.unflatten(structure, x)


def _over(x: Any, damping: Any) -> Array:
    """x/λ, 0 where λ = 0."""
    return jnp.where(damping > 0, x / jnp.where(damping > 0, damping, 1.0), 0.0).astype(x.dtype)
