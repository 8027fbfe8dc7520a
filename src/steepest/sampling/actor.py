"""What chooses the actions of a rollout on the host: parameters and random numbers come once, not with every step.

    weights = actor.export(θ, statistics)      plain NumPy, which a worker can be sent
    actor.begin(weights, entropy, T, B)
    actor.recall(memory)                       of a policy that remembers
    for t < T:  action_t = actor(obs_t, t)     actor.forget(the environments whose episode ended)

The random numbers depend on `entropy` alone, and the bits of an action on B: so an actor serves a group of environments
of fixed size, and gives the same wherever it runs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from steepest.errors import RunError


class Actor(Protocol):
    """A policy's structure, ready to act with any parameters. It can be pickled.

    memory: [B,M] float32, what it remembers before the next action; None for one that remembers nothing.
    """

    @property
    def memory(self) -> NDArray[np.float32] | None: ...

    def export(self, params: Any, scaling: Any) -> Any:
        """What `begin` takes, in NumPy.  params: θ.  scaling: the observation statistics, or None."""
        ...

    def begin(self, weights: Any, entropy: Sequence[int], steps: int, envs: int) -> None:
        """Get ready for a rollout of `steps` steps of `envs` environments."""
        ...

    def recall(self, memory: NDArray[np.float32] | None) -> None:
        """Go on with what was remembered, after `begin`. None: B new episodes."""
        ...

    def forget(self, ended: NDArray[np.bool_]) -> None:
        """New episodes begin in these environments, [B], before the next action."""
        ...

    def __call__(self, obs: NDArray[Any], t: int) -> NDArray[Any]:
        """Actions [B,…] for observations [B,…] at step t < steps, before any clipping; good until the next call.

        Raises RunError for one that is not finite.
        """
        ...


class NoMemory:
    """The part of an actor that remembers nothing."""

    memory = None

    def recall(self, memory: NDArray[np.float32] | None) -> None:
        """See `Actor`."""

    def forget(self, ended: NDArray[np.bool_]) -> None:
        """See `Actor`."""


def finite(action: NDArray[Any]) -> NDArray[Any]:
    """The actions, unless one is NaN or infinite: RunError."""
    # the sum of squares is finite only if all entries are; where it overflows, all are looked at
    if action.dtype.kind == "f" and not math.isfinite(np.vdot(action, action)) and not np.isfinite(action).all():
        raise RunError(f"the policy chose an action that is not finite: {action!r:.200}")
    return action


class Stoppable:
    """An actor that another thread can stop: its next action is a RunError, and so the end of what it acts in."""

    def __init__(self, actor: Actor):
        self._actor, self._stopped = actor, False

    def stop(self) -> None:
        """For ever."""
        self._stopped = True

    def export(self, params: Any, scaling: Any) -> Any:
        """See `Actor`."""
        return self._actor.export(params, scaling)

    def begin(self, weights: Any, entropy: Sequence[int], steps: int, envs: int) -> None:
        """See `Actor`."""
        self._actor.begin(weights, entropy, steps, envs)

    @property
    def memory(self) -> NDArray[np.float32] | None:
        """See `Actor`."""
        return self._actor.memory

    def recall(self, memory: NDArray[np.float32] | None) -> None:
        """See `Actor`."""
        self._actor.recall(memory)

    def forget(self, ended: NDArray[np.bool_]) -> None:
        """See `Actor`."""
        self._actor.forget(ended)

    def __call__(self, obs: NDArray[Any], t: int) -> NDArray[Any]:
        """See `Actor`."""
        if self._stopped:
            raise RunError("collecting was stopped")
        return self._actor(obs, t)
