"""The constrained MDP: a finite MDP in which every step costs something too, and the cost of an episode is limited.

    max V^π   s.t.  J_C^π ≤ d                     V = Σ r·x,  J_C = Σ c·x,  x the expected visits of (s,a)

Both are linear in the occupancies x, and so are the laws that occupancies obey: the optimum is a linear programme
(Altman 1999, chapters 3 and 6), the oracle of every method that improves a policy step by step. It is in general not
deterministic.

    finite horizon   Σ_a x_0(s,a) = ρ(s)         Σ_a x_{h+1}(s',a) = Σ_sa x_h(s,a) P_h(s'|s,a)
    discounted       Σ_a x(s',a) = ρ(s') + γ Σ_sa x(s,a) P(s'|s,a)
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from steepest.batch import Batch, Cost
from steepest.errors import UsageError
from steepest.worlds.finite.discounted import DiscountedMDP
from steepest.worlds.finite.model import FiniteHorizonMDP
from steepest.worlds.finite.tables import at


class ConstrainedOptimum(NamedTuple):
    """value: V*, the largest within the limit.  policy: π(a|s) that has it, [H,S,A] or [S,A]; uniform in states that
    are never visited.  cost: its J_C ≤ d.  multiplier: ν* = dV*/dd ≥ 0, the price of the limit."""

    value: float
    policy: Float[np.ndarray, "*H S A"]
    cost: float
    multiplier: float


class ConstrainedMDP:
    """A finite MDP with a limited cost.

    mdp: a `FiniteHorizonMDP` or a `DiscountedMDP`.
    cost: c(s,a), [S,A], or [H,S,A] as its rewards may be; of any sign.
    limit: d, in units of the cost of an episode, Σ_h c_h, or of its discounted sum.

    `mdp` is the world of the rewards and `costs` the same world with the costs in their place: advantages, occupancies
    and gradients of either are theirs. Raises UsageError for another kind of MDP, a cost that is no such table, and a
    limit that is not finite.
    """

    def __init__(self, mdp: FiniteHorizonMDP | DiscountedMDP, cost: Any, limit: float):
        self.mdp = mdp
        self.costs = _paying(mdp, cost)
        self.limit = float(limit)
        if not np.isfinite(self.limit):
            raise UsageError(f"limit must be a finite number, got {limit}")

    def __repr__(self) -> str:
        return f"ConstrainedMDP({self.mdp!r}, limit={self.limit:g})"

    def value(self, policy_or_table: Any) -> Float[Any, ""]:
        """V^π(ρ), whatever it costs."""
        return self.mdp.value(policy_or_table)

    def cost(self, policy_or_table: Any) -> Float[Any, ""]:
        """J_C^π(ρ): admissible where it is at most the limit."""
        return self.costs.value(policy_or_table)

    def probabilities(self, policy_or_table: Any) -> Float[np.ndarray, "*H S A"]:
        """π(a|s) as a table."""
        return self.mdp.probabilities(policy_or_table)

    def batch(self, policy: Any) -> Batch:
        """The batch of `mdp` with its `Cost`: the excess is (J_C − d)/H, or (1 − γ)(J_C − d)."""
        excess = (self.cost(policy) - self.limit) * _per_state(self.mdp)
        return self.mdp.batch(policy)._replace(cost=Cost(self.costs.batch(policy).advantage, np.asarray(excess)))

    def optimal(self) -> ConstrainedOptimum:
        """The best there is within the limit, by linear programming over occupancies, to some nine digits.

        Raises UsageError where no policy is within the limit, saying what the least cost is.
        """
        from scipy.optimize import linprog  # not needed by who has an MDP alone

        laws, right = _laws(self.mdp)
        reward, cost = _every_step(self.mdp), _every_step(self.costs)
        found = linprog(-reward, cost[None], [self.limit], laws, right, method="highs")
        if found.x is None:
            least = linprog(cost, A_eq=laws, b_eq=right, method="highs").fun
            raise UsageError(f"no policy costs at most {self.limit:g}: the least there is costs {least:g}")
        shape = (*((self.mdp.horizon,) if isinstance(self.mdp, FiniteHorizonMDP) else ()), -1, self.mdp.actions)
        visits = np.maximum(found.x, 0.0).reshape(shape)
        total = visits.sum(axis=-1, keepdims=True)
        even = np.full_like(visits, 1.0 / self.mdp.actions)
        policy = np.divide(visits, total, out=even, where=total > 1e-12)
        return ConstrainedOptimum(-found.fun, policy, float(cost @ found.x), -float(found.ineqlin.marginals[0]))


def _paying(mdp: Any, cost: Any) -> Any:
    """The same world with other rewards."""
    if isinstance(mdp, FiniteHorizonMDP):
        return _named(lambda: FiniteHorizonMDP(mdp.transition, cost, mdp.initial, mdp.horizon))
    if isinstance(mdp, DiscountedMDP):
        return _named(lambda: DiscountedMDP(mdp.transition, cost, mdp.initial, mdp.gamma))
    raise UsageError(f"expected an st.FiniteHorizonMDP or an st.DiscountedMDP, got {mdp!r}")


def _named(make: Any) -> Any:
    try:
        return make()
    except UsageError as error:
        raise UsageError(str(error).replace("reward", "cost")) from error


def _per_state(mdp: Any) -> float:
    """What makes a sum over an episode a mean over its states."""
    return 1.0 / mdp.horizon if isinstance(mdp, FiniteHorizonMDP) else 1.0 - mdp.gamma


def _every_step(mdp: Any) -> Float[np.ndarray, " X"]:
    """r(s,a), flat, of every step of a finite horizon."""
    if isinstance(mdp, FiniteHorizonMDP):
        return np.broadcast_to(mdp.reward, (mdp.horizon, mdp.states, mdp.actions)).ravel()
    return mdp.reward.ravel()


def _laws(mdp: Any) -> tuple[Any, Float[np.ndarray, " E"]]:
    """(L, ρ): x is an occupancy where Lx = ρ and x ≥ 0; L sparse."""
    from scipy.sparse import block_array, csr_array

    leaves = np.repeat(np.eye(mdp.states), mdp.actions, axis=1)  # Σ_a x(s,a)

    def arrives(h: int) -> np.ndarray:
        return at(mdp.transition, h, 3).reshape(-1, mdp.states).T

    if not isinstance(mdp, FiniteHorizonMDP):
        return csr_array(leaves - mdp.gamma * arrives(0)), mdp.initial
    rows: list[list[Any]] = [[None] * mdp.horizon for _ in range(mdp.horizon)]
    for h in range(mdp.horizon):
        rows[h][h] = csr_array(leaves)
        if h:
            rows[h][h - 1] = csr_array(-arrives(h - 1))
    return block_array(rows, format="csr"), np.concatenate([mdp.initial, np.zeros((mdp.horizon - 1) * mdp.states)])
