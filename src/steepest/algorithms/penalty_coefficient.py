"""The price of a nat in the penalised form of TRPO's theory, of an exact world.

    C = 4εγ/(1−γ),   ε = max_sa |A^π(s,a)|        V^π̃(ρ) − V^π(ρ) ≥ (L − C·max_s KL(π‖π̃))/(1−γ)

L is per state, as in `expected_advantage`: Schulman et al. 2015, eq. 9, sums it over the discounted steps and has
C = 4εγ/(1−γ)². `improvement_bound.py` tries the bound on many MDPs, `Penalised` steps by it.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from steepest.errors import UsageError
from steepest.worlds.finite import DiscountedMDP, FiniteMDP


def penalty_coefficient(mdp: FiniteMDP, policy_or_table: Any) -> float:
    """C, mean advantage per state and nat, for `Penalised(C)`; 0 where γ = 0 or no action is better than another.

    mdp: a discounted MDP.  policy_or_table: π, as its `advantages` takes it.

    Raises UsageError for a world without a discount.
    """
    if not isinstance(mdp, DiscountedMDP):
        raise UsageError(f"the penalty is that of a discounted MDP, got {mdp!r}; see mdp.discounted(γ)")
    advantage = np.max(np.abs(mdp.advantages(policy_or_table)))
    return float(4.0 * mdp.gamma / (1.0 - mdp.gamma) * advantage)
