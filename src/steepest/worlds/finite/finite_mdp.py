"""What the readings of a finite MDP have in common: S states, A actions, and policies that are tables on them.

    FiniteHorizonMDP   V = E[Σ_{h<H} r_h]                  d(s) = (1/H) Σ_h P_h(s)
    DiscountedMDP      V = E[Σ_t γᵗ r_t]                   d(s) = (1−γ) Σ_t γᵗ P_t(s)
    AverageMDP         η = lim (1/T) E[Σ_{t<T} r_t]        d(s) = lim (1/T) Σ_{t<T} P_t(s)

Whatever the reading, Σ_s d(s) Σ_a π A ∇ln π is the gradient up to a factor, and F = Σ_s d(s) Σ_a π ∇ln π ∇ln πᵀ: the
batch is the same table with other weights, so every algorithm runs on all three.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
from jaxtyping import Float

from steepest.batch import Batch
from steepest.worlds.finite import actions
from steepest.worlds.finite.precision import exact


class FiniteMDP(ABC):
    """Tables, and what is read from them in the same way for every criterion.

    A policy is any callable pytree  state index ↦ st.Categorical; its leaves are cast to float64. Every method is exact
    up to rounding in float64, whatever JAX's switches say, and returns NumPy float64. All raise UsageError for a policy
    that does not fit.

    Where an argument is called `policy_or_table` it may also be an array of probabilities [S,A] or an integer array of
    actions [S]: this evaluates what `optimal` returns. A finite horizon takes [H,S,A] and [H,S] too.
    """

    tables: Any

    @property
    def transition(self) -> Float[np.ndarray, "*H S A S"]:
        """P, as it was given; read-only."""
        return self.tables.transition

    @property
    def reward(self) -> Float[np.ndarray, "*H S A"]:
        """r, as it was given; read-only."""
        return self.tables.reward

    @property
    def states(self) -> int:
        """S."""
        return self.tables.reward.shape[-2]

    @property
    def actions(self) -> int:
        """A."""
        return self.tables.reward.shape[-1]

    @exact
    def probabilities(self, policy_or_table: Any) -> Float[np.ndarray, "*H S A"]:
        """π(a|s) as a table: [S,A], or [H,S,A] for a table that depends on time."""
        return actions.probabilities(policy_or_table, self.states, self.actions, *self._horizons())

    @abstractmethod
    def value(self, policy_or_table: Any) -> Float[Any, ""]:
        """What is to be made large, a float64 scalar."""

    @abstractmethod
    def occupancy(self, policy_or_table: Any) -> Float[Any, "S A"]:
        """d(s,a), sums to 1."""

    @abstractmethod
    def action_values(self, policy_or_table: Any) -> Float[Any, "*H S A"]:
        """Q(s,a)."""

    def advantages(self, policy_or_table: Any) -> Float[np.ndarray, "*H S A"]:
        """A(s,a) = Q(s,a) − Σ_a π(a|s) Q(s,a), also of states that are never visited."""
        table = self.probabilities(policy_or_table)
        q = self.action_values(table)
        return q - np.sum(table * q, axis=-1, keepdims=True)

    @abstractmethod
    def gradient(self, policy: Any) -> Any:
        """The gradient of `value` in θ; a pytree like the policy with None for what is not trainable."""

    @abstractmethod
    def fisher(self, policy: Any) -> Float[Any, "P P"]:
        """F = E_{s~d}[Σ_a π ∇lnπ ∇lnπᵀ], per step (Kakade 2001), dense. UsageError where P > 5 000."""

    @abstractmethod
    def batch(self, policy: Any) -> Batch:
        """The weighted batch that every estimator takes, with N = S states and m = A actions; float64 and int32."""

    @abstractmethod
    def optimal(self) -> tuple[np.float64, np.ndarray]:
        """The largest `value`, and the actions of a deterministic policy that has it."""

    def _horizons(self) -> tuple[int, ...]:
        """(H,) where a policy may depend on the step."""
        return ()

    def _checked(self, policy: Any) -> Any:
        """The policy in float64; call it inside `exact`."""
        fitted = actions.fitting(policy, self.states, self.actions)
        actions.probabilities(fitted, self.states, self.actions)  # refuses logits that are NaN
        return fitted


def enumerated(
    weight: Float[np.ndarray, " S"], table: Float[np.ndarray, "S A"], advantage: Float[np.ndarray, "S A"]
) -> Batch:
    """The batch whose rows are the states with all actions: weight d(s), action_weight π(a|s), each state a path."""
    states, count = table.shape
    each = np.arange(states, dtype=np.int32)
    every = np.tile(np.arange(count, dtype=np.int32), (states, 1))
    return Batch(each, weight, every, action_weight=table, advantage=advantage, segment=each.copy())
