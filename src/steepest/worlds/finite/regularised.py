"""A finite MDP with an entropy bonus: the world whose exact batch is that of V_τ.

    V_τ = V of the rewards r(s,a) + τ H(π(·|s))        A = Q_τ − E_π Q_τ        (the bonus of a step depends on s alone)

It is a world for exact methods: `st.iterate(policy, Regularised(mdp, τ), algorithm, steps)` with the objective
`EntropyRegularised(τ)`. Source: Cen, Cheng, Chen, Wei & Chi 2022, who set −τ ln π in place of H; their Q_τ is the same.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from steepest.batch import Batch
from steepest.errors import UsageError
from steepest.worlds.finite.finite_mdp import FiniteMDP


@dataclass(frozen=True, eq=False)
class Regularised:
    """mdp: of any criterion.  temperature: τ ≥ 0, units of the reward per nat. Raises UsageError for a negative τ."""

    mdp: FiniteMDP
    temperature: float

    def __post_init__(self) -> None:
        if not 0 <= self.temperature < math.inf:
            raise UsageError(f"Regularised needs a finite temperature ≥ 0, got {self.temperature}")

    def value(self, policy_or_table: Any) -> np.float64:
        """V_τ, with the bonus of every step, in the units of the mdp's `value`."""
        return self._with_bonus(policy_or_table).value(policy_or_table)

    def action_values(self, policy_or_table: Any) -> Float[np.ndarray, "*H S A"]:
        """Q_τ(s,a) = r + γ P V_τ: without the bonus of its own step."""
        return self._with_bonus(policy_or_table).action_values(policy_or_table) - self._bonus(policy_or_table)

    def batch(self, policy: Any) -> Batch:
        """As the mdp's, with the advantages Q_τ − E_π Q_τ."""
        return self._with_bonus(policy).batch(policy)

    def _with_bonus(self, policy_or_table: Any) -> FiniteMDP:
        """The mdp whose rewards hold the bonus of this policy."""
        other = copy.copy(self.mdp)
        other.tables = self.mdp.tables._replace(reward=self.mdp.reward + self._bonus(policy_or_table))
        return other

    def _bonus(self, policy_or_table: Any) -> Float[np.ndarray, "*H S 1"]:
        """τ H(π(·|s))."""
        p = self.mdp.probabilities(policy_or_table)
        logs = np.log(np.where(p > 0, p, 1.0))
        return -self.temperature * np.sum(p * logs, axis=-1, keepdims=True)
