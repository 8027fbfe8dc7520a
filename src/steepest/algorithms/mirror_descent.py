"""Exact tabular updates whose rate of convergence is a theorem, each beside its bound.

    multiplicative weights    π ← π·e^{ηA/(1−γ)}/Z                     Agarwal, Kakade, Lee & Mahajan 2021
    policy mirror descent     π ← π·e^{ηQ}/Z,  η constant or growing   Xiao 2022
    entropy-regularised       π ← π^{1−ητ/(1−γ)}·e^{ηQ_τ/(1−γ)}/Z      Cen, Cheng, Chen, Wei & Chi 2022
    finite horizon            π_h ← π_h·e^{αQ_h}/Z                     the first, one step of the clock at a time

The first is the natural policy gradient of a tabular softmax: F⁺∇V = A/(1−γ) up to a constant in each state. All of
them are lines in ln π, so policies are tables of log-probabilities [...,S,A] (any leading axes) and are exact far
beyond the range of float64's probabilities. Rewards lie in [0,1] in all the bounds, and gap means V* − V of the
iterate, in the units of the rewards; γ is the discount, A the number of actions, T counts updates from the uniform or
the stated first policy.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from jaxtyping import Float

from steepest.errors import UsageError
from steepest.worlds.finite.ensemble import log_softmax

Table = Float[np.ndarray, "*N S A"]


def multiplicative_weights(log_policy: Table, values: Table, *, step: float, discount: float) -> Table:
    """π ← π·e^{ηA/(1−γ)}/Z, as log-probabilities: NPG with the pseudo-inverse on a tabular softmax.

    log_policy: ln π(a|s), [...,S,A].  values: Q or A, [...,S,A], of π: what is constant over actions cancels.
    step: η > 0.  discount: γ in [0,1).
    Source: Agarwal et al. 2021, lemma 15 (softmax NPG as soft policy iteration).
    """
    _require(step=step, discount=discount)
    return log_softmax(log_policy + step / (1.0 - discount) * values)


def multiplicative_weights_bound(updates: Any, *, actions: int, step: float, discount: float) -> Any:
    """gap_T ≤ ln|A|/(ηT) + 1/((1−γ)²T) from the uniform policy, for any η > 0 (Agarwal et al. 2021, theorem 16).

    updates: T ≥ 1, a number or an array.
    """
    _require(step=step, discount=discount)
    return (math.log(actions) / step + 1.0 / (1.0 - discount) ** 2) / updates


def mirror_descent(log_policy: Table, values: Table, *, step: float) -> Table:
    """π ← argmax_p η⟨Q, p⟩ − KL(p‖π) = π·e^{ηQ}/Z, as log-probabilities.

    log_policy: ln π(a|s), [...,S,A].  values: Q or A, [...,S,A], of π.  step: η > 0.
    Source: Xiao 2022, with the KL as Bregman divergence.
    """
    _require(step=step)
    return log_softmax(log_policy + step * values)


def growing_step(update: int, *, first: float, discount: float) -> float:
    """η_k = η_0/γᵏ, the slowest growth that is linear in every MDP (Xiao 2022).  update: k ≥ 0.  first: η_0 > 0."""
    _require_growth(first, discount)
    return first / discount**update


def constant_step_bound(updates: Any, *, divergence: Any, step: float, discount: float) -> Any:
    """gap_k ≤ (D_0/((1−γ)η) + 1/(1−γ)²)/(k+1) of mirror descent with a constant η (Xiao 2022, theorem 8).

    updates: k ≥ 0.  divergence: D_0 = Σ_s d_ρ^{π*}(s) KL(π*(·|s)‖π_0(·|s)), nats.
    """
    _require(step=step, discount=discount)
    return (divergence / ((1.0 - discount) * step) + 1.0 / (1.0 - discount) ** 2) / (updates + 1.0)


def growing_step_bound(updates: Any, *, gap: Any, divergence: Any, mismatch: Any, first: float, discount: float) -> Any:
    """gap_k ≤ (1 − 1/ϑ)ᵏ·(gap_0 + D_0/(η_0(1−γ)(ϑ−1))) of mirror descent with η_{k+1} ≥ η_k/γ (Xiao 2022, theorem 10).

    As (1−γ)(ϑ−1) ≥ γ, the bracket is at most gap_0 + D_0/(η_0γ).

    updates: k ≥ 0.  gap: gap_0.  divergence: D_0 as for the constant step.  first: η_0.
    mismatch: ϑ = ‖d_ρ^{π*}/ρ‖_∞/(1−γ), at least 1/(1−γ); infinite, and the bound void, where ρ(s) = 0 < d_ρ^{π*}(s).
    """
    _require_growth(first, discount)
    start = gap + divergence / (first * (1.0 - discount) * (mismatch - 1.0))
    return (1.0 - 1.0 / mismatch) ** updates * start


def regularised(log_policy: Table, values: Table, *, step: float, temperature: float, discount: float) -> Table:
    """π ← π^{1−ητ/(1−γ)}·e^{ηQ_τ/(1−γ)}/Z, as log-probabilities: NPG of V_τ = V + τ·(discounted entropy).

    log_policy: ln π(a|s), [...,S,A].  values: Q_τ = r + γPV_τ, [...,S,A], of π.  temperature: τ > 0.
    step: 0 < η ≤ (1−γ)/τ; at its largest this is soft policy iteration.
    Source: Cen et al. 2022, the exact update of entropy-regularised NPG.
    """
    _require_contraction(step, temperature, discount)
    keep = 1.0 - step * temperature / (1.0 - discount)
    return log_softmax(keep * log_policy + step / (1.0 - discount) * values)


def regularised_bound(
    updates: Any, *, gap: Any, distance: Any, step: float, temperature: float, discount: float
) -> Any:
    """‖Q*_τ − Q_τ‖_∞ ≤ γC(1−ητ)^{t−1} after t ≥ 1 updates (Cen et al. 2022, theorem 1).

    C = ‖Q*_τ − Q_τ⁰‖_∞ + 2τ(1 − ητ/(1−γ))‖ln π*_τ − ln π⁰‖_∞.  The same C bounds ‖ln π*_τ − ln π‖_∞ by
    (2C/τ)(1−ητ)^{t−1}.

    updates: t.  gap: the first norm.  distance: the second, nats.
    """
    _require_contraction(step, temperature, discount)
    constant = gap + 2.0 * temperature * (1.0 - step * temperature / (1.0 - discount)) * distance
    return discount * constant * (1.0 - step * temperature) ** (updates - 1.0)


def stepwise(
    log_policy: Float[np.ndarray, "*N H S A"], values: Float[np.ndarray, "*N H S A"], *, exponent: float
) -> Any:
    """π_h ← π_h·e^{αQ_h}/Z for every step h of a finite horizon, as log-probabilities.

    log_policy: ln π_h(a|s), [...,H,S,A].  values: Q_h or A_h of π, [...,H,S,A].  exponent: α > 0.
    """
    _require(exponent=exponent)
    return log_softmax(log_policy + exponent * values)


def stepwise_bound(updates: Any, *, horizon: int, actions: int, exponent: float) -> Any:
    """gap_T ≤ (H ln|A|/α + H(H+1)/2)/T from the uniform policy: the proof of Agarwal et al. 2021 with a clock.

    The performance difference to π* is the fall of Σ_h KL(π*_h‖π_h)/α, at most H ln|A|/α in all, and Σ_h ln Z_h/α,
    which each V_h gains and which is at most H − h in all.
    """
    _require(exponent=exponent)
    return (horizon * math.log(actions) / exponent + horizon * (horizon + 1) / 2) / updates


def _require(**given: float) -> None:
    for name, value in given.items():
        if name == "discount":
            if not 0 <= value < 1:
                raise UsageError(f"discount must be in [0, 1), got {value}")
        elif not (value > 0 and math.isfinite(value)):
            raise UsageError(f"{name} must be a finite number > 0, got {value}")


def _require_growth(first: float, discount: float) -> None:
    _require(step=first, discount=discount)
    if discount == 0:
        raise UsageError("steps that grow by 1/γ need a discount > 0, got 0")


def _require_contraction(step: float, temperature: float, discount: float) -> None:
    _require(step=step, temperature=temperature, discount=discount)
    if step * temperature > (1.0 - discount) * (1.0 + 1e-12):
        raise UsageError(
            f"the regularised update takes a step of at most (1−γ)/τ = {(1.0 - discount) / temperature:.6g}, got {step}"
        )
