"""Two actions, one state, one step: π(0) = σ(θ), r = (1, 0). How fast four methods go, and why.

F = ∇V = e^θ/(1 + e^θ)²

trust-region NPG, ΔᵀFΔ ≤ δ    Δθ = √(δ/F) = 2√δ cosh(θ/2)       accelerates
NPG at a fixed rate           Δθ = ηF⁻¹∇V = η                    keeps its speed
normalised gradient ascent    Δθ = √δ                            keeps its speed
gradient ascent at a rate     Δθ = η∇V                           slows down: 2 sinh θ + 2θ = ηt + c
"""

from __future__ import annotations

from typing import Any

import numpy as np

from steepest.algorithms import Algorithm, iterate, npg, pg
from steepest.geometry import Fixed, Normalised
from steepest.policies import LogLinearSoftmax
from steepest.reports.figures import COLOURS, column_figure, figure_style
from steepest.reproduce.experiment import Experiment, Outcome
from steepest.worlds.finite import FiniteHorizonMDP

BANDIT = FiniteHorizonMDP(np.ones((1, 2, 1)), [[1.0, 0.0]], [1.0], horizon=1)
DELTA, RATE, FAR = 1e-2, 0.1, 30.0


def softmax(theta: float) -> LogLinearSoftmax:
    """Logits (θ, 0)."""
    return LogLinearSoftmax(np.array([theta]), np.array([[[1.0], [0.0]]]))


def trust_region(delta: float) -> Algorithm:
    """The lecture's ΔᵀFΔ ≤ δ; no step is refused, however large, as it is the steps that are studied."""
    return npg(step=Normalised(delta, half=False, limit=np.inf))


METHODS = {
    "trust-region NPG": trust_region(DELTA),
    "NPG, fixed rate": npg(step=Fixed(RATE)),
    "gradient, normalised": pg(step=Normalised(DELTA, half=False)),
    "gradient, fixed rate": pg(step=Fixed(RATE)),
}


def path(algorithm: Algorithm, steps: int) -> np.ndarray:
    """θ_0 = 0, θ_1, …, θ_steps."""
    return np.array([float(p.theta[0]) for p in iterate(softmax(0.0), BANDIT, algorithm, steps)[0]])


def steps_until_far(delta: float, most: int) -> int:
    """The first t with θ_t ≥ 30 on the trust-region path; −1 if it takes more than `most`."""
    there = path(trust_region(delta), most) >= FAR
    return int(np.argmax(there)) if np.any(there) else -1


def flow(time: float) -> float:
    """θ(time) of the exact gradient flow θ̇ = ∇V from 0."""
    from scipy.integrate import solve_ivp

    def speed(_: float, theta: np.ndarray) -> np.ndarray:
        return np.asarray(BANDIT.gradient(softmax(float(theta[0]))).theta)

    return float(solve_ivp(speed, (0, time), [0.0], "LSODA", rtol=1e-10, atol=1e-12).y[0, -1])


def run(quick: bool) -> Outcome:
    steps, fine = 60, 1e-3 if quick else 1e-4
    paths = {name: path(algorithm, 19 if name == "trust-region NPG" else steps) for name, algorithm in METHODS.items()}
    counts = {delta: steps_until_far(delta, most) for delta, most in ((fine, 60 if quick else 165), (DELTA, 20))}
    theta = np.linspace(-8, 8, 81)
    fisher = np.array([BANDIT.fisher(softmax(float(t)))[0, 0] for t in theta])
    end = flow(1000.0)
    table = [{"method": name, **_speeds(there)} for name, there in paths.items()]
    slow = paths["gradient, fixed rate"]
    constant = 2 * np.sinh(slow) + 2 * slow - RATE * np.arange(len(slow))
    return Outcome(
        figure=_figure(paths, theta, fisher),
        rows=[{"method": n, "step": t, "theta": float(x)} for n, there in paths.items() for t, x in enumerate(there)],
        ours=f"F is largest, {fisher.max():.4g}, at θ = {theta[fisher.argmax()]:.3g}; at |θ| = 8 it is "
        f"{fisher[-1]:.2e}, and the radius √(δ/F) is {np.sqrt(fisher.max() / fisher[-1]):.1f} times that at 0. The "
        f"trust-region path needs {counts[DELTA]} steps to θ ≥ {FAR:g} at δ = {DELTA:g} and {counts[fine]} at "
        f"δ = {fine:g}, of lengths √δ·t = {np.sqrt(DELTA) * counts[DELTA]:.3f} and "
        f"{np.sqrt(fine) * counts[fine]:.3f}; the limit is π/2 = {np.pi / 2:.3f}. The speed of NPG at a fixed rate "
        f"and of the normalised gradient changes by less than {_largest_change(paths):.0e}. Gradient ascent at a "
        f"fixed rate keeps 2 sinh θ + 2θ − ηt within {np.max(np.abs(constant)):.3f} of its start over {len(slow) - 1} "
        f"steps; the exact flow has θ(1000) = {end:.6f}, where 2 sinh θ + 2θ = {2 * np.sinh(end) + 2 * end:.4f}."
        + (" In this quick version the smaller δ is larger." if quick else ""),
        differs="The lecture says that plain gradient descent moves at a constant speed. That is so for normalised "
        "steps; at a fixed rate it slows down, and its distance grows as the logarithm of time.",
        table=table,
    )


def _speeds(theta: np.ndarray) -> dict[str, float]:
    steps = np.diff(theta)
    return {"first step": steps[0], "last step": steps[-1], "last θ": theta[-1], "steps": len(steps)}


def _largest_change(paths: dict[str, np.ndarray]) -> float:
    constant = [np.diff(paths[name]) for name in ("NPG, fixed rate", "gradient, normalised")]
    return max(float(np.max(np.abs(steps / steps[0] - 1))) for steps in constant)


def _figure(paths: dict[str, np.ndarray], theta: np.ndarray, fisher: np.ndarray) -> Any:
    with figure_style():
        figure, axes = column_figure(columns=2)
        ax = axes[0, 0]
        styles = ((COLOURS[1], "-", 1.4), (COLOURS[0], "-", 3.0), (COLOURS[4], "--", 1.4), (COLOURS[2], "-", 1.4))
        for (name, there), (colour, dashes, width) in zip(paths.items(), styles, strict=True):
            ax.plot(there, color=colour, ls=dashes, lw=width, label=name)
        ax.set(xlabel="step $t$", ylabel=r"$\theta_t$ (logit of the better action)", ylim=(0, 9.5))
        ax.set_title(rf"Four speeds: $\delta$ = {DELTA:g}, $\eta$ = {RATE:g}")
        ax.legend(frameon=False, loc="upper right")
        ax = axes[0, 1]
        ax.semilogy(theta, fisher, color=COLOURS[0])
        ax.semilogy(theta, np.sqrt(DELTA / fisher), color=COLOURS[1])
        ax.annotate(r"$F$ (1/logit²)", (-2.3, 0.12), ha="right", color=COLOURS[0])
        ax.annotate(r"radius $\sqrt{\delta/F}$ (logits)", (0, 1.2), ha="center", color=COLOURS[1])
        ax.set(xlabel=r"$\theta$ (logit)", ylabel=r"$F$, and the radius at $\delta$ = " f"{DELTA:g}")
        ax.set_title("Less information, larger steps")
    return figure


EXPERIMENT = Experiment(
    title="Two actions: four methods, four speeds",
    source="Kakade & Brantley, Natural Policy Gradient, lecture of CS 6789",
    shows="For a softmax over two actions F = e^θ/(1 + e^θ)² vanishes as the policy becomes deterministic, so that the "
    "step allowed by a KL of δ grows: natural steps reach the optimum faster and faster, gradient steps do not.",
    run=run,
    claims=("R19", "R20", "R21", "N3"),
)
