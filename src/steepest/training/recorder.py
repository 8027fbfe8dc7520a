"""What a run writes down: metrics, episodes, TensorBoard events, checkpoints; and what it shows while it runs."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from steepest.errors import RunError
from steepest.runs import Found, JsonLines, Plugged, RunFolder, Sink, TensorBoard, set_aside
from steepest.runs.checkpoint import flatten
from steepest.sampling.rollout import Episode
from steepest.training import persistence
from steepest.training.engine import Before, Row
from steepest.training.persistence import Snapshot
from steepest.training.recorded import Progress, logs_of
from steepest.worlds.faults import Fault

_SAID = 5
"""Faults that are shown while a run goes on."""


class Display(Protocol):
    """Shows a run in a terminal."""

    def iteration(self, steps: int, row: dict[str, Any]) -> None:
        """Show where the run stands."""
        ...

    def say(self, line: str) -> None:
        """Show something that does not happen in every iteration."""
        ...


class Recorder:
    """The run folder's logs, open.

    start, start_seconds: environment steps and seconds of the run when this process took it up.
    sinks: of plugins.  keep: checkpoints that are kept, the last ones.  origin: of `persistence.origin_of`.
    found: the checkpoint that a resumed run goes on from: the logs are cut to what they were then.
    """

    def __init__(
        self,
        folder: RunFolder,
        progress: Progress,
        *,
        tensorboard: bool,
        display: Display | None,
        keep: int,
        origin: dict[str, Any],
        found: Found | None = None,
        sinks: Sequence[str] = (),
    ):
        self.folder, self.start, self.start_seconds = folder, progress.steps, progress.seconds
        self._display, self._keep, self._origin = display, keep, origin
        self._returns: list[float | None] = []
        self._metrics, self._episodes = JsonLines(folder.metrics_path), JsonLines(folder.episodes_path)
        self._faults, self._said = JsonLines(folder.faults_path), 0
        if found is not None:
            logs = logs_of(found.info)
            self._metrics.truncate(logs["metrics"])
            self._episodes.truncate(logs["episodes"])
            self._faults.truncate(logs["faults"])
            self._pass_over(found)
        purge = progress.steps + 1 if found is not None else None
        self._sinks: list[Sink] = [TensorBoard(folder.path / "tensorboard", purge)] if tensorboard else []
        self._sinks += [Plugged(name, folder.path, purge, self._broken_sink) for name in sinks]

    def iteration(self, steps: int, row: dict[str, Any], episodes: Sequence[Episode]) -> None:
        """Log one iteration, and show it."""
        self._metrics.write(steps, row)
        self._episodes.extend((steps, _entry(episode)) for episode in episodes)
        numbers = {k: float(v) for k, v in row.items() if isinstance(v, int | float)}
        for sink in self._sinks:
            sink.write(steps, numbers)
        if self._display is not None:
            self._display.iteration(steps, row)

    def faults(self, progress: Progress, faults: Sequence[Fault], during: str) -> None:
        """Log faults of environments, and show the first.  progress: after the iteration.  during: what they were."""
        where = {"iteration": progress.iteration, "during": during}
        self._faults.extend((progress.steps, {**where, **_fault(fault)}) for fault in faults)
        for fault in faults[: max(0, _SAID - self._said)]:
            self._said += 1
            if self._display is not None:
                more = "; the others are in faults.jsonl" if self._said == _SAID else ""
                self._display.say(f"fault: {fault}{more}")

    def event(self, what: str, **details: Any) -> None:
        """Add a line to events.jsonl, which no resumed run cuts: what went wrong and was got over."""
        log = JsonLines(self.folder.events_path)
        try:
            log.write(self.start, {"event": what, "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"), **details})
        finally:
            log.close()

    def _broken_sink(self, what: str) -> None:
        self.event("broken sink", why=what)
        if self._display is not None:
            self._display.say(what)

    def _pass_over(self, found: Found) -> None:
        """Put the damaged checkpoints that were found before a whole one out of the way, and say so."""
        set_aside(found.damaged)
        for path, why in found.damaged.items():
            self.event("damaged checkpoint", file=path.name, why=why, used=found.path.name)

    def checkpoint(self, snapshot: Snapshot) -> None:
        """Save the checkpoint that a resumed run goes on from. It knows how long the logs are."""
        arrays, info = self._contents(snapshot)
        self.folder.save_last(arrays, info, steps=snapshot.progress.steps, keep=self._keep)

    def best(self, snapshot: Snapshot) -> None:
        """Save the best agent, unless a better one is there: of a run that was taken up before it."""
        mean = snapshot.progress.best
        if not self._returns:
            self._returns = [persistence.best_return(self.folder)]
        there = self._returns[0]
        if mean is not None and (there is None or mean >= there):
            self.folder.save_checkpoint("best", *self._contents(snapshot))
            self._returns = [mean]

    def failed_update(self, before: Before, row: Row) -> None:
        """Write an update that failed into updates/, with all that went into it; a disk that is full does without.

        before: what it was made of.  row: of its iteration.
        """
        arrays, info = self._contents(before.snapshot)
        more, report = _of_update(before, row.metrics)
        with contextlib.suppress(RunError):
            self.folder.save_update(row.progress.iteration, {**arrays, **more}, {**info, "update": report})

    def _contents(self, snapshot: Snapshot) -> tuple[dict[str, Any], dict[str, Any]]:
        files = {"metrics": self._metrics, "episodes": self._episodes, "faults": self._faults}
        logs = {name: log.offset() for name, log in files.items()}
        return persistence.contents(snapshot, logs, self._origin)

    def close(self) -> None:
        """Close every log."""
        for sink in (self._metrics, self._episodes, self._faults, *self._sinks):
            sink.close()


def _of_update(before: Before, row: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """(arrays, info) of an update, beside those of the checkpoint before.  row: the metrics of the iteration."""
    arrays: dict[str, Any] = {}
    given, exhaustive = before.given, None
    if given is not None:
        parts = {**given._asdict(), "reward_scale": np.asarray(given.reward_scale)}
        for name, part in parts.items():
            arrays |= {} if part is None else flatten(part, f"update.{name}")
        exhaustive = None if given.branches is None else given.branches.exhaustive
    report = {name: value for name, value in row.items() if name.startswith("update/")}
    ahead = before.ahead if given is None else None
    return arrays, {"report": report, "exhaustive": exhaustive, "ahead": ahead}


def _fault(fault: Fault) -> dict[str, Any]:
    """A line of faults.jsonl; "step" is the run's."""
    entry = {"env": fault.env, "env_step": fault.step, "kind": fault.kind, "message": fault.message}
    return {**entry, "values": fault.values}


def _entry(episode: Episode) -> dict[str, Any]:
    """A line of episodes.jsonl; what was not reported is left out."""
    entry = {"return": episode.ret, "length": episode.length, "env": episode.env, "terminated": episode.terminated}
    return entry if episode.cost is None else {**entry, "cost": episode.cost}
