"""What a run writes down: metrics, episodes, TensorBoard events, checkpoints; and what it shows while it runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from steepest.runs import JsonLines, RunFolder, TensorBoard
from steepest.sampling.rollout import Episode
from steepest.training import persistence
from steepest.training.persistence import Progress, Snapshot


class Display(Protocol):
    """Shows a run in a terminal."""

    def iteration(self, steps: int, row: dict[str, Any]) -> None:
        """Show where the run stands."""
        ...


class Recorder:
    """The run folder's logs, open.

    start, start_seconds: environment steps and seconds of the run when this process took it up.
    logs: {"metrics": offset, "episodes": offset} to cut the logs at, when a run is resumed from a checkpoint.
    objects: as in `persistence.save`.
    """

    def __init__(
        self,
        folder: RunFolder,
        progress: Progress,
        *,
        tensorboard: bool,
        display: Display | None,
        logs: dict[str, int] | None = None,
        objects: Sequence[str] = (),
    ):
        self.folder, self.start, self.start_seconds = folder, progress.steps, progress.seconds
        self._display, self._objects = display, objects
        self._metrics, self._episodes = JsonLines(folder.metrics_path), JsonLines(folder.episodes_path)
        if logs is not None:
            self._metrics.truncate(logs["metrics"])
            self._episodes.truncate(logs["episodes"])
        purge = progress.steps + 1 if logs is not None else None
        self._tensorboard = TensorBoard(folder.path / "tensorboard", purge) if tensorboard else None

    def iteration(self, steps: int, row: dict[str, Any], episodes: Sequence[Episode]) -> None:
        """Log one iteration, and show it."""
        self._metrics.write(steps, row)
        self._episodes.extend((steps, _entry(episode)) for episode in episodes)
        if self._tensorboard is not None:
            self._tensorboard.write(steps, {k: float(v) for k, v in row.items() if isinstance(v, int | float)})
        if self._display is not None:
            self._display.iteration(steps, row)

    def checkpoint(self, name: str, snapshot: Snapshot) -> None:
        """Save a checkpoint that knows how long the logs are."""
        logs = {"metrics": self._metrics.offset(), "episodes": self._episodes.offset()}
        persistence.save(self.folder, name, snapshot, logs, self._objects)

    def close(self) -> None:
        """Close every log."""
        for sink in (self._metrics, self._episodes, self._tensorboard):
            if sink is not None:
                sink.close()


def _entry(episode: Episode) -> dict[str, Any]:
    """A line of episodes.jsonl; what was not reported is left out."""
    entry = {"return": episode.ret, "length": episode.length, "env": episode.env, "terminated": episode.terminated}
    return entry if episode.cost is None else {**entry, "cost": episode.cost}
