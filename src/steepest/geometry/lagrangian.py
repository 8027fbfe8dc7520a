"""The Lagrangian: a cost beside the objective, with a price that rises while the limit is exceeded.

    (L − ν·L_C)/(1 + ν)            I ← max(0, I + x)       ν = max(0, k_I·I + k_P·x + k_D·max(0, x − x_before))

x is the excess c of the batch's cost, in spreads. With k_I alone this is dual ascent on the Lagrangian; the other terms
damp the oscillation that it is known for (Stooke, Achiam & Abbeel 2020, PID Lagrangian).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from steepest.batch import Batch
from steepest.distributions import Distribution
from steepest.errors import UsageError
from steepest.geometry.constrained import cost_batch
from steepest.geometry.divergences import weighted
from steepest.geometry.local import Local
from steepest.geometry.moment import Moment
from steepest.geometry.objectives import Gradient, Objective, expected_advantage


class Price(NamedTuple):
    """What a `Lagrangian` carries. integral: I.  before: the last x.  reward, cost: the spreads of the first batch that
    has any, √Σ w v A²; 0 before it."""

    integral: Float[Array, ""]
    before: Float[Array, ""]
    reward: Float[Array, ""]
    cost: Float[Array, ""]


@dataclass(frozen=True)
class Lagrangian:
    """An objective less the price of its cost, (L − ν·L_C)/(1 + ν), for a batch with a `Cost`.

    objective: L and, with the cost's advantages, L_C.
    integral, proportional, derivative: the gains k_I, k_P, k_D. The excess is measured in spreads of the cost's
        advantages and ν in spreads of the reward's per spread of the cost's, both of the first batch: they are the same
        for every unit of either.
    multiplier, excess: ν, raw reward units per unit of cost, and c, within an update; not to be set.

    Reports `multiplier` and `cost_excess` among an update's details. Raises UsageError for gains that are negative, or
    all 0, and for a batch without costs. Where the excess is not finite, ν stays.
    """

    objective: Objective = expected_advantage
    integral: float = 0.5
    proportional: float = 5.0
    derivative: float = 0.0
    multiplier: Any = None
    excess: Any = None

    def __post_init__(self) -> None:
        gains = {"integral": self.integral, "proportional": self.proportional, "derivative": self.derivative}
        for name, gain in gains.items():
            if not (gain >= 0 and math.isfinite(gain)):
                raise UsageError(f"Lagrangian needs a finite {name} ≥ 0, got {gain}")
        if not any(gains.values()):
            raise UsageError("Lagrangian needs a gain > 0: with none its price stays 0")

    needs_cost = True

    def init(self, params: Any) -> Price:
        """No price yet."""
        zero = jnp.zeros(())
        return Price(zero, zero, zero, zero)

    def begin(self, carried: Price, moment: Moment) -> tuple[Lagrangian, Price]:
        """The price of this update."""
        batch = moment.batch
        rows = cost_batch(batch, "the Lagrangian")
        assert batch.cost is not None
        excess = jnp.asarray(batch.cost.excess)
        known = carried.cost > 0
        reward = jnp.where(known, carried.reward, _spread(batch))
        cost = jnp.where(known, carried.cost, _spread(rows))
        usable = (cost > 0) & jnp.isfinite(excess)
        x = jnp.where(usable, excess / jnp.where(cost > 0, cost, 1.0), 0.0)
        total = jnp.maximum(0.0, carried.integral + x)
        rising = jnp.maximum(0.0, x - carried.before)
        price = jnp.maximum(0.0, self.integral * total + self.proportional * x + self.derivative * rising)
        multiplier = price * reward / jnp.where(cost > 0, cost, 1.0)
        before = jnp.where(usable, x, carried.before)
        after = Price(*(new.astype(old.dtype) for new, old in zip((total, before, reward, cost), carried, strict=True)))
        return replace(self, multiplier=multiplier, excess=excess), after

    @property
    def details(self) -> dict[str, Array]:
        """Scalars that this update reports."""
        return {"multiplier": self.multiplier, "cost_excess": self.excess}

    def gradient(self, local: Local, batch: Batch) -> Gradient:
        return self.objective.gradient(local, self._priced(batch))

    def gain(self, old: Distribution, new: Distribution, batch: Batch) -> Float[Array, ""]:
        return self.objective.gain(old, new, self._priced(batch))

    def _priced(self, batch: Batch) -> Batch:
        """The batch with (A − νA_C)/(1 + ν) as its advantage."""
        if self.multiplier is None:
            raise UsageError("the Lagrangian finds its price when an update begins: call begin first")
        costs = cost_batch(batch, "the Lagrangian").advantage
        return batch._replace(advantage=(batch.advantage - self.multiplier * costs) / (1.0 + self.multiplier))


def _spread(batch: Batch) -> Array:
    """√Σ w v A²: 0 where it is not finite."""
    weight = jnp.asarray(batch.weight[:, None] * batch.action_weight)
    spread = jnp.sqrt(jnp.sum(weighted(weight, jnp.where(weight > 0, batch.advantage, 0.0) ** 2)))
    return jnp.where(jnp.isfinite(spread), spread, 0.0)
