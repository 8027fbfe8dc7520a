"""What a run begins with: its learner, its first snapshot, and the engine that advances it."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import jax

from steepest.algorithms import Algorithm
from steepest.sampling.apart import WorldApart
from steepest.sampling.reward_scale import RewardScale
from steepest.sampling.workers import Workers
from steepest.spaces import describe
from steepest.training.assembly import build_agent, build_critic, build_learner, check_update
from steepest.training.callbacks import Callback
from steepest.training.collecting import build_gather
from steepest.training.composition import algorithm_of
from steepest.training.config import TrainConfig
from steepest.training.constraint import build_meter, check_constraint
from steepest.training.engine import Engine
from steepest.training.from_workers import FromWorkers
from steepest.training.host_engine import HostEngine
from steepest.training.hosting import in_groups, make_worlds, open_world
from steepest.training.learner import Learner
from steepest.training.native_engine import NativeEngine
from steepest.training.persistence import Progress, Snapshot
from steepest.worlds import is_made, make_up_to
from steepest.worlds.functional.world import FunctionalWorld
from steepest.worlds.remaking import remake
from steepest.worlds.world import World

_POLICY, _CRITIC, _COST_CRITIC = 100, 101, 103
"""Purposes of randomness, apart from the loop's and the last evaluation's."""


def learner_of(config: TrainConfig, algorithm: str | Algorithm | None) -> Learner:
    """The learner of a resolved configuration; an algorithm that leaves its damping to the rule gets the rule's.

    algorithm: what the user said; None for the configuration's word.
    """
    updates = math.ceil(config.steps / (config.batch + config.branch_steps))
    method = algorithm_of(config.algorithm, algorithm, config.update, updates)
    if method.damping is None:
        damping = 0.0 if method.solver is None else config.update.damping  # nothing is solved for: no λ
        method = dataclasses.replace(method, damping=damping)
    check_constraint(method, config)
    return build_learner(config, method)


def first_snapshot(config: TrainConfig, learner: Learner, world: World, policy: Any) -> Snapshot:
    """The run before its first iteration."""
    action, observation = describe(world.action_space, "action"), describe(world.observation_space, "observation")
    key = jax.random.key(config.seed)
    agent = build_agent(config, observation, action, policy, jax.random.fold_in(key, _POLICY))
    check_update(learner.algorithm, agent.policy, config, observation)
    critic = build_critic(config, observation, agent.policy, jax.random.fold_in(key, _CRITIC))
    scale = RewardScale.empty(config.sampling.envs or 1) if config.sampling.scale_rewards else None
    costs = build_meter(config, world)
    other = jax.random.fold_in(key, _COST_CRITIC)
    cost_critic = None if costs is None else build_critic(config, observation, agent.policy, other)
    state = learner.init(agent.policy, critic, cost_critic, config.sampling.envs or 1)
    return Snapshot(agent, state, scale, Progress(), costs)


def engine_of(
    stack: ExitStack,
    config: TrainConfig,
    learner: Learner,
    world: World,
    env: Any,
    snapshot: Snapshot,
    workers: Workers | None,
    callbacks: Sequence[Callback],
) -> Engine:
    """What advances the run, closed at the end.  callbacks: of the user's, who may look at the agent each time."""
    if is_native(config, world):
        assert isinstance(world, FunctionalWorld)
        return NativeEngine(config, learner, world, stepwise=bool(callbacks))
    policy = snapshot.agent.policy
    if workers is None:
        grouped = in_groups(config, env, world)
        worlds = make_worlds(config, lambda envs: open_world(stack, env, envs)) if grouped else [world]
        made = is_made(env)  # what is the user's is not stepped for a trial
        gather = build_gather(config, worlds, policy, shared=made, keep=not made)
    else:
        gather = FromWorkers(workers, policy, config.sampling.group or 1, config.sampling.envs or 1)
    engine = HostEngine(config, learner, gather, world.name)
    stack.callback(engine.close)
    return engine


def is_native(config: TrainConfig, world: World) -> bool:
    """Whether a run is programs, world and all: a single path in functional worlds, whose cost nobody limits."""
    functional = isinstance(world, FunctionalWorld)
    return functional and config.sampling.scheme == "single-path" and config.constraint.cost_limit is None


def evaluation_world(stack: ExitStack, config: TrainConfig, env: Any, world: World) -> World:
    """Where the run is evaluated: in worlds of its own, unless there is only the one that it was given; with workers in
    a process of their own, where a hang is no more than in theirs."""
    envs = min(config.evaluation.episodes, 10)
    if isinstance(world, FunctionalWorld):
        return world.with_envs(envs)
    if is_made(env):
        return world
    if config.sampling.workers:
        agents = getattr(world, "agents", 1)
        envs = max(1, envs // agents) * agents
        evaluation: World = WorldApart(remake(env), world, envs, config.sampling.timeout)
    else:
        evaluation = make_up_to(env, envs)
    stack.callback(evaluation.close)
    return evaluation


def name_of(env: Any) -> str:
    """What to call an environment that was given as an object."""
    spec = getattr(env, "spec", None)
    named = getattr(spec, "id", None) or getattr(env, "name", None) or getattr(env, "__name__", None)
    return str(named) if named and named != "<lambda>" else type(env).__name__


def device() -> dict[str, Any]:
    devices = jax.devices()
    return {"backend": jax.default_backend(), "devices": [d.device_kind for d in devices], "cpus": os.cpu_count()}
