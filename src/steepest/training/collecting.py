"""How an iteration gathers its data: a single path, or a vine upon it (Schulman et al. 2015, sections 5.1 and 5.2).

    single path    T steps of B environments
    vine           the same, the trunk, and branches from some of its states; every simulated step counts

The loop holds one of the two and does not know which.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np
from jaxtyping import PRNGKeyArray

from steepest.agent import compile_actor, finite, normalise
from steepest.batch import Rollout
from steepest.distributions import Policy
from steepest.normaliser import Scaling
from steepest.parameters import merge, split
from steepest.sampling.rollout import Collector, Episode
from steepest.sampling.vine import Branches, Vine
from steepest.spaces import Discrete, describe
from steepest.training.config import TrainConfig
from steepest.worlds.settable import SettableWorld, settable
from steepest.worlds.world import World


class Gathered(NamedTuple):
    """rollout: the single path, or the trunk.  episodes: that ended in it.  branches: of a vine.  branch_steps: what
    they cost, in simulator steps."""

    rollout: Rollout
    episodes: list[Episode]
    branches: Branches | None
    branch_steps: int

    @property
    def steps(self) -> int:
        """Simulator steps in all, without ghost rows."""
        return int(self.rollout.valid.sum()) + self.branch_steps


class Gather(Protocol):
    """Data for one update."""

    def __call__(self, collector: Collector, params: Any, acted: Scaling | None, key: PRNGKeyArray) -> Gathered:
        """params: θ.  acted: the observation statistics.  key: of everything random but the environments' own."""
        ...


class SinglePath:
    """policy: of whose structure every θ is.  steps: T."""

    def __init__(self, policy: Policy, steps: int):
        self._act, self._steps = compile_actor(policy), steps

    def __call__(self, collector: Collector, params: Any, acted: Scaling | None, key: PRNGKeyArray) -> Gathered:
        rollout, episodes = collector.collect(lambda obs, t: self._act(params, acted, obs, key, t), self._steps)
        return Gathered(rollout, episodes, None, 0)


class VinePath:
    """policy, steps: as of `SinglePath`.  world: the collector's, settable.  vine: how large.  every: the number of
    actions, where the K of a state are all there are; None where they are drawn."""

    def __init__(self, policy: Policy, steps: int, world: SettableWorld, vine: Vine, every: int | None):
        self._act, self._steps = compile_actor(policy), steps
        self._world, self._vine, self._every = world, vine, every
        self._first, self._follow = _compile(policy, vine.actions)

    def __call__(self, collector: Collector, params: Any, acted: Scaling | None, key: PRNGKeyArray) -> Gathered:
        vine, world = self._vine, self._world
        along, start, onward, host = jax.random.split(key, 4)
        rng = np.random.default_rng(np.asarray(jax.random.key_data(host)))
        trunk = vine.trunk(world, collector, lambda obs, t: self._act(params, acted, obs, along, t), self._steps, rng)
        if self._every is None:
            obs = trunk.rollout.obs.reshape(-1, *trunk.rollout.obs.shape[2:])[trunk.row]
            first = finite(np.asarray(self._first(params, acted, obs, start)))
        else:
            first = np.tile(np.arange(self._every, dtype=np.int32), (vine.states, 1))

        def follow(obs: np.ndarray, seeds: np.ndarray, t: int) -> np.ndarray:
            return finite(np.asarray(self._follow(params, acted, obs, onward, seeds, np.int32(t))))

        seeds = rng.integers(2**32, size=vine.states, dtype=np.uint32)
        branches, steps = vine.branches(world, trunk, first, follow, seeds, exhaustive=self._every is not None)
        return Gathered(trunk.rollout, trunk.episodes, branches, steps)


def _compile(policy: Policy, width: int) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """(θ, scaling, obs [N,…], key) ↦ K actions of each [N,K,…], and (θ, scaling, obs [B,…], key, seeds [B], t) ↦
    actions [B,…] whose noise depends on key, seed and t alone."""
    _, rest = split(policy)

    @jax.jit
    def first(params: Any, scaling: Any, obs: Any, key: Any) -> Any:
        says = jax.vmap(merge(params, rest))(normalise(scaling, obs))
        keys = jax.random.split(key, (len(obs), width))
        return jax.vmap(lambda d, ks: jax.vmap(d.sample)(ks))(says, keys)

    @jax.jit
    def follow(params: Any, scaling: Any, obs: Any, key: Any, seeds: Any, t: Any) -> Any:
        says = jax.vmap(merge(params, rest))(normalise(scaling, obs))
        now = jax.random.fold_in(key, t)
        return jax.vmap(lambda d, seed: d.sample(jax.random.fold_in(now, seed)))(says, seeds)

    return first, follow


def build_gather(config: TrainConfig, world: World, policy: Policy) -> Gather:
    """What the scheme of a resolved configuration means in this world.

    Raises UsageError where a vine is wanted in a world that cannot be put back into a state.
    """
    steps, gamma = config.sampling.rollout, config.sampling.gamma
    assert steps is not None
    assert gamma is not None
    if config.sampling.scheme == "single-path":
        return SinglePath(policy, steps)
    states, width, length = config.vine.states, config.vine.actions, config.vine.length
    assert states is not None
    assert width is not None
    assert length is not None
    action = describe(world.action_space, "action")
    every = action.n if isinstance(action, Discrete) and action.n == width else None
    return VinePath(policy, steps, settable(world), Vine(states, width, length, gamma), every)
