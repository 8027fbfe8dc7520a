"""Many streams of random numbers that step together, one for each seed; equal seeds give equal numbers.

SplitMix64 (Steele, Lea & Flood 2014):  z ← z + γ,  number = mix(z),   γ = 2⁶⁴/φ, odd
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

_GAMMA = np.uint64(0x9E3779B97F4A7C15)


class Streams:
    """B streams.  seeds: [B] non-negative integers below 2⁶⁴."""

    def __init__(self, seeds: Sequence[int] | np.ndarray):
        # mixed: streams of neighbouring seeds must not be shifts of one another by a small number of steps
        self._state = _mix(np.asarray(seeds, np.uint64) + _GAMMA)

    def random(self) -> Float[np.ndarray, " B"]:
        """The next number of each stream, uniform in [0, 1)."""
        self._state = self._state + _GAMMA
        return (_mix(self._state) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _mix(z: Any) -> Any:
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
