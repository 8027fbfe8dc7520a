"""Whether two run folders hold the same run: to the bit, but for clocks and for how often it was taken up."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from steepest.runs import read_lines
from steepest.training.persistence import read

_CLOCKS = {"logs", "versions"}
"""Of a checkpoint's info: the lengths of the logs, which have clocks in them; versions are those of the machine."""


def differences(one: Path, other: Path) -> list[str]:
    """What is not the same, in words; empty where all is."""
    found: list[str] = []
    for checkpoint in ("last", "best"):
        arrays, info = _of_run(read(one, checkpoint))
        others, other_info = _of_run(read(other, checkpoint))
        found += [f"{checkpoint}: {name}" for name in sorted(arrays.keys() ^ others.keys())]
        found += [f"{checkpoint}: {n}" for n in arrays.keys() & others.keys() if not _same(arrays[n], others[n])]
        found += [f"{checkpoint}: {n}" for n in info.keys() | other_info.keys() if info.get(n) != other_info.get(n)]
    for log in ("metrics", "episodes", "faults"):
        rows, others = (_rows(path / f"{log}.jsonl") for path in (one, other))
        if rows != others:
            first = next((i for i, (a, b) in enumerate(zip(rows, others, strict=False)) if a != b), "the end")
            found.append(f"{log}: {len(rows)} and {len(others)} lines, from {first} on")
    if _json(one / "evaluation.json") != _json(other / "evaluation.json"):
        found.append("the last evaluation")
    return found


def _of_run(read: tuple[dict[str, np.ndarray], dict[str, Any]]) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    arrays, info = read
    info = {name: value for name, value in info.items() if name not in _CLOCKS}
    info["progress"] = {k: v for k, v in info["progress"].items() if k not in ("seconds", "resumed")}
    return arrays, info


def _same(a: np.ndarray, b: np.ndarray) -> bool:
    return (a.dtype, a.shape, a.tobytes()) == (b.dtype, b.shape, b.tobytes())


def _rows(path: Path) -> list[dict[str, Any]]:
    return [{k: v for k, v in row.items() if not k.startswith("time/")} for row in read_lines(path)]


def _json(path: Path) -> Any:
    return json.loads(path.read_text())
