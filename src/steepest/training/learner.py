"""One iteration's arithmetic as three programs:

    prepare     normalise → advantages: what the policy's update is made of, and the critics' `Lesson`
    change      the policy's update
    fit         the critics' fit to their lesson

The last two need nothing of each other, unless the critics stand upon the policy's network, and run beside each other.
Nobody has to wait for the fit in order to act again.

π_old is recomputed here from the stored observations, with the statistics that acted: the ratio is exactly 1 at θ_old
whatever a worker's arithmetic was.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import Array

from steepest import chunks
from steepest.algorithms.algorithm import Algorithm, update
from steepest.batch import Batch, Cost, Rollout
from steepest.critics import Critic, CriticFit, FitInfo, SharedValue, features, upon
from steepest.distributions import Policy
from steepest.geometry import EntropyRegularised, StepInfo, mean_kl
from steepest.normaliser import Scaling
from steepest.sampling.acting import normalise
from steepest.sampling.advantages import batch_from_rollout, gae
from steepest.sampling.cost_meter import Limited
from steepest.sampling.entropy_bonus import entropy_bonus
from steepest.sampling.rows import Values, memories, rows_of, values_along
from steepest.sequences import Sequences
from steepest.training.beside import beside, two_processors
from steepest.training.iteration import Given, IterationInfo, LearnerState, Lesson, Prepared
from steepest.training.vine_batch import compared_of, with_trunk


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

    def init(self, policy: Policy, critic: Critic, cost_critic: Critic | None = None, envs: int = 1) -> LearnerState:
        """The state before the first iteration.  cost_critic: where a cost is limited.  envs: B, for critics that
        remember."""
        cost_optimiser = None if cost_critic is None else self.fit.init(cost_critic)
        optimiser, algorithm = self.fit.init(critic), self.algorithm.init(policy)
        remembered = [memories(each, envs) for each in (critic, cost_critic)]
        return LearnerState(policy, algorithm, critic, optimiser, cost_critic, cost_optimiser, *remembered)

    def prepare(self, state: LearnerState, given: Given) -> tuple[Prepared, Lesson]:
        """What a rollout, or a trunk and its branches, says; compiled once for each shape."""
        return _prepare(self, state, given)

    def change(self, state: LearnerState, given: Given, prepared: Prepared) -> tuple[LearnerState, StepInfo]:
        """The policy's update, and the trust report; compiled once for each shape. The critics stay as they were."""
        return _change(self, state, given, prepared)

    def improve(self, state: LearnerState, given: Given) -> tuple[LearnerState, Lesson, StepInfo, Array]:
        """`prepare`, then `change`: the policy changed by one rollout, or by a trunk and its branches.

        Returns the state with the critics as they were, their lesson, the trust report and the deviation of the
        advantages, in raw reward units.
        """
        prepared, lesson = self.prepare(state, given)
        state, step = self.change(state, given, prepared)
        return state, lesson, step, prepared.spread

    def fit_critics(self, state: LearnerState, lesson: Lesson) -> tuple[LearnerState, FitInfo, FitInfo | None]:
        """Fit the critics, and nothing else of the state; compiled once for each shape."""
        return _fit_critics(self, state, lesson)

    def begin_to_fit(
        self, state: LearnerState, lesson: Lesson
    ) -> Callable[[LearnerState], tuple[LearnerState, FitInfo, FitInfo | None]]:
        """`fit_critics` beside the policy's change.

        state: before that.  Returns (the state after it) ↦ what `fit_critics` would: call it once the policy has
        changed. Critics that stand upon the policy's network are fitted only then, as all are where nothing runs beside
        anything.
        """
        if is_shared(state) or not two_processors():
            return lambda changed: self.fit_critics(changed, lesson)
        fitted = beside(self.fit_critics, state, lesson)

        def finish(changed: LearnerState) -> tuple[LearnerState, FitInfo, FitInfo | None]:
            taught, fit, cost_fit = fitted()
            critics = {name: getattr(taught, name) for name in OF_CRITICS}
            return changed._replace(**critics), fit, cost_fit

        return finish

    def update(self, state: LearnerState, given: Given) -> tuple[LearnerState, IterationInfo]:
        """`improve`, and `fit_critics` beside it where that can be."""
        prepared, lesson = self.prepare(state, given)
        finish = self.begin_to_fit(state, lesson)
        state, step = self.change(state, given, prepared)
        state, fit, cost_fit = finish(state)
        return state, IterationInfo(step, fit, prepared.spread, cost_fit)


OF_CRITICS = ("critic", "optimiser", "cost_critic", "cost_optimiser")
"""What of a `LearnerState` the fit changes."""


def is_shared(state: LearnerState) -> bool:
    """Whether a critic stands upon the policy's network, so that its fit has to wait for the policy's change."""
    return any(isinstance(critic, SharedValue) for critic in (state.critic, state.cost_critic))


def prepare(learner: Learner, state: LearnerState, given: Given) -> tuple[Prepared, Lesson]:
    """`Learner.prepare` without compilation of its own: to be inlined in a larger program."""
    rollout, acted, _, reward_scale, key, branches, limited = given
    seen = rollout, acted, reward_scale, state.critic_memory
    path, values, target = path_of(learner, state.policy, state.critic, *seen)
    critic = upon(state.critic, state.policy)
    compared = path if branches is None else compared_of(state.policy, critic, branches, path, acted, reward_scale)
    batch = path if branches is None else with_trunk(state.policy, branches, compared, path)
    of_cost, cost_memory = None, state.cost_memory
    if limited is not None and state.cost_critic is not None:
        cost, along, of_cost = _cost(learner, state, rollout, limited, acted)
        batch, cost_memory = batch._replace(cost=cost), along.memory
    spread = jnp.sqrt(jnp.sum(compared.weight[:, None] * compared.action_weight * compared.advantage**2))
    trunk = None if branches is None else path
    lesson = Lesson(values.rows, path.weight, values.value.ravel(), target, of_cost, key)
    return Prepared(batch, trunk, spread, values.memory, cost_memory), lesson


def change(learner: Learner, state: LearnerState, given: Given, prepared: Prepared) -> tuple[LearnerState, StepInfo]:
    """`Learner.change` without compilation of its own."""
    batch, rollout = prepared.batch, given.rollout
    drawing = jax.random.fold_in(given.key, 1)
    policy, algorithm, step = update(learner.algorithm, state.policy, state.algorithm, batch, drawing)
    if given.refreshed is not None:
        path = batch if prepared.trunk is None else prepared.trunk
        then = rows_of(policy, normalise(given.refreshed, rollout.obs), rollout, rollout.memory)
        before, after = (chunks.each(policy, x, learner.algorithm.chunk) for x in (path.obs, then))
        step = step._replace(normaliser_kl=mean_kl(before, after, path.weight))
    memory = {"critic_memory": prepared.critic_memory, "cost_memory": prepared.cost_memory}
    return state._replace(policy=policy, algorithm=algorithm, **memory), step


def single_path(
    learner: Learner,
    policy: Policy,
    critic: Critic,
    rollout: Rollout,
    acted: Scaling | None,
    reward_scale: Any,
    memory: Any = None,
) -> tuple[Batch, Array, Array]:
    """(the batch of a rollout, V at its rows [N], the targets of the critic [N]).  acted: the statistics that did.
    memory: of a critic that remembers, before it."""
    batch, values, target = path_of(learner, policy, critic, rollout, acted, reward_scale, memory)
    return batch, values.value.ravel(), target


def path_of(
    learner: Learner, policy: Policy, critic: Critic, rollout: Rollout, acted: Scaling | None, scale: Any, memory: Any
) -> tuple[Batch, Values, Array]:
    """`single_path`, with all that the critic says."""
    obs, next_obs = normalise(acted, rollout.obs), normalise(acted, rollout.next_obs)
    values = values_along(upon(critic, policy), obs, next_obs, rollout, memory, learner.algorithm.chunk)
    ends = rollout.terminated, rollout.truncated, rollout.valid
    rows = rows_of(policy, obs, rollout, rollout.memory)
    reward = _rewards(learner, policy, rollout, rows if isinstance(rows, Sequences) else obs) / scale
    discounts = {"gamma": learner.gamma, "lam": learner.gae_lambda}
    advantage, target = gae(reward, values.value, values.next_value, *ends, **discounts)
    batch = batch_from_rollout(
        obs,
        rollout.action,
        advantage * scale,
        rollout.valid,
        rollout.terminated | rollout.truncated,
        centre=learner.centre,
        segment=learner.segment,
    )
    return batch._replace(obs=rows), values, target.ravel()


def fit_critics(learner: Learner, state: LearnerState, lesson: Lesson) -> tuple[LearnerState, FitInfo, FitInfo | None]:
    """`Learner.fit_critics` without compilation of its own."""
    weight, key = lesson.weight, lesson.key
    obs, value = _taught(learner, state.policy, state.critic, lesson.obs, lesson.value)
    critic, optimiser, fit = learner.fit(state.critic, state.optimiser, obs, lesson.target, weight, value, key)
    state = state._replace(critic=critic, optimiser=optimiser)
    if lesson.cost is None or state.cost_critic is None:
        return state, fit, None
    obs, value, target = lesson.cost
    obs, value = _taught(learner, state.policy, state.cost_critic, obs, value)
    critic, optimiser, cost_fit = learner.fit(
        state.cost_critic, state.cost_optimiser, obs, target, weight, value, jax.random.fold_in(key, 2)
    )
    return state._replace(cost_critic=critic, cost_optimiser=optimiser), fit, cost_fit


def _taught(learner: Learner, policy: Policy, critic: Critic, obs: Any, value: Array) -> tuple[Any, Array]:
    """What a critic is fitted at, and V there [N]; of a shared one, what the new policy makes of the rows."""
    if not isinstance(critic, SharedValue):
        return obs, value
    seen = chunks.each(features(policy), obs, learner.algorithm.chunk)
    return seen, jax.vmap(critic)(seen)


_prepare, _change, _fit_critics = eqx.filter_jit(prepare), eqx.filter_jit(change), eqx.filter_jit(fit_critics)


def _cost(
    learner: Learner, state: LearnerState, rollout: Rollout, limited: Limited, acted: Scaling | None
) -> tuple[Cost, Values, tuple[Any, Array, Array]]:
    """What the batch says of the cost; what its critic says; and of that, for its fit: rows, V_C and targets [N]."""
    obs, next_obs = normalise(acted, rollout.obs), normalise(acted, rollout.next_obs)
    critic = upon(state.cost_critic, state.policy)
    along = values_along(critic, obs, next_obs, rollout, state.cost_memory, learner.algorithm.chunk)
    ends = rollout.terminated, rollout.truncated, rollout.valid
    discounts = {"gamma": learner.cost_gamma, "lam": learner.cost_gae_lambda}
    advantage, target = gae(rollout.cost / limited.scale, along.value, along.next_value, *ends, **discounts)
    done = rollout.terminated | rollout.truncated
    rows = batch_from_rollout(
        obs, rollout.action, advantage * limited.scale, rollout.valid, done, centre=learner.centre
    )
    cost = Cost(limited.seen * rows.advantage, jnp.asarray(limited.excess))
    return cost, along, (along.rows, along.value.ravel(), target.ravel())


def _rewards(learner: Learner, policy: Policy, rollout: Rollout, obs: Any) -> Any:
    """[T,B] the rewards, with the bonus of an entropy-regularised objective; raw units."""
    objective = learner.algorithm.objective
    if not isinstance(objective, EntropyRegularised):
        return rollout.reward
    return rollout.reward + entropy_bonus(policy, obs, rollout.valid, objective.temperature)
