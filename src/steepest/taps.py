"""Taps: what passes through a layer that is linear in its parameters, its input x and the cotangent b of its output s.

    dense      s = xW + β                     ∂L/∂W = x bᵀ            ∂L/∂β = b
    conv       s_t = x_t W + β, x_t a patch   ∂L/∂W = Σ_t x_t b_tᵀ    ∂L/∂β = Σ_t b_t
    constant   s = β                          ∂L/∂β = b

A layer announces itself by passing its output through `tapped`, which is the identity unless somebody listens; who does
gets x of every layer, and adds a perturbation to every s, whose cotangent is b. So Kronecker factors and sample-space
products need no gradient per sample: nothing of size samples × parameters.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Literal

import jax.numpy as jnp
from jax import Array
from jax.extend.core import get_opaque_trace_state

from steepest.errors import UsageError

Kind = Literal["dense", "conv", "constant"]


@dataclass(frozen=True)
class Tap:
    """One layer, as a program sees it.

    kind: its equation, above.  weight, bias: which leaves of θ are W and β, by number; None for one it has not.
    shape: that of its output for one observation, the channels last.
    """

    kind: Kind
    weight: int | None
    bias: int | None
    shape: tuple[int, ...]


@dataclass
class Listener:
    """Hears the layers of one call.

    leaves: of θ, the very arrays that the layers hold.  perturbations: one for each layer, in the order of the calls,
    or None to learn what there is.
    taps, inputs: what was heard, in that order; the input of a constant is None, of a conv its patches [T, features].
    alone: the perturbations take the place of the outputs, so that nothing depends on the layers any more.
    within: the transformation that is being traced, in which all layers must be called; set by `listening`.
    """

    leaves: Sequence[Any]
    perturbations: Sequence[Array] | None = None
    taps: list[Tap] = field(default_factory=list)
    inputs: list[Any] = field(default_factory=list)
    alone: bool = False
    within: Any = None

    def hear(self, kind: Kind, weight: Any, bias: Any, x: Callable[[], Any] | None, s: Array) -> Array:
        """Note a layer, and perturb its output."""
        where = [None if leaf is None else self._number(leaf) for leaf in (weight, bias)]
        if any(n is None for n, leaf in zip(where, (weight, bias), strict=True) if leaf is not None):
            return s  # not θ itself: frozen, or computed from something else
        if self.within != get_opaque_trace_state(convention="flax"):
            raise UsageError(
                "a layer of this policy is called inside a vmap or a scan of the policy's own, where its input cannot "
                "be followed: use conjugate gradients, which need no layers"
            )
        self.taps.append(Tap(kind, where[0], where[1], s.shape))
        self.inputs.append(None if x is None else x())
        if self.perturbations is None:
            return s
        perturbation = self.perturbations[len(self.taps) - 1]
        return perturbation if self.alone else s + perturbation

    def _number(self, leaf: Any) -> int | None:
        return next((i for i, other in enumerate(self.leaves) if other is leaf), None)


_listener: ContextVar[Listener | None] = ContextVar("steepest_taps", default=None)


@contextmanager
def listening(listener: Listener) -> Iterator[Listener]:
    """Layers that are called in this context are heard."""
    listener.within = get_opaque_trace_state(convention="flax")
    token = _listener.set(listener)
    try:
        yield listener
    finally:
        _listener.reset(token)


def tapped(s: Array, kind: Kind, *, weight: Any = None, bias: Any = None, x: Callable[[], Any] | None = None) -> Array:
    """s, the output of a layer for one observation, heard by whoever listens.

    weight, bias: W and β, the arrays of the policy themselves.  x: () ↦ [in], or for a conv its patches [T,in], in the
    order of the positions of s; called only where somebody listens.
    """
    listener = _listener.get()
    return s if listener is None else listener.hear(kind, weight, bias, x, s)


def constant(value: Any) -> Array:
    """A parameter that is used as it is, such as a state-independent ln σ: a layer without input."""
    return tapped(jnp.asarray(value), "constant", bias=value)
