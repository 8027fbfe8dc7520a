"""`st.train` and `st.resume`: the same as the command line."""

from __future__ import annotations

import dataclasses
import math
import os
import time
import warnings
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from steepest.agent import Agent
from steepest.algorithms import Algorithm
from steepest.errors import RunError, UsageError
from steepest.runs import RunFolder, read_lines
from steepest.sampling.reward_scale import RewardScale
from steepest.spaces import describe
from steepest.training.assembly import build_agent, build_critic, build_learner, check_update
from steepest.training.callbacks import Callback, StopAtReturn
from steepest.training.collecting import build_gather
from steepest.training.composition import build_algorithm
from steepest.training.config import PolicyConfig, TrainConfig, UpdateConfig, check
from steepest.training.constraint import build_meter, check_constraint
from steepest.training.display import ProgressDisplay
from steepest.training.engine import Engine
from steepest.training.evaluation import evaluate, play
from steepest.training.host_engine import HostEngine
from steepest.training.learner import Learner
from steepest.training.loop import Loop
from steepest.training.persistence import Progress, Snapshot, needs, restore_agent, restore_costs, restore_learner
from steepest.training.presets import resolve
from steepest.training.recorder import Recorder
from steepest.training.settings import from_record, to_record, with_settings
from steepest.training.signals import Interruption
from steepest.worlds import is_made, make_world
from steepest.worlds.world import World

_POLICY, _CRITIC, _FINAL, _COST_CRITIC = 100, 101, 102, 103
"""Purposes of randomness, apart from the loop's."""


@dataclass(frozen=True, eq=False)
class Run:
    """A run that has ended.

    path: its folder.  agent: the last one.  evaluation: [episodes] returns of `agent`, none after a signal.
    steps: environment steps in all; new_steps: those of this call.  seconds: this call's collecting and updating,
    compilation included, start-up and evaluation not.  wall_seconds: all of this call.  ended: why.
    exit_code: 0, or 128 + the number of the signal that stopped it.
    """

    path: Path
    agent: Agent
    evaluation: NDArray[np.float64]
    steps: int
    new_steps: int
    seconds: float
    wall_seconds: float
    ended: str
    exit_code: int = 0

    @property
    def metrics(self) -> list[dict[str, Any]]:
        """The rows of metrics.jsonl, one an iteration."""
        return read_lines(RunFolder(self.path).metrics_path)


def train(
    env: Any,
    algorithm: str | Algorithm | None = None,
    *,
    steps: int | None = None,
    seed: int | None = None,
    out: str | Path | None = None,
    policy: Any = None,
    callbacks: Sequence[Callback] = (),
    config: TrainConfig | None = None,
    quiet: bool = True,
    console: Console | None = None,
    **settings: Any,
) -> Run:
    """Train a policy, and leave a run folder behind.

    env: an id such as "Hopper-v5" or "mdp:two-state", a factory () → gymnasium.Env, an environment, or a world. One
        that exists already is also what it is evaluated in: each evaluation ends the episodes under way.
    algorithm: a name, or an `Algorithm` of your own making; trpo, if not said.
    steps: environment steps, a million if not said.  seed: of everything random, 0 if not said.
    out: the run folder; by default runs/<env>/<algorithm>/<time>-s<seed>.
    policy: a module of your own, observation ↦ distribution; or settings of the built-in one, {"hidden": (32, 32)}.
    callbacks: each is called after every iteration; one that returns a reason stops the run.
    config: everything else; settings: single settings by name, e.g. delta=0.02, envs=4, critic={"epochs": 20}.
    quiet: no progress.  console: where to show it.

    Raises UsageError before anything is written where an argument is wrong, RunError where the run breaks.
    """
    wall = time.perf_counter()
    label = env if isinstance(env, str) else _name(env)
    if algorithm is None:
        algorithm = "trpo" if config is None else config.algorithm
    if not isinstance(algorithm, str | Algorithm):
        raise UsageError(f"algorithm is a name or an Algorithm such as st.trpo(delta=0.01), got {algorithm!r}")
    name = algorithm if isinstance(algorithm, str) else algorithm.name
    config = dataclasses.replace(config or TrainConfig(label), env=label, algorithm=name)
    given = {"steps": steps, "seed": seed}
    if isinstance(policy, Mapping | PolicyConfig):
        settings, policy = {**settings, "policy": policy}, None
    config = with_settings(config, {**{k: v for k, v in given.items() if v is not None}, **settings})
    check(config)
    if isinstance(algorithm, str):
        build_algorithm(algorithm, config.update)  # an unknown name is said before an environment is made
    elif config.update != UpdateConfig():
        raise UsageError(
            "delta, damping and the like belong to the algorithm, which was given as an object: set them there"
        )
    objects = [kind for kind, value in (("env", env), ("algorithm", algorithm)) if not isinstance(value, str)]
    with ExitStack() as stack:
        world = _open(stack, env, config.sampling.envs)
        config = resolve(config, describe(world.action_space, "action"), world.envs if is_made(env) else None)
        if world.envs != config.sampling.envs:
            world.close()
            world = _open(stack, env, config.sampling.envs)
        learner = _learner(config, algorithm)
        snapshot = _first(config, learner, world, policy)
        engine = _engine(stack, config, learner, world, env, snapshot)
        folder = RunFolder.create(out) if out is not None else RunFolder.create_default(label, name, config.seed)
        try:
            folder.write_meta(_device())
            return _run(config, engine, world, env, folder, snapshot, callbacks, quiet, console, wall, None, objects)
        except Exception:
            if not folder.metrics_path.exists() or not folder.metrics_path.stat().st_size:
                folder.discard()
            raise


def resume(
    path: str | Path,
    *,
    env: Any = None,
    algorithm: Algorithm | None = None,
    policy: Any = None,
    steps: int | None = None,
    callbacks: Sequence[Callback] = (),
    quiet: bool = True,
    console: Console | None = None,
) -> Run:
    """Go on with a run from its last checkpoint: policy, critic, optimiser, statistics and counters.

    path: the run folder.  env, algorithm, policy: needed where the run was given objects or a module of yours; an id
    with a module prefix must be repeated here, since a file's word imports nothing.  steps: a new total.

    The logs are cut back to the checkpoint; episodes under way are lost and start anew. Raises UsageError if `path` is
    no run folder or the run has ended, RunError if its files are damaged.
    """
    wall = time.perf_counter()
    folder = RunFolder.open(path)
    config = from_record(folder.read_config())
    if steps is not None:
        config = dataclasses.replace(config, steps=steps)
    check(config)
    arrays, info = folder.load_checkpoint("last")
    needs(info, "env", env, "st.resume(path, env=…)")
    needs(info, "algorithm", algorithm, "st.resume(path, algorithm=…)")
    with ExitStack() as stack:
        given = config.env if env is None else env
        world = _open(stack, given, config.sampling.envs, allow_import=env is not None)
        config = resolve(config, describe(world.action_space, "action"), world.envs if is_made(given) else None)
        learner = _learner(config, config.algorithm if algorithm is None else algorithm)
        agent = restore_agent(arrays, info, policy)
        template = _first(config, learner, world, policy)
        state, scale, progress = restore_learner(template.learner, arrays, info, world.envs)
        if progress.steps >= config.steps:
            raise UsageError(f"{path} has done its {config.steps} steps; give more with --steps")
        agent = dataclasses.replace(agent, policy=state.policy)
        costs = restore_costs(template.costs, arrays, info)
        snapshot = Snapshot(agent, state, scale, progress._replace(resumed=progress.resumed + 1), costs)
        logs, objects = info["logs"], info.get("objects", [])
        engine = _engine(stack, config, learner, world, given, snapshot)
        return _run(config, engine, world, given, folder, snapshot, callbacks, quiet, console, wall, logs, objects)


def _run(
    config: TrainConfig,
    engine: Engine,
    world: World,
    env: Any,
    folder: RunFolder,
    snapshot: Snapshot,
    callbacks: Sequence[Callback],
    quiet: bool,
    console: Console | None,
    wall: float,
    logs: dict[str, int] | None,
    objects: Sequence[str],
) -> Run:
    """The loop, then the last evaluation and the learning curve."""
    if config.stop_at_return is not None:
        callbacks = [*callbacks, StopAtReturn(config.stop_at_return)]
    with ExitStack() as stack:
        evaluation = world if is_made(env) else _open(stack, env, min(config.evaluation.episodes, 10))
        display = None if quiet else stack.enter_context(ProgressDisplay(console or Console(), config.steps))
        stack.enter_context(folder.lock())
        recorder = Recorder(
            folder, snapshot.progress, tensorboard=config.tensorboard, display=display, logs=logs, objects=objects
        )
        stack.callback(recorder.close)
        folder.write_config(to_record(config))
        interruption = stack.enter_context(Interruption())
        loop = Loop(config, engine, evaluation, evaluation is world, recorder, callbacks, interruption, snapshot)
        ended = loop.run()
        progress, agent = loop.snapshot.progress, loop.snapshot.agent
        returns = np.zeros(0)
        if not interruption.signal:
            seed = int(np.random.SeedSequence((config.seed, _FINAL)).generate_state(1)[0] >> 1)
            count = config.evaluation.final_episodes
            returns = play(agent, evaluation, count, seed, stop=interruption.is_set)
            folder.write_evaluation({"seed": seed, "steps": progress.steps, "returns": returns.tolist()})
    from steepest.reports import learning_curve  # matplotlib: half a second that the start does not need

    try:
        learning_curve(folder.path, folder.learning_curve_path)
    except RunError as error:
        warnings.warn(f"no learning curve: {error}", stacklevel=2)
    return Run(
        folder.path,
        agent,
        returns,
        progress.steps,
        progress.steps - snapshot.progress.steps,
        progress.seconds - snapshot.progress.seconds,
        time.perf_counter() - wall,
        ended,
        interruption.exit_code or int(loop.failed),
    )


def _learner(config: TrainConfig, algorithm: str | Algorithm) -> Learner:
    """The learner of a resolved configuration; an algorithm that leaves its damping to the rule gets the rule's."""
    updates = math.ceil(config.steps / (config.batch + config.branch_steps))
    method = build_algorithm(algorithm, config.update, updates) if isinstance(algorithm, str) else algorithm
    if method.damping is None:
        damping = 0.0 if method.solver is None else config.update.damping  # nothing is solved for: no λ
        method = dataclasses.replace(method, damping=damping)
    check_constraint(method, config)
    return build_learner(config, method)


def _first(config: TrainConfig, learner: Learner, world: World, policy: Any) -> Snapshot:
    """The run before its first iteration."""
    action, observation = describe(world.action_space, "action"), describe(world.observation_space, "observation")
    key = jax.random.key(config.seed)
    agent = build_agent(config, observation, action, policy, jax.random.fold_in(key, _POLICY))
    check_update(learner.algorithm, agent.policy, config, observation)
    critic = build_critic(config, observation, jax.random.fold_in(key, _CRITIC))
    scale = RewardScale.empty(config.sampling.envs or 1) if config.sampling.scale_rewards else None
    costs = build_meter(config, world)
    cost_critic = None if costs is None else build_critic(config, observation, jax.random.fold_in(key, _COST_CRITIC))
    return Snapshot(agent, learner.init(agent.policy, critic, cost_critic), scale, Progress(), costs)


def _engine(
    stack: ExitStack, config: TrainConfig, learner: Learner, world: World, env: Any, snapshot: Snapshot
) -> Engine:
    """What advances the run, closed at the end."""
    gather = build_gather(config, world, snapshot.agent.policy, shared=is_made(env))
    engine = HostEngine(config, learner, gather, world.name)
    stack.callback(engine.close)
    return engine


def _open(stack: ExitStack, env: Any, envs: int | None, *, allow_import: bool = True) -> World:
    """A world that is closed at the end, unless the user made it."""
    if is_made(env):
        return make_world(env, envs)
    world = make_world(env, envs, allow_import=allow_import)
    stack.callback(world.close)
    return world


def _name(env: Any) -> str:
    """What to call an environment that was given as an object."""
    spec = getattr(env, "spec", None)
    named = getattr(spec, "id", None) or getattr(env, "name", None) or getattr(env, "__name__", None)
    return str(named) if named and named != "<lambda>" else type(env).__name__


def _device() -> dict[str, Any]:
    devices = jax.devices()
    return {"backend": jax.default_backend(), "devices": [d.device_kind for d in devices], "cpus": os.cpu_count()}


__all__ = ["Run", "evaluate", "resume", "train"]
