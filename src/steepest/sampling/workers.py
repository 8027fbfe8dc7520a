"""Workers: processes that own the groups of a run between them, and ship whole rollouts through memory they share.

    start(order)     the parameters go to all workers, and each begins with its groups
    finish()         once all are done, the rollout: a view of the shared memory

Two rollouts take turns there, so that the last one can be read while the next is written.

A worker that dies, or gives no sign of life for too long, is a fault of the environment that it was calling. It is
replaced by one with the same groups and other seeds, which makes the same rollout from its first step: the others do
not notice, what it had made of it is forgotten, and the episodes that it had under way end there (`worlds/faults.py`).
"""

from __future__ import annotations

import os
import pickle
import sys
import time
from collections.abc import Callable
from multiprocessing.connection import wait
from typing import Any

import cloudpickle
import numpy as np

from steepest.batch import Rollout
from steepest.errors import RunError, UsageError
from steepest.sampling.actor import Actor
from steepest.sampling.fault_tally import FaultTally
from steepest.sampling.groups import Order, count, share
from steepest.sampling.serving import Failed
from steepest.sampling.shared_rollouts import map_rollouts, open_file
from steepest.sampling.worker import Done, Setup, Task
from steepest.sampling.worker_process import PATIENCE, Gone, WorkerProcess
from steepest.worlds.faults import ATTEMPTS, Fault
from steepest.worlds.world import World

MODULE = "steepest.sampling.worker"


class Workers:
    """workers: how many, at most one for each group.  make: (environments) ↦ a new world; it is sent by cloudpickle.
    size, envs: as of `Groups`.  layout: of a rollout's arrays.  faults: counts them; by default none is borne with.
    timeout: seconds that one call of an environment may take, beginning after a minute at least for imports and making.
    keep: as of `Groups`.

    The processes start at once and make their worlds with the first order; `act_with` must come before that.

    Raises UsageError for something that cannot be sent, RunError where a process cannot be started.
    """

    def __init__(
        self,
        workers: int,
        make: Callable[[int], World],
        size: int,
        envs: int,
        layout: Any,
        faults: FaultTally | None = None,
        timeout: float = 60.0,
        *,
        keep: bool = False,
    ):
        self.faults = FaultTally(0) if faults is None else faults
        self._shares = share(count(envs, size), workers)
        self._size, self._envs, self._timeout = size, envs, timeout
        self._setups = [packed("environment", Setup(make, groups, size, envs, layout, keep)) for groups in self._shares]
        self._half, self._waiting, self._actor = 0, False, b""
        self._kept: list[bytes | None] = []  # of each worker, at the end of the last rollout
        self._order: Order | None = None
        self._known = [False] * workers  # which of them has the actor
        self._in_vain = [0] * workers  # how often it was replaced, since it last finished a rollout
        self._processes: list[WorkerProcess] = []
        self._file = open_file()
        try:
            self._rollouts = map_rollouts(self._file, layout)
            for setup in self._setups:
                self._processes.append(WorkerProcess(MODULE, setup, self._file))
        except RunError:
            self.close()
            raise

    @property
    def pids(self) -> list[int]:
        """The processes."""
        return [process.pid for process in self._processes]

    def act_with(self, actor: Actor) -> None:
        """From the next order on. Raises UsageError where the actor cannot be sent."""
        self._actor, self._known = packed_by_name("policy", actor), [False] * len(self._shares)

    def start(self, order: Order) -> None:
        """Begin with a rollout. A worker that is gone is replaced in `finish`."""
        self._half, self._order = 1 - self._half, order
        for number in range(len(self._processes)):
            self._give(number, order)
        self._waiting = True

    def finish(self) -> tuple[Rollout, bool]:
        """The rollout that was started, and whether a cost was reported in it; good until the next but one is started.

        Raises what the first worker that failed raised, RunError past the faults that are borne with, or where the same
        worker cannot be replaced.
        """
        assert self._waiting
        self._waiting = False
        replies: dict[int, Done | Failed] = {}
        for process in self._processes:
            process.look()
        while pending := [number for number in range(len(self._processes)) if number not in replies]:
            connections = [self._processes[number].connection for number in pending]
            ready = wait(connections, min(1.0, self._timeout / 4))
            for number, connection in zip(pending, connections, strict=True):
                if connection in ready:
                    self._hear(number, replies)
                elif self._processes[number].exited:  # and something that it has started itself keeps the connection
                    self._replace(number, "died", self._processes[number].end())
                elif silent := self._processes[number].overdue(self._timeout):
                    self._replace(number, "hung", f"gave no sign of life for {silent:.1f} s")
        charged = False
        for number in range(len(self._processes)):
            reply = replies[number]
            if isinstance(reply, Failed):
                raise reply.again(self._name(number))
            charged |= reply.charged
        self._kept = [reply.kept for _, reply in sorted(replies.items()) if isinstance(reply, Done)]
        return self._rollouts[self._half], charged

    def keep(self) -> Callable[[], dict[int, Any]] | None:
        """How to know where each group stood at the end of the last rollout, by number; None where none say."""
        kept = [each for each in self._kept if each is not None]
        if len(kept) < len(self._shares):
            return None
        return lambda: {group: state for each in kept for group, state in pickle.loads(each).items()}

    def forget(self) -> None:
        """Wait for what was started, if anything was, and drop it."""
        if self._waiting:
            self.finish()

    def close(self) -> None:
        """End the processes; may be called twice."""
        deadline = time.monotonic() + PATIENCE
        for process in self._processes:
            process.connection.close()  # all at once, so that they end side by side
        for process in self._processes:
            process.close(deadline)
        if self._file >= 0:
            os.close(self._file)
        self._processes, self._file, self._waiting = [], -1, False

    def _give(self, number: int, order: Order) -> None:
        task = Task(None if self._known[number] else self._actor, order, self._half)
        self._processes[number].send(pickle.dumps(task))
        self._known[number] = True

    def _hear(self, number: int, replies: dict[int, Done | Failed]) -> None:
        """What a worker has to say: a fault, or that it is done."""
        try:
            message = self._processes[number].receive()
        except Gone:
            self._replace(number, "died", self._processes[number].end())
            return
        if isinstance(message, Fault):
            self.faults(message)
        else:
            replies[number], self._in_vain[number] = message, 0

    def _replace(self, number: int, kind: str, what: str) -> None:
        """Another worker in its place, for the rollout that it has not finished."""
        assert self._order is not None
        process = self._processes[number]
        env, step = process.at
        for message in process.kill():
            if isinstance(message, Fault):
                self.faults(message)
        fault = Fault(env, step, kind, f"{self._name(number)} {what} {process.where()}")
        self.faults(fault)
        self._in_vain[number] += 1
        if self._in_vain[number] >= ATTEMPTS:
            raise RunError(f"{fault.message}; so it went {ATTEMPTS} times in a row")
        entropy = (*self._order.entropy, number, self._in_vain[number])
        seed = np.random.SeedSequence(entropy).generate_state(1)[0] >> 1
        self._processes[number], self._known[number] = WorkerProcess(MODULE, self._setups[number], self._file), False
        self._give(number, self._order._replace(seed=int(seed), lost=True, kept=None))

    def _name(self, number: int) -> str:
        groups = self._shares[number]
        last = min(groups.stop * self._size, self._envs) - 1
        where = f"environments {groups.start * self._size} to {last} of {self._envs}"
        return f"worker {number} of {len(self._shares)}, with {where},"


def possible() -> bool:
    """Whether this system and this interpreter can start workers."""
    return os.name == "posix" and bool(sys.executable)


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
