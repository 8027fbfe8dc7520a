"""A rollout of functional worlds as part of a program: T steps of B copies in one scan, nothing of which leaves it.

It is what `Collector` does with worlds on the host: the same `Rollout`, time-major, and the episodes that ended.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float, Int, PRNGKeyArray

from steepest.batch import Rollout
from steepest.worlds.functional.copies import Copies, Stand, first_stand

ActAt = Callable[[Any, PRNGKeyArray], Any]
"""(obs [B,…], key) ↦ action [B,…], unclipped."""


class Underway(NamedTuple):
    """The copies, and their episodes so far.  returns: [B].  costs: [B], or None where none are reported."""

    stand: Stand
    returns: Float[Array, " B"]
    costs: Float[Array, " B"] | None


class Ends(NamedTuple):
    """The episodes that ended, by the row in which they did; elsewhere the numbers mean nothing.

    ended: [T,B].  returns: [T,B] undiscounted sum of raw rewards.  lengths: [T,B] steps.  costs: [T,B], or None.
    """

    ended: Bool[Array, "T B"]
    returns: Float[Array, "T B"]
    lengths: Int[Array, "T B"]
    costs: Float[Array, "T B"] | None


def begin(copies: Copies, tables: Any, key: PRNGKeyArray, envs: int) -> Underway:
    """`envs` new episodes."""
    zero = jnp.zeros(envs, jnp.float32)
    return Underway(first_stand(copies, tables, key, envs), zero, zero if copies.reports_cost else None)


def unroll(
    copies: Copies, tables: Any, act: ActAt, underway: Underway, key: PRNGKeyArray, steps: int
) -> tuple[Underway, Rollout, Ends]:
    """The next `steps` steps, under `act`.  key: of the actions; the copies have their own."""

    def step(underway: Underway, t: Array) -> tuple[Underway, tuple[Any, ...]]:
        obs = underway.stand.obs
        # one draw for all copies: their actions are independent, and a key for each would cost more than the numbers
        action = act(obs, jax.random.fold_in(key, t))
        stand, outcome = copies.step(tables, underway.stand, action)
        done = outcome.terminated | outcome.truncated
        returns = underway.returns + outcome.reward
        costs = None if outcome.cost is None or underway.costs is None else underway.costs + outcome.cost
        kept = Underway(stand, jnp.where(done, 0.0, returns), None if costs is None else jnp.where(done, 0.0, costs))
        return kept, (obs, action, outcome, returns, underway.stand.clock + 1, costs)

    underway, columns = jax.lax.scan(step, underway, jnp.arange(steps))
    obs, action, (reward, next_obs, terminated, truncated, cost), returns, lengths, costs = columns
    valid = jnp.ones(terminated.shape, bool)
    rollout = Rollout(obs, action, reward, next_obs, terminated, truncated, valid, cost)
    return underway, rollout, Ends(terminated | truncated, returns, lengths, costs)
