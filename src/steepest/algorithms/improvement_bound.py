"""How much a policy that looks better must be better: the bound behind the trust region, on many MDPs at once.

    L_π(π̃) = V^π(ρ) + (1−γ)⁻¹ Σ_s d^π(s) Σ_a π̃(a|s) A^π(s,a)                        what the old policy's data say
    V^π̃(ρ) ≥ L_π(π̃) − 4εγ/(1−γ)²·α²,        α = max_s TV(π,π̃),  ε = max_sa |A^π|      Schulman et al. 2015, theorem 1
                                              α² ≤ max_s KL(π‖π̃), as TV² ≤ KL

TV = ½Σ_a|π − π̃|, KL in nats.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from steepest.errors import UsageError
from steepest.worlds.finite import ensemble
from steepest.worlds.finite.ensemble import Ensemble, Table

PerWorld = Float[np.ndarray, " N"]


class Improvement(NamedTuple):
    """What the bound says of one step in N MDPs, each field [N].

    before, after: V^π(ρ), V^π̃(ρ).  surrogate: L_π(π̃).  advantage: ε.  variation: max_s TV.  divergence: max_s KL.
    """

    before: PerWorld
    after: PerWorld
    surrogate: PerWorld
    advantage: PerWorld
    variation: PerWorld
    divergence: PerWorld


def penalty(advantage: Any, divergence: Any, discount: float) -> Any:
    """4εγ/(1−γ)²·D: what is taken off the surrogate, in the units of the reward; numbers or arrays.

    advantage: ε.  divergence: D, the square of the largest TV over the states, or the largest KL.
    """
    if not 0 <= discount < 1:
        raise UsageError(f"discount must be in [0, 1), got {discount}")
    return 4.0 * advantage * discount / (1.0 - discount) ** 2 * divergence


def improvement(worlds: Ensemble, old: Table, new: Table, discount: float) -> Improvement:
    """Everything in the bound, exactly.  old, new: ln π and ln π̃, [N,S,A]."""
    q = ensemble.action_values(worlds, old, discount)
    value = ensemble.state_values(old, q)
    advantage = q - value[..., None]
    p, other = np.exp(old), np.exp(new)
    before = np.sum(worlds.initial * value, axis=-1)
    gain = np.sum(ensemble.visits(worlds, p, discount) * np.sum(other * advantage, axis=-1), axis=-1)
    after = ensemble.state_values(new, ensemble.action_values(worlds, new, discount))
    return Improvement(
        before=before,
        after=np.sum(worlds.initial * after, axis=-1),
        surrogate=before + gain / (1.0 - discount),
        advantage=np.max(np.abs(advantage), axis=(-1, -2)),
        variation=np.max(variation(old, new), axis=-1),
        divergence=np.max(divergence(old, new), axis=-1),
    )


def variation(old: Table, new: Table) -> Float[np.ndarray, "*N S"]:
    """TV(π,π̃) = ½Σ_a|π − π̃| in each state, of log-probabilities."""
    return 0.5 * np.sum(np.abs(np.exp(old) * np.expm1(new - old)), axis=-1)


def divergence(old: Table, new: Table) -> Float[np.ndarray, "*N S"]:
    """KL(π‖π̃) in each state, nats, of log-probabilities: Σ_a π(eˣ − 1 − x), x = ln π̃/π, whose terms are all ≥ 0."""
    x = new - old
    return np.sum(np.exp(old) * (np.expm1(x) - x), axis=-1)
