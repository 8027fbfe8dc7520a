"""The KL of whole paths, per step, is a mean log-ratio; near θ₀ it is the Fisher form.

ℓ(θ) = E_{(s,a)~d^θ₀}[ln π_θ₀/π_θ] = (1/H) KL(Pr^θ₀‖Pr^θ)         for every θ
ℓ(θ₀ + Δ) = ½ΔᵀFΔ (1 + O(‖Δ‖))                                    near θ₀
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

from steepest.algorithms import improve, npg
from steepest.policies import TabularSoftmax
from steepest.reports.figures import COLOURS, column_figure, figure_style
from steepest.reproduce.experiment import Experiment, Outcome
from steepest.worlds.finite import FiniteHorizonMDP
from steepest.worlds.finite import random as random_mdp

WORLD = random_mdp(states=3, actions=2, horizon=4, seed=1)
LOGITS = np.random.default_rng(0).normal(size=(3, 2))
LENGTHS = (1e-5, 1e1)


def path_kl_by_enumeration(mdp: FiniteHorizonMDP, p: np.ndarray, q: np.ndarray) -> float:
    """KL(Pr^p‖Pr^q) over every path s_0 a_0 … s_{H−1} a_{H−1}, ρ and P and all, nats."""
    total = 0.0
    for path in itertools.product(itertools.product(range(mdp.states), range(mdp.actions)), repeat=mdp.horizon):
        under = [float(mdp.initial[path[0][0]])] * 2
        for h, (s, a) in enumerate(path):
            later = 1.0 if h == mdp.horizon - 1 else float(mdp.transition[s, a, path[h + 1][0]])
            under = [u * float(table[s, a]) * later for u, table in zip(under, (p, q), strict=True)]
        total += under[0] * np.log(under[0] / under[1]) if under[0] > 0 else 0.0
    return total


def mean_log_ratio(mdp: FiniteHorizonMDP, p: np.ndarray, q: np.ndarray) -> float:
    """E_{(s,a)~d^p}[ln p/q], nats per step."""
    return float(np.sum(mdp.occupancy(p) * np.log(p / q)))


def along(direction: np.ndarray, length: float) -> dict[str, float]:
    """ℓ and its quadratic model at θ₀ + Δ, ‖Δ‖ = length."""
    start = TabularSoftmax(LOGITS)
    step = length * direction / np.linalg.norm(direction)
    loss = float(WORLD.trajectory_kl(start, TabularSoftmax(LOGITS + step.reshape(LOGITS.shape)))) / WORLD.horizon
    model = float(0.5 * step @ WORLD.fisher(start) @ step)
    return {"length": length, "loss": loss, "model": model, "ratio": loss / model}


def slope(rows: list[dict[str, Any]]) -> float:
    """d ln|ℓ/(½ΔᵀFΔ) − 1| / d ln‖Δ‖, where ‖Δ‖ is small and the error is not yet rounding."""
    near = [row for row in rows if 1e-4 <= row["length"] <= 1e-1]
    return float(np.polyfit(np.log([r["length"] for r in near]), np.log([abs(r["ratio"] - 1) for r in near]), 1)[0])


def run(quick: bool) -> Outcome:
    start = TabularSoftmax(LOGITS)
    rng = np.random.default_rng(1)
    directions = {"natural": np.ravel(improve(start, WORLD, npg())[0].logits - LOGITS)}
    directions |= {f"random {i + 1}": rng.normal(size=LOGITS.size) for i in range(2)}
    lengths = np.geomspace(*LENGTHS, 13 if quick else 37)
    rows = [{"direction": n, **along(d, float(length))} for n, d in directions.items() for length in lengths]
    slopes = [slope([r for r in rows if r["direction"] == name]) for name in directions]
    before = WORLD.probabilities(start)
    far = [WORLD.probabilities(TabularSoftmax(scale * rng.normal(size=LOGITS.shape))) for scale in (0.1, 1.0, 5.0)]
    table = [
        {
            "policy": f"{k + 1}",
            "all paths, KL/H": path_kl_by_enumeration(WORLD, before, after) / WORLD.horizon,
            "mean log-ratio": mean_log_ratio(WORLD, before, after),
        }
        for k, after in enumerate(far)
    ]
    error = max(abs(row["mean log-ratio"] / row["all paths, KL/H"] - 1) for row in table)
    count = (WORLD.states * WORLD.actions) ** WORLD.horizon
    widest = max(rows, key=lambda r: abs(np.log(r["ratio"])))
    return Outcome(
        figure=_figure(rows, list(directions)),
        rows=rows,
        ours=f"Over all {count} paths of a random MDP, KL(Pr‖Pr)/H is the mean log-ratio under d to {error:.1e}, at "
        f"three policies, the last of them {table[-1]['mean log-ratio']:.2f} nats away. ℓ/(½ΔᵀFΔ) − 1 falls with "
        f"slopes {', '.join(f'{s:.3f}' for s in slopes)} in ‖Δ‖ in three directions; at "
        f"‖Δ‖ = {widest['length']:.0f} the ratio is as far from 1 as {widest['ratio']:.2g}."
        + (" This quick version has fewer points." if quick else ""),
        differs="The lecture's summary writes the expansion without ½ and without H; it is KL(Pr‖Pr) ≈ (H/2)·ΔᵀFΔ. "
        "It shows no figure.",
        table=table,
    )


def _figure(rows: list[dict[str, Any]], directions: list[str]) -> Any:
    with figure_style():
        figure, axes = column_figure(columns=2)
        ax = axes[0, 0]
        natural = [r for r in rows if r["direction"] == "natural"]
        length = [r["length"] for r in natural]
        ax.loglog(length, [r["loss"] for r in natural], color=COLOURS[0], lw=3, label=r"$\ell = $ KL of paths $/ H$")
        ax.loglog(length, [r["model"] for r in natural], color=COLOURS[1], ls="--",
                  label=r"$\frac{1}{2}\Delta^\top F \Delta$")  # fmt: skip
        ax.set(xlabel=r"$\|\Delta\|$ (logits)", ylabel="nats per step")
        ax.set_title("The KL and its quadratic model, natural direction")
        ax.legend(frameon=False, loc="upper left")
        ax = axes[0, 1]
        for name, colour, marker in zip(directions, COLOURS, "os^", strict=False):
            there = [r for r in rows if r["direction"] == name]
            ax.loglog([r["length"] for r in there], [abs(r["ratio"] - 1) for r in there], color=colour, marker=marker,
                      ms=3, lw=1, label=name)  # fmt: skip
        guide = np.array([2e-5, 0.3])
        ax.loglog(guide, 3 * guide, color="black", ls=":", lw=1, label="slope 1")
        ax.set(xlabel=r"$\|\Delta\|$ (logits)", ylabel=r"$|\ell\, /\, \frac{1}{2}\Delta^\top F \Delta - 1|$")
        ax.set_title("The error of the model is of first order")
        ax.legend(frameon=False, loc="lower right", title="direction")
    return figure


EXPERIMENT = Experiment(
    title="The KL of whole paths, its mean log-ratio and its quadratic model",
    source="Kakade & Brantley, Natural Policy Gradient, lecture of CS 6789",
    shows="The KL between the distributions of whole paths, divided by the horizon, is the mean log-ratio of the two "
    "policies under the first one's state-action distribution; its Hessian at θ₀ is the Fisher matrix.",
    run=run,
    claims=("R11", "R17"),
)
