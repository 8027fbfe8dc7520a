"""What a policy loses by not looking at the clock: time-dependent, stationary stochastic, stationary deterministic.

    V* = max over π_h(a|s)     ≥     max over π(a|s)     ≥     max over A^S deterministic π

The harvest: in the field an action `wait` earns 1; `reap` earns R, once, and ends it. With a clock one waits and reaps
in the last step; without one, a coin does better than either action, and the natural gradient finds it:

    V(p) = (1 − p + pR) (1 − (1 − p)^H)/p,    p = π(reap)
"""

from __future__ import annotations

from typing import Any

import numpy as np

from steepest.algorithms import iterate, npg, policy_path
from steepest.policies import TabularSoftmax
from steepest.reports.figures import COLOURS, column_figure, figure_style
from steepest.reproduce.experiment import Experiment, Outcome
from steepest.worlds.finite import FiniteHorizonMDP
from steepest.worlds.finite import random as random_mdp

HARVEST, HORIZON = 8.0, 10
DELTAS = (2e-2, 1e-3, 5e-5)


def harvest(horizon: int = HORIZON, reward: float = HARVEST) -> FiniteHorizonMDP:
    """States field, fallow; actions wait, reap. V* = H − 1 + R for R ≥ 1."""
    transition = np.zeros((2, 2, 2))
    transition[0, 0, 0] = transition[0, 1, 1] = 1.0
    transition[1, :, 1] = 1.0
    return FiniteHorizonMDP(transition, [[1.0, reward], [0.0, 0.0]], [1.0, 0.0], horizon)


def closed_form(p: np.ndarray, horizon: int = HORIZON, reward: float = HARVEST) -> np.ndarray:
    """V of the stationary policy that reaps with probability p > 0."""
    return (1 - p + p * reward) * (1 - (1 - p) ** horizon) / p


def climb(mdp: FiniteHorizonMDP, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Natural policy gradient from the uniform policy: probabilities [T+1,S,A] and values [T+1].

    δ falls: a step of a fixed KL cannot come to rest at an optimum that is stochastic.
    """
    policies = [TabularSoftmax(np.zeros((mdp.states, mdp.actions)))]
    for delta in DELTAS:
        policies += iterate(policies[-1], mdp, npg(delta), steps)[0][1:]
    return policy_path(policies, mdp), np.array([float(mdp.value(p)) for p in policies])


def compare(name: str, mdp: FiniteHorizonMDP, steps: int) -> dict[str, Any]:
    """The three optima of a world."""
    return {
        "world": name,
        "time-dependent": float(mdp.optimal()[0]),
        "stationary stochastic": float(np.max(climb(mdp, steps)[1])),
        "stationary deterministic": float(mdp.optimal(stationary=True)[0]),
    }


def run(quick: bool) -> Outcome:
    steps = 20 if quick else 40
    mdp = harvest()
    path, values = climb(mdp, steps)
    chance = np.linspace(1e-3, 1, 400)
    best = float(np.max(closed_form(np.linspace(1e-3, 1, 1_000_000))))
    horizons = [compare(f"harvest, H = {h}", harvest(h), steps) for h in ((2, 10) if quick else (2, 4, 6, 10, 14, 20))]
    randoms = [compare(f"random, seed {seed}", random_mdp(3, 2, 5, seed), steps) for seed in range(2 if quick else 8)]
    here = next(row for row in horizons if row["world"] == f"harvest, H = {HORIZON}")
    clock = [row["time-dependent"] - max(list(row.values())[2:]) for row in randoms]
    return Outcome(
        figure=_figure(chance, closed_form(chance), path, values, here, horizons),
        rows=[
            {"iteration": i, "reap": float(t[0, 1]), "V": float(v)}
            for i, (t, v) in enumerate(zip(path, values, strict=True))
        ],
        ours=f"In the harvest with H = {HORIZON} and R = {HARVEST:g} the optimum with a clock is "
        f"{here['time-dependent']:.4g}, the best deterministic stationary policy has "
        f"{here['stationary deterministic']:.4g}, and the natural gradient finds a stochastic one with "
        f"{here['stationary stochastic']:.5f}, reaping with probability {path[int(np.argmax(values)), 0, 1]:.3f}; the "
        f"maximum of the closed form is {best:.5f}. On {len(randoms)} random MDPs of 3 states and 5 steps the clock is "
        f"worth between {min(clock):.1e} and {max(clock):.1e}."
        + (" This quick version takes fewer steps, horizons and seeds." if quick else ""),
        differs="The lecture takes π* as the best stationary policy, of type S → A; for a finite horizon the optimal "
        "policy depends on the step, and the best stationary one may have to be stochastic, S → Δ(A). Where the state "
        "holds the step there is no difference.",
        table=[*horizons, *randoms],
    )


def _figure(
    chance: np.ndarray,
    curve: np.ndarray,
    path: np.ndarray,
    values: np.ndarray,
    here: dict[str, Any],
    horizons: list[dict[str, Any]],
) -> Any:
    kinds = dict(zip(("time-dependent", "stationary stochastic", "stationary deterministic"), COLOURS, strict=False))
    with figure_style():
        figure, axes = column_figure(columns=2)
        ax = axes[0, 0]
        ax.plot(chance, curve, color="0.4", lw=1.2)
        ax.plot(path[::3, 0, 1], values[::3], color=COLOURS[1], marker="o", ms=3, mfc="none", ls="")
        for kind, colour in kinds.items():
            ax.axhline(here[kind], color=colour, ls="--", lw=1)
            ax.annotate(f"best {kind}", (1.0, here[kind]), (0, 2), textcoords="offset points", color=colour, ha="right")
        ax.set(xlabel="π(reap | field), at every step", ylabel="V (reward)", ylim=(7.5, 18.5))
        ax.set_title(f"One coin for all steps, $H$ = {HORIZON}; ○ natural gradient")
        ax = axes[0, 1]
        for (kind, colour), marker in zip(kinds.items(), "so^", strict=True):
            h = [int(row["world"].split("= ")[1]) for row in horizons]
            ax.plot(h, [row[kind] for row in horizons], color=colour, marker=marker, ms=4, label=f"best {kind}")
        ax.set(xlabel="horizon $H$ (steps)", ylabel="V (reward)")
        ax.set_title("What the clock is worth")
        ax.legend(frameon=False, loc="upper left")
    return figure


EXPERIMENT = Experiment(
    title="The best policy of a finite horizon looks at the clock",
    source="Kakade & Brantley, Natural Policy Gradient, lecture of CS 6789",
    shows="The lecture defines V^π over a finite horizon and optimises over stationary policies π_θ(a|s), as the "
    "methods that follow do.",
    run=run,
    claims=("R4",),
)
