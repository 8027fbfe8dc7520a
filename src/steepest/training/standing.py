"""Where a run's environments stand, between an engine and a checkpoint: each engine has a form of its own for it.

    engine → snapshot.standing → Stored → checkpoint → Stored → snapshot.standing → engine

Asked for its stored form only where a checkpoint is written.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import numpy as np

from steepest.runs.meta import versions
from steepest.sampling import standing as on_host
from steepest.sampling.standing import Standing
from steepest.worlds import is_made

Arrays = dict[str, np.ndarray]

PREFIX = "worlds"
"""Of the arrays in a checkpoint."""
_SIMULATORS = ("gymnasium", "mujoco", "gymnax")
"""Whose state may be another in another version."""


class Stands(Protocol):
    """What an engine knows of where its environments stand."""

    def stored(self) -> Stored | None:
        """As a checkpoint has it; None where it has become more than one can hold."""
        ...


class Stored(NamedTuple):
    """record: JSON.  arrays: by name."""

    record: Any
    arrays: Arrays

    def stored(self) -> Stored:
        """See `Stands`."""
        return self


class HostStands(NamedTuple):
    """Of worlds on the host."""

    standing: Standing

    def stored(self) -> Stored | None:
        """See `Stands`."""
        try:
            record, arrays = self.standing.to_record()
        except TypeError:
            return None
        return Stored(record, {f"{PREFIX}.{name}": array for name, array in arrays.items()})


def begins_afresh(info: dict[str, Any], trained: str, env: Any) -> str:
    """Why a resumed run cannot put its environments back to where they stood; empty where it can.

    info: of the checkpoint.  trained: the environment's name in the configuration.  env: what is to be gone on with.
    """
    if is_made(env):
        return "nobody knows where an environment that was given as an object stands"
    if isinstance(env, str) and _own(env) != _own(trained):
        return f"it is another environment, {env} in place of {trained}"
    before, now = info.get("versions"), versions()
    if not isinstance(before, dict):
        return ""
    for name in _SIMULATORS:
        if before.get(name) != now.get(name):
            return f"the checkpoint is of {name} {before.get(name)!s:.20}, and this is {now.get(name)}"
    return ""


def _own(spec: str) -> tuple[str, str]:
    """An id without its backend or module, and its options."""
    identifier, _, options = spec.partition(",")
    return identifier.rpartition(":")[2], options


def host_standing(stands: Stands | None, envs: int) -> Standing | None:
    """What worlds on the host are put back to. Raises RunError for what is damaged."""
    stored = None if stands is None else stands.stored()
    if stored is None:
        return None
    record, arrays = stored
    plain = {name.removeprefix(f"{PREFIX}."): array for name, array in arrays.items()}
    return on_host.from_record(record, plain, envs)
