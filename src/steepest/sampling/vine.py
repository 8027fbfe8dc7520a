"""Vine (Schulman et al. 2015, section 5.2): from states of a trunk, several actions each and a short rollout from each.

    trunk          T steps of B environments under π_old; N of their states are the rollout set
    branches       K actions in each: a_n1 … a_nK, then π_old for L − 1 more steps
    Q̂_nk = Σ_{i<ℓ} γⁱ r_i + γ^ℓ V(s_ℓ)         V = 0 where terminated; ℓ ≤ L, less where the episode ended

The K branches of a state see the same random numbers, the environment's and the policy's, so that Q̂_nk − Q̂_nj varies
less than each of them; those of different states do not. Every step that is simulated is counted, the trunk's and the
branches': a branch that ended is not stepped.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Bool, Float

from steepest.batch import Batch, Rollout
from steepest.errors import UsageError
from steepest.sampling.rollout import Act, Collector, Episode
from steepest.worlds.settable import SettableWorld

Branch = Callable[[np.ndarray, np.ndarray, int], np.ndarray]
"""(obs [B,…], seeds [B], t ≥ 1) ↦ action [B,…] of π_old, t the step of the branch; equal seeds, equal noise."""


class Trunk(NamedTuple):
    """What a vine grows from.

    rollout, episodes: as of a single path.
    row: [N] the rollout set, as t·B + b of the rollout; drawn without favour from its valid rows.
    valid: [N] False where the rollout had fewer valid rows than N.
    states: [N] snapshots of the world there.
    """

    rollout: Rollout
    episodes: list[Episode]
    row: np.ndarray
    valid: np.ndarray
    states: list[Any]


class Branches(NamedTuple):
    """N states with K actions each and what followed them, in raw units, on the host.

    row: [N] the states, as rows of the trunk.
    obs: [N,…]; action: [N,K,…], unclipped.
    reward: [N,K] Σ_{i<ℓ} γⁱ r_i.
    discount: [N,K] γ^ℓ, 0 where the last state has no value.
    last_obs: [N,K,…] s_ℓ.
    valid: [N] False for a masked row.
    exhaustive: the K actions are all there are, each once; else they were drawn from π_old.
    """

    row: Any
    obs: Any
    action: Any
    reward: Any
    discount: Any
    last_obs: Any
    valid: Any
    exhaustive: bool


@dataclass(frozen=True)
class Vine:
    """How large: states N in the rollout set, actions K ≥ 2 in each, branches of `length` L ≥ 1 steps, discount gamma.

    Raises UsageError for numbers that make no vine.
    """

    states: int
    actions: int
    length: int
    gamma: float

    def __post_init__(self) -> None:
        for name, least, why in (
            ("states", 1, ""),
            ("actions", 2, ": one action a state has nothing to be compared with"),
            ("length", 1, ": its first step is the action itself"),
        ):
            if getattr(self, name) < least:
                raise UsageError(f"vine.{name} must be at least {least}, got {getattr(self, name)}{why}")
        if not 0 <= self.gamma <= 1:
            raise UsageError(f"gamma must be in [0, 1], got {self.gamma}")

    def trunk(
        self, world: SettableWorld, collector: Collector, act: Act, steps: int, rng: np.random.Generator
    ) -> Trunk:
        """`steps` more steps of the collector's world, and the rollout set.

        world: the collector's, as `settable` gave it.  act: as in `Collector.collect`.  rng: draws the rollout set.

        Raises UsageError if N is more than the rows of the trunk.
        """
        rows = steps * world.envs
        check_rollout_set(self.states, rows)
        spare = 2 * self.states  # some rows turn out to be ghosts
        drawn = rng.permutation(rows)[:spare]
        snapshots: dict[int, Any] = {}

        def recording(obs: np.ndarray, t: int) -> np.ndarray:
            here = drawn[drawn // world.envs == t]
            snapshots.update(zip(here.tolist(), world.get_state((here % world.envs).tolist()), strict=True))
            return act(obs, t)

        rollout, episodes = collector.collect(recording, steps)
        found = drawn[rollout.valid.ravel()[drawn]][: self.states]
        row = np.concatenate([found, drawn[: self.states - len(found)]])
        valid = np.arange(self.states) < len(found)
        return Trunk(rollout, episodes, row.astype(np.int32), valid, [snapshots[r] for r in row.tolist()])

    def branches(
        self,
        world: SettableWorld,
        trunk: Trunk,
        first: np.ndarray,
        act: Branch,
        seeds: Sequence[int] | np.ndarray,
        *,
        exhaustive: bool,
    ) -> tuple[Branches, int]:
        """The branches of a trunk, in the trunk's own environments, which stand where they stood afterwards.

        first: [N,K,…] the actions to compare.  act: π_old.  seeds: [N] in [0, 2³²), of the random numbers that the K
        branches of a state share, or [N,K].  exhaustive: as in `Branches`.

        Returns the branches and the number of steps that were simulated.
        """
        count, width = first.shape[:2]
        if (count, width) != (self.states, self.actions):
            raise UsageError(f"expected {self.states} states with {self.actions} actions, got {count} with {width}")
        seeds = np.asarray(seeds)
        seeds = np.broadcast_to(seeds[:, None] if seeds.ndim == 1 else seeds, (count, width))
        before = world.get_state()
        grown, steps = _grow(self, world, trunk, first, act, seeds)
        world.set_state(before)
        reward, discount, last_obs = (x.reshape(count, width, *x.shape[1:]) for x in grown)
        obs = trunk.rollout.obs.reshape(-1, *trunk.rollout.obs.shape[2:])[trunk.row]
        return Branches(trunk.row, obs, first, reward, discount, last_obs, trunk.valid, exhaustive), steps


def check_rollout_set(states: int, rows: int) -> None:
    """Raise UsageError for a rollout set of more states than the trunk has rows."""
    if states > rows:
        raise UsageError(f"vine.states must be at most the {rows} rows of the trunk, got {states}")


def _grow(
    vine: Vine, world: SettableWorld, trunk: Trunk, first: np.ndarray, act: Branch, seeds: np.ndarray
) -> tuple[tuple[np.ndarray, np.ndarray, np.ndarray], int]:
    """Sums of rewards, discounts and last observations [N·K], `world.envs` branches at a time; and the steps."""
    total, envs = seeds.size, world.envs
    actions, seeds = first.reshape(total, *first.shape[2:]), seeds.ravel()
    reward, discount = np.zeros(total, np.float64), np.zeros(total, np.float64)
    last_obs = np.zeros((total, *world.obs.shape[1:]), world.obs.dtype)
    steps = 0
    for begin in range(0, total, envs):
        branch = np.minimum(np.arange(begin, begin + envs), total - 1)
        state = branch // first.shape[1]
        running = trunk.valid[state] & (np.arange(begin, begin + envs) < total)
        world.set_state([trunk.states[n] for n in state], seeds[branch])
        for t in range(vine.length):
            if not running.any():
                break
            action = act(world.obs, seeds[branch], t) if t else actions[branch]
            transition = world.advance(action, running)
            rows = branch[running]
            reward[rows] += vine.gamma**t * transition.reward[running]
            discount[rows] = np.where(transition.terminated[running], 0.0, vine.gamma ** (t + 1))
            last_obs[rows] = transition.next_obs[running]
            steps += int(running.sum())
            running &= ~(transition.terminated | transition.truncated)
    return (reward.astype(np.float32), discount.astype(np.float32), last_obs), steps


def action_values(branches: Branches, value: Float[Any, "N K"] | float = 0.0) -> Float[Any, "N K"]:
    """Q̂ [N,K], raw reward units.  value: V(last_obs), or 0: the branches then count for all that there is."""
    return branches.reward + branches.discount * value


def batch_from_branches(
    obs: Any,
    action: Any,
    action_weight: Float[Any, "N K"],
    q: Float[Any, "N K"],
    valid: Bool[Any, " N"],
    *,
    exhaustive: bool,
) -> Batch:
    """The Batch of a vine: N rows with K actions each, every state a path of its own.

    obs: [N,…] as the policy takes it.  action: [N,K,…].  q: Q̂ [N,K].  valid: [N].
    action_weight: v [N,K]; π_old(a|s) where exhaustive, else 1/K.
    exhaustive: the baseline is Σ_a π_old Q̂, else the mean of the *other* actions' Q̂. Neither biases the gradient.
    """
    valid, v = jnp.asarray(valid), jnp.asarray(action_weight)
    q = jnp.where(valid[:, None], q, 0.0)
    centred = q - jnp.sum(v * q, axis=1, keepdims=True)
    advantage = centred if exhaustive else centred / (1.0 - v)
    weight = valid.astype(advantage.dtype)
    return Batch(
        obs=obs,
        weight=weight / jnp.maximum(jnp.sum(weight), 1.0),
        action=action,
        action_weight=v,
        advantage=advantage,
        segment=jnp.arange(len(weight), dtype=jnp.int32),
    )


def along_trunk(vine: Batch, row: Any, trunk: Batch, every: Any = None) -> Batch:
    """The same surrogate with every state of the trunk in the metric and the KL: the rollout set alone has advantages.

    vine: N rows with K actions.  row: [N] where they lie in `trunk`.  trunk: the batch of the trunk, one action a row.
    every: (action [M,K,…], action_weight [M,K]) of all rows of the trunk where the actions are enumerated; else the
        trunk's own action stands there K times.

    L is Σ_n (1/N) L_n as before: a row of the rollout set has its advantage times w_vine/w_trunk, another 0.
    """
    rows, width = len(trunk.weight), vine.action.shape[1]
    shape = (rows, width, *trunk.action.shape[2:])
    action, v = every or (jnp.broadcast_to(trunk.action, shape), jnp.full((rows, width), 1.0 / width))
    own = jnp.asarray(trunk.weight)[row]
    scale = jnp.where(vine.weight > 0, vine.weight / jnp.where(own > 0, own, 1.0), 0.0)
    at = jnp.where(vine.weight > 0, row, rows)  # a masked row is written nowhere
    return trunk._replace(
        action=jnp.asarray(action).at[at].set(vine.action, mode="drop"),
        action_weight=jnp.asarray(v).at[at].set(vine.action_weight, mode="drop"),
        advantage=_zeros(rows, width, vine.advantage).at[at].set(scale[:, None] * vine.advantage, mode="drop"),
        segment=jnp.arange(rows, dtype=jnp.int32),
    )


def _zeros(rows: int, width: int, like: Array) -> Array:
    return jnp.zeros((rows, width), like.dtype)
