"""Whole episodes in functional worlds as one program: the same numbers as a step at a time on the host."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpy.typing import NDArray

from steepest.agent import Agent
from steepest.errors import RunError
from steepest.normaliser import Scaling
from steepest.sampling.acting import actions, actions_remembering
from steepest.sampling.rows import memories
from steepest.spaces import Masked, choices, forbids_all
from steepest.worlds.functional.copies import Copies, Stand
from steepest.worlds.functional.world import FunctionalWorld

_STRETCH = 1000
"""Steps between two looks at `stop`."""


class _Played(NamedTuple):
    """So far.  step: how many.  running: [B], returns of the episodes under way.  ended: [B], how many of the copy's
    were counted.  returns: [B,Q] of those.  fine: everything was finite.  memory: (that before the step [B,M], where
    new episodes begin [B]) of a policy that remembers."""

    step: Array
    stand: Stand
    running: Array
    ended: Array
    returns: Array
    fine: Array
    memory: tuple[Array, Array] | None = None


def play_functional(
    agent: Agent,
    world: FunctionalWorld,
    quota: NDArray[np.int64],
    seed: int,
    deterministic: bool,
    stop: Callable[[], bool],
) -> NDArray[np.float64]:
    """The returns of the first quota[b] episodes of each copy, in the order of the copies; fewer once `stop` is true.

    Raises RunError where an action, an observation or a reward is not finite.
    """
    world.reset(seed)
    zero = jnp.zeros(world.envs, jnp.int32)
    returns = jnp.zeros((world.envs, int(quota.max())), jnp.float32)
    step, fine = jnp.zeros((), jnp.int32), jnp.ones((), bool)
    remembered = memories(agent.policy, world.envs)
    memory = None if remembered is None else (remembered, jnp.zeros(world.envs, bool))
    played = _Played(step, world.stand, jnp.zeros(world.envs), zero, returns, fine, memory)
    scaling = None if agent.normaliser is None else agent.normaliser.scaling()
    key, limits, copies = jax.random.key(seed), jnp.asarray(quota, jnp.int32), world.copies
    while (np.asarray(played.ended) < quota).any() and not stop():
        played = _play(copies, copies.tables, agent.policy, scaling, played, limits, key, deterministic)
        if not played.fine:
            what = "an action, an observation or a reward of the evaluation is not finite"
            masked = isinstance(copies.observation, Masked)
            raise RunError(f"{world.name}: {what}{', or a mask forbids everything' if masked else ''}")
    ended, values = np.asarray(played.ended), np.asarray(played.returns, np.float64)
    return np.concatenate([row[:n] for row, n in zip(values, ended, strict=True)])


@eqx.filter_jit
def _play(
    copies: Copies,
    tables: Any,
    policy: Any,
    scaling: Scaling | None,
    played: _Played,
    quota: Array,
    key: Any,
    deterministic: bool,
) -> _Played:
    last = played.step + _STRETCH

    def goes_on(played: _Played) -> Array:
        return jnp.any(played.ended < quota) & (played.step < last) & played.fine

    def go_on(played: _Played) -> _Played:
        how = policy, scaling, played.stand.obs, key, played.step, deterministic
        memory = played.memory
        if memory is None:
            action = actions(*how)
        else:
            action, after = actions_remembering(*how, *memory)
            memory = after.astype(memory[0].dtype), memory[1]
        stand, outcome = copies.step(tables, played.stand, action)
        running = played.running + outcome.reward
        done = outcome.terminated | outcome.truncated
        counted = done & (played.ended < quota)
        rows = jnp.arange(len(quota))
        at = jnp.where(counted, played.ended, played.returns.shape[1])  # what is not counted is written nowhere
        returns = played.returns.at[rows, at].set(running, mode="drop")
        fine = jnp.stack([jnp.all(jnp.isfinite(x)) for x in (action, outcome.next_obs, outcome.reward)]).all()
        fine = fine & _allows(copies, played.stand.obs)
        memory = None if memory is None else (memory[0], done)
        now, ended = jnp.where(done, 0.0, running), played.ended + counted
        return _Played(played.step + 1, stand, now, ended, returns, fine, memory)

    return jax.lax.while_loop(goes_on, go_on, played)


def _allows(copies: Copies, obs: Any) -> Array | bool:
    """Whether something can be chosen everywhere."""
    if not isinstance(copies.observation, Masked):
        return True
    return ~jnp.any(forbids_all(copies.observation.form.split(obs)[1], choices(copies.action)))
