"""Faults: what no environment may do, and what becomes of it where its world can make environments again.

    raised        raised in step or reset, or could not be made again
    answer        gave something else than what step and reset return
    observation   gave one of another shape or dtype, or with NaN or ±∞, or a state that is not in its space
    reward        gave one that is no number, or NaN or ±∞, also as a float32
    hung          took longer for one step or reset than it may; known of workers only
    died          ended its process; known of workers only

The row of a fault is dropped: valid = False, reward 0, next_obs = obs, which is the last observation that was good, and
truncated = True, so that the episode ends there and the rows before it are bootstrapped as at any truncation. How its
episode would have ended is not known, so that it is in no mean of returns. The environment is made anew and reset with
a seed of its own, from (seed of the world, environment, how often it was made again): the same for the same faults, and
never the one that led to the fault. The next row begins a new episode.

Whoever can only step its environments, as they exist already, raises RunError at the first fault.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from steepest.errors import RunError

KINDS = ("raised", "answer", "observation", "reward", "hung", "died")
ATTEMPTS = 5
"""So often in a row may a new beginning fail: then the run stops, whatever the number of faults that it bears."""


class Fault(NamedTuple):
    """What an environment did.

    env: its index in the run.  step: of its world since that was last reset; 0 for the reset, −1 where not even that
    had begun.  kind: one of KINDS.  message: a sentence that names world, environment and step.  values: what was given
    and returned, shortened; where in the program an error was raised.
    """

    env: int
    step: int
    kind: str
    message: str
    values: str = ""

    def __str__(self) -> str:
        return f"{self.message} ({self.values})" if self.values else self.message


class Irreparable(RunError):
    """An environment that cannot be begun again."""


Report = Callable[[Fault], None]
"""Takes each fault when it is found, before anything is made again. Raises RunError where there are too many."""
