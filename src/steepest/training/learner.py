"""One iteration's arithmetic as two programs, the second of which nobody has to wait for in order to act again:

    improve     normalise → advantages → policy update, and what is left for the critics: a `Lesson`
    fit         the critics' fit to their lesson

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

from steepest import chunks
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


class Given(NamedTuple):
    """What an update is made of, beside the state: as of `Learner.improve`, in that order."""

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

    obs: [N,…] as they take it.  weight: [N].  value, target: [N], of the reward's critic.  cost: the same pair of the
    cost's, or None.  key: of their shuffles.
    """

    obs: Any
    weight: Array
    value: Array
    target: Array
    cost: tuple[Array, Array] | None
    key: Any


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

    def improve(
        self,
        state: LearnerState,
        rollout: Rollout,
        acted: Scaling | None,
        refreshed: Scaling | None,
        reward_scale: Any,
        key: PRNGKeyArray,
        branches: Branches | None = None,
        limited: Limited | None = None,
    ) -> tuple[LearnerState, Lesson, StepInfo, Array]:
        """Change the policy by one rollout, or by a trunk and its branches; compiled once for each shape.

        rollout: T × B transitions, raw.  acted: the observation statistics that acted.  refreshed: those that will act
        next, for `normaliser_kl`.  reward_scale: what the critic's rewards are divided by.  key: of all that is drawn.
        branches: of a vine: they say how the policy changes; the trunk trains the critic and measures the step.
        limited: how far the cost is from its limit, where there is one.

        Returns the state with the critics as they were, their lesson, the trust report and the deviation of the
        advantages, in raw reward units.
        """
        return _improve(self, state, rollout, acted, refreshed, reward_scale, key, branches, limited)

    def fit_critics(self, state: LearnerState, lesson: Lesson) -> tuple[LearnerState, FitInfo, FitInfo | None]:
        """Fit the critics, and nothing else of the state; compiled once for each shape."""
        return _fit_critics(self, state, lesson)

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
        """`improve`, then `fit_critics`."""
        improved = self.improve(state, rollout, acted, refreshed, reward_scale, key, branches, limited)
        state, lesson, step, spread = improved
        state, fit, cost_fit = self.fit_critics(state, lesson)
        return state, IterationInfo(step, fit, spread, cost_fit)


def improve(
    learner: Learner,
    state: LearnerState,
    rollout: Rollout,
    acted: Scaling | None,
    refreshed: Scaling | None,
    reward_scale: Any,
    key: Any,
    branches: Branches | None = None,
    limited: Limited | None = None,
) -> tuple[LearnerState, Lesson, StepInfo, Array]:
    """`Learner.improve` without compilation of its own: to be inlined in a larger program."""
    path, value, target = single_path(learner, state.policy, state.critic, rollout, acted, reward_scale)
    compared = path if branches is None else _compared(state, branches, path, acted, reward_scale)
    batch = path if branches is None else _along_trunk(state, branches, compared, path)
    of_cost = None
    if limited is not None and state.cost_critic is not None:
        cost, *pair = _cost(learner, state.cost_critic, rollout, limited, acted)
        batch, of_cost = batch._replace(cost=cost), (pair[0], pair[1])
    drawing = jax.random.fold_in(key, 1)
    policy, algorithm, step = update(learner.algorithm, state.policy, state.algorithm, batch, drawing)
    if refreshed is not None:
        chunk, flat = learner.algorithm.chunk, _flat(rollout.obs)
        before, after = (chunks.each(policy, x, chunk) for x in (path.obs, normalise(refreshed, flat)))
        step = step._replace(normaliser_kl=mean_kl(before, after, path.weight))
    spread = jnp.sqrt(jnp.sum(compared.weight[:, None] * compared.action_weight * compared.advantage**2))
    lesson = Lesson(path.obs, path.weight, value, target, of_cost, key)
    return state._replace(policy=policy, algorithm=algorithm), lesson, step, spread


def single_path(
    learner: Learner, policy: Policy, critic: Critic, rollout: Rollout, acted: Scaling | None, reward_scale: Any
) -> tuple[Batch, Array, Array]:
    """(the batch of a rollout, V at its rows [N], the targets of the critic [N]).  acted: the statistics that did."""
    obs, next_obs = normalise(acted, rollout.obs), normalise(acted, rollout.next_obs)
    value, next_value = (_values(critic, x, learner.algorithm.chunk) for x in (obs, next_obs))
    ends = rollout.terminated, rollout.truncated, rollout.valid
    reward = _rewards(learner, policy, rollout, obs) / reward_scale
    advantage, target = gae(reward, value, next_value, *ends, gamma=learner.gamma, lam=learner.gae_lambda)
    batch = batch_from_rollout(
        obs,
        rollout.action,
        advantage * reward_scale,
        rollout.valid,
        rollout.terminated | rollout.truncated,
        centre=learner.centre,
        segment=learner.segment,
    )
    return batch, value.ravel(), target.ravel()


def fit_critics(learner: Learner, state: LearnerState, lesson: Lesson) -> tuple[LearnerState, FitInfo, FitInfo | None]:
    """`Learner.fit_critics` without compilation of its own."""
    obs, weight, key = lesson.obs, lesson.weight, lesson.key
    critic, optimiser, fit = learner.fit(state.critic, state.optimiser, obs, lesson.target, weight, lesson.value, key)
    state = state._replace(critic=critic, optimiser=optimiser)
    if lesson.cost is None or state.cost_critic is None:
        return state, fit, None
    value, target = lesson.cost
    critic, optimiser, cost_fit = learner.fit(
        state.cost_critic, state.cost_optimiser, obs, target, weight, value, jax.random.fold_in(key, 2)
    )
    return state._replace(cost_critic=critic, cost_optimiser=optimiser), fit, cost_fit


_improve, _fit_critics = eqx.filter_jit(improve), eqx.filter_jit(fit_critics)


def _cost(
    learner: Learner, critic: Critic, rollout: Rollout, limited: Limited, acted: Scaling | None
) -> tuple[Cost, Array, Array]:
    """What the batch says of the cost; and V_C at its rows and the targets of its critic, both [N]."""
    obs, next_obs = normalise(acted, rollout.obs), normalise(acted, rollout.next_obs)
    value, next_value = (_values(critic, x, learner.algorithm.chunk) for x in (obs, next_obs))
    ends = rollout.terminated, rollout.truncated, rollout.valid
    cost = rollout.cost / limited.scale
    advantage, target = gae(cost, value, next_value, *ends, gamma=learner.cost_gamma, lam=learner.cost_gae_lambda)
    done = rollout.terminated | rollout.truncated
    rows = batch_from_rollout(
        obs, rollout.action, advantage * limited.scale, rollout.valid, done, centre=learner.centre
    )
    return Cost(limited.seen * rows.advantage, jnp.asarray(limited.excess)), value.ravel(), target.ravel()


def _flat(x: Any) -> Any:
    """[T,B,…] ↦ [T·B,…]."""
    return x.reshape(-1, *x.shape[2:])


def _values(critic: Critic, obs: Any, chunk: int | None) -> Array:
    """V at obs [T,B,…]: [T,B]."""
    return chunks.each(critic, _flat(obs), chunk).reshape(obs.shape[:2])


def _rewards(learner: Learner, policy: Policy, rollout: Rollout, obs: Any) -> Any:
    """[T,B] the rewards, with the bonus of an entropy-regularised objective; raw units."""
    objective = learner.algorithm.objective
    if not isinstance(objective, EntropyRegularised):
        return rollout.reward
    return rollout.reward + entropy_bonus(policy, obs, rollout.valid, objective.temperature)


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
