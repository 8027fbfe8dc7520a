"""The faults of a run's environments: each is kept until it is written down, and one too many ends the run."""

from __future__ import annotations

from collections import Counter

from steepest.errors import RunError
from steepest.worlds.faults import Fault

_SAID = 3
"""How many of the last faults a diagnosis names."""


class FaultTally:
    """A `Report`.  limit: how many may be, from now on."""

    def __init__(self, limit: int):
        self._limit = limit
        self._kinds: Counter[str] = Counter()
        self._last: list[str] = []
        self._taken: list[Fault] = []

    def __call__(self, fault: Fault) -> None:
        """Count one more. Raises RunError past the limit, with the last ones."""
        self._taken.append(fault)
        self._kinds[fault.kind] += 1
        self._last = [*self._last, str(fault)][-_SAID:]
        if self._kinds.total() > self._limit:
            raise RunError(self._diagnosis())

    def take(self) -> list[Fault]:
        """Those since the last time, in order of steps and of environments, whoever found them."""
        taken, self._taken = self._taken, []
        return sorted(taken, key=lambda fault: (fault.step, fault.env))

    def _diagnosis(self) -> str:
        if not self._limit:
            return self._last[-1]
        kinds = ", ".join(f"{kind} {count}" for kind, count in self._kinds.most_common())
        return f"more than {self._limit} faults of environments ({kinds}); the last: " + "; ".join(self._last)
