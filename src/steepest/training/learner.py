"""One iteration's arithmetic as one compiled program: normalise → advantages → policy update → critic fit.

π_old is recomputed here from the stored observations, with the statistics that acted: the ratio is exactly 1 at θ_old
whatever a worker's arithmetic was.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import PRNGKeyArray

from steepest.agent import normalise
from steepest.algorithms.algorithm import Algorithm, AlgorithmState, update
from steepest.batch import Batch, Cost, Rollout
from steepest.critics import Critic, CriticFit, FitInfo
from steepest.distributions import Policy
from steepest.geometry import EntropyRegularised, StepInfo, log_probs, mean_kl
from steepest.normaliser import Scaling
from steepest.sampling.advantages import batch_from_rollout, gae
from steepest.sampling.cost_meter import Limited
from steepest.sampling.entropy_bonus import entropy_bonus
from steepest.sampling.vine import Branches, action_values, along_trunk, batch_from_branches


class LearnerState(NamedTuple):
    """Everything that is learnt: a pytree, and what a checkpoint holds of it."""

    policy: Policy
    algorithm: AlgorithmState
    critic: Critic
    optimiser: Any
    cost_critic: Critic | None = None
    cost_optimiser: Any = None


class IterationInfo(NamedTuple):
    """step: the trust report.  critic: the fit's.  advantage_std: raw reward units.  cost_critic: of a limited cost."""

    step: StepInfo
    critic: FitInfo
    advantage_std: Array
    cost_critic: FitInfo | None = None


@dataclass(frozen=True)
class Learner:
    """How a rollout changes what is learnt.

    algorithm: the policy's update.  fit: the critic's.  gamma, gae_lambda: in [0, 1].  centre: subtract the mean
    advantage.  segment: steps of a path at most, None for whole episodes.  cost_gamma, cost_gae_lambda: of a cost.

    Where the objective is `EntropyRegularised`, τ·H(π(·|s)) is added to the rewards: the advantages are those of the
    return that it regularises.
    """

    algorithm: Algorithm
    fit: CriticFit
    gamma: float
    gae_lambda: float
    centre: bool = True
    segment: int | None = None
    cost_gamma: float = 0.99
    cost_gae_lambda: float = 0.95

    def init(self, policy: Policy, critic: Critic, cost_critic: Critic | None = None) -> LearnerState:
        """The state before the first iteration.  cost_critic: where a cost is limited."""
        cost_optimiser = None if cost_critic is None else self.fit.init(cost_critic)
        optimiser = self.fit.init(critic)
        return LearnerState(policy, self.algorithm.init(policy), critic, optimiser, cost_critic, cost_optimiser)

    def update(
        self,
        state: LearnerState,
        rollout: Rollout,
        acted: Scaling | None,
        refreshed: Scaling | None,
        reward_scale: Any,
        key: PRNGKeyArray,
        branches: Branches | None = None,
        limited: Limited | None = None,
    ) -> tuple[LearnerState, IterationInfo]:
        """Learn from one rollout, or from a trunk and its branches.

        rollout: T × B transitions, raw.  acted: the observation statistics that acted.  refreshed: those that will act
        next, for `normaliser_kl`.  reward_scale: what the critic's rewards are divided by.  key: the critic's shuffles.
        branches: of a vine: they say how the policy changes; the trunk trains the critic and measures the step.
        limited: how far the cost is from its limit, where there is one.
        """
        return _update(self, state, rollout, acted, refreshed, reward_scale, key, branches, limited)


@eqx.filter_jit
def _update(
    learner: Learner,
    state: LearnerState,
    rollout: Rollout,
    acted: Scaling | None,
    refreshed: Scaling | None,
    reward_scale: Array,
    key: PRNGKeyArray,
    branches: Branches | None,
    limited: Limited | None,
) -> tuple[LearnerState, IterationInfo]:
    obs, next_obs = normalise(acted, rollout.obs), normalise(acted, rollout.next_obs)
    value, next_value = (jax.vmap(jax.vmap(state.critic))(x) for x in (obs, next_obs))
    advantage, target = gae(
        _rewards(learner, state, rollout, obs) / reward_scale,
        value,
        next_value,
        rollout.terminated,
        rollout.truncated,
        rollout.valid,
        gamma=learner.gamma,
        lam=learner.gae_lambda,
    )
    done = rollout.terminated | rollout.truncated
    path = batch_from_rollout(
        obs,
        rollout.action,
        advantage * reward_scale,
        rollout.valid,
        done,
        centre=learner.centre,
        segment=learner.segment,
    )
    compared = path if branches is None else _compared(state, branches, path, acted, reward_scale)
    batch = path if branches is None else _along_trunk(state, branches, compared, path)
    cost_critic, cost_optimiser, cost_fit = state.cost_critic, state.cost_optimiser, None
    if limited is not None and cost_critic is not None:
        cost, cost_value, cost_target = _cost(learner, cost_critic, rollout, limited, obs, next_obs)
        batch = batch._replace(cost=cost)
        cost_critic, cost_optimiser, cost_fit = learner.fit(
            cost_critic, cost_optimiser, path.obs, cost_target, path.weight, cost_value, jax.random.fold_in(key, 2)
        )
    drawing = jax.random.fold_in(key, 1)
    policy, algorithm, step = update(learner.algorithm, state.policy, state.algorithm, batch, drawing)
    critic, optimiser, fit = learner.fit(
        state.critic, state.optimiser, path.obs, target.ravel(), path.weight, value.ravel(), key
    )
    flat = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), rollout.obs)
    moved = mean_kl(jax.vmap(policy)(path.obs), jax.vmap(policy)(normalise(refreshed, flat)), path.weight)
    spread = jnp.sqrt(jnp.sum(compared.weight[:, None] * compared.action_weight * compared.advantage**2))
    info = IterationInfo(step._replace(normaliser_kl=moved), fit, spread, cost_fit)
    return LearnerState(policy, algorithm, critic, optimiser, cost_critic, cost_optimiser), info


def _cost(
    learner: Learner, critic: Critic, rollout: Rollout, limited: Limited, obs: Any, next_obs: Any
) -> tuple[Cost, Array, Array]:
    """What the batch says of the cost, and of the cost critic at its rows: V_C, and its targets; both [N]."""
    value, next_value = (jax.vmap(jax.vmap(critic))(x) for x in (obs, next_obs))
    ends = rollout.terminated, rollout.truncated, rollout.valid
    cost = rollout.cost / limited.scale
    advantage, target = gae(cost, value, next_value, *ends, gamma=learner.cost_gamma, lam=learner.cost_gae_lambda)
    done = rollout.terminated | rollout.truncated
    rows = batch_from_rollout(
        obs, rollout.action, advantage * limited.scale, rollout.valid, done, centre=learner.centre
    )
    return Cost(limited.seen * rows.advantage, jnp.asarray(limited.excess)), value.ravel(), target.ravel()


def _rewards(learner: Learner, state: LearnerState, rollout: Rollout, obs: Any) -> Any:
    """[T,B] the rewards, with the bonus of an entropy-regularised objective; raw units."""
    objective = learner.algorithm.objective
    if not isinstance(objective, EntropyRegularised):
        return rollout.reward
    return rollout.reward + entropy_bonus(state.policy, obs, rollout.valid, objective.temperature)


def _compared(
    state: LearnerState, branches: Branches, trunk: Batch, acted: Scaling | None, reward_scale: Array
) -> Batch:
    """The rollout set of a vine, with the actions that were compared in each of its states."""
    value = jax.vmap(jax.vmap(state.critic))(normalise(acted, branches.last_obs)) * reward_scale
    weight = jnp.full(branches.action.shape[:2], 1.0 / branches.action.shape[1])
    if branches.exhaustive:
        weight = _every_action(state, branches, trunk)[1][branches.row]
    obs, q = trunk.obs[branches.row], action_values(branches, value)
    return batch_from_branches(
        obs, jnp.asarray(branches.action), weight, q, branches.valid, exhaustive=branches.exhaustive
    )


def _along_trunk(state: LearnerState, branches: Branches, vine: Batch, trunk: Batch) -> Batch:
    """The surrogate of the rollout set, with all states of the trunk in the metric and the KL."""
    every = _every_action(state, branches, trunk) if branches.exhaustive else None
    return along_trunk(vine, branches.row, trunk, every)


def _every_action(state: LearnerState, branches: Branches, trunk: Batch) -> tuple[Array, Array]:
    """All actions in each state of the trunk, and their probabilities [N,A]."""
    action = jnp.asarray(branches.action)
    every = jnp.tile(jnp.arange(action.shape[1], dtype=action.dtype), (len(trunk.weight), 1))
    return every, jnp.exp(log_probs(jax.vmap(state.policy)(trunk.obs), every))
