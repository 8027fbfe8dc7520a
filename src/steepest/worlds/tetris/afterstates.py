"""Policies that judge a placement by the board that it leads to, the afterstate, with features φ of `Tetris`.

AfterstateSoftmax   π(a|s) ∝ exp θᵀφ_sa over the legal placements
AfterstateGreedy    argmax_a lines_sa + wᵀφ_sa: one step of lookahead in the value wᵀφ
"""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from steepest.distributions import Categorical
from steepest.errors import UsageError
from steepest.parameters import Frozen, frozen
from steepest.trees import AnyArray
from steepest.worlds.tetris.game import Board, Tetris


class AfterstateSoftmax(eqx.Module):
    """theta: θ, [P].  world: whose features.  scale: s, [P], frozen, 1 if not given: the units of φ.

    Raises UsageError for shapes that do not fit.  Source: Kakade, A Natural Policy Gradient (2001), section 5.
    """

    theta: Float[AnyArray, " P"]
    world: Tetris = eqx.field(static=True)
    scale: Frozen[Float[AnyArray, " P"]]

    def __init__(self, theta: Any, world: Tetris, scale: Any = None):
        self.theta = jnp.asarray(theta, jnp.float32)
        self.world = world
        self.scale = frozen(jnp.ones(world.features) if scale is None else jnp.asarray(scale, jnp.float32))
        for name, array in (("theta", self.theta), ("scale", self.scale.value)):
            if array.shape != (world.features,):
                raise UsageError(f"{name} must have shape [{world.features}], got {list(array.shape)}")

    def __call__(self, board: Board) -> Categorical:
        options = self.world.placements(board)
        preference = self.world.afterstate_features(options.columns) @ (self.scale.value * self.theta)
        return Categorical(_legal(options.legal, preference))


class AfterstateGreedy(eqx.Module):
    """weights: w, [P], in lines.  world: whose features.  The first of equals."""

    weights: Float[AnyArray, " P"]
    world: Tetris = eqx.field(static=True)

    def __call__(self, board: Board) -> Categorical:
        options = self.world.placements(board)
        value = options.lines + self.world.afterstate_features(options.columns) @ self.weights
        best = jnp.argmax(_legal(options.legal, value))
        return Categorical(jnp.where(jnp.arange(self.world.actions) == best, 0.0, -jnp.inf))


def _legal(legal: Any, preference: Array) -> Array:
    """−∞ where a placement is not legal. A board whose game is over has none and no distribution: it is not NaN, so
    that a row of weight 0 stays without a trace."""
    return jnp.where(legal | ~jnp.any(legal), preference, -jnp.inf)
