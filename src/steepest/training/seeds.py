"""Many seeds at once: runs that differ by their seed alone, as one program, each with a run folder of its own.

A run is to the last digit but rounding what it would be alone. One that has ended is carried along until all have; what
is computed for it then is thrown away.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from rich.console import Console

from steepest.errors import UsageError
from steepest.runs import RunFolder
from steepest.training.beginning import device, evaluation_world, first_snapshot, is_native
from steepest.training.callbacks import Callback
from steepest.training.checks import check_seed
from steepest.training.config import TrainConfig
from steepest.training.display import ProgressDisplay
from steepest.training.learner import Learner
from steepest.training.loop import Loop
from steepest.training.native_engine import NativeRuns
from steepest.training.running import Run, ended_run, last_evaluation, open_loop
from steepest.training.signals import Interruption
from steepest.worlds.functional.world import FunctionalWorld
from steepest.worlds.world import World

_TWINS = {"CartPole-v1", "Pendulum-v1", "Acrobot-v1", "MountainCar-v0", "MountainCarContinuous-v0"}
"""Environments that gymnax has under the same name."""


def train_seeds(
    config: TrainConfig,
    seeds: int,
    learner: Learner,
    world: World,
    env: Any,
    policy: Any,
    out: str | Path | None,
    callbacks: Sequence[Callback],
    quiet: bool,
    console: Console | None,
    wall: float,
    objects: Sequence[str],
) -> list[Run]:
    """Runs with the seeds config.seed … config.seed + seeds − 1, in that order.

    config: resolved.  world: functional.  out: the folder of the run folders, s0, s1, …; else as of `st.train`.

    Raises UsageError where the runs cannot be one program, RunError where one of them breaks: all are saved first.
    """
    check_seeds(config, seeds, world)
    assert isinstance(world, FunctionalWorld)
    configs = [dataclasses.replace(config, seed=config.seed + i) for i in range(seeds)]
    snapshots = [first_snapshot(each, learner, world, policy) for each in configs]
    folders: list[RunFolder] = []
    try:
        for each in configs:
            folders.append(_folder(each, out))
            folders[-1].write_meta(device())
        with ExitStack() as stack:
            evaluation = evaluation_world(stack, config, env, world)
            shown = None if quiet else stack.enter_context(ProgressDisplay(console or Console(), config.steps))
            interruption = stack.enter_context(Interruption())
            loops: list[Loop] = []
            for each, folder, snapshot in zip(configs, folders, snapshots, strict=True):
                display = None if loops else shown  # one of them is shown
                loops.append(
                    open_loop(
                        stack, each, folder, snapshot, evaluation, None, callbacks, display, interruption,
                        objects=objects,
                    )
                )  # fmt: skip
            each_seed = [each.seed for each in configs]
            run_together(loops, NativeRuns(config, each_seed, learner, world, stepwise=bool(callbacks)))
            returns = [last_evaluation(loop) for loop in loops]
    except Exception:
        for folder in folders:
            if not folder.metrics_path.exists() or not folder.metrics_path.stat().st_size:
                folder.discard()
        raise
    return [
        ended_run(loop, mine, snapshot.progress, wall)
        for loop, mine, snapshot in zip(loops, returns, snapshots, strict=True)
    ]


def run_together(loops: Sequence[Loop], runs: NativeRuns) -> None:
    """Iterate until every loop has ended. Whatever is raised, the last whole iteration of each is saved first."""
    try:
        runs.reset([loop.snapshot for loop in loops])
        for loop in loops:
            loop.save()
        while not all(loop.ended for loop in loops):
            live = [not loop.ended for loop in loops]
            for loop, advanced in zip(loops, runs.advance([loop.snapshot for loop in loops], live), strict=True):
                if not loop.ended:
                    loop.take(advanced)
    except BaseException:
        for loop in loops:
            loop.rescue()
        raise


def check_seeds(config: TrainConfig, seeds: int, world: World) -> None:
    """Raise UsageError unless so many runs can be one program."""
    if isinstance(seeds, bool) or not isinstance(seeds, int) or seeds < 1:
        raise UsageError(f"seeds must be a whole number, at least 1, got {seeds!r}")
    check_seed(config.seed + seeds - 1)
    if is_native(config, world):
        return
    loop = f"train them one after another, with seed={config.seed}, {config.seed + 1}, … (--seed on the command line)"
    if isinstance(world, FunctionalWorld):
        what = "--scheme vine" if config.sampling.scheme == "vine" else "a cost limit"
        raise UsageError(f"seeds={seeds}: with {what} a run is not one program; {loop}")
    name = world.name.rpartition(":")[2]
    twin = f"; or take the functional world 'gymnax:{name}'" if name in _TWINS else ""
    raise UsageError(
        f"seeds={seeds}: {world.name} is stepped on the host, and cannot be in one program for many seeds: {loop}{twin}"
    )


def _folder(config: TrainConfig, out: str | Path | None) -> RunFolder:
    if out is not None:
        return RunFolder.create(Path(out) / f"s{config.seed}")
    return RunFolder.create_default(config.env, config.algorithm, config.seed)
