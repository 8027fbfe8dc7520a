"""MuJoCo's warnings, one of a kind: left to itself it prints each for every environment, and writes MUJOCO_LOG.TXT
into the working directory."""

from __future__ import annotations

import re
import sys
from typing import Any

_said: set[str] = set()


def say_once() -> None:
    """From now on in this process, on stderr; where somebody listens to them already, that is left as it is."""
    try:
        import mujoco
    except ImportError:
        return
    simulator: Any = mujoco
    if hasattr(simulator, "set_mju_user_warning") and simulator.get_mju_user_warning() is None:
        simulator.set_mju_user_warning(_say)


def _say(text: str) -> None:
    kind = re.sub(r"\d[\d.e+-]*", "#", text)  # the same at another time, or in another place, is of this kind
    if kind not in _said:
        _said.add(kind)
        print(f"MuJoCo: {text}", file=sys.stderr, flush=True)
