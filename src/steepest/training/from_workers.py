"""Data for update after update from workers: they collect by themselves between `start` and `finish`."""

from __future__ import annotations

from typing import Any

from jaxtyping import PRNGKeyArray

from steepest.distributions import Policy
from steepest.normaliser import Scaling
from steepest.sampling.acting import host_actor
from steepest.sampling.standing import Standing
from steepest.sampling.workers import Workers
from steepest.training.collecting import Account
from steepest.training.gathering import Gathered


class FromWorkers:
    """`Gather` of a single path, from workers that have no actor yet.

    policy: of whose structure every θ is.  size, envs: as of `Groups`.  Raises UsageError for a policy that cannot be
    sent to them.
    """

    def __init__(self, workers: Workers, policy: Policy, size: int, envs: int):
        actor = host_actor(policy, size)
        workers.act_with(actor)
        self._workers, self._account = workers, Account(actor, envs)

    def reset(self, seed: int, standing: Standing | None = None) -> None:
        """See `Gather`."""
        self._workers.forget()
        self._account.reset(seed, standing)

    def start(self, params: Any, acted: Scaling | None, key: PRNGKeyArray) -> None:
        """See `Gather`."""
        self._workers.start(self._account.order(params, acted, key))

    def finish(self) -> Gathered:
        """See `Gather`. The rollout is good until the next but one is started."""
        rollout, charged = self._workers.finish()
        return self._account.gathered(rollout, charged, self._workers.faults.take(), self._workers.keep())

    def close(self) -> None:
        """See `Gather`."""
        self._workers.close()
