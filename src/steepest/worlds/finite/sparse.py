"""The finite-horizon MDP of many states: P as a sparse matrix, and nothing held that grows with S² or H·S·A.

    forward    P_0 = ρ       P_{h+1} = Pᵀ(P_h∘π)                       P: [S·A,S], row s·A + a
    backward   V_H = 0       Q_h = r + P V_{h+1},   V_h = Σ_a π∘Q_h
    together   Σ_h P_h(s) A_h(s,a),  the advantage of the exact batch  one pass back over the stored P_h, [H,S]

A recursion costs H products with P, of time and memory proportional to its entries: 10⁵ states are a matter of seconds.
It is the world of `FiniteHorizonMDP`, and the same numbers; tables that depend on the step are not taken.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse
from jaxtyping import Float, Int

from steepest import parameters
from steepest.batch import Batch
from steepest.errors import UsageError
from steepest.worlds.finite import actions, tables
from steepest.worlds.finite.finite_mdp import enumerated
from steepest.worlds.finite.precision import exact

Table = Float[np.ndarray, "*H S A"]


class SparseMDP:
    """H steps among S states with A actions, with few successors each.

    transition: P(s'|s,a), a scipy.sparse matrix or array [S·A,S] of any format, row s·A + a. Of dense tables:
        `scipy.sparse.csr_array(mdp.transition.reshape(-1, mdp.states))`.
    reward: r(s,a), [S,A]; V is in its units.
    initial: ρ(s), [S].
    horizon: H ≥ 1, steps.

    Raises UsageError for what is not sparse, shapes that disagree, negative probabilities, rows that do not sum to 1
    within 1e-8 (nothing is renormalised), NaN and H < 1, naming the first offending index (s, a, s'). Policies, and
    arguments called `policy_or_table`, are as in `FiniteHorizonMDP`; all results are NumPy float64.
    """

    def __init__(self, transition: Any, reward: Any, initial: Any, horizon: int):
        self.horizon = tables.checked_horizon(horizon)
        self.reward, self.initial = tables.numbers("reward", reward), tables.numbers("initial", initial)
        if self.reward.ndim != 2 or 0 in self.reward.shape:
            raise UsageError(f"reward must have shape [S,A] with S, A ≥ 1, got {list(self.reward.shape)}")
        if self.initial.shape != (self.states,):
            raise UsageError(
                f"initial must have shape {[self.states]} (S={self.states} from reward), got {list(self.initial.shape)}"
            )
        tables.require_finite("reward", self.reward)
        tables.require_distribution("initial", self.initial)
        self.transition = _checked(transition, self.states, self.actions)
        for array in (self.reward, self.initial, self.transition.data):
            array.setflags(write=False)

    @property
    def states(self) -> int:
        """S."""
        return self.reward.shape[0]

    @property
    def actions(self) -> int:
        """A."""
        return self.reward.shape[1]

    def __repr__(self) -> str:
        return f"SparseMDP(S={self.states}, A={self.actions}, H={self.horizon}, entries={self.transition.nnz})"

    # What a policy does

    @exact
    def probabilities(self, policy_or_table: Any) -> Table:
        """π(a|s) as a table: [S,A], or [H,S,A] for a table that depends on time."""
        return actions.probabilities(policy_or_table, self.states, self.actions, self.horizon)

    def value(self, policy_or_table: Any) -> np.float64:
        """V^π(ρ): the expected sum of H rewards."""
        table, first = self.probabilities(policy_or_table), np.zeros(self.states)
        for h, q in self._backward(table):
            first = np.sum(tables.at(table, h, 2) * q, axis=-1)
        return np.float64(self.initial @ first)

    def occupancy(self, policy_or_table: Any) -> Float[np.ndarray, "S A"]:
        """d^π(s,a) = (1/H) Σ_h P_h(s) π_h(a|s): sums to 1, V = H·Σ d·r."""
        table, total = self.probabilities(policy_or_table), np.zeros(self.reward.shape)
        for h, visited in self._forward(table):
            total += visited[:, None] * tables.at(table, h, 2)
        return total / self.horizon

    def state_distributions(self, policy_or_table: Any) -> Float[np.ndarray, "H S"]:
        """P_h^π(s), each row sums to 1."""
        visits = np.empty((self.horizon, self.states))
        for h, visited in self._forward(self.probabilities(policy_or_table)):
            visits[h] = visited
        return visits

    def action_values(self, policy_or_table: Any) -> Float[np.ndarray, "H S A"]:
        """Q_h^π(s,a), of all steps at once: 8·H·S·A bytes. No other method makes that table."""
        values = np.empty((self.horizon, *self.reward.shape))
        for h, q in self._backward(self.probabilities(policy_or_table)):
            values[h] = q
        return values

    def batch(self, policy: Any) -> Batch:
        """The weighted batch that every estimator takes, with N = S states and m = A actions, as `FiniteHorizonMDP`:
        weight d(s), action_weight π(a|s), advantage Σ_h P_h(s) A_h(s,a) / (H·d(s)), 0 where d(s) = 0."""
        table = self._stationary(policy)
        weight, weighted = self._weighted_advantages(table)
        total = self.horizon * weight[:, None]
        advantage = np.divide(weighted, total, out=np.zeros_like(weighted), where=total > 0)
        return enumerated(weight, table, advantage)

    @exact
    def gradient(self, policy: Any) -> Any:
        """∇V(θ) = Σ_sa Σ_h P_h A_h ∇π(a|s), not divided by H; a pytree like the policy with None for what is not
        trainable."""
        fitted = actions.fitting(policy, self.states, self.actions)
        _, weighted = self._weighted_advantages(self._stationary(fitted))
        params, rest = parameters.split(fitted)

        def table(params: Any) -> jax.Array:
            return actions.distributions(parameters.merge(params, rest), self.states, self.actions).probs

        return jax.vjp(table, params)[1](jnp.asarray(weighted))[0]

    # The best there is

    def optimal(self) -> tuple[np.float64, Int[np.ndarray, "H S"]]:
        """V*(ρ) and an optimal deterministic policy [H,S] of action indices, by backward dynamic programming."""
        value, plan = np.zeros(self.states), np.empty((self.horizon, self.states), np.int64)
        for h in reversed(range(self.horizon)):
            q = self.reward + self._expect(value)
            plan[h] = np.argmax(q, axis=-1)
            value = np.max(q, axis=-1)
        return np.float64(self.initial @ value), plan

    # The recursions

    def _forward(self, table: Table) -> Iterator[tuple[int, Float[np.ndarray, " S"]]]:
        """(h, P_h) for h = 0 … H−1."""
        visited = self.initial
        for h in range(self.horizon):
            yield h, visited
            visited = self.transition.T @ (visited[:, None] * tables.at(table, h, 2)).ravel()

    def _backward(self, table: Table) -> Iterator[tuple[int, Float[np.ndarray, "S A"]]]:
        """(h, Q_h) for h = H−1 … 0."""
        later = np.zeros(self.states)
        for h in reversed(range(self.horizon)):
            q = self.reward + self._expect(later)
            yield h, q
            later = np.sum(tables.at(table, h, 2) * q, axis=-1)

    def _weighted_advantages(
        self, table: Float[np.ndarray, "S A"]
    ) -> tuple[Float[np.ndarray, " S"], Float[np.ndarray, "S A"]]:
        """d(s) and Σ_h P_h(s) A_h(s,a)."""
        visits = self.state_distributions(table)
        total = np.zeros(self.reward.shape)
        for h, q in self._backward(table):
            total += visits[h, :, None] * (q - np.sum(table * q, axis=-1, keepdims=True))
        return visits.mean(axis=0), total

    def _expect(self, value: Float[np.ndarray, " S"]) -> Float[np.ndarray, "S A"]:
        """Σ_s' P(s'|s,a) V(s')."""
        return (self.transition @ value).reshape(self.reward.shape)

    def _stationary(self, policy: Any) -> Float[np.ndarray, "S A"]:
        table = self.probabilities(policy)
        if table.ndim != 2:
            raise UsageError("a batch has one π(a|s) for each state; this table of probabilities depends on time")
        return table


def _checked(given: Any, states: int, count: int) -> scipy.sparse.csr_array:
    """P in rows, a float64 copy, entries in order. Raises UsageError as `SparseMDP` says."""
    if not scipy.sparse.issparse(given):
        raise UsageError(
            f"transition must be a scipy.sparse matrix [S·A,S], got {type(given).__name__}; FiniteHorizonMDP takes "
            "dense tables"
        )
    if given.shape != (states * count, states):
        raise UsageError(
            f"transition must have shape {[states * count, states]}, [S·A,S] (S={states} and A={count} from reward), "
            f"got {list(given.shape)}"
        )
    if given.dtype.kind not in "biuf":
        raise UsageError(f"transition must hold real numbers, got entries of type {given.dtype}")
    matrix = scipy.sparse.csr_array(given, dtype=np.float64, copy=True)
    matrix.sum_duplicates()
    for wrong, problem in (
        (~np.isfinite(matrix.data), "; expected a finite number"),
        (matrix.data < 0, "; probabilities cannot be negative"),
    ):
        if np.any(wrong):
            k = int(np.argmax(wrong))
            row = int(np.searchsorted(matrix.indptr, k, side="right")) - 1
            index = [*divmod(row, count), int(matrix.indices[k])]
            raise UsageError(f"transition{index} is {matrix.data[k]}{problem}")
    total = np.asarray(matrix.sum(axis=1)).ravel()
    wrong = np.abs(total - 1.0) > tables.TOLERANCE
    if np.any(wrong):
        row = int(np.argmax(wrong))
        state, action = divmod(row, count)
        raise UsageError(
            f"transition[{state}, {action}, :] sums to {float(total[row])!r}; expected 1 within {tables.TOLERANCE}, "
            "in float64"
        )
    return matrix
