"""A sign of life: two numbers in memory that a worker shares, for whom it calls and in which step.

    sign[0]   the index of the environment that is being called, −1 before the first
    sign[1]   the step of its world, 0 in a reset, −1 before the first

They change with every call, so that whoever looks twice knows whether a single call has lasted since. Writing one costs
a few nanoseconds.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import MutableSequence
from typing import NamedTuple, cast

from steepest.sampling.shared_rollouts import open_file

_BYTES = 16


class Sign(NamedTuple):
    """file: the number by which another process can map it.  at: (environment, step), as it stands."""

    file: int
    at: MutableSequence[int]

    @classmethod
    def new(cls) -> Sign:
        """Of a process that is about to start."""
        file = open_file()
        os.truncate(file, _BYTES)
        at = map_sign(file)
        at[0] = at[1] = -1
        return cls(file, at)


def map_sign(file: int) -> MutableSequence[int]:
    """The two numbers."""
    return cast(MutableSequence[int], memoryview(mmap.mmap(file, _BYTES)).cast("q"))
