"""What a measurement prints: one JSON object, and the versions that made it. For every side; imports no library."""

from __future__ import annotations

import importlib.metadata
import json
import os
import resource
import statistics
import time
from collections.abc import Callable
from typing import Any

PACKAGES = (
    "steepest", "jax", "jaxlib", "torch", "stable-baselines3", "sb3-contrib", "tianshou", "gymnax", "flax", "distrax",
    "gymnasium", "mujoco", "numpy",
)  # fmt: skip


def say(value: float, unit: str, **detail: Any) -> None:
    """Print the measurement."""
    print(json.dumps({"value": value, "unit": unit, **detail, "versions": versions()}), flush=True)


def versions() -> dict[str, str]:
    """Of the packages that are installed, those that can change a number."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def repeat(update: Callable[[], Any], prepare: Callable[[], Any], seconds: float, least: int = 3) -> dict[str, float]:
    """Time `update` until it has taken so many seconds, at least thrice; `prepare` comes before each, untimed.

    The first is not counted: it compiles, or allocates. Where it took half a minute it is the measurement.
    """
    prepare()
    start = time.perf_counter()
    update()
    first, times = time.perf_counter() - start, []
    if first > 30:
        return {"value": first, "first": first, "repeats": 1}
    while len(times) < least or sum(times) < seconds:
        prepare()
        start = time.perf_counter()
        update()
        times.append(time.perf_counter() - start)
    return {"value": statistics.median(times), "fastest": min(times), "first": first, "repeats": len(times)}


def since_command() -> float:
    """Seconds since the process was started, as whoever started it says."""
    return time.time() - float(os.environ.get("BEGAN", "nan"))


def peak_mib() -> float:
    """The most memory that this process ever had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def resident_mib() -> float:
    """The memory that it has now."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


class Rate:
    """Steps per second from a clock that is read at the end of every iteration.

    skip: seconds at the start that are not counted, and at least two iterations: compilation, first touch of memory.
    seconds: how long to measure after that.
    """

    def __init__(self, skip: float, seconds: float):
        self._skip, self._seconds = skip, seconds
        self._began, self._iterations = time.perf_counter(), 0
        self._first: tuple[int, float] | None = None
        self.value, self.steps, self.warm_up = float("nan"), 0, float("nan")

    def __call__(self, steps: int) -> bool:
        """Read the clock after so many steps in all; whether it is enough."""
        now = time.perf_counter()
        self._iterations += 1
        if self._first is None:
            if self._iterations >= 2 and now - self._began >= self._skip:
                self._first, self.warm_up = (steps, now), now - self._began
            return False
        self.steps = steps - self._first[0]
        self.value = self.steps / (now - self._first[1])
        return now - self._first[1] >= self._seconds
