"""From what an environment observes to the array that a rollout has of it; or to what is wrong with it.

Box, Discrete, …    an array, as it is       Dict, Tuple    their parts in one vector, float32, whole numbers from 0
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from steepest.errors import UsageError
from steepest.spaces import Box, Discrete, Joint, Masked, Space, describe, seen
from steepest.worlds.answers import Wrong, misfit, short


class Misfit(Exception):
    """An observation that is not what its space promised.  wrong: what to say of it."""

    def __init__(self, wrong: Wrong):
        super().__init__(wrong.what)
        self.wrong = wrong


class Reader:
    """space: Gymnasium's, of one observation.  form: the same as plain data.

    shape, dtype: of the array that one observation is read as, before it is counted from 0 and in the dtype of a
    rollout, which is the work of `inside`.
    """

    def __init__(self, space: Any, form: Space):
        self.space, self.form = space, form
        self.joint = form if isinstance(form, Joint) else None
        self.shape: tuple[int, ...] = form.shape if self.joint is not None else space.shape
        self.dtype: Any = np.dtype(np.float32) if self.joint is not None else space.dtype

    def one(self, raw: Any) -> np.ndarray:
        """Of one environment. Raises `Misfit`."""
        if self.joint is not None:
            return np.concatenate(_flat(self.joint, self.space, raw, ""))
        raw = np.asarray(raw)
        if not _fits(raw, self.space):
            raise Misfit(misfit(self.space, raw))
        return raw

    def many(self, raw: Any) -> np.ndarray:
        """Of B at once, in arrays with a leading axis. Raises KeyError, TypeError or ValueError for what is none."""
        return np.asarray(raw) if self.joint is None else self.joint.from_environment(raw)

    def inside(self, raw: np.ndarray) -> np.ndarray:
        """[n,…] as read ↦ a copy for a rollout."""
        return np.array(raw) if self.joint is not None else self.form.from_environment(raw)

    def outside(self, obs: np.ndarray, raw: np.ndarray) -> dict[int, Wrong]:
        """What is in no state, or has a number that its space has not.  obs: [n,…] counted from 0.  raw: as read."""
        if isinstance(self.form, Box):
            return {}
        beyond = (obs < 0) | (obs >= self.form.counts)
        if obs.dtype.kind == "f":
            beyond |= np.isfinite(self.form.counts) & (obs != np.floor(obs))
            beyond &= np.isfinite(self.form.counts)
        if not beyond.any():
            return {}
        rows = np.flatnonzero(beyond.reshape(len(obs), -1).any(axis=1)).tolist()
        return {i: self._beyond(np.ravel(beyond[i]), np.ravel(raw[i])) for i in rows}

    def _beyond(self, beyond: np.ndarray, raw: np.ndarray) -> Wrong:
        k = int(np.flatnonzero(beyond)[0])
        if isinstance(self.form, Discrete):
            return Wrong("observation", f"returned the state {raw[k]}, which is not in {self.space}")
        value, where = entry(self.form, k)
        number = f"{raw[k] + (value if self.joint is not None else 0):g}"
        return Wrong("observation", f"returned {number} for {where}, which is not in {self.space}")


def described(name: str, space: Any, role: str) -> Space:
    """As `describe`, with the name of the world in errors."""
    try:
        return describe(space, role)
    except UsageError as error:
        raise UsageError(f"{name}: {error}") from error


def first_misfit(env: Any, reader: Reader) -> tuple[int, str] | None:
    """Which of a SyncVectorEnv's environments broke its space's promise; None if that cannot be known."""
    for i, obs in enumerate(getattr(env, "_env_obs", ())):
        try:
            reader.one(obs)
        except Misfit as error:
            return i, str(error)
    return None


def entry(form: Space, k: int) -> tuple[int, str]:
    """(what the environment's own number is more, its place in words) of entry k of a vector."""
    form, path = seen(form), ""
    while isinstance(form, Joint):
        names = form.names or range(len(form.parts))
        for name, part, size in zip(names, form.parts, form.sizes, strict=True):
            if k < size:
                form, path = part, f"{path}[{name!r}]"
                break
            k -= size
    offset = 0 if isinstance(form, Box | Masked) else int(np.broadcast_to(form.offset, form.shape or (1,)).ravel()[k])
    place = path if isinstance(form, Discrete) else f"entry {k}{' of ' if path else ''}{path}"
    return offset, place


def _flat(form: Joint, space: Any, raw: Any, path: str) -> list[np.ndarray]:
    """The parts of an observation, each as a vector."""
    try:
        pieces = form.pieces(raw)
    except (KeyError, TypeError, ValueError, IndexError) as error:
        whose = f"its part {path}" if path else "an observation"
        what = f"returned {whose} without the parts of {space} ({type(error).__name__}: {error})"
        raise Misfit(Wrong("observation", what, f"observation {short(raw)}")) from error
    each = []
    names = form.names or range(len(form.parts))
    for name, part, piece in zip(names, form.parts, pieces, strict=True):
        inner, where = space.spaces[name], f"{path}[{name!r}]"
        if isinstance(part, Joint):
            each += _flat(part, inner, piece, where)
            continue
        piece = np.asarray(piece)
        if not _fits(piece, inner):
            what = f"returned {where} of shape {piece.shape} and dtype {piece.dtype}; its space is {inner}"
            raise Misfit(Wrong("observation", what, f"{where} {short(piece)}"))
        each.append(part.from_environment(piece).reshape(math.prod(part.shape)).astype(np.float32))
    return each


def _fits(raw: np.ndarray, space: Any) -> bool:
    return raw.shape == space.shape and np.can_cast(raw.dtype, space.dtype, "same_kind")
