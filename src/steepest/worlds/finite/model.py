"""The finite-horizon MDP  M = (S, A, H, r, P, ρ): the exact world, and the oracle of everything that samples.

    Pr^π(τ) = ρ(s_0) π(a_0|s_0) P(s_1|s_0,a_0) … π(a_{H−1}|s_{H−1})        V^π(ρ) = E_τ[Σ_h r_h(s_h,a_h)]

A policy is any callable pytree  state index ↦ st.Categorical; its leaves are cast to float64. Every method is exact up
to rounding in float64, whatever JAX's switches say, and returns NumPy float64 (`precision.py`).
"""

from __future__ import annotations

from typing import Any, Literal, overload

import numpy as np
from jaxtyping import Float, Int

from steepest.batch import Batch
from steepest.errors import UsageError
from steepest.worlds.finite import actions, evaluation, information, planning, tables
from steepest.worlds.finite.precision import exact


class FiniteHorizonMDP:
    """H steps among S states with A actions.

    transition: P(s'|s,a), [S,A,S], or [H,S,A,S] where it depends on the step.
    reward: r(s,a), [S,A] or [H,S,A]; V is in its units.
    initial: ρ(s), [S].
    horizon: H ≥ 1, steps.

    Raises UsageError for shapes that disagree, negative probabilities, rows that do not sum to 1 within 1e-8 (nothing
    is renormalised), NaN and H < 1, naming the first offending index. All methods raise it for a policy that does not
    fit the shape of the MDP.

    Where an argument is called `policy_or_table` it may also be an array of probabilities, [S,A] or [H,S,A], or an
    integer array of actions, [S] or [H,S]: this evaluates what `optimal` returns.
    """

    def __init__(self, transition: Any, reward: Any, initial: Any, horizon: int):
        self.tables = tables.checked(transition, reward, initial, horizon)

    @property
    def transition(self) -> Float[np.ndarray, "*H S A S"]:
        """P, as it was given; read-only."""
        return self.tables.transition

    @property
    def reward(self) -> Float[np.ndarray, "*H S A"]:
        """r, as it was given; read-only."""
        return self.tables.reward

    @property
    def initial(self) -> Float[np.ndarray, " S"]:
        """ρ; read-only."""
        return self.tables.initial

    @property
    def horizon(self) -> int:
        """H, steps."""
        return self.tables.horizon

    @property
    def states(self) -> int:
        """S."""
        return self.tables.reward.shape[-2]

    @property
    def actions(self) -> int:
        """A."""
        return self.tables.reward.shape[-1]

    def __repr__(self) -> str:
        return f"FiniteHorizonMDP(S={self.states}, A={self.actions}, H={self.horizon})"

    # What a policy does

    @exact
    def probabilities(self, policy_or_table: Any) -> Float[np.ndarray, "*H S A"]:
        """π(a|s) as a table: [S,A], or [H,S,A] for a table that depends on time."""
        return actions.probabilities(self.tables, policy_or_table)

    @exact
    def value(self, policy_or_table: Any) -> Float[Any, ""]:
        """V^π(ρ), a float64 scalar: the expected sum of H rewards (R4)."""
        return evaluation.value(self.tables, self.probabilities(policy_or_table))

    @exact
    def occupancy(self, policy_or_table: Any) -> Float[Any, "S A"]:
        """d^π(s,a) = (1/H) Σ_h P_h(s) π_h(a|s): sums to 1, V = H·Σ d·r for a reward that does not depend on h (R1)."""
        return evaluation.occupancy(self.tables, self.probabilities(policy_or_table))

    @exact
    def state_distributions(self, policy_or_table: Any) -> Float[Any, "H S"]:
        """P_h^π(s), each row sums to 1."""
        return evaluation.state_distributions(self.tables, self.probabilities(policy_or_table))

    @exact
    def action_values(self, policy_or_table: Any) -> Float[Any, "H S A"]:
        """Q_h^π(s,a): the expected sum of the rewards from step h to the end."""
        return evaluation.action_values(self.tables, self.probabilities(policy_or_table))

    def advantages(self, policy_or_table: Any) -> Float[np.ndarray, "H S A"]:
        """A_h^π(s,a) = Q_h(s,a) − Σ_a π_h(a|s) Q_h(s,a), also of states that are never visited."""
        table = self.probabilities(policy_or_table)
        q = self.action_values(table)
        return q - np.sum(table * q, axis=-1, keepdims=True)

    # What its parameters mean: θ is the policy's trainable part, its flat order that of `ravel_pytree`

    @exact
    def gradient(self, policy: Any) -> Any:
        """∇V(θ), not divided by H; a pytree like the policy with None for what is not trainable."""
        return information.gradient(self.tables, self._checked(policy))

    @exact
    def trajectory_kl(self, p: Any, q: Any) -> Float[Any, ""]:
        """KL(Pr^p‖Pr^q) of whole paths, nats: H times the KL per step (R11). ∞ where q excludes what p does."""
        return information.trajectory_kl(self.tables, self._checked(p), self._checked(q))

    @exact
    def fisher(self, policy: Any) -> Float[Any, "P P"]:
        """F = E_{s~d}[Σ_a π ∇lnπ ∇lnπᵀ], per step (Kakade 2001), dense. UsageError where P > 5 000."""
        information.require_dense(policy)
        return information.fisher(self.tables, self._checked(policy))

    @exact
    def trajectory_fisher(self, policy: Any) -> Float[Any, "P P"]:
        """G = E_τ[∇ln Pr(τ) ∇ln Pr(τ)ᵀ], of the whole path, by its own second moment (Bagnell & Schneider 2003).

        Equal to H·F (R16), which is not used. UsageError where P > 5 000.
        """
        information.require_dense(policy)
        return information.trajectory_fisher(self.tables, self._checked(policy))

    def batch(self, policy: Any) -> Batch:
        """The weighted batch that every estimator takes, with N = S states and m = A actions; float64 and int32.

        weight: d(s); action: every action; action_weight: π(a|s); advantage: Σ_h P_h(s) A_h(s,a) / (H·d(s)), 0 where
        d(s) = 0; segment: s, each state a path of its own.
        """
        table = self.probabilities(policy)
        if table.ndim != 2:
            raise UsageError("a batch has one π(a|s) for each state; this table of probabilities depends on time")
        visits = self.state_distributions(table)
        total = visits.sum(axis=0)[:, None]
        weighted = np.sum(visits[:, :, None] * self.advantages(table), axis=0)
        states = np.arange(self.states, dtype=np.int32)
        return Batch(
            obs=states,
            weight=visits.mean(axis=0),
            action=np.tile(np.arange(self.actions, dtype=np.int32), (self.states, 1)),
            action_weight=table,
            advantage=np.divide(weighted, total, out=np.zeros_like(weighted), where=total > 0),
            segment=states.copy(),
        )

    # The best there is

    @overload
    def optimal(self, *, stationary: Literal[False] = False) -> tuple[np.float64, Int[np.ndarray, "H S"]]: ...
    @overload
    def optimal(self, *, stationary: Literal[True]) -> tuple[np.float64, Int[np.ndarray, " S"]]: ...
    def optimal(self, *, stationary: bool = False) -> tuple[np.float64, np.ndarray]:
        """V*(ρ) and an optimal deterministic policy [H,S] of action indices, by backward dynamic programming.

        stationary: the best deterministic policy that does not depend on h instead, [S], by enumeration; UsageError
        where A^S > 10⁶. A stochastic stationary policy may do better still.
        """
        return planning.optimal_stationary(self.tables) if stationary else planning.optimal(self.tables)

    def _checked(self, policy: Any) -> Any:
        fitted = actions.fitting(policy, self.states, self.actions)
        actions.probabilities(self.tables, fitted)  # refuses logits that are NaN
        return fitted
