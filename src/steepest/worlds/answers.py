"""What in the answers of environments is none: errors instead of one, numbers that are not finite, unknown states.

Each function looks at all environments at once, and gives {index: Wrong}: empty, nearly always.
"""

from __future__ import annotations

import math
import traceback
from typing import Any, NamedTuple

import numpy as np

_SHORT, _LONG = 120, 500
"""Characters of a value, and of what an error says."""


class Wrong(NamedTuple):
    """Of one environment.  kind: as of a `Fault`.  what: it did, "raised KeyError: 'wheel'".  values: what it answered,
    or where it raised.  cause: its error."""

    kind: str
    what: str
    values: str = ""
    cause: BaseException | None = None


def raised(error: BaseException) -> Wrong:
    """An environment that raised instead of answering."""
    frames = traceback.extract_tb(error.__traceback__, limit=-1)
    where = f"{frames[-1].filename}:{frames[-1].lineno} in {frames[-1].name}" if frames else ""
    return Wrong("raised", f"raised {type(error).__name__}: {str(error)[:_LONG]}", where, error)


def not_finite(kind: str, array: np.ndarray, raw: Any) -> dict[int, Wrong]:
    """Rows with NaN or ±∞.  kind: what they are.  array: [B,…] as it would be used.  raw: as it was returned."""
    # the sum of squares is finite only if all entries are, and costs a third; where it overflows, all are looked at
    if array.dtype.kind != "f" or math.isfinite(np.vdot(array, array)):
        return {}
    raw, wrong = np.asarray(raw), dict[int, Wrong]()
    article = "a" if kind == "reward" else "an"
    for i, *entry in np.argwhere(~np.isfinite(array)).tolist():
        where = f" in entry {', '.join(map(str, entry))}" if entry else ""
        what = f"returned {article} {kind} that is not finite: {raw[i, *entry]}{where}"
        wrong.setdefault(i, Wrong(kind, what, f"{kind} {short(raw[i])}"))
    return wrong


def misfit(space: Any, obs: np.ndarray) -> Wrong:
    """An observation that is not what its space promised."""
    what = f"returned an observation of shape {obs.shape} and dtype {obs.dtype}; its space is {space}"
    return Wrong("observation", what, f"observation {short(obs)}")


def no_number(reward: Any) -> Wrong:
    """A reward that is none."""
    return Wrong("reward", f"returned a reward that is not a number, but a {type(reward).__name__}", short(reward))


def no_answer(answer: Any, error: Exception) -> Wrong:
    """Something that is not what `step` or `reset` return."""
    return Wrong("answer", f"gave an answer that is none ({type(error).__name__}: {error})", short(answer))


def short(value: Any) -> str:
    """In a few words."""
    try:
        text = repr(value)
        if isinstance(value, np.ndarray | np.generic):
            text = np.array2string(np.asarray(value), precision=4, threshold=12, edgeitems=4)
        text = " ".join(text.split())
    except Exception as error:  # a value that is wrong may also have no words for itself
        text = f"a {type(value).__name__} ({type(error).__name__})"
    return text if len(text) <= _SHORT else text[:_SHORT] + " …"
