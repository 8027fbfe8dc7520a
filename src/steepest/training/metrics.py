"""What an iteration gives for metrics.jsonl: the trust report, the critic's fit, returns; and an update in words."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from steepest.geometry import Reason, StepInfo
from steepest.linear import Status
from steepest.sampling.rollout import Episode
from steepest.training.iteration import IterationInfo
from steepest.worlds.faults import KINDS, Fault


def of_step(step: StepInfo) -> dict[str, Any]:
    """Of a trust report, its arrays on the host."""
    report = {**step._asdict(), **(step.details or {})}
    row: dict[str, Any] = {f"update/{name}": value.item() for name, value in report.items() if name != "details"}
    row["update/reason"] = Reason(int(step.reason)).name.lower()
    row["update/status"] = Status(int(step.status)).name.lower()
    return row


def of_iteration(info: IterationInfo, episodes: Sequence[Episode]) -> dict[str, Any]:
    """Of an update, its arrays on the host, and of the episodes that ended in its rollout."""
    row = of_step(info.step)
    row["update/advantage_std"] = float(info.advantage_std)
    row |= {f"critic/{name}": value.item() for name, value in info.critic._asdict().items()}
    if info.cost_critic is not None:
        row |= {f"cost_critic/{name}": value.item() for name, value in info.cost_critic._asdict().items()}
    known = [e.cost for e in episodes if e.cost is not None]
    if known or info.cost_critic is not None:
        row["cost/mean"] = float(np.mean(known)) if known else math.nan
    row["return/mean"] = float(np.mean([e.ret for e in episodes])) if episodes else math.nan
    row["return/length"] = float(np.mean([e.length for e in episodes])) if episodes else math.nan
    return row


def of_faults(faults: Sequence[Fault]) -> dict[str, int]:
    """How many there were of each kind; of no others."""
    counts = Counter(fault.kind for fault in faults)
    return {f"faults/{kind}": counts[kind] for kind in KINDS if counts[kind]}


def of_evaluation(returns: NDArray[np.float64]) -> dict[str, float]:
    """Of an evaluation's returns [episodes], NaN where no episode ended well."""
    if not len(returns):
        return dict.fromkeys(("evaluation/mean", "evaluation/std", "evaluation/min"), math.nan)
    return {
        "evaluation/mean": float(returns.mean()),
        "evaluation/std": float(returns.std()),
        "evaluation/min": float(returns.min()),
    }


def in_words(info: IterationInfo) -> str:
    """What is known of an update, for the message of a run that stops because of it."""
    step = info.step
    return (
        f"{Reason(int(step.reason)).name.lower()}, solver {Status(int(step.status)).name.lower()}, "
        f"gradient norm {float(step.gradient_norm):.3g}, relative residual {float(step.residual):.3g}, "
        f"damping {float(step.damping):.3g}. Where the policy is not at its best yet, more damping, "
        "a smaller delta or a larger batch may help"
    )
