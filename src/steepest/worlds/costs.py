"""What a step costs: info["cost"], the form of Safety-Gymnasium's Gymnasium wrappers, as a vector environment has it.

    NEXT_STEP, DISABLED   info["cost"] [B], and in info["_cost"] [B] who reported one
    SAME_STEP             of an episode that ended, in info["final_info"]: the rest is of the reset

A "cost" that is no number for each environment is none.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

KEY = "cost"


def reported_costs(info: Any, valid: np.ndarray) -> np.ndarray | None:
    """[B] float32, NaN where an environment reported none, 0 in a ghost row; None where none reported one.

    info: of a vector environment's step.  valid: [B], False in a ghost row.
    """
    cost = np.full(valid.shape, np.nan, np.float32)
    for place in (info, info.get("final_info") if isinstance(info, Mapping) else None):
        if isinstance(place, Mapping) and KEY in place:
            who = np.asarray(place.get(f"_{KEY}", np.ones(valid.shape)), bool)
            try:
                cost[who] = np.asarray(place[KEY], np.float32)[who]
            except (TypeError, ValueError, IndexError):  # something of that name that is no number for each environment
                return None
    cost[~valid] = 0.0
    return None if valid.any() and np.isnan(cost[valid]).all() else cost
