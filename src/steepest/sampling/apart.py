"""A world in a process of its own: what hangs or dies there is a fault of an environment, not the end of the run.

    here → there   a seed, to reset with, or actions
    there → here   every Fault as it is found; observations or a Transition, or Failed

The numbers are those of the same world in this process. Where the process is lost all of its episodes are: the row of a
fault in each of them, and in the next one they begin anew in another process, with other seeds (`worlds/faults.py`).
"""

from __future__ import annotations

import pickle
import time
from collections.abc import Callable, MutableSequence
from multiprocessing.connection import Connection, wait
from typing import Any, NamedTuple

import numpy as np

from steepest.errors import RunError, UsageError
from steepest.sampling.groups import bear_faults
from steepest.sampling.serving import Failed, serve
from steepest.sampling.sign_of_life import map_sign
from steepest.sampling.worker_process import PATIENCE, Gone, WorkerProcess
from steepest.sampling.workers import packed
from steepest.worlds.faults import ATTEMPTS, Fault, Irreparable, Report
from steepest.worlds.world import Transition, World, seed_anew


class Setup(NamedTuple):
    """make: (environments) ↦ a new world.  envs: B."""

    make: Callable[[int], World]
    envs: int


class Reset(NamedTuple):
    """A task; the others are actions."""

    seed: int | None


class WorldApart:
    """A World.

    make: (environments) ↦ a new world, which is sent by cloudpickle.  like: a world of the same kind, of whatever
    number of environments.  envs: B.  timeout: seconds that one call of an environment may take.

    The process starts with the first reset. Raises UsageError for something that cannot be sent.
    """

    def __init__(self, make: Callable[[int], World], like: World, envs: int, timeout: float = 60.0):
        self.name, self.backend, self.envs = like.name, like.backend, envs
        self.observation_space, self.action_space = like.observation_space, like.action_space
        self.agents = getattr(like, "agents", 1)
        self._make, self._timeout = make, timeout
        self._report: Report | None = None
        self._process: WorkerProcess | None = None
        self._obs: np.ndarray | None = None
        self._seed: int | None = None
        self._renewed = 0
        packed("environment", make)

    @property
    def obs(self) -> np.ndarray:
        """[B,…] what to act upon next. Raises UsageError before the first reset."""
        if self._obs is None:
            raise UsageError(f"world {self.name!r} must be reset before it is used")
        return self._obs

    def bear(self, report: Report, at: MutableSequence[int] | None = None) -> None:
        """From now on report each fault and go on: see `faults.py`. To be called before the first reset."""
        self._report = report

    def reset(self, seed: int | None = None) -> np.ndarray:
        """Start B new episodes: their observations [B,…]. Raises as `step`."""
        self._seed, self._renewed = seed, 0
        try:
            self._obs = self._ask(Reset(seed))
        except _Lost as lost:
            self._obs = self._anew(lost)
        return self.obs

    def step(self, action: np.ndarray) -> Transition:
        """One step of all environments.

        Raises RunError where a fault is not borne with, or what was lost cannot be begun again.
        """
        before = self.obs
        try:
            transition, self._obs = self._ask(action)
        except _Lost as lost:
            self._obs = self._anew(lost)
            none, all_of_them = np.zeros(self.envs, bool), np.ones(self.envs, bool)
            return Transition(np.zeros(self.envs, np.float32), before, none, all_of_them, none)
        return transition

    def close(self) -> None:
        """End the process; may be called twice."""
        if self._process is not None:
            self._process.close(time.monotonic() + PATIENCE)
            self._process = None

    def _anew(self, lost: _Lost) -> np.ndarray:
        """The first observations of another process. Raises RunError where faults are not borne with."""
        for _ in range(ATTEMPTS):
            self._bear(lost.fault)
            self._renewed += 1
            try:
                return self._ask(Reset(seed_anew(self._seed, self._renewed)))
            except _Lost as again:
                lost = again
        self._bear(lost.fault)
        raise Irreparable(f"{lost.fault.message}; so it went {ATTEMPTS} times in a row")

    def _bear(self, fault: Fault) -> None:
        """Report it. Raises RunError where it is not to be borne with."""
        if self._report is None:
            raise RunError(str(fault))
        self._report(fault)

    def _ask(self, task: Reset | np.ndarray) -> Any:
        """The answer to a task. Raises _Lost where the process is, RunError for what the world raised."""
        process = self._process or self._begin()
        try:
            process.look()
            process.send(pickle.dumps(task))
            reply = self._hear(process)
        except _Lost:
            self._process = None
            for message in process.kill():
                if isinstance(message, Fault):
                    self._bear(message)
            raise
        except BaseException:  # an interrupt too: a late answer would be taken for that to another task
            self._process = None
            process.kill()
            raise
        if isinstance(reply, Failed):
            raise reply.again(f"the process of {self.name}")
        return reply

    def _begin(self) -> WorkerProcess:
        setup = packed("environment", Setup(self._make, self.envs))
        self._process = WorkerProcess("steepest.sampling.apart", setup)
        return self._process

    def _hear(self, process: WorkerProcess) -> Any:
        while True:
            if wait([process.connection], min(1.0, self._timeout / 4)):
                try:
                    message = process.receive()
                except Gone:
                    raise self._lost(process, "died", process.end()) from None
                if not isinstance(message, Fault):
                    return message
                self._bear(message)
            elif process.exited:  # and something that it has started itself keeps the connection open
                raise self._lost(process, "died", process.end())
            elif silent := process.overdue(self._timeout):
                raise self._lost(process, "hung", f"gave no sign of life for {silent:.1f} s")

    def _lost(self, process: WorkerProcess, kind: str, what: str) -> _Lost:
        message = f"the process of {self.name}, with {self.envs} environments, {what} {process.where()}"
        return _Lost(Fault(*process.at, kind, message))


class _Lost(Exception):
    """The process is gone, or to be ended, by this fault."""

    def __init__(self, fault: Fault):
        super().__init__(fault.message)
        self.fault = fault


def main(control: int, sign: int) -> None:
    """Serve until the parent closes the connection.

    control, sign: the numbers of the connection and of the sign of life's file.
    """
    serve(control, lambda setup, connection: _Served(pickle.loads(setup), sign, connection))


class _Served:
    def __init__(self, setup: Setup, sign: int, connection: Connection):
        self._world = setup.make(setup.envs)
        bear_faults(self._world, lambda fault: connection.send_bytes(pickle.dumps(fault)), map_sign(sign))

    def __call__(self, task: Reset | np.ndarray) -> Any:
        if isinstance(task, Reset):
            return self._world.reset(task.seed)
        return self._world.step(task), self._world.obs

    def close(self) -> None:
        self._world.close()
