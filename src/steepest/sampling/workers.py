"""Workers: processes that own the groups of a run between them, and ship whole rollouts through memory they share.

    start(order)     the parameters go to all workers, and each begins with its groups
    finish()         once all are done, the rollout: a view of the shared memory

Two rollouts take turns there, so that the last one can be read while the next is written.
"""

from __future__ import annotations

import os
import pickle
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from multiprocessing.connection import Connection, wait
from typing import Any

import cloudpickle

from steepest.batch import Rollout
from steepest.errors import RunError, UsageError
from steepest.sampling.actor import Actor
from steepest.sampling.groups import Order, count, share
from steepest.sampling.shared_rollouts import map_rollouts, open_file
from steepest.sampling.worker import Done, Failed, Setup, Task
from steepest.worlds.world import World

_ALONE = {
    **dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "NPROC"), "1"),
    "JAX_PLATFORMS": "cpu",
}
"""A worker is one of as many as there are cores: it takes one thread, and no accelerator."""
_PATIENCE = 5.0
"""Seconds that workers have to end by themselves."""


class Workers:
    """workers: how many, at most one for each group.  make: (environments) ↦ a new world; it is sent by cloudpickle.
    size, envs: as of `Groups`.  layout: of a rollout's arrays.

    The processes start at once and make their worlds with the first order; `act_with` must come before that.

    Raises UsageError for something that cannot be sent, RunError where a process cannot be started.
    """

    def __init__(self, workers: int, make: Callable[[int], World], size: int, envs: int, layout: Any):
        self._shares = share(count(envs, size), workers)
        self._size, self._envs = size, envs
        setups = [packed("environment", Setup(make, groups, size, envs, layout)) for groups in self._shares]
        file = open_file()
        try:
            self._rollouts = map_rollouts(file, layout)
            self._half, self._waiting, self._actor = 0, False, b""
            self._processes: list[subprocess.Popen[bytes]] = []
            self._connections: list[Connection] = []
            for setup in setups:
                process, connection = _launch(file)
                self._processes.append(process)
                self._connections.append(connection)
                self._send(connection, setup)
        except OSError as error:
            raise RunError(f"a worker could not be started: {error}") from error
        finally:
            os.close(file)

    @property
    def pids(self) -> list[int]:
        """The processes."""
        return [process.pid for process in self._processes]

    def act_with(self, actor: Actor) -> None:
        """From the next order on. Raises UsageError where the actor cannot be sent."""
        self._actor = packed_by_name("policy", actor)

    def start(self, order: Order) -> None:
        """Begin with a rollout. Raises RunError where a worker is gone."""
        self._half = 1 - self._half
        task = pickle.dumps(Task(self._actor or None, order, self._half))
        self._actor = b""
        for connection in self._connections:
            self._send(connection, task)
        self._waiting = True

    def finish(self) -> tuple[Rollout, bool]:
        """The rollout that was started, and whether a cost was reported in it; good until the next but one is started.

        Raises what the first worker that failed raised, RunError where one is gone.
        """
        assert self._waiting
        self._waiting = False
        replies: dict[Any, Done | Failed] = {}
        while len(replies) < len(self._connections):
            for connection in wait([c for c in self._connections if c not in replies]):
                try:
                    replies[connection] = pickle.loads(connection.recv_bytes())  # type: ignore[union-attr]
                except (EOFError, OSError) as error:
                    raise self._gone(connection) from error
        charged = False
        for number, connection in enumerate(self._connections):
            reply = replies[connection]
            if isinstance(reply, Failed):
                said = f"{self._name(number)}: {reply.error}\n\n{reply.trace}" if reply.trace else str(reply.error)
                raise type(reply.error)(said)
            charged |= reply.charged
        return self._rollouts[self._half], charged

    def forget(self) -> None:
        """Wait for what was started, if anything was, and drop it."""
        if self._waiting:
            self.finish()

    def close(self) -> None:
        """End the processes; may be called twice."""
        for connection in self._connections:
            connection.close()
        deadline = time.monotonic() + _PATIENCE
        for process in self._processes:
            try:
                process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            assert process.stdin is not None
            process.stdin.close()
        self._connections, self._processes, self._waiting = [], [], False

    def _send(self, connection: Connection, message: bytes) -> None:
        try:
            connection.send_bytes(message)
        except OSError as error:
            raise self._gone(connection) from error

    def _gone(self, connection: Any) -> RunError:
        number = self._connections.index(connection)
        process = self._processes[number]
        try:
            code = process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            return RunError(f"{self._name(number)} does not answer any more")
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        return RunError(f"{self._name(number)} {how} while it collected: its environments are lost")

    def _name(self, number: int) -> str:
        groups = self._shares[number]
        last = min(groups.stop * self._size, self._envs) - 1
        where = f"environments {groups.start * self._size} to {last} of {self._envs}"
        return f"worker {number} of {len(self._shares)}, with {where},"


def possible() -> bool:
    """Whether this system and this interpreter can start workers."""
    return os.name == "posix" and bool(sys.executable)


def _launch(file: int) -> tuple[subprocess.Popen[bytes], Connection]:
    """A worker's process, and the connection to it.  file: the number of the shared memory's file."""
    ours, theirs = socket.socketpair()
    with theirs:
        program = (
            f"import sys; sys.path[:] = {sys.path!r}; from steepest.sampling.worker import main; "
            f"main({theirs.fileno()}, {file})"
        )
        process = subprocess.Popen(
            [sys.executable, *subprocess._args_from_interpreter_flags(), "-c", program],  # type: ignore[attr-defined]
            stdin=subprocess.PIPE,
            pass_fds=(theirs.fileno(), file),
            env={**os.environ, **_ALONE},
            start_new_session=True,  # a terminal's Ctrl-C is for the parent
        )
    return process, Connection(ours.detach())


def packed(what: str, thing: Any) -> bytes:
    """What a worker can be sent of an environment or a policy.  what: which of them.

    Functions and classes of the user's own script go as they are, others by name. Raises UsageError for what cannot be.
    """
    try:
        return cloudpickle.dumps(thing)
    except Exception as error:
        raise _unsendable(what, f"{type(error).__name__}: {error}") from error


def packed_by_name(what: str, thing: Any) -> bytes:
    """The same, of something with JAX in it: it knows a class by its definition, and has not seen one that is sent."""
    message = packed(what, thing)
    if b"_make_skeleton_class" in message:
        raise _unsendable(what, "its class is in no module that they could import, but in the script or in a function")
    return message


def _unsendable(what: str, why: str) -> UsageError:
    return UsageError(f"the {what} cannot be sent to workers: {why}; use workers=0")
