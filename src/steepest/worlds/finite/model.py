"""The finite-horizon MDP  M = (S, A, H, r, P, ρ): the exact world, and the oracle of everything that samples.

    Pr^π(τ) = ρ(s_0) π(a_0|s_0) P(s_1|s_0,a_0) … π(a_{H−1}|s_{H−1})        V^π(ρ) = E_τ[Σ_h r_h(s_h,a_h)]

Without time-dependent tables the same world has other readings: `discounted(γ)` and `average()`; and `timed()` is the
world in which a policy may look at the clock.
"""

from __future__ import annotations

from typing import Any, Literal, overload

import numpy as np
from jaxtyping import Float, Int

from steepest.batch import Batch
from steepest.errors import UsageError
from steepest.worlds.finite import evaluation, information, planning, tables
from steepest.worlds.finite.average import AverageMDP
from steepest.worlds.finite.discounted import DiscountedMDP
from steepest.worlds.finite.finite_mdp import FiniteMDP, enumerated
from steepest.worlds.finite.precision import exact
from steepest.worlds.finite.tables import Tables


class FiniteHorizonMDP(FiniteMDP):
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

    tables: Tables

    def __init__(self, transition: Any, reward: Any, initial: Any, horizon: int):
        self.tables = tables.checked(transition, reward, initial, horizon)

    @property
    def initial(self) -> Float[np.ndarray, " S"]:
        """ρ; read-only."""
        return self.tables.initial

    @property
    def horizon(self) -> int:
        """H, steps."""
        return self.tables.horizon

    def __repr__(self) -> str:
        return f"FiniteHorizonMDP(S={self.states}, A={self.actions}, H={self.horizon})"

    # What a policy does

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

    # What its parameters mean: θ is the policy's trainable part, its flat order that of `ravel_pytree`

    @exact
    def gradient(self, policy: Any) -> Any:
        """∇V(θ), not divided by H; a pytree like the policy with None for what is not trainable."""
        return information.gradient(evaluation.value, self.tables, self._checked(policy))

    @exact
    def trajectory_kl(self, p: Any, q: Any) -> Float[Any, ""]:
        """KL(Pr^p‖Pr^q) of whole paths, nats: H times the KL per step (R11). ∞ where q excludes what p does."""
        return information.trajectory_kl(self.tables, self._checked(p), self._checked(q))

    @exact
    def fisher(self, policy: Any) -> Float[Any, "P P"]:
        """F = E_{s~d}[Σ_a π ∇lnπ ∇lnπᵀ], per step (Kakade 2001), dense. UsageError where P > 5 000."""
        information.require_dense(policy)
        return information.fisher(evaluation.occupancy, self.tables, self._checked(policy))

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
        advantage = np.divide(weighted, total, out=np.zeros_like(weighted), where=total > 0)
        return enumerated(visits.mean(axis=0), table, advantage)

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

    # The same world, read otherwise

    def discounted(self, gamma: float) -> DiscountedMDP:
        """The same tables without an end, rewards discounted by γ ∈ [0, 1). UsageError if a table depends on time."""
        self._require_time_independent("discounted")
        return DiscountedMDP(self.transition, self.reward, self.initial, gamma)

    def average(self) -> AverageMDP:
        """The same tables without an end or a start, read by the mean reward. UsageError if a table depends on time."""
        self._require_time_independent("average")
        return AverageMDP(self.transition, self.reward)

    def timed(self) -> FiniteHorizonMDP:
        """The same world with the clock in the state: H·S states, step h of state s being index h·S + s.

        Its stationary policies are the time-dependent policies of this one, [H,S,A] reshaped to [H·S,A]; V, Pr(τ), the
        KL of paths and G are the same. The table P has (H·S)²·A entries.
        """
        steps, states = self.horizon, self.states
        transition = np.zeros((steps, states, self.actions, steps, states))
        for h in range(steps):  # where the last step leads to makes no difference: it ends the path
            transition[h, :, :, min(h + 1, steps - 1)] = tables.at(self.transition, h, 3)
        reward = np.broadcast_to(self.reward, (steps, states, self.actions))
        initial = np.concatenate([self.initial, np.zeros((steps - 1) * states)])
        count = steps * states
        transition = transition.reshape(count, self.actions, count)
        return FiniteHorizonMDP(transition, reward.reshape(count, self.actions), initial, steps)

    def _require_time_independent(self, reading: str) -> None:
        for name, table, axes in (("transition", self.transition, 3), ("reward", self.reward, 2)):
            if table.ndim != axes:
                raise UsageError(f"{reading}() needs a {name} that does not depend on time, got {list(table.shape)}")

    def _horizons(self) -> tuple[int, ...]:
        return (self.horizon,)
