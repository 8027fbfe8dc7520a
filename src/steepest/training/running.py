"""A run between its folder and its end: the loop with all that it writes into, and what is left once it is over."""

from __future__ import annotations

import dataclasses
import time
import warnings
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from steepest.agent import Agent
from steepest.errors import RunError
from steepest.runs import SINKS, Found, RunFolder, read_lines
from steepest.training.callbacks import Callback, StopAtReturn
from steepest.training.config import TrainConfig
from steepest.training.engine import Engine
from steepest.training.loop import Loop
from steepest.training.persistence import Progress, Snapshot, origin_of
from steepest.training.recorder import Display, Recorder
from steepest.training.settings import to_record
from steepest.training.signals import Interruption
from steepest.worlds.world import World

_FINAL = 102
"""A purpose of randomness, apart from the loop's."""


@dataclass(frozen=True, eq=False)
class Run:
    """A run that has ended.

    path: its folder.  agent: the last one.  evaluation: [episodes] returns of `agent`, none after a signal.
    steps: environment steps in all; new_steps: those of this call.  seconds: this call's collecting and updating,
    compilation included, start-up and evaluation not.  wall_seconds: all of this call.  ended: why.
    faults: of environments, in all.
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
    faults: int = 0

    @property
    def metrics(self) -> list[dict[str, Any]]:
        """The rows of metrics.jsonl, one an iteration."""
        return read_lines(RunFolder(self.path).metrics_path)


def with_sinks(config: TrainConfig, given: Sequence[str] | None) -> TrainConfig:
    """The configuration with the sinks that there will be.  given: what the user said, whose plugins are imported; None
    for the configuration's word. Raises UsageError for one that is not there, or that only a file names."""
    for name in given or ():
        SINKS.plug(name)
    names = config.sinks if given is None else tuple(given)
    for name in names:
        SINKS[name]
    return dataclasses.replace(config, sinks=names)


def open_loop(
    stack: ExitStack,
    config: TrainConfig,
    folder: RunFolder,
    snapshot: Snapshot,
    evaluation: World,
    disturbed: Engine | None,
    callbacks: Sequence[Callback],
    display: Display | None,
    interruption: Interruption,
    *,
    found: Found | None = None,
    objects: Sequence[str] = (),
) -> Loop:
    """The loop of a run, its logs open until the stack is closed.

    found: the checkpoint that it goes on from.  objects: of `origin_of`.  The rest: of `Loop`.
    """
    if config.stop_at_return is not None:
        callbacks = [*callbacks, StopAtReturn(config.stop_at_return)]
    stack.enter_context(folder.lock())
    tensorboard = config.tensorboard
    recorder = Recorder(
        folder, snapshot.progress, tensorboard=tensorboard, display=display, keep=config.keep_checkpoints,
        origin=origin_of(config, objects), found=found, sinks=config.sinks,
    )  # fmt: skip
    stack.callback(recorder.close)
    folder.write_config(to_record(config))
    return Loop(config, evaluation, disturbed, recorder, callbacks, interruption, snapshot)


def last_evaluation(loop: Loop) -> NDArray[np.float64]:
    """The returns at the end, [episodes], written down; none after a signal."""
    config, interruption = loop.config, loop.interruption
    if interruption.signal:
        return np.zeros(0)
    seed = int(np.random.SeedSequence((config.seed, _FINAL)).generate_state(1)[0] >> 1)
    returns = loop.play(config.evaluation.final_episodes, seed)
    if returns is None:
        return np.zeros(0)
    steps = loop.snapshot.progress.steps
    loop.recorder.folder.write_evaluation({"seed": seed, "steps": steps, "returns": returns.tolist()})
    return returns


def ended_run(loop: Loop, returns: NDArray[np.float64], began: Progress, wall: float) -> Run:
    """What is left of a run, with its learning curve.

    returns: of `last_evaluation`.  began: the progress that this call took up.  wall: `time.perf_counter()` then.
    """
    from steepest.reports import learning_curve  # matplotlib: half a second that the start does not need

    folder, progress = loop.recorder.folder, loop.snapshot.progress
    try:
        learning_curve(folder.path, folder.learning_curve_path)
    except RunError as error:
        warnings.warn(f"no learning curve: {error}", stacklevel=2)
    return Run(
        folder.path,
        loop.snapshot.agent,
        returns,
        progress.steps,
        progress.steps - began.steps,
        progress.seconds - began.seconds,
        time.perf_counter() - wall,
        loop.ended,
        loop.interruption.exit_code or int(loop.failed),
        progress.faults,
    )
