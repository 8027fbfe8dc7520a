"""Which checkpoints of a run are kept, and which of them is whole: the last N by their steps, and the best.

    checkpoints/last.safetensors                  the newest
    checkpoints/steps-000000204800.safetensors    the same, and N − 1 before it
    checkpoints/best.safetensors                  written by itself, and never removed

A new one is written under its steps first, and becomes the last by a rename: at every moment there is a whole last.
Folders of format 1 have `previous` in place of the numbered ones.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from steepest.errors import UsageError
from steepest.runs import checkpoint
from steepest.runs.files import DamagedFileError, failure, sync_folder

SUFFIX = ".safetensors"
_LAST, _PREVIOUS, _NUMBERED = "last", "previous", "steps-"


class Found(NamedTuple):
    """The newest whole checkpoint.  path: where it is.  damaged: why each newer one is not it, by its path."""

    arrays: dict[str, np.ndarray]
    info: dict[str, Any]
    path: Path
    damaged: dict[Path, str]


def names(folder: Path) -> list[str]:
    """The names of the checkpoints in `folder`, sorted."""
    return sorted(p.name.removesuffix(SUFFIX) for p in folder.glob(f"*{SUFFIX}") if not p.name.startswith("."))


def numbered(folder: Path) -> list[Path]:
    """The checkpoints in `folder` that have their steps for a name, newest first."""
    found = [p for p in folder.glob(f"{_NUMBERED}*{SUFFIX}") if p.name[len(_NUMBERED) : -len(SUFFIX)].isdecimal()]
    return sorted(found, key=_steps, reverse=True)


def _steps(path: Path) -> int:
    return int(path.name[len(_NUMBERED) : -len(SUFFIX)][:18])


def save_last(folder: Path, arrays: dict[str, np.ndarray], info: dict[str, Any], steps: int, keep: int) -> None:
    """Save the checkpoint at `steps` as the last, and keep so many of the last. Raises RunError where that fails; a
    whole last is then still there."""
    path, last = folder / f"{_NUMBERED}{steps:012d}{SUFFIX}", folder / f"{_LAST}{SUFFIX}"
    checkpoint.save(path, arrays, info)
    link = folder / f".{last.name}.{secrets.token_hex(4)}.tmp"
    try:
        os.link(path, link)
    except OSError:  # a file system without hard links
        checkpoint.save(last, arrays, info)
    else:
        try:
            os.replace(link, last)
            sync_folder(folder)
        except OSError as error:
            raise failure("write", last, error) from error
        finally:
            link.unlink(missing_ok=True)
    _prune(folder, steps, keep)


def _prune(folder: Path, steps: int, keep: int) -> None:
    """Remove what is older than the last `keep`, and what is newer: of a run that was taken up again before it."""
    files = numbered(folder)
    newer = [p for p in files if _steps(p) > steps]
    older = [p for p in files if _steps(p) <= steps] + [folder / f"{_PREVIOUS}{SUFFIX}"]
    for path in newer + older[keep:]:
        with contextlib.suppress(OSError):  # a file too many harms nobody
            path.unlink(missing_ok=True)


def load_last(folder: Path) -> Found:
    """The newest checkpoint that is whole, with a warning for each that was passed over.

    Raises UsageError if there is none at all, DamagedFileError if none is whole, RunError for a later format.
    """
    last, damaged = folder / f"{_LAST}{SUFFIX}", {}
    others = [p for p in (*numbered(folder), folder / f"{_PREVIOUS}{SUFFIX}") if os.path.lexists(p)]
    if not os.path.lexists(last) and not others:
        raise UsageError(f"{folder.parent} has no checkpoint 'last'; there: {', '.join(names(folder)) or 'none'}")
    for path in (last, *others):
        try:
            if path == last and not os.path.lexists(path):
                raise DamagedFileError(f"{path} is missing")
            found = Found(*checkpoint.load(path), path, damaged)
        except DamagedFileError as error:
            damaged[path] = str(error)
            continue
        if damaged:
            why = "; ".join(damaged.values())
            warnings.warn(f"{why}; going on from the checkpoint before it, {path}", stacklevel=3)
        return found
    best = ""
    if os.path.lexists(folder / f"best{SUFFIX}"):
        best = "; there is still the checkpoint 'best', to be loaded and evaluated"
    raise DamagedFileError(
        f"{folder.parent} has no whole checkpoint to go on from: {'; '.join(damaged.values())}{best}"
    )


def set_aside(damaged: dict[Path, str]) -> None:
    """Give damaged checkpoints another name, so that nothing takes them for one and nothing overwrites them."""
    for path in damaged:
        with contextlib.suppress(OSError):
            os.replace(path, path.with_suffix(".damaged"))
