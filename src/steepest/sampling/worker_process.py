"""A process of environments as its parent sees it: the process, a connection, and a sign of life."""

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
START = 60.0
"""Seconds that it has at least for its imports, and to make its environments."""


class Gone(Exception):
    """The process has closed its end, whatever became of it."""


class WorkerProcess:
    """module: whose `main` serves there.  setup: what it is sent first.  files: the numbers of those that it shares.

    Raises RunError where it cannot be started.
    """

    def __init__(self, module: str, setup: bytes, *files: int):
        sign = Sign.new()
        ours, other = socket.socketpair()
        theirs = beyond_standard(other.detach())
        try:
            numbers = (theirs, *files, sign.file)
            program = f"import sys; sys.path[:] = {sys.path!r}; from {module} import main; main{numbers}"
            self._process = subprocess.Popen(
                [sys.executable, *subprocess._args_from_interpreter_flags(), "-c", program],  # type: ignore[attr-defined]
                stdin=subprocess.PIPE,
                pass_fds=numbers,
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

    def overdue(self, timeout: float) -> float:
        """Seconds since a sign of life was seen, where that is more than one call of an environment may take; else 0.

        timeout: what it may take; before the first of them START at least."""
        if self._seen != self.at:
            self.look()
        silent, started = time.monotonic() - self._since, self.at[1] >= 0
        return silent if silent > (timeout if started else max(timeout, START)) else 0.0

    def where(self) -> str:
        """Where it was last seen, in words."""
        env, step = self.at
        if step < 0:
            return "before it called an environment"
        return f"in {f'step {step}' if step else 'the reset'} of environment {env}"

    @property
    def exited(self) -> bool:
        """Whether it has ended, whatever is still to be read from it."""
        return self._process.poll() is not None

    def end(self) -> str:
        """How a process that is gone has ended, as far as that can be known."""
        try:
            code = self._process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            return "does not answer any more"
        return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"

    def kill(self) -> list[Any]:
        """End it now, with whatever it has started itself. Returns what it had said and nobody has received."""
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
