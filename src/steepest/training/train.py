"""`st.train` and `st.resume`: the same as the command line."""

from __future__ import annotations

import dataclasses
import time
import warnings
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, overload

from rich.console import Console

from steepest.algorithms import Algorithm
from steepest.errors import UsageError
from steepest.runs import Found, RunFolder
from steepest.training.beginning import (
    device,
    engine_of,
    evaluation_world,
    first_snapshot,
    learner_of,
    name_of,
)
from steepest.training.callbacks import Callback
from steepest.training.checks import check
from steepest.training.composition import algorithm_of
from steepest.training.config import PolicyConfig, TrainConfig, UpdateConfig
from steepest.training.display import ProgressDisplay
from steepest.training.engine import Engine
from steepest.training.evaluation import evaluate
from steepest.training.hosting import Placed, place, shown
from steepest.training.persistence import (
    Snapshot,
    best_return,
    needs,
    restore_snapshot,
)
from steepest.training.recorded import Ended, objects_of
from steepest.training.running import Run, ended_run, last_evaluation, open_loop, with_sinks
from steepest.training.seeds import train_seeds
from steepest.training.settings import from_record, with_settings
from steepest.training.signals import Interruption
from steepest.training.standing import begins_afresh
from steepest.worlds import is_made
from steepest.worlds.world import World


@overload
def train(env: Any, algorithm: str | Algorithm | None = None, *, seeds: None = None, **settings: Any) -> Run: ...
@overload
def train(env: Any, algorithm: str | Algorithm | None = None, *, seeds: int, **settings: Any) -> list[Run]: ...
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
    placed: Placed | None = None,
    seeds: int | None = None,
    **settings: Any,
) -> Run | list[Run]:
    """Train a policy, and leave a run folder behind. Returns a `Run`, or a list of them for `seeds`.

    env: an id such as "Hopper-v5" or "mdp:two-state", a factory () → gymnasium.Env, an environment, or a world. One
        that exists already is also what it is evaluated in: each evaluation ends the episodes under way. Or a
        functional environment, or a parallel one as PettingZoo's, whose agents share the policy.
    algorithm: a name, or an `Algorithm` of your own making; trpo, if not said.
    steps: environment steps, a million if not said.  seed: of everything random, 0 if not said.
    out: the run folder; by default runs/<env>/<algorithm>/<time>-s<seed>.
    policy: a module of your own, observation ↦ distribution; or settings of the built-in one, {"hidden": (32, 32)}.
    callbacks: each is called after every iteration; one that returns a reason stops the run.
    config: everything else; settings: single settings by name, e.g. delta=0.02, envs=4, critic={"epochs": 20}.
    quiet: no progress.  console: where to show it.
    placed: what `place` made of just this configuration, where that was done before: as JAX was being imported.
    seeds: train with so many seeds at once, from `seed` on, as one program; in functional worlds only. Each has a run
        folder of its own, in `out` if that is given: out/s0, out/s1, …

    Raises UsageError before anything is written where an argument is wrong, RunError where the run breaks.
    """
    wall = time.perf_counter()
    label = env if isinstance(env, str) else name_of(env)
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
    config = with_sinks(config, config.sinks)
    if isinstance(algorithm, str):
        algorithm_of(name, algorithm, config.update)  # an unknown name is said before an environment is made
    elif config.update != UpdateConfig():
        raise UsageError(
            "delta, damping and the like belong to the algorithm, which was given as an object: set them there"
        )
    objects = [kind for kind, value in (("env", env), ("algorithm", algorithm)) if not isinstance(value, str)]
    with ExitStack() as stack:
        asked = config.policy.mask
        config, world, workers = placed or place(stack, config, env, policy)
        env = shown(config, env)
        if asked == "auto" and not quiet:
            has = "obeyed: it says which actions are allowed" if config.policy.mask else "none that it shows"
            (console or Console()).print(f"action masks of {world.name}: {has}", highlight=False)
        learner = learner_of(config, algorithm)
        if seeds is not None:
            return train_seeds(
                config, seeds, learner, world, env, policy, out, callbacks, quiet, console, wall, objects
            )
        snapshot = first_snapshot(config, learner, world, policy)
        engine = engine_of(stack, config, learner, world, env, snapshot, workers, callbacks)
        folder = RunFolder.create(out) if out is not None else RunFolder.create_default(label, name, config.seed)
        try:
            folder.write_meta(device())
            return _run(config, engine, world, env, folder, snapshot, callbacks, quiet, console, wall, None, objects)
        except Exception:
            if not folder.metrics_path.exists() or not folder.metrics_path.stat().st_size:
                folder.discard()
            raise


def resume(
    path: str | Path,
    *,
    env: Any = None,
    algorithm: str | Algorithm | None = None,
    policy: Any = None,
    steps: int | None = None,
    afresh: bool = False,
    sinks: Sequence[str] | None = None,
    callbacks: Sequence[Callback] = (),
    quiet: bool = True,
    console: Console | None = None,
) -> Run:
    """Go on with a run from its last checkpoint: policy, critic, optimiser, statistics and counters.

    path: the run folder.  env, algorithm, policy: needed where the run was given objects or a module of yours; an id
    with a module prefix and the name of a plugin must be repeated here, since a file's word imports nothing.  steps: a
    new total.  afresh: begin all episodes afresh, as after a change of the environment's own code.  sinks: others than
    before, or the same plugins again.

    The logs are cut back to the checkpoint. Where the environments stood is in it for functional ones, MuJoCo's and all
    whose state is plain data: the run then ends with the numbers that it would have had. Of others, of objects, and of
    other versions of Gymnasium or MuJoCo the episodes begin afresh.

    Raises UsageError if `path` is no run folder or the run has ended, RunError if its files are damaged.
    """
    wall = time.perf_counter()
    folder = RunFolder.open(path)
    config = from_record(folder.read_config())
    if steps is not None:
        config = dataclasses.replace(config, steps=steps)
    config = with_sinks(config, sinks)
    check(config)
    found = folder.load_last()
    arrays, info = found.arrays, found.info
    needs(info, "env", env, "st.resume(path, env=…)")
    needs(info, "algorithm", algorithm, "st.resume(path, algorithm=…)")
    with ExitStack() as stack:
        trained, given = config.env, config.env if env is None else env
        if is_made(given):  # of which the file knows nothing
            config = with_settings(config, {"group": None, "workers": None})
        config, world, workers = place(stack, config, given, policy, allow_import=env is not None)
        learner = learner_of(config, algorithm)
        template = first_snapshot(config, learner, world, policy)
        snapshot = restore_snapshot(template, arrays, info, config.sampling.envs or 1, policy)
        if why := "it was asked for" if afresh else begins_afresh(info, trained, given):
            if snapshot.standing is not None and not afresh:
                warnings.warn(f"all episodes begin afresh: {why}", stacklevel=2)
            snapshot = snapshot.afresh()
        progress = snapshot.progress
        if folder.finished or (progress.steps < config.steps and steps is not None):
            snapshot = snapshot._replace(ended=None)  # it is to go on
        elif progress.steps >= config.steps and snapshot.ended is None:  # a signal came with the last iteration
            snapshot = snapshot._replace(ended=Ended("all steps done", failed=False))
        if progress.steps >= config.steps and snapshot.ended is None:
            raise UsageError(f"{path} has done its {config.steps} steps; give more with --steps")
        if best_return(folder) is None:
            progress = progress._replace(best=None)
        snapshot = snapshot._replace(progress=progress._replace(resumed=progress.resumed + 1))
        objects, given = objects_of(info), shown(config, given)
        engine = engine_of(stack, config, learner, world, given, snapshot, workers, callbacks)
        return _run(config, engine, world, given, folder, snapshot, callbacks, quiet, console, wall, found, objects)


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
    found: Found | None,
    objects: Sequence[str],
) -> Run:
    """The loop, then the last evaluation and the learning curve."""
    with ExitStack() as stack:
        evaluation = evaluation_world(stack, config, env, world)
        disturbed = engine if evaluation is world else None
        display = None if quiet else stack.enter_context(ProgressDisplay(console or Console(), config.steps))
        interruption = stack.enter_context(Interruption())
        loop = open_loop(
            stack, config, folder, snapshot, evaluation, disturbed, callbacks, display, interruption,
            found=found, objects=objects,
        )  # fmt: skip
        loop.run(engine)
        returns = last_evaluation(loop)
    return ended_run(loop, returns, snapshot.progress, wall)


__all__ = ["Run", "evaluate", "resume", "train"]
