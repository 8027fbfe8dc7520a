"""Where the environments of a run stand between two rollouts: what a resumed run puts them back to.

    standing.to_record()         → (record, arrays), for a checkpoint
    from_record(…)               → Standing

Each kind of world says in its own way where it stands (`worlds/settable.py`); to a file all of it is plain data.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from steepest.errors import RunError
from steepest.sampling.episodes import Running
from steepest.worlds import state_record
from steepest.worlds.state_record import Arrays


class Standing(NamedTuple):
    """running: the episodes under way.  worlds: () ↦ where each group stands, by its number; asked for when needed."""

    running: Running
    worlds: Callable[[], dict[int, Any]]

    def to_record(self) -> tuple[Any, Arrays]:
        """(record, arrays): JSON, and the arrays beside it. Raises TypeError for what no file holds."""
        return state_record.to_record((self.running, self.worlds()))


def from_record(record: Any, arrays: Arrays, envs: int) -> Standing:
    """What `to_record` made of a run with so many environments. Raises RunError for anything else."""
    value = state_record.from_record(record, arrays)
    if not isinstance(value, tuple) or len(value) != 2 or not isinstance(value[1], dict):
        raise RunError("the checkpoint's environments are damaged: they do not say where they stand")
    running, worlds = value
    like = Running.none(envs)
    forms = [(x.shape, x.dtype) for x in like]
    if not isinstance(running, tuple) or [(_shape(x), getattr(x, "dtype", None)) for x in running] != forms:
        raise RunError(f"the checkpoint's environments are damaged: their episodes are not those of {envs}")
    return Standing(Running(*running), lambda: worlds)


def _shape(x: Any) -> Any:
    return np.shape(x) if isinstance(x, np.ndarray) else None
