"""The best that can be done: V* by backward dynamic programming, and the best policy that may not look at the clock.

    V*_h(s) = max_a [r_h(s,a) + Σ_s' P_h(s'|s,a) V*_{h+1}(s')]

The optimal policy of a finite horizon depends on h. The best stationary one is in general worse, and no dynamic
programme finds it: the deterministic ones are enumerated.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int

from steepest.errors import UsageError
from steepest.worlds.finite.tables import Tables, at

ENUMERATION_LIMIT = 1_000_000
_CHUNK_ENTRIES = 2_000_000  # of Q in one chunk: 16 MB


def optimal(model: Tables) -> tuple[np.float64, Int[np.ndarray, "H S"]]:
    """V*(ρ) and the actions of a deterministic optimal policy, the first of equals."""
    value = np.zeros(model.initial.size)
    plan = np.empty((model.horizon, model.initial.size), np.int64)
    for h in reversed(range(model.horizon)):
        q = at(model.reward, h, 2) + at(model.transition, h, 3) @ value
        plan[h] = np.argmax(q, axis=-1)
        value = np.max(q, axis=-1)
    return np.float64(model.initial @ value), plan


def optimal_stationary(model: Tables) -> tuple[np.float64, Int[np.ndarray, " S"]]:
    """The largest V^π(ρ) of the A^S deterministic stationary policies, and the first that has it.

    Raises UsageError where A^S > 10⁶.
    """
    states, actions = model.reward.shape[-2:]
    count = actions**states
    if count > ENUMERATION_LIMIT:
        raise UsageError(
            f"optimal(stationary=True) enumerates A^S policies; here {actions}^{states} is over {ENUMERATION_LIMIT}"
        )
    digits = actions ** np.arange(states)[::-1]
    best, winner = -np.inf, np.zeros(states, np.int64)
    size = max(1, _CHUNK_ENTRIES // (states * actions))
    for start in range(0, count, size):
        plans = np.arange(start, min(start + size, count))[:, None] // digits % actions
        values = _values(model, plans)
        k = int(np.argmax(values))
        if values[k] > best:
            best, winner = values[k], plans[k]
    return np.float64(best), winner


def _values(model: Tables, plans: Int[np.ndarray, "K S"]) -> Float[np.ndarray, " K"]:
    """V(ρ) of K deterministic stationary policies."""
    states, actions = model.reward.shape[-2:]
    value = np.zeros(plans.shape)
    for h in reversed(range(model.horizon)):
        after = value @ at(model.transition, h, 3).reshape(states * actions, states).T
        q = at(model.reward, h, 2) + after.reshape(-1, states, actions)
        value = np.take_along_axis(q, plans[..., None], axis=-1)[..., 0]
    return value @ model.initial
