"""Two rollouts in memory that processes share: one is written while the other is still read. Nothing is copied.

The file behind it has no name, so that nothing is left of it when the last process that maps it is gone, however it
went. A process that is started with its number can map it too.
"""

from __future__ import annotations

import mmap
import os
import tempfile
from collections.abc import Sequence
from typing import Any

import numpy as np

from steepest.batch import Rollout
from steepest.errors import RunError

_LINE = 64
"""Arrays begin at multiples of this many bytes, where JAX takes a NumPy array on a CPU as it is."""


def open_file() -> int:
    """The number of a new file without a name, of no size yet."""
    if hasattr(os, "memfd_create"):
        return beyond_standard(os.memfd_create("steepest"))
    with tempfile.TemporaryFile() as file:
        return beyond_standard(os.dup(file.fileno()))


def beyond_standard(file: int) -> int:
    """The same file by a number above 2, which the standard streams of a process to be started cannot take: a program
    that was itself started without them gets their numbers for its files. The old number is closed."""
    import fcntl  # not on Windows, where there are no workers

    other = fcntl.fcntl(file, fcntl.F_DUPFD_CLOEXEC, 3)
    os.close(file)
    return other


def map_rollouts(file: int, layout: Sequence[tuple[tuple[int, ...], Any] | None]) -> tuple[Rollout, Rollout]:
    """Two rollouts in the file, which is given its size where it has none.

    layout: shape and dtype of each array of a rollout, None for one that it has not.

    Raises RunError where there is not so much memory.
    """
    sizes = [0 if form is None else int(np.prod(form[0])) * np.dtype(form[1]).itemsize for form in layout]
    begins = np.cumsum([0, *(-(-size // _LINE) * _LINE for size in sizes)])
    total = 2 * int(begins[-1])
    try:
        if os.fstat(file).st_size < total:
            os.truncate(file, total)
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file, 0, total)  # or a lack of memory would be a crash later
        memory = mmap.mmap(file, total)
    except OSError as error:
        raise RunError(f"no {total:,} bytes of memory for rollouts that processes share: {error}") from error
    first, second = (
        Rollout(
            *(
                None if form is None else np.ndarray(*form, memory, half + begin)
                for form, begin in zip(layout, begins[:-1].tolist(), strict=True)
            )
        )
        for half in (0, total // 2)
    )
    return first, second
