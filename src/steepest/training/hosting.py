"""Where the environments of a run are stepped: in this process, or by workers; the numbers are the same.

    groups     of SamplingConfig.group environments; the results depend on it
    workers    own whole groups; the results do not depend on how many there are, so that a rule may look at the clock

A world that exists already, one with a vine upon it, and one that is not Gymnasium's is one group, in this process.
Nothing here imports JAX: the workers start while it is being imported.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import numpy as np

from steepest.errors import RunError, UsageError
from steepest.processors import processors
from steepest.sampling.fault_tally import FaultTally
from steepest.sampling.groups import count
from steepest.sampling.rollout import layout
from steepest.sampling.workers import Workers, packed, packed_by_name, possible
from steepest.spaces import Box, Masked, Space, brief, choices, describe
from steepest.training.config import TrainConfig
from steepest.training.presets import GROUP, resolve
from steepest.worlds import Adapted, is_made, make_world
from steepest.worlds.functional.protocol import is_functional_world
from steepest.worlds.pettingzoo import check_whole
from steepest.worlds.remaking import remake
from steepest.worlds.settable import at_rest
from steepest.worlds.world import World

_WORTH = 5.0
"""Seconds of simulation, of the whole run on one core, from which on workers repay their start."""


Placed = tuple[TrainConfig, World, Workers | None]
"""What `place` gives."""


def place(stack: ExitStack, config: TrainConfig, env: Any, policy: Any = None, *, allow_import: bool = True) -> Placed:
    """The configuration with nothing left open, a world (of one environment, where there are groups of them), and the
    workers, which begin to start; all closed at the end.

    env: as of `make_world`.  policy: the user's, or None.  allow_import: False for an id that was read from a file.

    Raises UsageError for a world, groups or workers that there cannot be.
    """
    first = config.sampling.envs if is_made(env) else None
    world = open_world(stack, env, first, allow_import=allow_import)
    config = _with_mask(config, world) if config.policy.mask else config
    _check_mask_left_out(config, world)
    _check_distribution(config, world)
    if shown(config, env) is not env:
        env = shown(config, env)
        world = open_world(stack, env, first, allow_import=allow_import)
    made, functional = is_made(env), is_functional_world(world)
    observation, action = describe(world.observation_space, "observation"), describe(world.action_space, "action")
    own = policy is not None and remembered(config, observation, policy) is not None
    made_envs, agents = world.envs if made else None, getattr(world, "agents", 1)
    config = resolve(config, action, made_envs, functional, observation, remembers=own, agents=agents)
    config = settle(config, env, world, policy)
    if world.envs != config.sampling.envs and not in_groups(config, env, world):
        world.close()
        world = open_world(stack, env, config.sampling.envs)
    workers = start_workers(config, env, world, policy)
    if workers is not None:
        stack.callback(workers.close)
    return config, world, workers


def _with_mask(config: TrainConfig, world: World) -> TrainConfig:
    """With what `auto` means in this world. Raises UsageError for a mask that it does not have."""
    from steepest.worlds.masks import offers_masks

    offered = offers_masks(world)
    if config.policy.mask is True and not offered:
        raise UsageError(
            f"{world.name} says of no action whether it is allowed: policy.mask needs a method action_masks(), or "
            'info["action_mask"] at every reset and step; leave mask at false'
        )
    return dataclasses.replace(config, policy=dataclasses.replace(config.policy, mask=offered))


def _check_mask_left_out(config: TrainConfig, world: World) -> None:
    """Raise UsageError where agents observe their masks, as PettingZoo's do, and the policy would not heed them."""
    spaces, chosen = getattr(world.observation_space, "spaces", {}), choices(describe(world.action_space, "action"))
    if hasattr(world, "agents") and not config.policy.mask and chosen and "action_mask" in spaces:
        raise UsageError(
            f"the observations of {world.name} hold an action_mask, which a policy without masks would not heed: add "
            "--policy.mask auto"
        )


def _check_distribution(config: TrainConfig, world: World) -> None:
    """Raise UsageError where the policy's settings are of boxes and there is none."""
    given, action = config.policy, describe(world.action_space, "action")
    name = "state_dependent_std" if given.state_dependent_std else f"distribution={given.distribution}"
    if (given.distribution, given.state_dependent_std) == ("gaussian", False):
        return
    if not isinstance(action, Box) and not np.isinf(action.counts).any():
        raise UsageError(f"policy.{name} says nothing of the actions {brief(action)} of {world.name}: leave it out")


def shown(config: TrainConfig, env: Any) -> Any:
    """What the world of a resolved configuration is made of.  env: as the user gave it."""
    masks, squashed = config.policy.mask is True, config.policy.distribution != "gaussian"
    return Adapted(env, masks, squashed) if masks or squashed else env


def open_world(stack: ExitStack, env: Any, envs: int | None, *, allow_import: bool = True) -> World:
    """A world that is closed at the end, unless the user made it."""
    if is_made(env):
        return make_world(env, envs)
    world = make_world(env, envs, allow_import=allow_import)
    stack.callback(world.close)
    return world


def in_groups(config: TrainConfig, env: Any, world: World) -> bool:
    """Whether the environments of a run are made in groups."""
    grouped = world.backend in ("gymnasium", "pettingzoo")
    return config.sampling.scheme == "single-path" and grouped and not is_made(env)


def settle(config: TrainConfig, env: Any, world: World, policy: Any = None) -> TrainConfig:
    """A resolved configuration with its groups and workers.

    env, policy: what the user gave.  world: made of env; stepped, where a rule must know how long it takes.

    Raises UsageError for groups and workers that there cannot be.
    """
    envs, group, workers = config.sampling.envs, config.sampling.group, config.sampling.workers
    assert envs is not None
    if not in_groups(config, env, world):
        _refuse(config, env, world)
        group, workers = envs, 0
    else:
        agents = getattr(world, "agents", 1)
        check_whole(world.name, agents, envs)
        group = min(-(-GROUP // agents) * agents if group is None else group, envs)
        if group % agents:
            raise UsageError(
                f"group={group}: a group has whole environments, of {agents} agents each: take a multiple of {agents}"
            )
        groups = count(envs, group)
        if workers is None:
            workers = _workers(config, world, groups) if _can_be_sent(env, policy) else 0
        if workers > groups:
            raise UsageError(
                f"workers must be at most {groups}, as many as {envs} environments make groups of {group}, got "
                f"{workers}: take more environments, or smaller groups"
            )
        if workers and not possible():
            raise UsageError("workers need a POSIX system and a Python interpreter to start: use workers=0")
    return dataclasses.replace(config, sampling=dataclasses.replace(config.sampling, group=group, workers=workers))


def _refuse(config: TrainConfig, env: Any, world: World) -> None:
    """Raise UsageError where groups or workers were asked for that this run cannot have."""
    sampling = config.sampling
    why = f"the backend {world.backend!r} steps all of its environments together"
    if is_made(env):
        why = f"{world.name} is made already: give its id, or a function that makes one"
    elif sampling.scheme == "vine":
        why = "a vine's branches start from all environments of the rollout: use a single path"
    if sampling.workers:
        raise UsageError(f"workers={sampling.workers}: {why}; or leave workers at 0")
    if sampling.group not in (None, sampling.envs):
        raise UsageError(f"group={sampling.group}: {why}; or leave group out")


def _workers(config: TrainConfig, world: World, groups: int) -> int:
    """One for each core, as far as groups go, where simulating all steps takes long enough; else none."""
    workers = min(processors(), groups)
    if workers < 2 or not possible() or config.steps * _seconds_per_step(world) < _WORTH:
        return 0
    return workers


def _can_be_sent(env: Any, policy: Any) -> bool:
    try:
        packed("environment", remake(env))
        packed_by_name("policy", policy)
    except UsageError:
        return False
    return True


def _seconds_per_step(world: World, budget: float = 0.02) -> float:
    """What a step of one environment takes: the median of as many as go into `budget` seconds, at least 3; 0 where it
    breaks, which the run will say."""
    rest = at_rest(world)
    seconds: list[float] = []
    try:
        world.reset(0)
        while len(seconds) < 3 or sum(seconds) < budget:
            begin = time.perf_counter()
            world.step(rest(world.obs))
            seconds.append(time.perf_counter() - begin)
    except RunError:
        return 0.0
    return float(np.median(seconds)) / world.envs


def make_worlds(config: TrainConfig, make: Callable[[int], World]) -> list[World]:
    """The worlds of a settled configuration in this process, one for each group.

    Raises UsageError where two of them have an environment in common."""
    envs, group = config.sampling.envs, config.sampling.group
    assert envs is not None
    assert group is not None
    worlds = [make(min(group, envs - begin)) for begin in range(0, envs, group)]
    each = [getattr(env, "unwrapped", env) for world in worlds for env in getattr(world, "environments", ())]
    if len(set(map(id, each))) < len(each):
        raise UsageError("the environment's factory returned the same object twice; each call must make a new one")
    return worlds


def remembered(config: TrainConfig, observation: Space, policy: Any = None) -> int | None:
    """How many numbers the policy remembers, M; None for one that remembers nothing.  policy: the user's, or None."""
    if policy is None:
        units = {"none": 0, "gru": 1, "lstm": 2}[config.policy.memory] * config.policy.memory_units
        mask = observation.mask if isinstance(observation, Masked) else 0
        return units + mask if units else None
    from steepest.policies.masked import with_mask  # JAX is there, where there is such a policy
    from steepest.sequences import initial_memory, is_recurrent

    return initial_memory(with_mask(policy, observation)).size if is_recurrent(policy) else None


def start_workers(config: TrainConfig, env: Any, world: World, policy: Any = None) -> Workers | None:
    """The workers of a settled configuration, which begin to start; None where there are to be none.

    policy: the user's, or None.

    Raises UsageError for an environment that cannot be sent.
    """
    sampling = config.sampling
    if not sampling.workers:
        return None
    assert sampling.rollout is not None
    assert sampling.envs is not None
    assert sampling.group is not None
    observation, action = describe(world.observation_space, "observation"), describe(world.action_space, "action")
    arrays = layout(sampling.rollout, sampling.envs, observation, action, remembered(config, observation, policy))
    return Workers(
        sampling.workers, remake(env), sampling.group, sampling.envs, arrays, FaultTally(sampling.faults),
        sampling.timeout, keep=True,
    )  # fmt: skip
