"""Where metrics go: a sink takes numbers by name, at a step. JSON lines are the record, TensorBoard the window.

A resumed run must not see what came after its checkpoint. A checkpoint therefore stores `offset()` of each log, and a
resumed run truncates to it; TensorBoard's files cannot be cut, but its reader is told from which step on to forget.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

from steepest.errors import RunError
from steepest.names import Registry
from steepest.runs.files import failure, standard


class Sink(Protocol):
    """Takes metrics. Raises RunError where it cannot keep them."""

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Keep `values` (by name) of environment step `step`."""
        ...

    def offset(self) -> int | None:
        """Bytes written so far, durably; a checkpoint keeps it. None if the sink cannot be truncated to it."""
        ...

    def close(self) -> None:
        """Write out what is pending. Twice is harmless."""
        ...


SINKS: Registry[Callable[[Path, int | None], Sink]] = Registry("sink", "steepest.sinks")
"""Plugins that a run can be told to give its metrics to: (run folder, first step of which a resumed run may have
written already or None) ↦ a sink."""


class Plugged:
    """A sink of somebody else's, whose errors end no run: after the first it is given nothing more.

    name: of its plugin.  folder, purge: as of `SINKS`.  say: is told of the error.
    """

    def __init__(self, name: str, folder: Path, purge: int | None, say: Callable[[str], None]):
        self._name, self._say = name, say
        self._sink: Sink | None = None
        self._sink = self._tried(lambda: SINKS[name](folder, purge))

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """See `Sink`."""
        if (sink := self._sink) is not None:
            self._tried(lambda: sink.write(step, values))

    def offset(self) -> None:
        """None."""

    def close(self) -> None:
        """See `Sink`."""
        if (sink := self._sink) is not None:
            self._tried(sink.close)
        self._sink = None

    def _tried(self, call: Callable[[], Any]) -> Any:
        try:
            return call()
        except Exception as error:
            self._sink = None
            self._say(f"sink {self._name!r} raised {type(error).__name__}: {error}; it is given nothing more")


class JsonLines:
    """One JSON object a line, `{"step": …, name: value, …}`; values that are not finite become null.

    A line is one system call; what a full disk cut short is taken back, and what a killed process cut short is
    dropped on opening, so every line in the file is whole.
    """

    def __init__(self, path: Path | str):
        """Open `path` to append, making it if needed. Raises RunError where the system refuses."""
        self.path = Path(path)
        try:
            self._descriptor: int | None = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
            self._drop_partial_line()
        except OSError as error:
            raise failure("open", self.path, error) from error

    def _drop_partial_line(self) -> None:
        size = self._size()
        tail = os.pread(self._file, 2**20, max(0, size - 2**20))
        if tail and not tail.endswith(b"\n"):
            os.ftruncate(self._file, size - len(tail) + tail.rfind(b"\n") + 1)

    @property
    def _file(self) -> int:
        if self._descriptor is None:
            raise RunError(f"{self.path} is closed")
        return self._descriptor

    def _size(self) -> int:
        return os.fstat(self._file).st_size

    def write(self, step: int, values: Mapping[str, float | str]) -> None:
        """Append one line; an event's values may be words."""
        self.extend([(step, values)])

    def extend(self, rows: Iterable[tuple[int, Mapping[str, float | str]]]) -> None:
        """Append one line for each (step, values), all in one system call: all of them are kept, or none."""
        lines = [json.dumps(standard({"step": step, **values}), allow_nan=False) + "\n" for step, values in rows]
        data = "".join(lines).encode()
        if not data:
            return
        try:
            before = self._size()
            written = os.write(self._file, data)
            while written < len(data):  # the system took a part: the rest either fits, or says why not
                try:
                    written += os.write(self._file, data[written:])
                except OSError:
                    os.ftruncate(self._file, before)
                    raise
        except OSError as error:
            raise failure("write", self.path, error) from error

    def offset(self) -> int:
        """The size in bytes, after everything is on the disk itself."""
        try:
            os.fsync(self._file)
            return self._size()
        except OSError as error:
            raise failure("write", self.path, error) from error

    def truncate(self, offset: int) -> None:
        """Drop every line after the first `offset` bytes, a number that `offset()` gave.

        Raises RunError if the file is shorter than that, or no line ends there: it is not the log it was.
        """
        try:
            size = self._size()
            if not 0 <= offset <= size:
                raise RunError(f"{self.path} has {size} bytes, but the checkpoint was made at {offset}: lines are lost")
            if offset and os.pread(self._file, 1, offset - 1) != b"\n":
                raise RunError(f"{self.path} was changed since the checkpoint: no line ends at byte {offset}")
            os.ftruncate(self._file, offset)
        except OSError as error:
            raise failure("truncate", self.path, error) from error

    def close(self) -> None:
        """Close the file. Twice is harmless."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


class TensorBoard:
    """Scalars as TensorBoard events, written in the calling thread.

    tensorboardX's own `SummaryWriter` hands them to a thread through a queue of bounded length; on a full disk that
    thread dies and the training blocks for ever once the queue is full. Here the error is raised.
    """

    FLUSH_SECONDS = 5.0  # each flush is an fsync

    def __init__(self, folder: Path | str, purge_step: int | None = None):
        """Start a new events file in `folder`; readers forget events of step ≥ `purge_step` in the older ones."""
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto import event_pb2

        messages: Any = event_pb2  # its classes are made at run time
        self.folder = Path(folder)
        self._event = messages.Event
        self._flushed = -math.inf
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            # the name has a resolution of one second, and an existing file would be emptied
            writer = EventsWriter(str(self.folder / "events"), f".{time.time_ns()}")
            if purge_step is not None:
                start = messages.SessionLog(status=messages.SessionLog.START)
                writer.write_event(self._event(step=purge_step, wall_time=time.time(), session_log=start))
        except OSError as error:
            raise failure("write", self.folder, error) from error
        self._writer: EventsWriter | None = writer

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """One event with all `values` that are finite. Raises RunError where the system refuses."""
        from tensorboardX.summary import scalar

        if self._writer is None:
            raise RunError(f"{self.folder} is closed")
        event = self._event(step=step, wall_time=time.time())
        for name, value in values.items():
            if math.isfinite(value):
                event.summary.MergeFrom(scalar(name, float(value)))
        try:
            self._writer.write_event(event)
            if time.monotonic() - self._flushed > self.FLUSH_SECONDS:
                self._writer.flush()
                self._flushed = time.monotonic()
        except OSError as error:
            raise failure("write", self.folder, error) from error

    def offset(self) -> None:
        """None: see `purge_step`."""

    def close(self) -> None:
        """Write out what is pending. Twice is harmless."""
        writer, self._writer = self._writer, None
        if writer is None:
            return
        try:
            writer.close()
        except OSError as error:
            raise failure("write", self.folder, error) from error
