"""The two ways to fail: the caller's mistake, and the world's.

A message names what was given, what was expected and, where there is one, the nearest valid thing. The command line
prints it without a traceback and exits with `exit_code`.
"""

from __future__ import annotations


class UsageError(ValueError):
    """A wrong argument: nothing has been computed or written. Exit code 2."""

    exit_code = 2


class RunError(RuntimeError):
    """Something outside our control broke a run: an environment, a file, a disk. Exit code 1."""

    exit_code = 1
