"""The engine for worlds on the host: one iteration at a time, the critic's fit beside the policy's update.

    wait for rollout i → statistics → prepare → change the policy → start rollout i+1 → row i
                                            └→ fit the critics ────────────────────────↗

The critic is not needed to act, so that rollout i+1 is of π_{i+1} wholly: nothing is off-policy. What is left of the
fit when the policy has changed goes on beside the rollout.
"""

from __future__ import annotations

import dataclasses
import time
import warnings

import jax
import numpy as np

from steepest.geometry import Reason
from steepest.parameters import split
from steepest.training.config import TrainConfig
from steepest.training.engine import ACT, FIT, RESET, Advanced, Before, Row, key_of, seed_of
from steepest.training.gathering import Gather
from steepest.training.iteration import Given, IterationInfo
from steepest.training.learner import Learner
from steepest.training.metrics import of_faults, of_iteration
from steepest.training.persistence import Snapshot
from steepest.training.standing import HostStands, host_standing

_UNKNOWN = (
    "the state of the environments has become one that is not kept (too large, or not plain data): a run that is "
    "resumed from here on begins its episodes afresh"
)


class HostEngine:
    """config: resolved.  learner: what improves.  gather: what collects.  name: of the world, for errors."""

    def __init__(self, config: TrainConfig, learner: Learner, gather: Gather, name: str):
        self._config, self._learner, self._gather, self._name = config, learner, gather, name
        self._started = False

    def reset(self, snapshot: Snapshot) -> None:
        """See `Engine`."""
        self._started = False
        standing = host_standing(snapshot.standing, self._config.sampling.envs or 1)
        self._gather.reset(seed_of(self._config.seed, RESET, snapshot.progress.iteration), standing)

    def advance(self, snapshot: Snapshot) -> Advanced:
        """See `Engine`; one iteration."""
        config, start = self._config, time.perf_counter()
        agent, state, scale, progress, costs, *_ = snapshot
        assert config.sampling.gamma is not None
        if not self._started:
            self._start(snapshot)
        self._started = False
        gathered = self._gather.finish()
        rollout, episodes = gathered.rollout, gathered.episodes
        collected = time.perf_counter()

        acted = None if agent.normaliser is None else agent.normaliser.scaling()
        normaliser = None if agent.normaliser is None else agent.normaliser.updated(rollout.obs[rollout.valid])
        refreshed = None if normaliser is None else normaliser.scaling()
        scale = None if scale is None else scale.updated(rollout, config.sampling.gamma)
        reward_scale = np.float32(1.0) if scale is None else scale.value
        if costs is not None:
            costs = costs.updated(rollout, episodes, self._learner.cost_gamma, self._name)
        limited = None if costs is None else costs.limited
        key = key_of(config.seed, FIT, progress.iteration)
        given = Given(rollout, acted, refreshed, reward_scale, key, gathered.branches, limited)
        prepared, lesson = self._learner.prepare(state, given)
        fitted = self._learner.begin_to_fit(state, lesson)
        state, step = self._learner.change(state, given, prepared)
        spread = prepared.spread
        del prepared  # the batch, which the rollout need not wait beside
        step = jax.tree.map(np.asarray, step)
        agent = dataclasses.replace(agent, policy=state.policy, normaliser=normaliser)
        progress = progress._replace(
            iteration=progress.iteration + 1,
            steps=progress.steps + gathered.steps,
            episodes=progress.episodes + len(episodes),
            failures=progress.failures + int(Reason(int(step.reason)).failed),
            faults=progress.faults + len(gathered.faults),
        )
        standing = None if gathered.standing is None else HostStands(gathered.standing)
        if standing is None and snapshot.standing is not None:
            warnings.warn(_UNKNOWN, stacklevel=2)
        after = snapshot._replace(
            agent=agent, learner=state, reward_scale=scale, progress=progress, costs=costs, standing=standing
        )
        if standing is None and config.exact_resume and progress.iteration % (config.checkpoint_every or 1) == 0:
            after = after.afresh()
            self.reset(after)
        if progress.steps < config.steps:
            self._start(after)
        state, fit, cost_fit = fitted(state)
        info: IterationInfo = jax.tree.map(np.asarray, IterationInfo(step, fit, spread, cost_fit))
        learnt = time.perf_counter()

        progress = progress._replace(seconds=progress.seconds + learnt - start)
        metrics = {
            **of_iteration(info, episodes),
            "reward_scale": float(reward_scale),
            "branch_steps": gathered.branch_steps,
            **({} if costs is None else {"cost/now": costs.cost, "cost/limit": costs.limit}),
            **of_faults(gathered.faults),
            "time/collect": collected - start,
            "time/learn": learnt - collected,
        }
        row = Row(progress, metrics, episodes, gathered.faults)
        after = after._replace(learner=state, progress=progress)
        return Advanced(after, [row], info, lambda i: Before(snapshot, given))

    def close(self) -> None:
        """See `Engine`."""
        self._gather.close()

    def _start(self, snapshot: Snapshot) -> None:
        """Begin to collect under the policy of the snapshot."""
        agent, iteration = snapshot.agent, snapshot.progress.iteration
        params, _ = split(agent.policy)
        acted = None if agent.normaliser is None else agent.normaliser.scaling()
        self._gather.start(params, acted, key_of(self._config.seed, ACT, iteration))
        self._started = True
