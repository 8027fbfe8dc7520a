"""A computation in a thread of its own, beside what this one does.

    finish = beside(f, x)      f(x) begins
    …                          other programs, as if alone
    finish()                   its result, or what it raised

XLA divides no matrix product of 2 048 rows and 64 units among processors: two such programs that need nothing of each
other then take as long as the longer one.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import jax

R = TypeVar("R")


def beside(call: Callable[..., R], *args: Any) -> Callable[[], R]:
    """Begin `call`; the settings of JAX that are a thread's own are those of the caller's.

    One at a time: those that are begun before the first has ended wait for it. Returns what waits for the result,
    arrays that are computed, and raises what the call raised.
    """
    settings: Any = jax.config
    x64, device = settings.jax_enable_x64, settings.jax_default_device

    def work() -> R:
        with jax.enable_x64(x64), jax.default_device(device):
            result = call(*args)
            jax.block_until_ready(jax.tree.leaves(result))
            return result

    return _THREAD.submit(work).result


_THREAD = ThreadPoolExecutor(1, "steepest-beside")
