"""When the data of an iteration is collected: once it is asked for, or at once, while the last fit goes on.

    gather.start(θ, …)    do something else    gathered = gather.finish()

Both give the same numbers. How it is collected is a `Collect`'s business.
"""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any, NamedTuple, Protocol

from jaxtyping import PRNGKeyArray

from steepest.batch import Rollout
from steepest.normaliser import Scaling
from steepest.sampling.episodes import Episode
from steepest.sampling.standing import Standing
from steepest.sampling.vine import Branches
from steepest.worlds.faults import Fault


class Gathered(NamedTuple):
    """rollout: the single path, or the trunk.  episodes: that ended in it.  branches: of a vine.  branch_steps: what
    they cost, in simulator steps.  faults: of the environments, that were borne with.  standing: where they stand after
    it; None where that cannot be kept."""

    rollout: Rollout
    episodes: list[Episode]
    branches: Branches | None
    branch_steps: int
    faults: list[Fault]
    standing: Standing | None = None

    @property
    def steps(self) -> int:
        """Simulator steps in all, without ghost rows."""
        return int(self.rollout.valid.sum()) + self.branch_steps


class Collect(Protocol):
    """Collects the data of one update from a world that it knows."""

    def reset(self, seed: int, standing: Standing | None = None) -> None:
        """All episodes afresh; or as they stood."""
        ...

    def __call__(self, params: Any, acted: Scaling | None, key: PRNGKeyArray) -> Gathered:
        """params: θ.  acted: the observation statistics.  key: of everything random but the environments' own."""
        ...

    def stop(self) -> None:
        """For good, and from any thread: what is under way ends at its next step, by RunError."""
        ...


class Gather(Protocol):
    """Data for update after update: `start`, do something else, `finish`."""

    def reset(self, seed: int, standing: Standing | None = None) -> None:
        """All episodes afresh, or as they stood; what was started is forgotten."""
        ...

    def start(self, params: Any, acted: Scaling | None, key: PRNGKeyArray) -> None:
        """Collect under these parameters and statistics, now or later."""
        ...

    def finish(self) -> Gathered:
        """What was started, once it is done. Raises what collecting raised."""
        ...

    def close(self) -> None:
        """Stop what is under way and forget it; may be called twice."""
        ...


class WhenAsked:
    """Collects in `finish`, on the caller's thread: for environments that belong to the user."""

    def __init__(self, collect: Collect):
        self._collect, self._given = collect, None

    def reset(self, seed: int, standing: Standing | None = None) -> None:
        """See `Gather`."""
        self._given = None
        self._collect.reset(seed, standing)

    def start(self, params: Any, acted: Scaling | None, key: PRNGKeyArray) -> None:
        """See `Gather`."""
        self._given = params, acted, key

    def finish(self) -> Gathered:
        """See `Gather`."""
        assert self._given is not None
        given, self._given = self._given, None
        return self._collect(*given)

    def close(self) -> None:
        """See `Gather`."""
        self._given = None


class AtOnce:
    """Collects in a thread of its own from `start` on."""

    def __init__(self, collect: Collect):
        self._collect = collect
        self._thread = ThreadPoolExecutor(1, "collect")
        self._pending: Future[Gathered] | None = None

    def reset(self, seed: int, standing: Standing | None = None) -> None:
        """See `Gather`."""
        self._forget()
        self._collect.reset(seed, standing)

    def start(self, params: Any, acted: Scaling | None, key: PRNGKeyArray) -> None:
        """See `Gather`."""
        self._pending = self._thread.submit(self._collect, params, acted, key)

    def finish(self) -> Gathered:
        """See `Gather`."""
        assert self._pending is not None
        pending, self._pending = self._pending, None
        return pending.result()

    def close(self) -> None:
        """See `Gather`."""
        self._collect.stop()  # who was interrupted while waiting for a rollout does not wait for the rest of it
        self._thread.shutdown()

    def _forget(self) -> None:
        pending, self._pending = self._pending, None
        if pending is not None:
            wait([pending])
