"""Rows of measurements in a CSV: added one by one as they are made, so that what was interrupted goes on."""

from __future__ import annotations

import csv
import os
import subprocess
import threading
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from steepest.runs.meta import git_commit, versions

_LOCK = threading.Lock()
"""Of all tables: runs that are made in threads end when they will."""


def read(table: Path) -> list[dict[str, str]]:
    """The rows of a CSV; none where there is no file yet."""
    if not table.exists():
        return []
    with table.open(newline="") as file:
        return list(csv.DictReader(file))


def append(table: Path, row: Mapping[str, Any], fields: Sequence[str]) -> None:
    """Add a row, and the header before the first one.  fields: the columns; what a row lacks is left empty.

    Raises ValueError where the row has a column that the table has not.
    """
    table.parent.mkdir(parents=True, exist_ok=True)
    with _LOCK, table.open("a", newline="") as file:
        new = not file.tell()
        writer = csv.DictWriter(file, fields, restval="", lineterminator="\n")
        if new:
            writer.writeheader()
        writer.writerow(row)


def done(rows: Iterable[Mapping[str, str]], *columns: str) -> set[tuple[str, ...]]:
    """What the rows have in these columns: the runs that need not be made again."""
    return {tuple(row[column] for column in columns) for row in rows}


def where() -> dict[str, Any]:
    """What the numbers of a row depend on beside what is measured: cores this process may use, commit, versions."""
    return {
        "cores": len(os.sched_getaffinity(0)),
        "commit": (git_commit() or {}).get("commit", "") + ("-dirty" if _changed() else ""),
        "versions": " ".join(f"{name}={version}" for name, version in versions().items()),
    }


def _changed() -> bool:
    """Whether code that could be measured differs from its commit; rows that were added do not count."""
    what = ["git", "status", "--porcelain", "--untracked-files=no", "--", "src", "benchmarks/*.py", "constraints.txt"]
    try:
        return bool(subprocess.run(what, capture_output=True, text=True, timeout=5, check=True).stdout.strip())
    except (OSError, subprocess.SubprocessError):
        return False
