"""The best without a horizon, by Howard's policy iteration (1960): evaluate exactly, improve, until nothing does.

    discounted   π'(s) ∈ argmax_a Q^π(s,a)
    average      π'(s) ∈ argmax_a Σ_s' P(s'|s,a) g(s'), and where no state gains by that, among those actions
                 π'(s) ∈ argmax_a [r(s,a) + Σ_s' P(s'|s,a) h(s')]        (Puterman 1994, section 9.2)

g(s) is the average reward from s and h the bias of a policy with any number of recurrent classes:

    g = P*r_π          (I − P_π + P*) h = (I − P*) r_π

An action is exchanged only for one that is better by more than rounding, so that the iteration ends.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from jaxtyping import Float, Int

from steepest.errors import UsageError
from steepest.worlds.finite import chains
from steepest.worlds.finite.tables import Average, Discounted

ROUNDING = 1e-10  # relative to the largest score and reward: what is nearer is equal

Plan = Int[np.ndarray, " S"]
Scores = Float[np.ndarray, "S A"]


def discounted(model: Discounted) -> tuple[np.float64, Plan]:
    """V*(ρ) and an optimal plan."""

    def improve(plan: Plan) -> Plan:
        scores = model.reward + model.gamma * (model.transition @ _discounted_values(model, plan))
        return _better(scores, plan, _near(model, scores))

    plan = _until_nothing_changes(improve, np.argmax(model.reward, axis=-1))
    return np.float64(model.initial @ _discounted_values(model, plan)), plan


def average(model: Average) -> tuple[np.float64, Plan]:
    """η* and an optimal plan. Raises UsageError where η* depends on the start."""

    def improve(plan: Plan) -> Plan:
        gain, bias = _gain_and_bias(model, plan)
        later = model.transition @ gain
        richer = _better(later, plan, _near(model, later))
        if np.any(richer != plan):
            return richer
        keeps_gain = later >= np.max(later, axis=-1, keepdims=True) - 2 * _near(model, later)
        scores = model.reward + model.transition @ bias
        return _better(np.where(keeps_gain, scores, -np.inf), plan, _near(model, scores))

    plan = _until_nothing_changes(improve, np.argmax(model.reward, axis=-1))
    gain, _ = _gain_and_bias(model, plan)
    low, high = int(np.argmin(gain)), int(np.argmax(gain))
    if gain[high] - gain[low] > _near(model, gain):
        raise UsageError(
            f"the best average reward depends on the start: {gain[low]:g} from state {low}, {gain[high]:g} from state "
            f"{high}; expected an MDP in which a policy can lead from any state to the best ones"
        )
    return np.float64(gain[high]), plan


def _until_nothing_changes(improve: Callable[[Plan], Plan], plan: Plan) -> Plan:
    while np.any((better := improve(plan)) != plan):
        plan = better
    return plan


def _better(scores: Scores, plan: Plan, near: float) -> Plan:
    """The best action of each state; the one at hand where none is better by more than `near`."""
    now = np.take_along_axis(scores, plan[:, None], axis=-1)[:, 0]
    return np.where(np.max(scores, axis=-1) > now + near, np.argmax(scores, axis=-1), plan)


def _near(model: Discounted | Average, scores: np.ndarray) -> float:
    return ROUNDING * float(max(np.max(np.abs(scores)), np.max(np.abs(model.reward))))


def _discounted_values(model: Discounted, plan: Plan) -> Float[np.ndarray, " S"]:
    chain, reward = _under(model, plan)
    return np.linalg.solve(np.eye(len(plan)) - model.gamma * chain, reward)


def _gain_and_bias(model: Average, plan: Plan) -> tuple[Float[np.ndarray, " S"], Float[np.ndarray, " S"]]:
    chain, reward = _under(model, plan)
    limit = chains.limit(chain)
    gain = limit @ reward
    return gain, np.linalg.solve(np.eye(len(plan)) - chain + limit, reward - gain)


def _under(model: Discounted | Average, plan: Plan) -> tuple[Float[np.ndarray, "S S"], Float[np.ndarray, " S"]]:
    """P_π and r_π of a plan."""
    each = np.arange(len(plan))
    return model.transition[each, plan], model.reward[each, plan]
