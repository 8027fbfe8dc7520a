"""The objective of the entropy-regularised return: expected advantage and the entropy of the policy, τ nats' worth.

    V_τ = E[Σ_t γᵗ (r_t + τ H(π(·|s_t)))]        H = −Σ_a π ln π
    L(θ) = Σ_n w_n [Σ_m v_nm A_nm π_θ(a_nm|s_n)/π_old(a_nm|s_n) + τ H(π_θ(·|s_n))]

A is the advantage of V_τ *before* the entropy of its own step, A = Q_τ − E_π Q_τ with Q_τ = r + γ P V_τ: the bonus of
later steps is in Q_τ, the bonus of this one is in L. On the exact batch of a discounted MDP ∇L = (1−γ)∇V_τ, and L's
change is (1−γ)⁻¹ times what the old policy's states say of the change of V_τ. With a tabular softmax the step β·F⁺∇L is

    π ← π^{1−βτ}·e^{βQ_τ}/Z        β = η/(1−γ): the update of Cen, Cheng, Chen, Wei & Chi 2022, with their η

which converges for 0 < β ≤ 1/τ; at β = 1/τ it is soft policy iteration. In training, the bonus enters the rewards as
`sampling/entropy_bonus.py` says. Without it there, L is the entropy bonus of A3C and PPO, which looks one step ahead.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from steepest import trees
from steepest.batch import Batch
from steepest.distributions import Distribution
from steepest.errors import UsageError
from steepest.geometry.divergences import weighted
from steepest.geometry.local import Local
from steepest.geometry.objectives import Gradient, Objective, expected_advantage


@dataclass(frozen=True)
class EntropyRegularised:
    """`of` plus τ times the mean entropy of the policy, mean advantage per state.

    temperature: τ ≥ 0, raw reward units per nat.  of: the objective that the entropy is added to.

    The entropy is that of the distribution, not of the sampled actions: exact, and no combination of their scores, so
    that `Gradient.coefficient` is None, and with `empirical_fisher` a solver in sample space refuses. The expected
    Fisher metric has its dual.

    Raises UsageError for a negative or infinite temperature.
    """

    temperature: float
    of: Objective = expected_advantage

    def __post_init__(self) -> None:
        if not 0 <= self.temperature < math.inf:
            raise UsageError(f"EntropyRegularised needs a finite temperature ≥ 0, got {self.temperature}")

    def gradient(self, local: Local, batch: Batch) -> Gradient:
        weight = jnp.asarray(batch.weight)

        def bonus(distribution: Any) -> Array:
            return self.temperature * jnp.sum(weighted(weight, distribution.entropy()))

        advantage = self.of.gradient(local, batch)
        cotangent = trees.add(advantage.cotangent, jax.grad(bonus)(local.distribution))
        return Gradient(local.pull(cotangent), cotangent, None)

    def gain(self, old: Distribution, new: Distribution, batch: Batch) -> Float[Array, ""]:
        change = jnp.sum(weighted(jnp.asarray(batch.weight), new.entropy() - old.entropy()))
        return self.of.gain(old, new, batch) + self.temperature * change
