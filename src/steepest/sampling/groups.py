"""Groups: the environments of a run in parts of fixed size, each with its own seeds and its own noise.

    group g   environments g·n … g·n + n − 1     seeds and noise from (…, g)     inference in one batch of its own

So what happens in a group depends on neither the others nor on who steps it: a run is the same, to the bit, for any
number of workers that own whole groups. Here is what each of them does, and one process that owns all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, MutableSequence
from typing import Any, NamedTuple

import numpy as np

from steepest.batch import Rollout
from steepest.errors import RunError
from steepest.sampling.actor import Actor
from steepest.sampling.rollout import columns, fill, lose
from steepest.worlds.faults import Report
from steepest.worlds.settable import Keepable, keepable, keeps, kept
from steepest.worlds.world import World


class Order(NamedTuple):
    """One rollout, please.

    weights: what the actor exported.  entropy: of the noise.  seed: to begin with all episodes afresh; None to go on.
    lost: whoever had these environments is gone, and the first step is the row of a fault in each of them.
    kept: where each group is to be put back to after that beginning, by number; None: it stands where it does.
    """

    weights: Any
    entropy: tuple[int, ...]
    seed: int | None
    lost: bool = False
    kept: Mapping[int, Any] | None = None


class Groups:
    """worlds: by the number of their group.  size: n.  envs: of all groups, B.  actor: of whose form every order is.
    report, at: as of `GymnasiumWorld.bear`, for worlds that bear with faults; None: no world does.
    keep: see whether the worlds can say where they stand, which steps the first of them before its first reset.
    """

    def __init__(
        self,
        worlds: Mapping[int, World],
        size: int,
        envs: int,
        actor: Actor,
        report: Report | None = None,
        at: MutableSequence[int] | None = None,
        *,
        keep: bool = False,
    ):
        self._worlds, self._size, self._actor = worlds, size, actor
        self._keepable: dict[int, Keepable] = {}
        self._memory: dict[int, Any] = {}  # of each group after the last rollout, of a policy that remembers
        self._keep = keep and keeps(next(iter(worlds.values())))
        for group, world in worlds.items():
            numbered = getattr(world, "number", None)  # of worlds whose errors name one environment
            if numbered is not None:
                numbered(group * size, envs)
            if report is not None:
                bear_faults(world, report, at)

    def collect(self, order: Order, into: Rollout) -> bool:
        """Write the next T steps of these groups into their columns of `into`, one group after the other.

        Returns whether any environment reported a cost. Raises what the worlds and the actor raise.
        """
        if order.seed is not None:
            self._memory.clear()
            for group, world in self._worlds.items():
                world.reset(_seed(order.seed, group))
                if order.kept is not None:
                    self._put_back(group, order.kept.get(group), into)
        charged = False
        for group, world in self._worlds.items():
            begin = group * self._size
            part = columns(into, begin, begin + world.envs)
            self._actor.begin(order.weights, (*order.entropy, group), len(into.reward), world.envs)
            remembers = part.memory is not None
            if remembers:
                self._actor.recall(self._memory.get(group))
                part.memory[:] = self._actor.memory
            if order.lost:
                lose(world, self._actor, part)
                self._actor.forget(np.ones(world.envs, bool))
            charged |= fill(world, self._actor, part, int(order.lost), self._actor.forget if remembers else None)
            if remembers:
                self._memory[group] = np.array(self._actor.memory)
        return charged

    def keep(self) -> dict[int, Any] | None:
        """Where each group stands; None where that cannot be said, from then on."""
        if not self._keep:
            return None
        states = {group: kept(self._keeper(group)) for group in self._worlds}
        self._keep = None not in states.values()  # else it has become something else than it was at first
        if not self._keep:
            return None
        return {group: (state, self._memory[group]) for group, state in states.items()} if self._memory else states

    def _put_back(self, group: int, stood: Any, into: Rollout) -> None:
        """A group as `keep` says that it stood, with what was remembered in it."""
        if into.memory is not None:
            shape = self._worlds[group].envs, into.memory.shape[1]
            memory = stood[1] if isinstance(stood, tuple) and len(stood) == 2 else None
            if not isinstance(memory, np.ndarray) or memory.dtype != np.float32 or memory.shape != shape:
                raise RunError(f"the checkpoint's environments are damaged: no memory {list(shape)} of group {group}")
            stood, self._memory[group] = stood[0], memory
        self._keeper(group).put_back(stood)

    def _keeper(self, group: int) -> Keepable:
        if group not in self._keepable:
            found = keepable(self._worlds[group])
            if found is None:
                name = self._worlds[group].name
                raise RunError(f"{name} cannot be put back to where a checkpoint says that it stood")
            self._keepable[group] = found
        return self._keepable[group]

    def close(self) -> None:
        """Close the worlds; may be called twice."""
        for world in self._worlds.values():
            world.close()


def bear_faults(world: World, report: Report, at: MutableSequence[int] | None = None) -> None:
    """Let a world go on after a fault, if it is of those that can; the others raise as before."""
    bear = getattr(world, "bear", None)
    if bear is not None:
        bear(report, at)


def make_groups(make: Callable[[int], World], which: Iterable[int], size: int, envs: int) -> dict[int, World]:
    """The worlds of some groups, by number.  make: (environments) ↦ a new world.  size: n.  envs: of all groups, B."""
    return {group: make(min(size, envs - group * size)) for group in which}


def count(envs: int, size: int) -> int:
    """How many groups there are; the last may be smaller."""
    return -(-envs // size)


def share(groups: int, workers: int) -> list[range]:
    """Which groups each of the workers owns: neighbours, and as many each as can be."""
    return [range(groups * k // workers, groups * (k + 1) // workers) for k in range(workers)]


def _seed(seed: int, group: int) -> int:
    return int(np.random.SeedSequence((seed, group)).generate_state(1)[0] >> 1)
