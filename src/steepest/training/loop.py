"""The one training loop: advance → evaluate → log → checkpoint → stop.

How a run advances is its engine's business: an iteration at a time with worlds on the host, many in one program with
worlds that are programs themselves.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence
from dataclasses import dataclass

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
    ended: why the run is over, once it is.  whole: the logs are those of the snapshot.
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
    whole: bool = True
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
        if self.whole and self.snapshot.progress.iteration > self.saved and self._goes_on_from_here():
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
        """Evaluate and log. Replaces the snapshot, and returns the reasons to stop.

        What a signal or an error keeps from being evaluated is not there: the run then stands where it stood before.
        """
        before = self.snapshot
        returns = [e.ret for row in advanced.rows[:-1] for e in row.episodes]
        self.snapshot = advanced.snapshot._replace(recent=_last((*before.recent, *returns)))
        evaluated: NDArray[np.float64] | None = None
        if self._evaluation_due():
            try:
                evaluated = self._evaluate()
            except BaseException:
                self.snapshot = before
                raise
            if evaluated is None:
                self.snapshot = before
                return []
        self.whole = False
        recent, reasons = before.recent, list[str]()
        for row in advanced.rows:
            recent = _last((*recent, *(e.ret for e in row.episodes)))
            reasons += self._tell(row, evaluated if row is advanced.rows[-1] else None, recent)
        self._keep_failed(advanced, before)
        if evaluated is not None and self.disturbed is not None:
            self.snapshot = self.snapshot.afresh()
            self.disturbed.reset(self.snapshot)
        if diagnosis := self._diagnosis(advanced):
            reasons.append(diagnosis)
            self.failed = True
            self.recorder.failed_update(advanced.before(len(advanced.rows) - 1), advanced.rows[-1])
        return reasons

    def _keep_failed(self, advanced: Advanced, before: Snapshot) -> None:
        """Write down the first update of each of the first few rows of failures."""
        failures = before.progress.failures
        for i, row in enumerate(advanced.rows):
            failed, failures = row.progress.failures > failures, row.progress.failures
            if failed and not self.failing and self.kept < KEPT:
                self.recorder.failed_update(advanced.before(i), row)
                self.kept += 1
            self.failing = failed

    def _tell(self, row: Row, evaluated: NDArray[np.float64] | None, recent: tuple[float, ...]) -> list[str]:
        """Write the row of an iteration, with what only the loop knows, and ask the callbacks for reasons to stop."""
        progress, recorder = row.progress, self.recorder
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
        if row.progress.iteration == self.snapshot.progress.iteration:  # the last one: whatever a callback raises
            self.snapshot, self.whole = self.snapshot._replace(recent=recent), True
        known = evaluated if evaluated is not None and len(evaluated) else None
        event = IterationEvent(progress.iteration, progress.steps, metrics, known, self.snapshot.agent)
        return [str(reason) for callback in self.callbacks if (reason := callback(event))]

    def _evaluation_due(self) -> bool:
        """Whether the last multiple of `every` steps has been passed since the last evaluation."""
        every, progress = self.config.evaluation.every, self.snapshot.progress
        return bool(every) and progress.steps // (every or 1) > progress.evaluated_at // (every or 1)

    def _evaluate(self) -> NDArray[np.float64] | None:
        """Evaluate, and keep the best agent; None where a signal came before the end of it.

        Episodes in which an environment broke are left out, be it all of them.
        """
        episodes = self.config.evaluation.episodes
        returns = self.play(episodes, seed_of(self.config.seed, EVALUATE, self.snapshot.progress.iteration))
        if returns is None:
            return None
        progress = self.snapshot.progress
        mean = float(returns.mean()) if len(returns) else math.nan
        best = mean >= (-math.inf if progress.best is None else progress.best)  # NaN is not
        progress = progress._replace(evaluated_at=progress.steps, best=mean if best else progress.best)
        self.snapshot = self.snapshot._replace(progress=progress)
        if best:
            self.recorder.best(self.snapshot)
        return returns

    def play(self, episodes: int, seed: int) -> NDArray[np.float64] | None:
        """The returns of so many episodes, whose faults are counted and written down; None where a signal came first.

        Those that broke are left out."""
        faults: list[Fault] = []
        report = faults.append if self.config.sampling.faults else None
        agent, stop = self.snapshot.agent, self.interruption.is_set
        returns = play(agent, self.evaluation, episodes, seed, stop=stop, report=report)
        if stop() and len(returns) < episodes:
            return None
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


def _last(returns: tuple[float, ...]) -> tuple[float, ...]:
    return returns[-RECENT:]
