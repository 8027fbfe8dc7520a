"""Random constrained MDPs with a limit between what is cheapest and what the best policy costs."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import numpy as np

import steepest as st
from steepest.worlds.finite import ConstrainedMDP
from steepest.worlds.finite import random as random_mdp


class Constrained(NamedTuple):
    """world: the limit 0.4 of the way from the least cost to that of the best policy.  within, beyond: where to start,
    near the cheapest policy and near the best one."""

    world: ConstrainedMDP
    within: Any
    beyond: Any


@functools.cache
def problem(seed: int, gamma: float | None = 0.9) -> Constrained:
    """Five states, three actions; discounted, or with the clock in the state for `gamma` None."""
    mdp: Any = random_mdp(5, 3, 4, seed)
    cost = np.random.default_rng(seed).uniform(size=(5, 3))
    if gamma is None:
        mdp, cost = mdp.timed(), np.tile(cost, (4, 1))
    else:
        mdp = mdp.discounted(gamma)
    costs = ConstrainedMDP(mdp, cost, 0.0).costs
    cheap = ConstrainedMDP(mdp, -cost, 0.0).costs
    plans = [_clock(m) if gamma is None else m.optimal()[1] for m in (cheap, mdp)]
    least, most = (float(costs.value(plan)) for plan in plans)
    within, beyond = (st.TabularSoftmax(3.0 * np.eye(3)[plan]) for plan in plans)
    return Constrained(ConstrainedMDP(mdp, cost, least + 0.4 * (most - least)), within, beyond)


def _clock(timed: Any) -> np.ndarray:
    """A plan [S] of a world with the clock in the state, from one [H,S]: each state has one step."""
    plan = timed.optimal()[1]
    steps = np.repeat(np.arange(4), 5)
    return plan[steps, np.arange(20)]
