"""θ is the policy's inexact arrays, less those wrapped in `frozen`; here policies split into θ and the rest.

    params, rest = split(policy)        policy = merge(params, rest)

A policy is any pytree that can be called with one observation and returns a distribution.
"""

from __future__ import annotations

from typing import Any, Generic, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp

T = TypeVar("T")


class Frozen(eqx.Module, Generic[T]):
    """Holds a subtree that is part of the policy but not of θ. Read it with `.value`."""

    inner: T

    @property
    def value(self) -> T:
        """The subtree, with no gradient through it."""
        return jax.tree.map(lambda x: jax.lax.stop_gradient(x) if eqx.is_inexact_array(x) else x, self.inner)


def frozen(value: T) -> Frozen[T]:
    """Keep the arrays in `value` out of θ: `self.table = st.frozen(table)`, and `self.table.value` where it is used."""
    return Frozen(value)


def split(policy: Any) -> tuple[Any, Any]:
    """(θ, rest): a pytree with None in place of what is not trainable, and its complement."""

    spec = jax.tree.map(
        lambda node: not isinstance(node, Frozen) and eqx.is_inexact_array(node),
        policy,
        is_leaf=lambda node: isinstance(node, Frozen),
    )
    return eqx.partition(policy, spec)


def merge(params: Any, rest: Any) -> Any:
    """The policy again, from the two halves of `split`."""
    return eqx.combine(params, rest)


def cast(policy: T, dtype: Any) -> T:
    """The policy with every inexact array, trainable or frozen, in `dtype`."""
    return jax.tree.map(lambda x: jnp.asarray(x, dtype) if eqx.is_inexact_array(x) else x, policy)
