"""As many runs at once as there are cores, each on one of them: for what is learnt, never for how fast.

    failed = each_on_a_core(jobs, lambda job, core: …, str)

What a run returns depends on how many threads it has, but not on what else the machine does.
"""

from __future__ import annotations

import os
import queue
import sys
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Job = TypeVar("Job")


def each_on_a_core(jobs: Iterable[Job], make: Callable[[Job, int], None], called: Callable[[Job], str]) -> list[str]:
    """Make every job, with the number of a core that is its own; what failed, as it was printed at once.

    make: (job, core) ↦ nothing; whatever it raises is the failure of that job alone.  called: its name.
    """
    free = queue.SimpleQueue[int]()
    for core in os.sched_getaffinity(0):
        free.put(core)

    def one(job: Job) -> str | None:
        core = free.get()
        try:
            make(job, core)
        except Exception as error:
            said = f"{called(job)}: {error}"
            print(said, file=sys.stderr, flush=True)
            return said
        finally:
            free.put(core)
        return None

    pool = ThreadPoolExecutor(free.qsize())
    try:
        return [said for said in pool.map(one, jobs) if said]
    finally:
        pool.shutdown(cancel_futures=True)
