"""The average-reward MDP  (S, A, r, P), Kakade's setting (2001).   (P_π = Σ_a π P)

    ρᵀP_π = ρᵀ, Σρ = 1        η = Σ_s ρ(s) r_π(s)          h = (I − P_π + 1ρᵀ)⁻¹ (r_π − η)
    Q(s,a) = r(s,a) − η + Σ_s' P(s'|s,a) h(s')             ∇η = Σ_s ρ(s) Σ_a π A ∇ln π

A policy's chain is assumed to have one recurrent class (unichain): ρ and η are then the same from every start, and a
policy that has several is refused. ρ is found by elimination without a subtraction (`chains.stationary`), so that a
state visited once in 10⁹ steps has all its digits: plateaus of the gradient are made of such states.
"""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float, Int

from steepest.batch import Batch
from steepest.worlds.finite import chains, information, policy_iteration, tables
from steepest.worlds.finite.finite_mdp import FiniteMDP, enumerated
from steepest.worlds.finite.precision import exact
from steepest.worlds.finite.tables import Average


class AverageMDP(FiniteMDP):
    """S states with A actions, without end; what counts is the mean reward of a step.

    transition: P(s'|s,a), [S,A,S].
    reward: r(s,a), [S,A]; η is in its units, per step.

    Raises UsageError for shapes that disagree, negative probabilities, rows that do not sum to 1 within 1e-8 and NaN,
    naming the first offending index. Every method that takes a policy raises it also where the policy's chain has
    several recurrent classes, naming two of them.
    """

    tables: Average

    def __init__(self, transition: Any, reward: Any):
        self.tables = tables.checked_average(transition, reward)

    def __repr__(self) -> str:
        return f"AverageMDP(S={self.states}, A={self.actions})"

    @exact
    def value(self, policy_or_table: Any) -> Float[Any, ""]:
        """η(π), the mean reward of a step, a float64 scalar."""
        return value(self.tables, self._unichain(policy_or_table))

    @exact
    def occupancy(self, policy_or_table: Any) -> Float[Any, "S A"]:
        """ρ(s)π(a|s): sums to 1, η = Σ ρπr."""
        return occupancy(self.tables, self._unichain(policy_or_table))

    @exact
    def state_distribution(self, policy_or_table: Any) -> Float[Any, " S"]:
        """ρ(s), the stationary distribution: sums to 1, 0 exactly in transient states."""
        return state_distribution(self.tables, self._unichain(policy_or_table))

    @exact
    def action_values(self, policy_or_table: Any) -> Float[Any, "S A"]:
        """Q(s,a): the expected sum of what later rewards are above η, with Σ_s ρ(s) Σ_a π Q = 0."""
        return action_values(self.tables, self._unichain(policy_or_table))

    @exact
    def gradient(self, policy: Any) -> Any:
        """∇η(θ); a pytree like the policy with None for what is not trainable."""
        self._unichain(policy)
        return information.gradient(value, self.tables, self._checked(policy))

    @exact
    def fisher(self, policy: Any) -> Float[Any, "P P"]:
        """F = E_{s~ρ}[Σ_a π ∇lnπ ∇lnπᵀ] (Kakade 2001), dense: the limit of the Fisher matrix of a path of T steps,
        divided by T. UsageError where P > 5 000."""
        information.require_dense(policy)
        self._unichain(policy)
        return information.fisher(occupancy, self.tables, self._checked(policy))

    def batch(self, policy: Any) -> Batch:
        """The weighted batch: weight ρ(s), action_weight π(a|s), advantage A(s,a). Σ w v A ∇ln π = ∇η."""
        table = self.probabilities(policy)
        return enumerated(self.state_distribution(table), table, self.advantages(table))

    def optimal(self) -> tuple[np.float64, Int[np.ndarray, " S"]]:
        """η* and the actions [S] of a deterministic policy that has it from every state, by policy iteration.

        Policies with several recurrent classes are candidates too, and one may be returned if all of its classes earn
        η*. Raises UsageError where the best average depends on the state in which one starts.
        """
        return policy_iteration.average(self.tables)

    def _unichain(self, policy_or_table: Any) -> Float[np.ndarray, "S A"]:
        """π; UsageError if its chain has several recurrent classes."""
        table = self.probabilities(policy_or_table)
        chains.require_unichain(np.einsum("sa,sat->st", table, self.transition))
        return table


@eqx.filter_jit
def value(model: Average, policy: Float[Any, "S A"]) -> Float[Array, ""]:
    """η(π)."""
    return jnp.sum(occupancy(model, policy) * model.reward)


@eqx.filter_jit
def state_distribution(model: Average, policy: Float[Any, "S A"]) -> Float[Array, " S"]:
    """ρ(s)."""
    return chains.stationary(_chain(model, policy))


@eqx.filter_jit
def occupancy(model: Average, policy: Float[Any, "S A"]) -> Float[Array, "S A"]:
    """ρ(s)π(a|s)."""
    return state_distribution(model, policy)[:, None] * policy


@eqx.filter_jit
def action_values(model: Average, policy: Float[Any, "S A"]) -> Float[Array, "S A"]:
    """Q(s,a), relative to η."""
    chain, rho = _chain(model, policy), state_distribution(model, policy)
    above = jnp.sum(policy * model.reward, axis=-1) - value(model, policy)
    bias = chains.bias(chain, above)
    bias = bias - jnp.sum(rho * bias)
    return model.reward - value(model, policy) + model.transition @ bias


def _chain(model: Average, policy: Float[Any, "S A"]) -> Float[Array, "S S"]:
    """P_π."""
    return jnp.einsum("sa,sat->st", policy, model.transition)
