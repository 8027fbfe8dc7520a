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

Draw = Callable[[PRNGKeyArray], Any]
"""key ↦ what acting takes of it."""

ActAt = Callable[..., Any]
"""(obs [B,…], drawn) ↦ action [B,…], unclipped; (obs, drawn, memory [B,M]) ↦ (action, memory) of one that remembers."""


class Underway(NamedTuple):
    """The copies, and their episodes so far.  returns: [B].  costs: [B], or None where none are reported.  memory:
    [B,M] what the policy remembers of them, or None."""

    stand: Stand
    returns: Float[Array, " B"]
    costs: Float[Array, " B"] | None
    memory: Float[Array, "B M"] | None = None


class Ends(NamedTuple):
    """The episodes that ended, by the row in which they did; elsewhere the numbers mean nothing.

    ended: [T,B].  returns: [T,B] undiscounted sum of raw rewards.  lengths: [T,B] steps.  costs: [T,B], or None.
    """

    ended: Bool[Array, "T B"]
    returns: Float[Array, "T B"]
    lengths: Int[Array, "T B"]
    costs: Float[Array, "T B"] | None


def begin(copies: Copies, tables: Any, key: PRNGKeyArray, envs: int, memory: Any = None) -> Underway:
    """`envs` new episodes.  memory: [M] before an episode, of a policy that remembers."""
    zero = jnp.zeros(envs, jnp.float32)
    costs = zero if copies.reports_cost else None
    remembered = None if memory is None else jnp.tile(memory, (envs, 1))
    return Underway(first_stand(copies, tables, key, envs), zero, costs, remembered)


def unroll(
    copies: Copies,
    tables: Any,
    act: ActAt,
    underway: Underway,
    key: PRNGKeyArray,
    steps: int,
    draw: Draw = lambda key: key,
    memory: Any = None,
) -> tuple[Underway, Rollout, Ends]:
    """The next `steps` steps, under `act`.  key: of the actions; the copies have their own.  draw: of the key of each
    step what `act` is given; the key itself, if not said.  memory: as of `begin`."""

    def step(underway: Underway, drawn: Any) -> tuple[Underway, tuple[Any, ...]]:
        obs = underway.stand.obs
        remembered = underway.memory
        if remembered is None:
            action = act(obs, drawn)
        else:
            action, after = act(obs, drawn, remembered)
            remembered = after.astype(remembered.dtype)
        stand, outcome = copies.step(tables, underway.stand, action)
        done = outcome.terminated | outcome.truncated
        returns = underway.returns + outcome.reward
        costs = None if outcome.cost is None or underway.costs is None else underway.costs + outcome.cost
        running, charged = jnp.where(done, 0.0, returns), None if costs is None else jnp.where(done, 0.0, costs)
        remembered = None if remembered is None else jnp.where(done[:, None], memory, remembered)
        kept = Underway(stand, running, charged, remembered)
        return kept, (obs, action, outcome, returns, underway.stand.clock + 1, costs)

    # One draw for all copies, since their actions are independent and a key for each would cost more than the numbers;
    # and for all steps at once, since a step's own would cost as much as all else in it.
    drawn = jax.vmap(lambda t: draw(jax.random.fold_in(key, t)))(jnp.arange(steps))
    before = underway.memory
    underway, columns = jax.lax.scan(step, underway, drawn)
    obs, action, (reward, next_obs, terminated, truncated, cost), returns, lengths, costs = columns
    valid = jnp.ones(terminated.shape, bool)
    rollout = Rollout(obs, action, reward, next_obs, terminated, truncated, valid, cost, before)
    return underway, rollout, Ends(terminated | truncated, returns, lengths, costs)
