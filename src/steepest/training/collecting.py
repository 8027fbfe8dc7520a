"""How an iteration gathers its data: a single path, or a vine upon it (Schulman et al. 2015, sections 5.1 and 5.2).

    single path    T steps of B environments
    vine           the same, the trunk, and branches from some of its states; every simulated step counts

Either is a way to `Collect`. When that is done is the business of `gathering.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import PRNGKeyArray

from steepest.batch import Rollout
from steepest.distributions import Policy
from steepest.errors import RunError, UsageError
from steepest.normaliser import Scaling
from steepest.parameters import merge, split
from steepest.sampling.acting import compile_actor, host_actor, normalise
from steepest.sampling.actor import Actor, Stoppable, finite
from steepest.sampling.episodes import Running, account
from steepest.sampling.fault_tally import FaultTally
from steepest.sampling.groups import Groups, Order
from steepest.sampling.rollout import Collector, empty
from steepest.sampling.standing import Standing
from steepest.sampling.vine import Vine
from steepest.sequences import initial_memory, is_recurrent
from steepest.spaces import Discrete, Masked, describe
from steepest.training.config import TrainConfig
from steepest.training.gathering import AtOnce, Collect, Gather, Gathered, WhenAsked
from steepest.worlds.faults import Fault
from steepest.worlds.settable import keepable, keeps, kept, settable
from steepest.worlds.world import World


class Account:
    """What is ordered for a single path, and what is made of the rollout that comes of it.

    actor: what acts.  envs: B.  It holds the episodes under way, and what begins them.
    """

    def __init__(self, actor: Actor, envs: int):
        self._actor, self._envs = actor, envs
        self._seed: int | None = None
        self._kept: dict[int, Any] | None = None
        self._running = Running.none(envs)

    def reset(self, seed: int, standing: Standing | None = None) -> None:
        """The next order begins with all episodes afresh, or as they stood."""
        self._seed, self._kept, self._running = seed, None, Running.none(self._envs)
        if standing is not None:
            self._running, self._kept = standing.running, standing.worlds()

    def order(self, params: Any, acted: Scaling | None, key: PRNGKeyArray) -> Order:
        """The next order; parameters as of `Collect`."""
        entropy = tuple(np.asarray(jax.random.key_data(key)).ravel().tolist())
        seed, kept, self._seed, self._kept = self._seed, self._kept, None, None
        return Order(self._actor.export(params, acted), entropy, seed, kept=kept)

    def gathered(
        self, rollout: Rollout, charged: bool, faults: list[Fault], worlds: Callable[[], dict[int, Any]] | None
    ) -> Gathered:
        """With the episodes that ended.  charged: a cost was reported.  worlds: as of a `Standing`, where they say."""
        rollout = rollout if charged else rollout._replace(cost=None)
        episodes, self._running = account(rollout, self._running)
        standing = None if worlds is None else Standing(self._running, worlds)
        return Gathered(rollout, episodes, None, 0, faults, standing)


class SinglePath:
    """worlds: to collect in, one for each group.  size, envs: as of `Groups`.  policy: of whose structure every θ is.
    steps: T.  faults: how many of the worlds' are borne with, where they can be.  keep: as of `Groups`."""

    def __init__(
        self, worlds: Sequence[World], size: int, envs: int, policy: Policy, steps: int, faults: int, *, keep: bool
    ):
        self._actor = actor = Stoppable(host_actor(policy, size))
        self._faults = FaultTally(faults)
        self._groups = Groups(dict(enumerate(worlds)), size, envs, actor, self._faults, keep=keep)
        self._account = Account(actor, envs)
        observation, action = worlds[0].observation_space, worlds[0].action_space
        width = initial_memory(policy).size if is_recurrent(policy) else None
        self._form = steps, envs, describe(observation, "observation"), describe(action, "action"), width

    def reset(self, seed: int, standing: Standing | None = None) -> None:
        """See `Collect`."""
        self._account.reset(seed, standing)

    def __call__(self, params: Any, acted: Scaling | None, key: PRNGKeyArray) -> Gathered:
        """See `Collect`."""
        rollout = empty(*self._form)
        charged = self._groups.collect(self._account.order(params, acted, key), rollout)
        states = self._groups.keep()
        worlds = None if states is None else lambda: states
        return self._account.gathered(rollout, charged, self._faults.take(), worlds)

    def stop(self) -> None:
        """See `Collect`."""
        self._actor.stop()


class VinePath:
    """world, policy, steps: as of `SinglePath`.  vine: how large.  every: the number of actions, where the K of a state
    are all there are; None where they are drawn.  keep: as of `Groups`.

    Raises UsageError for a world that cannot be put back into a state.
    """

    def __init__(self, world: World, policy: Policy, steps: int, vine: Vine, every: int | None, *, keep: bool):
        if is_recurrent(policy):
            raise UsageError("a vine's branches start from single states, and a policy with memory from none: leave "
                             "scheme at single-path")  # fmt: skip
        self._collector, self._act, self._steps = Collector(world), compile_actor(policy), steps
        self._world, self._vine, self._every = settable(world), vine, every
        self._first, self._follow = _compile(policy, vine.actions)
        self._keepable = keepable(world) if keep and keeps(world) else None
        self._stopped = False

    def reset(self, seed: int, standing: Standing | None = None) -> None:
        """See `Collect`."""
        self._collector.reset(seed)
        if standing is None:
            return
        if self._keepable is None:
            raise RunError(f"{self._world.name} cannot be put back to where a checkpoint says that it stood")
        self._keepable.put_back(standing.worlds().get(0))
        self._collector.running = standing.running

    def stop(self) -> None:
        """See `Collect`."""
        self._stopped = True

    def __call__(self, params: Any, acted: Scaling | None, key: PRNGKeyArray) -> Gathered:
        """See `Collect`."""
        vine, world = self._vine, self._world
        along, start, onward, host = jax.random.split(key, 4)
        rng = np.random.default_rng(np.asarray(jax.random.key_data(host)))

        def act(obs: np.ndarray, t: int) -> np.ndarray:
            self._go_on()
            return self._act(params, acted, obs, along, t)

        trunk = vine.trunk(world, self._collector, act, self._steps, rng)
        if self._every is None:
            obs = trunk.rollout.obs.reshape(-1, *trunk.rollout.obs.shape[2:])[trunk.row]
            first = finite(np.asarray(self._first(params, acted, obs, start)))
        else:
            first = np.tile(np.arange(self._every, dtype=np.int32), (vine.states, 1))

        def follow(obs: np.ndarray, seeds: np.ndarray, t: int) -> np.ndarray:
            self._go_on()
            return finite(np.asarray(self._follow(params, acted, obs, onward, seeds, np.int32(t))))

        seeds = rng.integers(2**32, size=vine.states, dtype=np.uint32)
        branches, steps = vine.branches(world, trunk, first, follow, seeds, exhaustive=self._every is not None)
        state = None if self._keepable is None else kept(self._keepable)
        standing = None if state is None else Standing(self._collector.running, lambda: {0: state})
        return Gathered(trunk.rollout, trunk.episodes, branches, steps, [], standing)

    def _go_on(self) -> None:
        if self._stopped:
            raise RunError("collecting was stopped")


def _compile(policy: Policy, width: int) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """(θ, scaling, obs [N,…], key) ↦ K actions of each [N,K,…], and (θ, scaling, obs [B,…], key, seeds [B], t) ↦
    actions [B,…] whose noise depends on key, seed and t alone."""
    _, rest = split(policy)

    def said(params: Any, scaling: Any, obs: Any) -> Any:
        return jax.vmap(merge(params, rest))(normalise(scaling, obs))

    @jax.jit
    def first(params: Any, scaling: Any, obs: Any, key: Any) -> Any:
        says = said(params, scaling, obs)
        keys = jax.random.split(key, (len(obs), width))
        return jax.vmap(lambda d, ks: jax.vmap(d.sample)(ks))(says, keys)

    @jax.jit
    def follow(params: Any, scaling: Any, obs: Any, key: Any, seeds: Any, t: Any) -> Any:
        says = said(params, scaling, obs)
        now = jax.random.fold_in(key, t)
        return jax.vmap(lambda d, seed: d.sample(jax.random.fold_in(now, seed)))(says, seeds)

    return first, follow


def build_gather(
    config: TrainConfig, worlds: Sequence[World], policy: Policy, *, shared: bool, keep: bool = False
) -> Gather:
    """What the scheme of a settled configuration means in these worlds, in this process.

    worlds: one for each group.  shared: the world is also evaluated in, or the user's: nothing is done in it that was
    not asked for just then.  keep: as of `Groups`.

    Raises UsageError where a vine is wanted in a world that cannot be put back into a state.
    """
    collect = build_collect(config, worlds, policy, keep=keep)
    return WhenAsked(collect) if shared else AtOnce(collect)


def build_collect(config: TrainConfig, worlds: Sequence[World], policy: Policy, *, keep: bool = False) -> Collect:
    """How the data of one update is collected. Raises UsageError as `build_gather` does."""
    steps, gamma = config.sampling.rollout, config.sampling.gamma
    assert steps is not None
    assert gamma is not None
    if config.sampling.scheme == "single-path":
        envs = sum(world.envs for world in worlds)
        return SinglePath(worlds, worlds[0].envs, envs, policy, steps, config.sampling.faults, keep=keep)
    states, width, length = config.vine.states, config.vine.actions, config.vine.length
    assert states is not None
    assert width is not None
    assert length is not None
    (world,) = worlds
    action = describe(world.action_space, "action")
    masked = isinstance(describe(world.observation_space, "observation"), Masked)  # then not every action is allowed
    every = action.n if isinstance(action, Discrete) and action.n == width and not masked else None
    return VinePath(world, policy, steps, Vine(states, width, length, gamma), every, keep=keep)
