"""Reads what the sinks wrote: rows are dictionaries, a column is (steps, values)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from steepest.runs.files import DamagedFileError, parse_json, read_bytes


def read_lines(path: Path | str) -> list[dict[str, Any]]:
    """The rows of a JSON-lines file, in order. A last line that is still being written is left out.

    Raises RunError if the file is missing, or if a line other than that one is no JSON object.
    """
    *lines, rest = read_bytes(path).split(b"\n")
    rows = []
    for number, line in enumerate([*lines, rest], start=1):
        whole = number <= len(lines)
        if not line.strip():
            continue
        try:
            row = parse_json(line)
            if not isinstance(row, dict):
                raise ValueError("an object expected")
        except ValueError as error:
            if whole:
                raise DamagedFileError(f"{path} is damaged: line {number} is no JSON object ({error})") from error
            continue
        rows.append(row)
    return rows


def columns(rows: list[dict[str, Any]], name: str) -> tuple[np.ndarray, np.ndarray]:
    """(steps [n] int64, values [n] float64) of the rows in which `name` is a number; null and absent are left out."""
    found = [(row["step"], row[name]) for row in rows if _is_step(row.get("step")) and _is_number(row.get(name))]
    steps, values = zip(*found, strict=True) if found else ((), ())
    return np.array(steps, dtype=np.int64), np.array(values, dtype=np.float64)


def _is_step(value: Any) -> bool:
    return _is_number(value) and abs(value) < 2**63


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
