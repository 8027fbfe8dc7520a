"""The nouns of an iteration's arithmetic: what is learnt, what an update is given, makes of it, and reports.

(LearnerState, Given) → Prepared, Lesson → LearnerState, IterationInfo        by `Learner`
"""

from __future__ import annotations

from typing import Any, NamedTuple

from jax import Array
from jaxtyping import PRNGKeyArray

from steepest.algorithms.algorithm import AlgorithmState
from steepest.batch import Batch, Rollout
from steepest.critics import Critic, FitInfo
from steepest.distributions import Policy
from steepest.geometry import StepInfo
from steepest.normaliser import Scaling
from steepest.sampling.cost_meter import Limited
from steepest.sampling.rows import memories
from steepest.sampling.vine import Branches


class LearnerState(NamedTuple):
    """Everything that is learnt: a pytree, and what a checkpoint holds of it.

    critic_memory, cost_memory: [B,M] what the critics remember of the episodes under way; None where they remember
    nothing.
    """

    policy: Policy
    algorithm: AlgorithmState
    critic: Critic
    optimiser: Any
    cost_critic: Critic | None = None
    cost_optimiser: Any = None
    critic_memory: Any = None
    cost_memory: Any = None

    def afresh(self) -> LearnerState:
        """The same, with all episodes at their beginning."""
        anew = [
            None if memory is None else memories(critic, len(memory))
            for critic, memory in ((self.critic, self.critic_memory), (self.cost_critic, self.cost_memory))
        ]
        return self._replace(critic_memory=anew[0], cost_memory=anew[1])


class Given(NamedTuple):
    """What an update is made of, beside the state.

    rollout: T × B transitions, raw.  acted: the observation statistics that acted.  refreshed: those that will act
    next, for `normaliser_kl`.  reward_scale: what the critic's rewards are divided by.  key: of all that is drawn.
    branches: of a vine: they say how the policy changes; the trunk trains the critic and measures the step.
    limited: how far the cost is from its limit, where there is one.
    """

    rollout: Rollout
    acted: Scaling | None
    refreshed: Scaling | None
    reward_scale: Any
    key: PRNGKeyArray
    branches: Branches | None = None
    limited: Limited | None = None


class IterationInfo(NamedTuple):
    """step: the trust report.  critic: the fit's.  advantage_std: raw reward units.  cost_critic: of a limited cost."""

    step: StepInfo
    critic: FitInfo
    advantage_std: Array
    cost_critic: FitInfo | None = None


class Lesson(NamedTuple):
    """What a rollout has for the critics.

    obs: [N,…] as the reward's critic takes it, or the policy that a shared one stands on.  weight: [N].  value,
    target: [N], of that.  cost: the three of the cost's, or None.  key: of their shuffles.
    """

    obs: Any
    weight: Array
    value: Array
    target: Array
    cost: tuple[Any, Array, Array] | None
    key: Any


class Prepared(NamedTuple):
    """What a rollout has for the policy.

    batch: of the update.  trunk: of a vine, the batch of the rollout itself; else None.  spread: deviation of the
    advantages, raw reward units.  critic_memory, cost_memory: what the critics remember after the rollout.
    """

    batch: Batch
    trunk: Batch | None
    spread: Array
    critic_memory: Any
    cost_memory: Any
