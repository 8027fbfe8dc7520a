"""What to say where an environment needs a package that is not installed."""

from __future__ import annotations

from steepest.errors import UsageError


def missing(env: str, error: object, extra: str | None) -> UsageError:
    """env: as the user named it.  error: what importing it said.  extra: of steepest, with which to install it; None
    where that is not known."""
    hint = "" if extra is None else f'; install it with: pip install "steepest[{extra}]"'
    return UsageError(f"environment {env!r} needs a package that is not installed ({error}){hint}")
