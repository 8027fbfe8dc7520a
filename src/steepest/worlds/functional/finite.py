"""Finite MDPs as functional worlds: the tables that the exact methods use, drawn from by inversion.

P(s'|s,a) is drawn as the number of cumulative probabilities that a uniform number reaches.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import PRNGKeyArray

from steepest.worlds.finite.model import FiniteHorizonMDP
from steepest.worlds.finite.sampled import cumulative


class MDPTables(NamedTuple):
    """successors: cumulative P, [(H,)S,A,S].  reward: [(H,)S,A].  starts: cumulative ρ, [S]. float32."""

    successors: Any
    reward: Any
    starts: Any


class FunctionalMDP:
    """One copy of a finite MDP; the observation is the state's index, and the state is (s, h).

    Step H returns terminated: the end of the horizon is part of the world, no cut.
    """

    def __init__(self, mdp: FiniteHorizonMDP, name: str = "mdp"):
        from gymnasium.spaces import Discrete

        self.mdp, self.name = mdp, name
        self.observation_space, self.action_space = Discrete(mdp.states), Discrete(mdp.actions)
        tables = cumulative(mdp.transition), mdp.reward, cumulative(mdp.initial)
        self.default_params = MDPTables(*(np.asarray(table, np.float32) for table in tables))

    def reset(self, key: PRNGKeyArray, params: MDPTables) -> tuple[Array, tuple[Array, Array]]:
        """s ~ ρ, h = 0."""
        state = _invert(params.starts, key)
        return state, (state, jnp.zeros((), jnp.int32))

    def step(
        self, key: PRNGKeyArray, state: tuple[Array, Array], action: Array, params: MDPTables
    ) -> tuple[Array, tuple[Array, Array], Array, Array, Array, dict[str, Any]]:
        """s' ~ P_h(·|s,a), and r_h(s,a)."""
        here, h = state
        reward = _at(params.reward, h, 2)[here, action]
        successor = _invert(_at(params.successors, h, 3)[here, action], key)
        ended = h + 1 >= self.mdp.horizon
        return successor, (successor, h + 1), reward, ended, jnp.zeros((), bool), {}


def _invert(cumulative: Array, key: PRNGKeyArray) -> Array:
    return jnp.sum(jax.random.uniform(key) >= cumulative, dtype=jnp.int32)


def _at(table: Array, h: Array, axes: int) -> Array:
    """The table of step h, where it depends on time."""
    return table[h] if table.ndim == axes + 1 else table
