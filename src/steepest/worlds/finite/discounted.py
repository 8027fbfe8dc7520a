"""The discounted MDP  (S, A, r, P, ρ, γ): linear equations in place of the recursion over time.   (P_π = Σ_a π P)

    V = (I − γP_π)⁻¹ r_π            Q(s,a) = r(s,a) + γ Σ_s' P(s'|s,a) V(s')
    d(s) = (1−γ) ρᵀ(I − γP_π)⁻¹     ∇V(ρ) = Σ_s d(s) Σ_a π A ∇ln π / (1−γ)

d is the distribution of the last state of a path that goes on with probability γ after every step.
"""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float, Int

from steepest.batch import Batch
from steepest.worlds.finite import information, policy_iteration, tables
from steepest.worlds.finite.finite_mdp import FiniteMDP, enumerated
from steepest.worlds.finite.precision import exact
from steepest.worlds.finite.tables import Discounted


class DiscountedMDP(FiniteMDP):
    """S states with A actions, without end, and later rewards count less.

    transition: P(s'|s,a), [S,A,S].
    reward: r(s,a), [S,A]; V is in its units, at most max|r|/(1−γ).
    initial: ρ(s), [S].
    gamma: γ ∈ [0, 1).

    Raises UsageError for shapes that disagree, negative probabilities, rows that do not sum to 1 within 1e-8, NaN, and
    a γ outside [0, 1), naming the first offending index.
    """

    tables: Discounted

    def __init__(self, transition: Any, reward: Any, initial: Any, gamma: float):
        self.tables = tables.checked_discounted(transition, reward, initial, gamma)

    @property
    def initial(self) -> Float[np.ndarray, " S"]:
        """ρ; read-only."""
        return self.tables.initial

    @property
    def gamma(self) -> float:
        """γ."""
        return float(self.tables.gamma)

    def __repr__(self) -> str:
        return f"DiscountedMDP(S={self.states}, A={self.actions}, γ={self.gamma:g})"

    @exact
    def value(self, policy_or_table: Any) -> Float[Any, ""]:
        """V^π(ρ) = E[Σ_t γᵗ r_t], a float64 scalar, not multiplied by 1 − γ."""
        return value(self.tables, self.probabilities(policy_or_table))

    @exact
    def occupancy(self, policy_or_table: Any) -> Float[Any, "S A"]:
        """d(s,a) = (1−γ) Σ_t γᵗ P_t(s) π(a|s): sums to 1, V = Σ d·r / (1−γ)."""
        return occupancy(self.tables, self.probabilities(policy_or_table))

    @exact
    def state_distribution(self, policy_or_table: Any) -> Float[Any, " S"]:
        """d(s) = (1−γ) Σ_t γᵗ P_t(s), sums to 1."""
        return state_distribution(self.tables, self.probabilities(policy_or_table))

    @exact
    def action_values(self, policy_or_table: Any) -> Float[Any, "S A"]:
        """Q(s,a): the expected discounted sum of the rewards from (s,a) on."""
        return action_values(self.tables, self.probabilities(policy_or_table))

    @exact
    def gradient(self, policy: Any) -> Any:
        """∇V(θ), not multiplied by 1 − γ; a pytree like the policy with None for what is not trainable."""
        return information.gradient(value, self.tables, self._checked(policy))

    @exact
    def fisher(self, policy: Any) -> Float[Any, "P P"]:
        """F = E_{s~d}[Σ_a π ∇lnπ ∇lnπᵀ], per step, dense. UsageError where P > 5 000.

        F/(1−γ) is the Fisher matrix of a path that goes on with probability γ after every step.
        """
        information.require_dense(policy)
        return information.fisher(occupancy, self.tables, self._checked(policy))

    def batch(self, policy: Any) -> Batch:
        """The weighted batch: weight d(s), action_weight π(a|s), advantage A(s,a). Σ w v A ∇ln π = (1−γ)∇V."""
        table = self.probabilities(policy)
        return enumerated(self.state_distribution(table), table, self.advantages(table))

    def optimal(self) -> tuple[np.float64, Int[np.ndarray, " S"]]:
        """V*(ρ) and the actions [S] of a deterministic policy that is optimal from every state, by policy iteration."""
        return policy_iteration.discounted(self.tables)


@eqx.filter_jit
def value(model: Discounted, policy: Float[Any, "S A"]) -> Float[Array, ""]:
    """V^π(ρ)."""
    return model.initial @ _state_values(model, policy)


@eqx.filter_jit
def action_values(model: Discounted, policy: Float[Any, "S A"]) -> Float[Array, "S A"]:
    """Q(s,a)."""
    return model.reward + model.gamma * (model.transition @ _state_values(model, policy))


@eqx.filter_jit
def state_distribution(model: Discounted, policy: Float[Any, "S A"]) -> Float[Array, " S"]:
    """d(s)."""
    return (1 - model.gamma) * jnp.linalg.solve(_system(model, policy).T, model.initial)


@eqx.filter_jit
def occupancy(model: Discounted, policy: Float[Any, "S A"]) -> Float[Array, "S A"]:
    """d(s,a)."""
    return state_distribution(model, policy)[:, None] * policy


def _state_values(model: Discounted, policy: Float[Any, "S A"]) -> Float[Array, " S"]:
    return jnp.linalg.solve(_system(model, policy), jnp.sum(policy * model.reward, axis=-1))


def _system(model: Discounted, policy: Float[Any, "S A"]) -> Float[Array, "S S"]:
    """I − γP_π."""
    return jnp.eye(len(model.initial)) - model.gamma * jnp.einsum("sa,sat->st", policy, model.transition)
