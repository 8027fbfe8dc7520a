"""A computation in a thread of its own, beside what this one does.

    finish = beside(f, x)      f(x) begins
    …                          other programs, as if alone
    finish()                   its result, or what it raised

XLA divides no matrix product of 2 048 rows and 64 units among processors: two such programs that need nothing of each
other then take as long as the longer one. On one processor, or where another device computes, nothing is gained.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any, TypeVar

import jax

from steepest.processors import processors

R = TypeVar("R")

_SETTINGS: dict[str, Callable[[Any], Any]] = {
    "jax_enable_x64": jax.enable_x64,
    "jax_default_device": jax.default_device,
    "jax_default_matmul_precision": jax.default_matmul_precision,
    "jax_disable_jit": jax.disable_jit,
    "jax_debug_nans": jax.debug_nans,
    "jax_debug_infs": jax.debug_infs,
}
"""Those of JAX that a thread may have for itself, and change a result or what is said of it."""


def two_processors() -> bool:
    """Whether two programs run at once here."""
    return jax.default_backend() == "cpu" and processors() > 1


def beside(call: Callable[..., R], *args: Any) -> Callable[[], R]:
    """Begin `call`, with the caller's settings of JAX (`_SETTINGS`).

    One at a time: those that are begun before the first has ended wait for it. Returns what waits for the result,
    whose arrays are computed, and raises what the call raised. A call that nobody waits for is ended before the
    interpreter is.
    """
    config: Any = jax.config
    settings = {name: getattr(config, name) for name in _SETTINGS}

    def work() -> R:
        with ExitStack() as stack:
            for name, value in settings.items():
                stack.enter_context(_SETTINGS[name](value))
            result = call(*args)
            jax.block_until_ready(jax.tree.leaves(result))
            return result

    return _thread.submit(work).result


def _new_thread() -> None:
    global _thread
    _thread = ThreadPoolExecutor(1, "steepest-beside")


_new_thread()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_new_thread)  # threads are not inherited
