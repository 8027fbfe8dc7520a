"""A worker as its parent sees it: a process, a connection, and a sign of life."""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import socket
import subprocess
import sys
import time
from multiprocessing.connection import Connection
from typing import Any

from steepest.errors import RunError
from steepest.sampling.shared_rollouts import beyond_standard
from steepest.sampling.sign_of_life import Sign

_ALONE = {
    **dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "NPROC"), "1"),
    "JAX_PLATFORMS": "cpu",
}
"""A worker is one of as many as there are cores: it takes one thread, and no accelerator."""
PATIENCE = 5.0
"""Seconds that a worker has to end by itself."""


class Gone(Exception):
    """The process has closed its end, whatever became of it."""


class WorkerProcess:
    """setup: what it is sent first.  file: the number of the shared rollouts' file.

    Raises RunError where it cannot be started.
    """

    def __init__(self, setup: bytes, file: int):
        sign = Sign.new()
        ours, other = socket.socketpair()
        theirs = beyond_standard(other.detach())
        try:
            program = (
                f"import sys; sys.path[:] = {sys.path!r}; from steepest.sampling.worker import main; "
                f"main({theirs}, {file}, {sign.file})"
            )
            self._process = subprocess.Popen(
                [sys.executable, *subprocess._args_from_interpreter_flags(), "-c", program],  # type: ignore[attr-defined]
                stdin=subprocess.PIPE,
                pass_fds=(theirs, file, sign.file),
                env={**os.environ, **_ALONE},
                start_new_session=True,  # a terminal's Ctrl-C is for the parent
            )
        except OSError as error:
            ours.close()
            raise RunError(f"a worker could not be started: {error}") from error
        finally:
            os.close(theirs)
            os.close(sign.file)
        self.connection, self._at = Connection(ours.detach()), sign.at
        self._seen, self._since = self.at, time.monotonic()
        self.send(setup)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def at(self) -> tuple[int, int]:
        """(environment, step) of its last sign of life, −1 where there was none yet."""
        return self._at[0], self._at[1]

    def send(self, message: bytes) -> None:
        """Whether it arrives is known once something is to be received."""
        with contextlib.suppress(OSError):
            self.connection.send_bytes(message)

    def receive(self) -> Any:
        """The next message, waited for. Raises Gone."""
        try:
            message = self.connection.recv_bytes()
        except (EOFError, OSError) as error:
            raise Gone from error
        self.look()
        return pickle.loads(message)

    def look(self) -> None:
        """Now is a sign of life."""
        self._seen, self._since = self.at, time.monotonic()

    def silent(self) -> float:
        """Seconds since a sign of life was seen."""
        if self._seen != self.at:
            self.look()
        return time.monotonic() - self._since

    def end(self) -> str:
        """How a process that is gone has ended, as far as that can be known."""
        try:
            code = self._process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            return "does not answer any more"
        return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"

    def kill(self) -> list[Any]:
        """End it now, with whatever it has started itself. Returns what it had said and nobody has received."""
        if self._process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)
            self._process.wait()
        messages: list[Any] = []
        with contextlib.suppress(Gone):
            while self.connection.poll():
                messages.append(self.receive())
        self.close(0.0)
        return messages

    def close(self, deadline: float) -> None:
        """Let it end by itself until `deadline` of the monotonic clock, then kill it."""
        self.connection.close()
        try:
            self._process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        assert self._process.stdin is not None
        self._process.stdin.close()
