"""A step that gets shorter as training goes on: δ, or a learning rate, by the number of updates.

    δ_k = δ·s(min(k/K, 1))        s = 1 − (1 − f)u (linear)  or  fᵘ (exponential)        k = 0, 1, …

Update 0 takes the step as it was given, update K and all after it the fraction f of it. The number of updates is part
of the algorithm's state: a run that goes on from a checkpoint goes on with its schedule, and nothing is compiled again.
Among the habits whose effect Engstrom et al. 2020 and Andrychowicz et al. 2021 measured.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from steepest.errors import UsageError
from steepest.geometry.moment import Moment, begun, initial
from steepest.geometry.steps import Step, Taken, Trial
from steepest.linear import Operator, Solution

Shape = Callable[[Any, float], Any]
"""(progress u in [0,1], last fraction f) ↦ s(u), 1 at u = 0 and f at u = 1."""


def linear(progress: Any, to: float) -> Any:
    """1 − (1 − f)u."""
    return 1.0 - (1.0 - to) * progress


def exponential(progress: Any, to: float) -> Any:
    """fᵘ: the same factor at every update."""
    return to**progress


@dataclass(frozen=True)
class Decaying:
    """`step` with its δ, or its learning rate where it has no δ, scaled by s(u).

    step: one that has a field `delta` or `learning_rate`: `Normalised(0.01)`, `TrustRegion(0.01)`, `Fixed(0.1)`.
    over: K ≥ 1, the updates after which the last length is reached.
    to: f > 0, the last length as a fraction of the first.
    shape: `linear` or `exponential`, or a function of your own; within an update it is traced by JAX.

    Raises UsageError for a step that has neither field, and for settings out of their range.
    """

    step: Step
    over: int
    to: float = 0.1
    shape: Shape = linear

    def __post_init__(self) -> None:
        _scaled_field(self.step)
        if self.over < 1:
            raise UsageError(f"Decaying needs over ≥ 1 updates, got {self.over}")
        if not 0 < self.to < math.inf:
            raise UsageError(f"Decaying needs a finite fraction to > 0, got {self.to}")

    def init(self, params: Any) -> Any:
        """What `step` carries."""
        return initial(self.step, params)

    def begin(self, carried: Any, moment: Moment) -> tuple[Step, Any]:
        """`step` of this update."""
        dtype = jax.tree.leaves(moment.local.params)[0].dtype
        name = _scaled_field(self.step)
        length = self.fraction(moment.updates.astype(dtype)) * getattr(self.step, name)
        step: Any = self.step
        return begun(dataclasses.replace(step, **{name: length}), carried, moment)

    def fraction(self, updates: Any) -> Float[Array, ""]:
        """s(min(k/K, 1)).  updates: k, a number or a scalar of the dtype wanted."""
        return jnp.asarray(self.shape(jnp.minimum(updates / self.over, 1.0), self.to))

    def __call__(self, params: Any, gradient: Any, solution: Solution, metric: Operator, trial: Trial) -> Taken:
        raise UsageError("Decaying is another step in each update: an update calls begin first")


def _scaled_field(step: Any) -> str:
    """Which of `delta` and `learning_rate` says how far `step` goes: the first that it has and that is set."""
    for name in ("delta", "learning_rate"):
        if dataclasses.is_dataclass(step) and getattr(step, name, None) is not None:
            return name
    raise UsageError(f"Decaying scales a step's delta or learning_rate, and this has neither: {step!r}")
