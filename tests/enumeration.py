"""The slow oracle of the finite MDPs: every trajectory in turn, in plain NumPy, with scores written by hand.

No recursion over time, no automatic differentiation, nothing of the library but the policy's parameters.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np


class Path(NamedTuple):
    """A trajectory s_0, a_0, …, s_{H−1}, a_{H−1}, its probability and its return."""

    probability: float
    states: tuple[int, ...]
    actions: tuple[int, ...]
    total: float


def paths(mdp: Any, policy: np.ndarray) -> Iterator[Path]:
    """All (S·A)^H trajectories; policy: π, [S,A] or [H,S,A]."""
    states, actions, horizon = len(mdp.initial), mdp.reward.shape[-1], mdp.horizon
    p = np.broadcast_to(mdp.transition, (horizon, states, actions, states))
    r = np.broadcast_to(mdp.reward, (horizon, states, actions))
    pi = np.broadcast_to(policy, (horizon, states, actions))
    for s in itertools.product(range(states), repeat=horizon):
        for a in itertools.product(range(actions), repeat=horizon):
            probability, total = mdp.initial[s[0]], 0.0
            for h in range(horizon):
                probability *= pi[h, s[h], a[h]]
                total += r[h, s[h], a[h]]
                if h + 1 < horizon:
                    probability *= p[h, s[h], a[h], s[h + 1]]
            yield Path(float(probability), s, a, float(total))


def value(mdp: Any, policy: np.ndarray) -> float:
    """Σ_τ Pr(τ) Σ_h r."""
    return math.fsum(path.probability * path.total for path in paths(mdp, policy))


def state_distributions(mdp: Any, policy: np.ndarray) -> np.ndarray:
    """P_h(s), [H,S]."""
    out = np.zeros((mdp.horizon, len(mdp.initial)))
    for path in paths(mdp, policy):
        for h, s in enumerate(path.states):
            out[h, s] += path.probability
    return out


def occupancy(mdp: Any, policy: np.ndarray) -> np.ndarray:
    """d(s,a), [S,A]."""
    out = np.zeros(mdp.reward.shape[-2:])
    for path in paths(mdp, policy):
        for s, a in zip(path.states, path.actions, strict=True):
            out[s, a] += path.probability / mdp.horizon
    return out


def action_values(mdp: Any, policy: np.ndarray) -> np.ndarray:
    """Q_h(s,a), [H,S,A]: the conditional mean of the rewards from h on; NaN where (s,a) is never met at h."""
    states, actions = mdp.reward.shape[-2:]
    r = np.broadcast_to(mdp.reward, (mdp.horizon, states, actions))
    mass, total = np.zeros(r.shape), np.zeros(r.shape)
    for path in paths(mdp, policy):
        rewards = [r[h, s, a] for h, (s, a) in enumerate(zip(path.states, path.actions, strict=True))]
        for h, (s, a) in enumerate(zip(path.states, path.actions, strict=True)):
            mass[h, s, a] += path.probability
            total[h, s, a] += path.probability * sum(rewards[h:])
    return np.divide(total, mass, out=np.full(mass.shape, np.nan), where=mass > 0)


def path_kl(mdp: Any, p: np.ndarray, q: np.ndarray) -> float:
    """Σ_τ Pr^p(τ) ln(Pr^p(τ)/Pr^q(τ)), with ρ and P in both: that they cancel is a claim."""
    return math.fsum(
        x.probability * math.log(x.probability / y.probability)
        for x, y in zip(paths(mdp, p), paths(mdp, q), strict=True)
        if x.probability > 0
    )


def path_scores(mdp: Any, policy: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(probability [N], return [N], Ψ = Σ_h ψ(s_h,a_h) [N,P]) of all N trajectories; scores: ψ, [S,A,P]."""
    every = list(paths(mdp, policy))
    total = [np.sum([scores[s, a] for s, a in zip(x.states, x.actions, strict=True)], axis=0) for x in every]
    return np.array([x.probability for x in every]), np.array([x.total for x in every]), np.array(total)


def softmax(logits: np.ndarray) -> np.ndarray:
    """π, [S,A]."""
    e = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def tabular_scores(policy: np.ndarray) -> np.ndarray:
    """∇_θ ln π(a|s) = e_s ⊗ (e_a − π(·|s)), [S,A,S·A]."""
    states, actions = policy.shape
    out = np.zeros((states, actions, states, actions))
    for s in range(states):
        for a in range(actions):
            out[s, a, s] = np.eye(actions)[a] - policy[s]
    return out.reshape(states, actions, -1)


def log_linear_scores(policy: np.ndarray, features: np.ndarray) -> np.ndarray:
    """∇_θ ln π(a|s) = φ_sa − Σ_b π(b|s) φ_sb, [S,A,P]."""
    return features - np.sum(policy[:, :, None] * features, axis=1, keepdims=True)
