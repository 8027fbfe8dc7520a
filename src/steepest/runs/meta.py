"""What a run was made by: versions, platform, git commit, command line, time. Asked once, when a run starts."""

from __future__ import annotations

import importlib.metadata
import platform
import subprocess
import sys
import time
from typing import Any

FORMAT = 1
PACKAGES = ("steepest", "jax", "jaxlib", "numpy", "scipy", "gymnasium", "equinox", "optax", "mujoco", "gymnax",
            "minigrid", "pettingzoo")  # fmt: skip


def describe_program() -> dict[str, Any]:
    """The part of meta.json that needs no device; `git` is None outside a repository or without git."""
    return {
        "format": FORMAT,
        "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "argv": sys.argv,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "versions": versions(),
        "git": git_commit(),
    }


def versions() -> dict[str, str]:
    """Installed versions of what can change a run's numbers; packages that are not installed are left out."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def git_commit() -> dict[str, Any] | None:
    """{'commit': hash, 'dirty': tracked files differ from it} of the working directory's repository, or None."""
    commit = _git("rev-parse", "HEAD")
    if commit is None:
        return None
    changes = _git("status", "--porcelain", "--untracked-files=no")
    return {"commit": commit, "dirty": None if changes is None else bool(changes)}


def _git(*arguments: str) -> str | None:
    try:
        answer = subprocess.run(["git", *arguments], capture_output=True, text=True, timeout=5, check=True)
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
        return None
    return answer.stdout.strip()
