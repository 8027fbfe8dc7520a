"""The tabular updates run on many MDPs at once, the gap after every update beside its published bound.

    gap_t ≤ bound_t         in every MDP, for every t

Each function is one theorem: it evaluates exactly, updates, measures. The updates and the bounds are those of
`mirror_descent.py`; here they only meet.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from steepest.algorithms import mirror_descent as updates
from steepest.worlds.finite import ensemble
from steepest.worlds.finite.ensemble import Ensemble, Table

Gaps = Float[np.ndarray, "N T"]


class Trace(NamedTuple):
    """updates: after how many updates, [T].  gap, bound: of each MDP then, [N,T].  change: the least change of the
    value of any state in the update before, [N,T]: not negative where the method is monotone."""

    updates: Int[np.ndarray, " T"]
    gap: Gaps
    bound: Gaps
    change: Gaps


def multiplicative_weights(worlds: Ensemble, discount: float, step: float, count: int) -> Trace:
    """Agarwal et al. 2021, theorem 16: V*(ρ) − V(ρ) after T = 1 … `count` updates from the uniform policy."""
    best = _start(worlds, ensemble.optimal(worlds, discount)[0])
    values = _discounted(
        worlds, discount, count, lambda log_policy, q, _: updates.multiplicative_weights(
            log_policy, q, step=step, discount=discount
        )
    )  # fmt: skip
    number = np.arange(1, count + 1)
    actions = worlds.reward.shape[-1]
    bound = updates.multiplicative_weights_bound(number, actions=actions, step=step, discount=discount)
    return _trace(worlds, best, values, number, np.broadcast_to(bound, (len(best), count)))


def constant_mirror_descent(worlds: Ensemble, discount: float, step: float, count: int) -> Trace:
    """Xiao 2022, theorem 8: V*(ρ) − V(ρ) after k = 0 … `count` updates from the uniform policy."""
    value, plan = ensemble.optimal(worlds, discount)
    best = _start(worlds, value)
    values = _discounted(worlds, discount, count, lambda p, q, _: updates.mirror_descent(p, q, step=step))
    number = np.arange(count + 1)
    bound = updates.constant_step_bound(
        number, divergence=_divergence(worlds, plan, discount)[:, None], step=step, discount=discount
    )
    return _trace(worlds, best, values, number, bound)


def growing_mirror_descent(worlds: Ensemble, discount: float, first: float, count: int) -> Trace:
    """Xiao 2022, theorem 10, with η_k = η_0/γᵏ: V*(ρ) − V(ρ) after k = 0 … `count` updates from the uniform policy."""
    value, plan = ensemble.optimal(worlds, discount)
    best = _start(worlds, value)

    def update(log_policy: Table, q: Table, k: int) -> Table:
        return updates.mirror_descent(log_policy, q, step=updates.growing_step(k, first=first, discount=discount))

    values = _discounted(worlds, discount, count, update)
    ratio = ensemble.visits(worlds, plan, discount) / worlds.initial
    number = np.arange(count + 1)
    bound = updates.growing_step_bound(
        number,
        gap=(best - _start(worlds, values[0]))[:, None],
        divergence=_divergence(worlds, plan, discount)[:, None],
        mismatch=np.max(ratio, axis=-1, keepdims=True) / (1.0 - discount),
        first=first,
        discount=discount,
    )
    return _trace(worlds, best, values, number, bound)


def regularised(worlds: Ensemble, discount: float, temperature: float, step: float, count: int) -> tuple[Trace, Trace]:
    """Cen et al. 2022, theorem 1, after t = 1 … `count` updates from the uniform policy: (of Q, of ln π).

    Their gaps are ‖Q*_τ − Q_τ‖_∞ and ‖ln π*_τ − ln π‖_∞, and the change that of V_τ.
    """
    q_star, log_star = ensemble.soft_optimal(worlds, discount, temperature)
    log_policy = _uniform(worlds.reward)
    q = ensemble.action_values(worlds, log_policy, discount, temperature)
    q_gap, log_gap, values = [_norm(q_star - q)], [_norm(log_star - log_policy)], []
    for _ in range(count):
        values.append(ensemble.state_values(log_policy, q, temperature))
        log_policy = updates.regularised(log_policy, q, step=step, temperature=temperature, discount=discount)
        q = ensemble.action_values(worlds, log_policy, discount, temperature)
        q_gap.append(_norm(q_star - q))
        log_gap.append(_norm(log_star - log_policy))
    values.append(ensemble.state_values(log_policy, q, temperature))
    number = np.arange(1, count + 1)
    bound = updates.regularised_bound(
        number,
        gap=q_gap[0][:, None],
        distance=log_gap[0][:, None],
        step=step,
        temperature=temperature,
        discount=discount,
    )
    change = np.min(np.diff(np.stack(values), axis=0), axis=-1).T
    of_policy = 2.0 / (temperature * discount) * bound
    return (
        Trace(number, np.stack(q_gap[1:], axis=1), bound, change),
        Trace(number, np.stack(log_gap[1:], axis=1), of_policy, change),
    )


def stepwise(worlds: Ensemble, horizon: int, exponent: float, count: int) -> Trace:
    """Finite horizon: V*(ρ) − V(ρ) after T = 1 … `count` updates of every π_h from the uniform policy."""
    best = _start(worlds, ensemble.optimal_by_step(worlds, horizon))
    log_policy = _uniform(np.repeat(worlds.reward[:, None], horizon, axis=1))
    values = []
    for _ in range(count):
        q = ensemble.action_values_by_step(worlds, log_policy)
        values.append(ensemble.state_values(log_policy, q))
        log_policy = updates.stepwise(log_policy, q, exponent=exponent)
    values.append(ensemble.state_values(log_policy, ensemble.action_values_by_step(worlds, log_policy)))
    number = np.arange(1, count + 1)
    bound = updates.stepwise_bound(number, horizon=horizon, actions=worlds.reward.shape[-1], exponent=exponent)
    gap = best - np.stack([_start(worlds, v[:, 0]) for v in values[1:]])
    change = np.min(np.diff(np.stack(values), axis=0), axis=(-1, -2))
    return Trace(number, gap.T, np.broadcast_to(bound, gap.T.shape), change.T)


def _discounted(
    worlds: Ensemble, discount: float, count: int, update: Callable[[Table, Table, int], Table]
) -> Float[np.ndarray, "T N S"]:
    """V^π(s) of the uniform policy and of every policy after it."""
    log_policy, values = _uniform(worlds.reward), []
    for k in range(count + 1):
        q = ensemble.action_values(worlds, log_policy, discount)
        values.append(ensemble.state_values(log_policy, q))
        log_policy = update(log_policy, q, k)
    return np.stack(values)


def _trace(worlds: Ensemble, best: np.ndarray, values: np.ndarray, number: np.ndarray, bound: np.ndarray) -> Trace:
    change = np.min(np.diff(values, axis=0, prepend=values[:1]), axis=-1)
    gap = best - np.sum(worlds.initial * values, axis=-1)
    return Trace(number, gap[number].T, bound, change[number].T)


def _start(worlds: Ensemble, value: Float[np.ndarray, "N S"]) -> Float[np.ndarray, " N"]:
    """V(ρ) = Σ_s ρ(s)V(s)."""
    return np.sum(worlds.initial * value, axis=-1)


def _divergence(worlds: Ensemble, plan: Table, discount: float) -> Float[np.ndarray, " N"]:
    """D_0 = Σ_s d*(s) KL(π*(·|s)‖π_0(·|s)) of a deterministic π* and a uniform π_0: ln|A| whatever d* is."""
    nats = np.sum(plan, axis=-1) * np.log(plan.shape[-1])
    return np.sum(ensemble.visits(worlds, plan, discount) * nats, axis=-1)


def _uniform(like: Table) -> Table:
    return np.full(like.shape, -np.log(like.shape[-1]))


def _norm(x: Float[np.ndarray, "N S A"]) -> Float[np.ndarray, " N"]:
    return np.max(np.abs(x), axis=(-1, -2))
