"""What advances a run: from one snapshot to the next, by one iteration or by several, with a row of metrics for each.

    snapshot → collect → statistics → prepare → change the policy, fit the critics → snapshot

The loop decides what happens between (evaluation, logs, checkpoints, the end) and does not know how that is done.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np

from steepest.sampling.rollout import Episode
from steepest.training.iteration import Given, IterationInfo
from steepest.training.persistence import Progress, Snapshot
from steepest.worlds.faults import Fault

ACT, FIT, RESET, EVALUATE = range(4)
"""Purposes of randomness."""


class Row(NamedTuple):
    """One iteration.  progress: after it.  metrics: of it, without what the loop adds.  episodes: that ended in it.
    faults: of environments, in it."""

    progress: Progress
    metrics: dict[str, Any]
    episodes: list[Episode]
    faults: Sequence[Fault] = ()


class Before(NamedTuple):
    """What an update was made of.  snapshot: of the run before it.  given: what the update was given; None where that
    can be made again: `ahead` iterations after the snapshot."""

    snapshot: Snapshot
    given: Given | None
    ahead: int = 0


class Advanced(NamedTuple):
    """snapshot: after the last iteration.  rows: one each, in order.  info: of the last, on the host.
    before: of the update of row i; good until the next advance."""

    snapshot: Snapshot
    rows: list[Row]
    info: IterationInfo
    before: Callable[[int], Before]


class Engine(Protocol):
    """Advances a run."""

    def reset(self, snapshot: Snapshot) -> None:
        """The episodes as the snapshot's stand; or afresh, seeded by how far the run is."""
        ...

    def advance(self, snapshot: Snapshot) -> Advanced:
        """At least one more iteration. Raises RunError where the world breaks; the snapshot stays whole."""
        ...

    def close(self) -> None:
        """Give back what is held; may be called twice."""
        ...


def key_of(seed: Any, purpose: Any, iteration: Any) -> Any:
    """The random key of a run, by purpose and by iteration: the same in a run that was resumed and in one that was
    not. Numbers, or arrays of a program."""
    return jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), purpose), iteration)


def seed_of(seed: int, purpose: int, iteration: int) -> int:
    """A seed for environments, by run, purpose and iteration; the evaluation's is the same in every iteration."""
    entropy = (seed, purpose, 0 if purpose == EVALUATE else iteration)
    return int(np.random.SeedSequence(entropy).generate_state(1)[0] >> 1)
