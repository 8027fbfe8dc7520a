"""The claims of the theory that this library implements, by label: one sentence each.

A test marked `@pytest.mark.claim("R11")` shows R11; a label without a test fails a test. `docs/claims.md` maps each
label to its tests and figures.

Notation: d the state-action occupancy, F the Fisher matrix per step, G that of the path, H the horizon, δ the KL per
state, g = ∇V, θ the parameters of the policy.
"""

from __future__ import annotations

CLAIMS: dict[str, str] = {
    "R1": "d(s,a) = (1/H) Σ_h P_h(s,a), and it sums to 1.",
    "R2": "d by forward recursion = by enumeration of all trajectories = by Monte Carlo, whose error falls as N^-½.",
    "R3": "The probability of a path is ρ π P π … π; it ends at the last action and sums to 1.",
    "R4": "V = Σ_τ Pr(τ) Σ_h r = H·E_d[r]; V* by dynamic programming bounds every policy; a stationary one may "
    "fall short.",
    "R5": "Steepest descent in a Euclidean ball is −√δ ∇ℓ/‖∇ℓ‖: gradient descent is the Euclidean case.",
    "R6": "θ = Aφ + b gives ∇_φ ℓ = Aᵀ∇_θ ℓ.",
    "R7": "Descent in φ, seen in θ, moves along AAᵀ∇_θ ℓ: the same as descent in θ only if AAᵀ = I; b never matters.",
    "R8": "F_φ = AᵀF_θA: natural steps agree in policy space for every invertible A; damping and truncated CG "
    "break it.",
    "R9": "For a nonlinear θ = h(φ) natural steps agree to first order: their gap falls as the square of the step.",
    "R10": "ρ and P cancel in the log-ratio of two path probabilities.",
    "R11": "(1/H) KL(Pr^θ0‖Pr^θ) = E_d[ln π_θ0/π_θ] = ℓ(θ), for every θ.",
    "R12": "ℓ(θ0) = 0 and ℓ ≥ 0.",
    "R13": "∇ℓ(θ0) = 0, and the score has mean 0 in each state.",
    "R14": "Σ_a ∇²π = 0, and ∇²ln π = ∇²π/π − ∇π∇πᵀ/π².",
    "R15": "∇²ℓ(θ0) = F: automatic Hessian = outer products = JᵀIJ = finite differences.",
    "R16": "G = H·F, as the cross terms vanish; discounted G = F_γ/(1−γ); in the limit of averages Kakade's F.",
    "R17": "ℓ/(½ΔᵀFΔ) → 1 with an error proportional to ‖Δ‖.",
    "R18": "Sample estimates of F, by steps and by paths, converge as N^-½; those by paths vary more.",
    "R19": "Two-action softmax: F = e^θ/(1+e^θ)², at most ¼, at θ = 0, and → 0 as |θ| → ∞.",
    "R20": "The radius √(δ/F) that δ allows grows without bound as |θ| → ∞.",
    "R21": "On two actions the trust-region step accelerates, natural steps at a fixed rate keep their speed, as do "
    "normalised gradient steps; gradient ascent at a fixed rate slows down: 2 sinh θ + 2θ = ηt + c.",
    "R22": "V(θ) − V(θ0) − gᵀΔ = O(‖Δ‖²), with g by automatic differentiation = by the policy gradient theorem.",
    "R23": "The lecture's constraint ΔᵀFΔ ≤ δ has no ½: its step is ours with δ/2.",
    "R24": "The constraint is tight, the predicted gain is √(2δ gᵀF⁻¹g), and the KKT conditions hold.",
    "R25": "A normalised step does not see the scale of the rewards.",
    "R26": "The realised KL is δ to leading order, measured without damping.",
    "R26b": "The gain of the closed form over that of the problem before linearising → 1 as δ → 0.",
    "R27": "g = 0 gives no step and no NaN.",
    "R28": "F of a tabular softmax has one null direction per state; g lies in its range, as it does in that of an F "
    "made of the same samples, but not of others.",
    "K1": "Compatible features ∇ln π: the least-squares weights are F⁻¹∇η, whatever the state baseline.",
    "K2": "A long natural step makes the policy greedy in the compatible critic; the gradient only finds what "
    "beats the mean.",
    "K3": "π(θ + αF⁻¹∇η) = π(1 + αf) + O(α²), f the compatible advantage.",
    "N1": "Softmax over K actions: F = diag(p) − ppᵀ has rank K − 1, and pinv(F)(p⊙A) = A up to a constant.",
    "N2": "Gaussian in (μ, ln σ): F = diag(1/σ², 2).",
    "N3": "The trust-region flow of the bandit (1, 0) reaches θ = ∞ in length π/2; steps until θ ≥ 30: 161 at δ "
    "= 1e-4, "
    "19 at 1e-2; gradient flow: θ(1000) = 6.893873.",
    "N4": "The LQR with a = .7, b = q = r = 1 has P = 1.2745752 and |K| = .3922502.",
    "N5": "The published bounds on the gap of tabular methods are never violated on random MDPs.",
    "N6": "JᵀIJv = ∇²KL·v = dense F·v, and CG needs rank(F) products for the pseudo-inverse's answer.",
    "KA": "Kakade's LQR: the times to cost 22 of gradient and natural gradient flow under six scalings of the "
    "parameters.",
    "KB": "Kakade's two-state MDP: the plateau of the gradient flow, and the natural flow that has none.",
    "KC": "Tetris: natural steps of a given KL learn without a search for a rate; how far the gradient gets depends on "
    "its rate and on the units of the features by orders of magnitude.",
    "BS": "The covariant metric on paths: exact, by paths, in running form, and as the regression of returns on "
    "scores.",
    "B1": "Tabular softmax NPG is multiplicative weights: V* − V^T ≤ ln|A|/(ηT) + 1/((1−γ)²T), monotone, for "
    "any η > 0.",
    "B2": "Policy mirror descent: O(1/k) for a constant η, linear for one that grows by 1/γ.",
    "B3": "Entropy-regularised NPG converges at a linear rate for 0 < η ≤ (1−γ)/τ.",
    "B4": "Finite horizon, softmax per step: V* − V^T ≤ (H ln|A|/α + H(H+1)/2)/T.",
    "B5": "Q-NPG: regress Q on uncentred features and add the weights; on a tabular softmax it is NPG.",
    "LM": "λ shrinks where actual over predicted improvement exceeds ¾, and grows where it is below ¼ or no step was "
    "taken.",
    "B6": "η(π_new) ≥ L − 4εγ/(1−γ)²·α², α the largest total variation; TV² ≤ KL.",
    "VINE1": "An environment that was put back into a state goes on as it did, to the bit.",
    "VINE2": "Vine's estimates are unbiased; with every action and exact values its surrogate and gradient are exact.",
    "VINE3": "Adding a constant to Q leaves the self-normalised objective as it is; common random numbers reduce "
    "Var(Q̂_a − Q̂_b).",
    "KF1": "Kronecker factors are the Fisher block of a layer where its input and cotangent are independent.",
    "KF2": "Output factors from random whitened rows or the taken actions are unbiased.",
    "KF3": "A preconditioner changes the iterations of conjugate gradients, not the solution nor the length of a step.",
    "ENT1": "NPG of the entropy-regularised return is π ← π^{1−βτ}e^{βQ_τ}/Z, β = η/(1−γ), and training approaches "
    "the soft optimum.",
    "MD1": "Mirror descent with parameters climbs to the maximum of L − KL(π'‖π)/η: π·e^{ηA}/Z on a tabular softmax.",
    "MAXKL1": "The largest KL of any state stays within δ; the gain is Σwa²/(max a·Σwa) of the optimum's as δ → 0.",
    "PEN1": "The penalised step of the theory improves every time, and is far shorter than a trust region's.",
    "DEC1": "A decaying δ is the schedule that it says, in one compiled program.",
    "CPO1": "The step of constrained policy optimisation is the optimum of its linear-quadratic problem, and the "
    "recovery −√(2δ/bᵀH⁻¹b)H⁻¹b where that has none.",
    "CPO2": "Exact constrained policy optimisation reaches the optimum of the linear programme, and comes back from "
    "beyond the limit.",
    "CPO3": "The linear programme over occupancies is the constrained optimum, its multiplier the price of the limit.",
    "CPO4": "A degenerate constraint never gives NaN: θ is kept, with a reason.",
    "CPO5": "The Lagrangian with a proportional term converges to the constrained optimum, and its price to the "
    "multiplier; by dual ascent alone it oscillates.",
}
