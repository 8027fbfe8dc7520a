"""Many small MDPs at once, N on the leading axis of every array, and what a policy is worth in each: NumPy float64.

    discounted      Q = r + γPV,   V(s) = Σ_a π(a|s)(Q(s,a) − τ ln π(a|s))          τ = 0: without an entropy bonus
    visits          d = (1−γ) Σ_t γᵗ Pr(s_t = s)
    finite horizon  Q_h = r + P V_{h+1},   V_H = 0

A theorem on convergence is a claim about every MDP and every iteration: it is tried on many at once. Policies are
tables of log-probabilities, [N,S,A], or [N,H,S,A] where they depend on the step; rewards lie in [0,1], as the theorems
assume.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from steepest.errors import UsageError

Table = Float[np.ndarray, "*N S A"]
Values = Float[np.ndarray, "*N S"]


class Ensemble(NamedTuple):
    """transition: P(s'|s,a), [N,S,A,S].  reward: r(s,a) in [0,1], [N,S,A].  initial: ρ(s), [N,S]."""

    transition: Float[np.ndarray, "N S A S"]
    reward: Float[np.ndarray, "N S A"]
    initial: Float[np.ndarray, "N S"]


def random_ensemble(count: int, states: int = 5, actions: int = 3, seed: int = 0) -> Ensemble:
    """N = `count` MDPs: rows of P and ρ uniform on the simplex, rewards uniform on [0,1]; the same for a seed."""
    if min(count, states, actions) < 1:
        raise UsageError(f"an ensemble has at least one MDP, state and action, got {count}, {states} and {actions}")
    rng = np.random.default_rng(seed)
    transition = rng.dirichlet(np.ones(states), size=(count, states, actions))
    reward = rng.uniform(size=(count, states, actions))
    return Ensemble(transition, reward, rng.dirichlet(np.ones(states), size=count))


# Discounted


def action_values(worlds: Ensemble, log_policy: Table, discount: float, temperature: float = 0.0) -> Table:
    """Q^π(s,a), by one linear solve in each MDP.

    log_policy: ln π(a|s), [N,S,A].  discount: γ in [0,1).  temperature: τ ≥ 0, the price of a nat of entropy: each
    step then earns r − τ ln π, its own first step apart.
    """
    policy = np.exp(log_policy)
    earned = np.sum(policy * (worlds.reward - temperature * log_policy), axis=-1)
    value = np.linalg.solve(_resolvent(worlds, policy, discount), earned[..., None])[..., 0]
    return worlds.reward + discount * _expect(worlds.transition, value)


def state_values(log_policy: Table, q: Table, temperature: float = 0.0) -> Values:
    """V(s) = Σ_a π(a|s)(Q(s,a) − τ ln π(a|s))."""
    return np.sum(np.exp(log_policy) * (q - temperature * log_policy), axis=-1)


def visits(worlds: Ensemble, policy: Table, discount: float) -> Values:
    """d(s) = (1−γ) Σ_t γᵗ Pr(s_t = s), [N,S]: sums to 1.  policy: probabilities, [N,S,A]."""
    flow = np.swapaxes(_resolvent(worlds, policy, discount), -1, -2)
    return (1.0 - discount) * np.linalg.solve(flow, worlds.initial[..., None])[..., 0]


def optimal(worlds: Ensemble, discount: float) -> tuple[Values, Table]:
    """V*(s) and a deterministic optimal policy as a table of probabilities, by policy iteration (Howard 1960)."""
    actions = worlds.reward.shape[-1]
    plan = np.argmax(worlds.reward, axis=-1)
    while True:  # ends: each round is strictly better in some state and worse in none
        policy = np.eye(actions)[plan]
        earned = np.sum(policy * worlds.reward, axis=-1)
        value = np.linalg.solve(_resolvent(worlds, policy, discount), earned[..., None])[..., 0]
        q = worlds.reward + discount * _expect(worlds.transition, value)
        gain = np.max(q, axis=-1) - value
        better = gain > 1e-12 * np.max(np.abs(value), axis=-1, keepdims=True)
        if not np.any(better):
            return value, policy
        plan = np.where(better, np.argmax(q, axis=-1), plan)


def soft_optimal(worlds: Ensemble, discount: float, temperature: float) -> tuple[Table, Table]:
    """Q*_τ(s,a) and ln π*_τ = Q*_τ/τ − ln Z, by soft policy iteration, which converges quadratically.

    temperature: τ > 0.
    """
    q = worlds.reward
    for _ in range(1000):
        log_policy = log_softmax(q / temperature)
        before, q = q, action_values(worlds, log_policy, discount, temperature)
        if np.max(np.abs(q - before)) <= 1e-14 * np.max(np.abs(q)):
            break
    return q, log_softmax(q / temperature)


# Finite horizon


def action_values_by_step(worlds: Ensemble, log_policy: Float[np.ndarray, "N H S A"]) -> Float[np.ndarray, "N H S A"]:
    """Q_h(s,a): the expected sum of the rewards from step h to the end."""
    q, policy = np.empty_like(log_policy), np.exp(log_policy)
    later = np.zeros(worlds.initial.shape)
    for h in reversed(range(log_policy.shape[1])):
        q[:, h] = worlds.reward + _expect(worlds.transition, later)
        later = np.sum(policy[:, h] * q[:, h], axis=-1)
    return q


def optimal_by_step(worlds: Ensemble, horizon: int) -> Values:
    """V*_0(s) of the best policy that may look at the clock, [N,S], by backward dynamic programming."""
    value = np.zeros(worlds.initial.shape)
    for _ in range(horizon):
        value = np.max(worlds.reward + _expect(worlds.transition, value), axis=-1)
    return value


def log_softmax(x: Table) -> Table:
    """x − ln Σ_a eˣ: log-probabilities over the last axis."""
    shifted = x - np.max(x, axis=-1, keepdims=True)
    return shifted - np.log(np.sum(np.exp(shifted), axis=-1, keepdims=True))


def _resolvent(worlds: Ensemble, policy: Table, discount: float) -> Float[np.ndarray, "N S S"]:
    """I − γP_π."""
    return np.eye(policy.shape[-2]) - discount * np.einsum("nsa,nsat->nst", policy, worlds.transition)


def _expect(transition: Float[np.ndarray, "N S A S"], value: Values) -> Table:
    """Σ_s' P(s'|s,a) V(s')."""
    return np.einsum("nsat,nt->nsa", transition, value)
