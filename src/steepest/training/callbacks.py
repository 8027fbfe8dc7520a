"""Callbacks: called after every iteration with what happened; one that returns a reason stops the run.

def stop_when_it_is_good(event):
    return "good enough" if event.evaluation is not None and event.evaluation.mean() > 475 else None

st.train("CartPole-v1", "trpo", callbacks=[stop_when_it_is_good])
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from steepest.agent import Agent


@dataclass(frozen=True)
class IterationEvent:
    """One iteration.

    iteration: from 1.  steps: environment steps so far, without ghost rows.  metrics: the row of metrics.jsonl.
    evaluation: [episodes] returns, if there was an evaluation in this iteration.  agent: after the update.
    """

    iteration: int
    steps: int
    metrics: dict[str, Any]
    evaluation: NDArray[np.float64] | None
    agent: Agent


Callback = Callable[[IterationEvent], str | None]
"""Returns why the run is to stop, or None to go on."""


@dataclass(frozen=True)
class StopAtReturn:
    """Stop once an evaluation's mean return reaches `threshold`."""

    threshold: float

    def __call__(self, event: IterationEvent) -> str | None:
        if event.evaluation is not None and event.evaluation.mean() >= self.threshold:
            return f"evaluation mean {event.evaluation.mean():.1f} reached {self.threshold:g}"
        return None
