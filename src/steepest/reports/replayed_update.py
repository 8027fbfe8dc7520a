"""A failed update that was made again, in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_SHOWN = ("gradient_norm", "status", "iterations", "residual", "damping", "predicted_kl", "kl", "predicted_improvement",
          "improvement", "step_size", "backtracks", "entropy")  # fmt: skip
_WHY = {
    "nonfinite_gradient": "The gradient is not finite.",
    "solver": "The solver failed, or its direction does not ascend.",
    "curvature": "The metric gives the direction no length.",
    "nonfinite_step": "The step, or the policy after it, is not finite.",
    "kl": "The KL realised is far more than the quadratic model says: it does not hold for a step of this length.",
    "line_search": "No point on the line improves the surrogate within the trust region.",
    "infeasible": "The cost is over its limit, and no direction is known that lowers it.",
}


def in_words(record: Mapping[str, Any]) -> str:
    """Lines of text.  record: as `training.failed_update.replay` gives it."""
    recorded, now = record["recorded"], record["replayed"]
    reason = now.get("update/reason")
    lines = [
        f"iteration {record['iteration']}, after {record['steps']:,} steps, {record['algorithm']}: {reason}",
        _WHY.get(reason, ""),
        "made again: the same numbers" if record["same"] else f"made again: {_differs(recorded, now)}",
        "",
        *(f"  {name:22} {_short(now[f'update/{name}'])}" for name in _SHOWN if f"update/{name}" in now),
        "",
        f"rollout: {record['rollout']['rows']:,} rows, {record['rollout']['terminated']} terminations, "
        f"{record['rollout']['truncated']} truncations",
        *_table({**{f"rollout {k}": v for k, v in record["rollout"].items() if isinstance(v, dict)},
                 **{f"batch {k}": v for k, v in record["batch"].items()},
                 **{f"policy {k}": v for k, v in record["parameters"].items()}}),
    ]  # fmt: skip
    if record["line"]:
        line = record["line"]
        lines += ["", "along the direction:      delta   predicted    realised          KL"]
        rows = zip(line["delta"], line["predicted"], line["gain"], line["kl"], strict=True)
        lines += ["                   " + "".join(f"{x:12.3g}" for x in row) for row in rows]
    if record["trials"]:
        lines += ["", "the same update with"]
        lines += [f"  {t['with']:22} {t['reason']}, KL {t['kl']:.3g}, gain {t['improvement']:.3g}, solver {t['status']}"
                  f" (residual {t['residual']:.2g})" for t in record["trials"]]  # fmt: skip
    return "\n".join(line for i, line in enumerate(lines) if line or (i and lines[i - 1]))


def _differs(recorded: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    if recorded.get("update/reason") != now.get("update/reason"):
        return f"it was {recorded.get('update/reason')!r:.40} then; the machine or the versions are others"
    return "the same reason, numbers that differ by rounding (a program of many iterations rounds otherwise than one)"


def _table(rows: Mapping[str, Mapping[str, Any]]) -> list[str]:
    columns = ("least", "greatest", "mean", "deviation", "not finite")
    width = max(map(len, rows))
    head = " " * (width + 2) + "".join(f"{name:>12}" for name in columns)
    return [head] + [
        f"  {name:{width}}" + "".join(f"{_short(row[c]) if c in row else '–':>12}" for c in columns)
        for name, row in rows.items()
    ]


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
