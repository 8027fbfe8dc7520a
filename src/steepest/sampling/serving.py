"""A process that serves another one: it answers what it is sent, until the other is gone.

    parent → here   what to begin with, then one task after the other
    here → parent   what a task sends by itself; its answer, or Failed

It is an interpreter of its own, started afresh: nothing is forked, the user's script is not run again, and JAX is only
imported where a task needs it. It ends when its parent does, and leaves SIGINT to it.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import threading
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any, NamedTuple, Protocol

from steepest.errors import RunError, UsageError
from steepest.worlds.faults import Irreparable


class Failed(NamedTuple):
    """error: RunError or UsageError, as it was raised there.  trace: of an error that nobody foresaw, else empty."""

    error: RunError | UsageError
    trace: str

    def again(self, who: str) -> RunError | UsageError:
        """The error, as it is to be raised here.  who: named where nobody foresaw it."""
        return type(self.error)(f"{who} {self.error}\n\n{self.trace}" if self.trace else str(self.error))


class Server(Protocol):
    """What answers tasks."""

    def __call__(self, task: Any) -> Any: ...

    def close(self) -> None: ...


def serve(control: int, begin: Callable[[bytes, Connection], Server]) -> None:
    """Answer until the parent closes the connection.

    control: its number.  begin: makes the server, with the first task, of what was sent before it.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    connection = Connection(control)
    server = None
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        setup: bytes = connection.recv_bytes()
        while True:
            task = pickle.loads(connection.recv_bytes())
            try:
                server = server or begin(setup, connection)
                reply = pickle.dumps(server(task))
            except (RunError, UsageError) as error:
                kind = next(kind for kind in (Irreparable, RunError, UsageError) if isinstance(error, kind))
                reply = pickle.dumps(Failed(kind(str(error)), ""))
            except Exception as error:
                reply = pickle.dumps(Failed(RunError(f"{type(error).__name__}: {error}"), traceback.format_exc()))
            connection.send_bytes(reply)
    if server is not None:
        server.close()


def _leave_with_parent() -> None:
    """Standard input is a pipe that nobody writes into: it ends when the parent does, also in the middle of a step."""
    os.read(0, 1)
    os._exit(1)
