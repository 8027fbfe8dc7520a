"""The one training loop: collect → refresh the statistics → learn → evaluate → log → checkpoint.

Randomness comes from one seed, split by purpose and by iteration, so that iteration i draws the same numbers in a run
that was resumed and in one that was not.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np
from numpy.typing import NDArray

from steepest.errors import RunError
from steepest.geometry import Reason
from steepest.linear import Status
from steepest.parameters import split
from steepest.sampling.rollout import Collector, Episode
from steepest.training.callbacks import Callback, IterationEvent
from steepest.training.collecting import Gather
from steepest.training.config import TrainConfig
from steepest.training.evaluation import play
from steepest.training.learner import IterationInfo, Learner
from steepest.training.persistence import Snapshot
from steepest.training.recorder import Recorder
from steepest.training.signals import Interruption
from steepest.worlds.world import World

_ACT, _FIT, _RESET, _EVALUATE = range(4)
"""Purposes of randomness."""


@dataclass
class Loop:
    """One run, between its first iteration and its last.

    snapshot: where the run stands; replaced at the end of every iteration, so it is whole whenever one fails.
    world: to collect in.  gather: how.  evaluation: to evaluate in; the same object as `world` where there is only one.
    """

    config: TrainConfig
    learner: Learner
    world: World
    gather: Gather
    evaluation: World
    recorder: Recorder
    callbacks: Sequence[Callback]
    interruption: Interruption
    snapshot: Snapshot
    returns: list[float] = field(default_factory=list)
    saved: int = -1
    failed: bool = False
    diagnosed: str = ""

    def run(self) -> str:
        """Iterate until the steps are done, a callback stops it, updates keep failing, or a signal comes.

        Returns why it ended. Whatever is raised, the last whole iteration is saved first.
        """
        try:
            return self._run()
        except BaseException:
            if self.snapshot.progress.iteration > self.saved:
                with contextlib.suppress(RunError):  # what is raised already says more than a second failure
                    self._save()
            raise

    def _save(self) -> None:
        self.recorder.checkpoint("last", self.snapshot)
        self.saved = self.snapshot.progress.iteration

    def _run(self) -> str:
        config = self.config
        collector = Collector(self.world)
        collector.reset(self._seed(_RESET))
        self._save()
        while self.snapshot.progress.steps < config.steps:
            row, evaluated = self._iterate(collector)
            if evaluated is not None and self.evaluation is self.world:
                collector.reset(self._seed(_RESET))
            event = IterationEvent(
                self.snapshot.progress.iteration, self.snapshot.progress.steps, row, evaluated, self.snapshot.agent
            )
            reasons = [str(reason) for callback in self.callbacks if (reason := callback(event))]
            if diagnosis := self._diagnosis():
                reasons.append(diagnosis)
                self.failed = True
            ended = self.snapshot.progress.steps >= config.steps or bool(reasons) or self.interruption.signal
            if ended or self.snapshot.progress.iteration % config.checkpoint_every == 0:
                self._save()
            if self.interruption.signal:
                return f"stopped by {self.interruption.name}"
            if reasons:
                return "; ".join(reasons)
        return "all steps done"

    def _iterate(self, collector: Collector) -> tuple[dict[str, Any], NDArray[np.float64] | None]:
        """One iteration. Replaces the snapshot, and returns the row of metrics and the evaluation, if there was one."""
        config, start = self.config, time.perf_counter()
        agent, state, scale, progress, costs = self.snapshot
        assert config.sampling.gamma is not None
        params, _ = split(agent.policy)
        acted = None if agent.normaliser is None else agent.normaliser.scaling()
        gathered = self.gather(collector, params, acted, self._key(_ACT))
        rollout, episodes = gathered.rollout, gathered.episodes
        collected = time.perf_counter()

        normaliser = None if agent.normaliser is None else agent.normaliser.updated(rollout.obs[rollout.valid])
        refreshed = None if normaliser is None else normaliser.scaling()
        scale = None if scale is None else scale.updated(rollout, config.sampling.gamma)
        reward_scale = np.float32(1.0) if scale is None else scale.value
        if costs is not None:
            costs = costs.updated(rollout, episodes, self.learner.cost_gamma, self.world.name)
        limited = None if costs is None else costs.limited
        state, info = self.learner.update(
            state, rollout, acted, refreshed, reward_scale, self._key(_FIT), gathered.branches, limited
        )
        info = jax.tree.map(np.asarray, info)
        learnt = time.perf_counter()

        steps = progress.steps + gathered.steps
        self.returns = (self.returns + [e.ret for e in episodes])[-100:]
        progress = progress._replace(
            iteration=progress.iteration + 1,
            steps=steps,
            episodes=progress.episodes + len(episodes),
            failures=progress.failures + int(Reason(int(info.step.reason)).failed),
            seconds=progress.seconds + learnt - start,
        )
        agent = dataclasses.replace(agent, policy=state.policy, normaliser=normaliser)
        self.snapshot = Snapshot(agent, state, scale, progress, costs)
        self.diagnosed = _diagnose(info)
        evaluated = self._evaluate()
        row = {
            **_metrics(info, episodes, self.returns, evaluated),
            "iteration": progress.iteration,
            "episodes": progress.episodes,
            "failures": progress.failures,
            "reward_scale": float(reward_scale),
            "branch_steps": gathered.branch_steps,
            **({} if costs is None else {"cost/now": costs.cost, "cost/limit": costs.limit}),
            "time/collect": collected - start,
            "time/learn": learnt - collected,
            "time/total": progress.seconds,
            "time/steps_per_second": (steps - self.recorder.start) / max(self._elapsed(), 1e-9),
        }
        self.recorder.iteration(steps, row, episodes)
        return row, evaluated

    def _elapsed(self) -> float:
        return self.snapshot.progress.seconds - self.recorder.start_seconds

    def _evaluate(self) -> NDArray[np.float64] | None:
        """Evaluate where the last multiple of `every` steps has been passed, and keep the best agent."""
        config, progress = self.config.evaluation, self.snapshot.progress
        if not config.every or progress.steps // config.every <= progress.evaluated_at // config.every:
            return None
        seed = self._seed(_EVALUATE)
        stop = self.interruption.is_set
        returns = play(self.snapshot.agent, self.evaluation, config.episodes, seed, stop=stop)
        if len(returns) < config.episodes:
            return None
        mean = float(returns.mean())
        best = progress.best is None or mean >= progress.best
        progress = progress._replace(evaluated_at=progress.steps, best=mean if best else progress.best)
        self.snapshot = self.snapshot._replace(progress=progress)
        if best:
            self.recorder.checkpoint("best", self.snapshot)
        return returns

    def _diagnosis(self) -> str:
        """Why to stop after too many updates in a row that kept the policy; empty while there were not."""
        failures = int(self.snapshot.learner.algorithm.failures)
        if failures < self.config.max_failures:
            return ""
        return f"{failures} updates in a row kept the policy; the last: {self.diagnosed}"

    def _key(self, purpose: int) -> Any:
        key = jax.random.fold_in(jax.random.key(self.config.seed), purpose)
        return jax.random.fold_in(key, self.snapshot.progress.iteration)

    def _seed(self, purpose: int) -> int:
        """A seed for environments, by run, purpose and iteration; the evaluation's is the same in every iteration."""
        iteration = 0 if purpose == _EVALUATE else self.snapshot.progress.iteration
        entropy = (self.config.seed, purpose, iteration)
        return int(np.random.SeedSequence(entropy).generate_state(1)[0] >> 1)


def _diagnose(info: IterationInfo) -> str:
    """What is known of an update, for the message of a run that stops because of it."""
    step = info.step
    return (
        f"{Reason(int(step.reason)).name.lower()}, solver {Status(int(step.status)).name.lower()}, "
        f"gradient norm {float(step.gradient_norm):.3g}, relative residual {float(step.residual):.3g}, "
        f"damping {float(step.damping):.3g}. Where the policy is not at its best yet, more damping, "
        "a smaller delta or a larger batch may help"
    )


def _metrics(
    info: IterationInfo, episodes: list[Episode], returns: list[float], evaluated: NDArray[np.float64] | None
) -> dict[str, Any]:
    """The row of metrics.jsonl: the trust report, the critic's fit, returns."""
    step = info.step
    report = {**step._asdict(), **(step.details or {})}
    row: dict[str, Any] = {f"update/{name}": value.item() for name, value in report.items() if name != "details"}
    row["update/reason"] = Reason(int(step.reason)).name.lower()
    row["update/status"] = Status(int(step.status)).name.lower()
    row["update/advantage_std"] = float(info.advantage_std)
    row |= {f"critic/{name}": value.item() for name, value in info.critic._asdict().items()}
    if info.cost_critic is not None:
        row |= {f"cost_critic/{name}": value.item() for name, value in info.cost_critic._asdict().items()}
    known = [e.cost for e in episodes if e.cost is not None]
    if known or info.cost_critic is not None:
        row["cost/mean"] = float(np.mean(known)) if known else math.nan
    row["return/mean"] = float(np.mean([e.ret for e in episodes])) if episodes else math.nan
    row["return/recent"] = float(np.mean(returns)) if returns else math.nan
    row["return/length"] = float(np.mean([e.length for e in episodes])) if episodes else math.nan
    if evaluated is not None:
        row["evaluation/mean"] = float(evaluated.mean())
        row["evaluation/std"] = float(evaluated.std())
        row["evaluation/min"] = float(evaluated.min())
    return row
