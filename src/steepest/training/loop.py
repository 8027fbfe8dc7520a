"""The one training loop: advance → evaluate → log → checkpoint → stop.

How a run advances is its engine's business: an iteration at a time with worlds on the host, many in one program with
worlds that are programs themselves.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from steepest.errors import RunError
from steepest.training.callbacks import Callback, IterationEvent
from steepest.training.config import TrainConfig
from steepest.training.engine import EVALUATE, Advanced, Engine, Row, seed_of
from steepest.training.evaluation import play
from steepest.training.metrics import in_words, of_evaluation
from steepest.training.persistence import Snapshot
from steepest.training.recorded import RECENT, Ended
from steepest.training.recorder import Recorder
from steepest.training.signals import Interruption
from steepest.worlds.faults import Fault
from steepest.worlds.world import World

KEPT = 3
"""Rows of failed updates, the first of each written down; beside them the last one of a run that stops for them."""


@dataclass
class Loop:
    """One run, between its first iteration and its last.

    snapshot: where the run stands; replaced after every advance, so it is whole whenever one fails.
    evaluation: the world to evaluate in.  disturbed: an engine whose own world that is: an evaluation ends its episodes
    under way.
    ended: why the run is over, once it is.
    failing: the last update kept the policy because something went wrong.  kept: how many updates were written down.
    """

    config: TrainConfig
    evaluation: World
    disturbed: Engine | None
    recorder: Recorder
    callbacks: Sequence[Callback]
    interruption: Interruption
    snapshot: Snapshot
    saved: int = -1
    failed: bool = False
    ended: str = ""
    failing: bool = False
    kept: int = 0

    def __post_init__(self) -> None:
        if self.snapshot.ended is not None:
            self.ended, self.failed = self.snapshot.ended

    def run(self, engine: Engine) -> None:
        """Iterate until the steps are done, a callback stops it, updates keep failing, or a signal comes; not at all
        where it had come so far before.

        Whatever is raised, the last whole iteration is saved first.
        """
        try:
            engine.reset(self.snapshot)
            self.save()
            self.recorder.folder.forget_end()
            while not self.ended:
                self.take(engine.advance(self.snapshot))
        except BaseException:
            self.rescue()
            raise

    def rescue(self) -> None:
        """Save the last whole iteration, if that was not done, and if it can be."""
        if self.snapshot.progress.iteration > self.saved and self._goes_on_from_here():
            with contextlib.suppress(RunError):  # what is raised already says more than a second failure
                self.save()

    def save(self) -> None:
        """Write the checkpoint that a resumed run goes on from."""
        ended = Ended(self.ended, self.failed) if self.ended and not self.interruption.signal else None
        self.recorder.checkpoint(self.snapshot._replace(ended=ended))
        self.saved = self.snapshot.progress.iteration

    def take(self, advanced: Advanced) -> None:
        """Evaluate, log, save, and decide whether the run is over."""
        reasons = self._follow(advanced)
        progress, every = self.snapshot.progress, self.config.checkpoint_every
        assert every is not None
        if self.interruption.signal:
            self.ended = f"stopped by {self.interruption.name}"
        elif reasons:
            self.ended = "; ".join(reasons)
        elif progress.steps >= self.config.steps:
            self.ended = "all steps done"
        due = progress.iteration // every > self.saved // every
        if due or (self.ended and (not self.interruption.signal or self._goes_on_from_here())):
            self.save()

    def _goes_on_from_here(self) -> bool:
        """Whether a resumed run would go on from here as this one would; always, where that was not asked for."""
        at = self.snapshot.progress.iteration % (self.config.checkpoint_every or 1) == 0
        return at or not self.config.exact_resume or self.snapshot.standing is not None

    def _follow(self, advanced: Advanced) -> list[str]:
        """Evaluate and log. Replaces the snapshot, and returns the reasons to stop."""
        self._keep_failed(advanced)
        self.snapshot = advanced.snapshot._replace(recent=self.snapshot.recent)
        *others, last = advanced.rows
        reasons = [reason for row in others for reason in self._tell(row, None)]
        evaluated = self._evaluate()
        reasons += self._tell(last, evaluated)
        if evaluated is not None and self.disturbed is not None:
            self.snapshot = self.snapshot.afresh()
            self.disturbed.reset(self.snapshot)
        if diagnosis := self._diagnosis(advanced):
            reasons.append(diagnosis)
            self.failed = True
            self.recorder.failed_update(*advanced.before(len(advanced.rows) - 1), advanced.rows[-1])
        return reasons

    def _keep_failed(self, advanced: Advanced) -> None:
        """Write down the first update of each of the first few rows of failures."""
        failures = self.snapshot.progress.failures
        for i, row in enumerate(advanced.rows):
            failed, failures = row.progress.failures > failures, row.progress.failures
            if failed and not self.failing and self.kept < KEPT:
                self.recorder.failed_update(*advanced.before(i), row)
                self.kept += 1
            self.failing = failed

    def _tell(self, row: Row, evaluated: NDArray[np.float64] | None) -> list[str]:
        """Log an iteration, and ask the callbacks for reasons to stop."""
        metrics = self._log(row, evaluated)
        known = evaluated if evaluated is not None and len(evaluated) else None
        iteration, steps = row.progress.iteration, row.progress.steps
        event = IterationEvent(iteration, steps, metrics, known, self.snapshot.agent)
        return [str(reason) for callback in self.callbacks if (reason := callback(event))]

    def _log(self, row: Row, evaluated: NDArray[np.float64] | None) -> dict[str, Any]:
        """Write the row of an iteration, with what only the loop knows, and return it."""
        progress, recorder = row.progress, self.recorder
        recent = (*self.snapshot.recent, *(e.ret for e in row.episodes))[-RECENT:]
        self.snapshot = self.snapshot._replace(recent=recent)
        elapsed = max(progress.seconds - recorder.start_seconds, 1e-9)
        metrics = {
            **row.metrics,
            "return/recent": float(np.mean(recent)) if recent else math.nan,
            **({} if evaluated is None else of_evaluation(evaluated)),
            "iteration": progress.iteration,
            "episodes": progress.episodes,
            "failures": progress.failures,
            "faults": (progress if evaluated is None else self.snapshot.progress).faults,
            "time/total": progress.seconds,
            "time/steps_per_second": (progress.steps - recorder.start) / elapsed,
        }
        recorder.iteration(progress.steps, metrics, row.episodes)
        recorder.faults(progress, row.faults, "training")
        return metrics

    def _evaluate(self) -> NDArray[np.float64] | None:
        """Evaluate where the last multiple of `every` steps has been passed, and keep the best agent.

        Episodes in which an environment broke are left out, be it all of them.
        """
        config, progress = self.config.evaluation, self.snapshot.progress
        if not config.every or progress.steps // config.every <= progress.evaluated_at // config.every:
            return None
        seed = seed_of(self.config.seed, EVALUATE, progress.iteration)
        returns = self.play(config.episodes, seed)
        if self.interruption.is_set() and len(returns) < config.episodes:
            return None
        progress = self.snapshot.progress
        mean = float(returns.mean()) if len(returns) else math.nan
        best = mean >= (-math.inf if progress.best is None else progress.best)  # NaN is not
        progress = progress._replace(evaluated_at=progress.steps, best=mean if best else progress.best)
        self.snapshot = self.snapshot._replace(progress=progress)
        if best:
            self.recorder.best(self.snapshot)
        return returns

    def play(self, episodes: int, seed: int) -> NDArray[np.float64]:
        """The returns of so many episodes at most, whose faults are counted and written down."""
        faults: list[Fault] = []
        report = faults.append if self.config.sampling.faults else None
        agent, stop = self.snapshot.agent, self.interruption.is_set
        returns = play(agent, self.evaluation, episodes, seed, stop=stop, report=report)
        progress = self.snapshot.progress
        progress = progress._replace(faults=progress.faults + len(faults))
        self.recorder.faults(progress, faults, "evaluation")
        self.snapshot = self.snapshot._replace(progress=progress)
        return returns

    def _diagnosis(self, advanced: Advanced) -> str:
        """Why to stop after too many updates in a row that kept the policy; empty while there were not."""
        failures = int(self.snapshot.learner.algorithm.failures)
        if failures < self.config.max_failures:
            return ""
        return f"{failures} updates in a row kept the policy; the last: {in_words(advanced.info)}"
