"""float64 inside, NumPy float64 outside, and no global switch: the border of the exact methods.

A float64 JAX array that leaves `jax.enable_x64` becomes float32 in the next operation, without a word. A NumPy array
does not: so nothing but NumPy crosses the border outwards, and the policy is cast when it crosses it inwards.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from steepest import parameters

P = ParamSpec("P")
T = TypeVar("T")


def exact(function: Callable[P, T]) -> Callable[P, T]:
    """Run `function` in 64-bit mode; its arrays come out as NumPy, inexact ones float64, scalars as NumPy scalars."""

    @functools.wraps(function)
    def inside(*args: P.args, **kwargs: P.kwargs) -> T:
        with jax.enable_x64(True):
            return jax.tree.map(_outwards, function(*args, **kwargs))

    return inside


def inwards(policy: T) -> T:
    """The policy with its inexact leaves in float64. Call it inside `exact`, before anything is differentiated."""
    return parameters.cast(policy, jnp.float64)


def _outwards(leaf: Any) -> Any:
    if not eqx.is_array(leaf):
        return leaf
    return np.asarray(leaf, np.float64 if eqx.is_inexact_array(leaf) else None)[()]
