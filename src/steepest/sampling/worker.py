"""A worker: a process that owns some groups, and writes their part of every rollout into memory that it shares.

parent → worker   Setup, then a Task for each rollout
worker → parent   for each Task: every Fault as it is found, so that none is lost with the process; Done or Failed
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

from steepest.sampling.actor import Actor
from steepest.sampling.groups import Groups, Order, make_groups
from steepest.sampling.serving import serve
from steepest.sampling.shared_rollouts import map_rollouts
from steepest.sampling.sign_of_life import map_sign
from steepest.worlds.faults import Fault
from steepest.worlds.world import World


class Setup(NamedTuple):
    """make: (environments) ↦ a new world.  which: the groups that are this worker's.  size, envs: as of `Groups`.
    layout: of a rollout's arrays.  keep: as of `Groups`."""

    make: Callable[[int], World]
    which: range
    size: int
    envs: int
    layout: Any
    keep: bool = False


class Task(NamedTuple):
    """actor: pickled; None for the one before.  order: for `Groups`.  half: which of the two rollouts to write."""

    actor: bytes | None
    order: Order
    half: int


class Done(NamedTuple):
    """charged: whether a cost was reported.  kept: where its groups stand now, pickled; None where none say."""

    charged: bool
    kept: bytes | None


def main(control: int, file: int, sign: int) -> None:
    """Serve until the parent closes the connection.

    control, file, sign: the numbers of the connection, of the rollouts' file and of the sign of life's.
    """
    serve(control, lambda setup, connection: _Worker(pickle.loads(setup), file, sign, connection))


class _Worker:
    def __init__(self, setup: Setup, file: int, sign: int, connection: Connection):
        self._setup, self._sign, self._connection = setup, map_sign(sign), connection
        self._rollouts = map_rollouts(file, setup.layout)
        self._worlds = make_groups(setup.make, setup.which, setup.size, setup.envs)
        self._groups: Groups | None = None

    def __call__(self, task: Task) -> Done:
        if task.actor is not None:
            actor: Actor = pickle.loads(task.actor)
            size, envs, keep = self._setup.size, self._setup.envs, self._setup.keep
            self._groups = Groups(self._worlds, size, envs, actor, self._report, self._sign, keep=keep)
        assert self._groups is not None
        charged = self._groups.collect(task.order, self._rollouts[task.half])
        kept = self._groups.keep()
        return Done(charged, None if kept is None else pickle.dumps(kept))

    def _report(self, fault: Fault) -> None:
        self._connection.send_bytes(pickle.dumps(fault))

    def close(self) -> None:
        for world in self._worlds.values():
            world.close()
