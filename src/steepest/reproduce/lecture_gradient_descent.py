"""Gradient descent depends on coordinates, natural descent does not.

    θ = Aφ + b        ∇_φℓ = Aᵀ∇_θℓ        descent in φ, seen in θ:  θ_{t+1} = θ_t − ηAAᵀ∇_θℓ

The loss is ℓ(θ) = −V(θ)/H of a world of two states, with one parameter for each: the logit of staying there.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from steepest.algorithms import Algorithm, iterate, npg, pg
from steepest.geometry import Fixed, Reparameterised, reparameterise
from steepest.policies import LogLinearSoftmax
from steepest.reports.figures import COLOURS, column_figure, figure_style
from steepest.reproduce.experiment import Experiment, Outcome
from steepest.worlds.finite import two_state

WORLD = two_state(horizon=10)
START = np.log([0.8 / 0.2, 0.1 / 0.9])
FEATURES = np.einsum("sp,a->sap", np.eye(2), [1.0, 0.0])  # logits (θ_s, 0) in state s
RATE, DELTA = 0.5, 2e-3


class Coordinates(NamedTuple):
    """θ = Aφ + b, and how its path is drawn."""

    name: str
    matrix: np.ndarray
    offset: np.ndarray
    colour: str
    style: dict[str, Any]


_TURN = np.array([[0.6, -0.8], [0.8, 0.6]])
_DOTS: dict[str, Any] = {"ls": "", "marker": "o", "ms": 4, "mfc": "none", "mew": 0.9}
_CROSS: dict[str, Any] = {"ls": "", "marker": "x", "ms": 4, "mew": 0.9}
COORDINATES = (
    Coordinates("A = I", np.eye(2), np.zeros(2), "0.5", {"lw": 4.0}),
    Coordinates("A orthogonal", _TURN, np.zeros(2), COLOURS[0], _DOTS),
    Coordinates("A = I, b = (3, −2)", np.eye(2), np.array([3.0, -2.0]), COLOURS[2], _CROSS),
    Coordinates("A = diag(½, 3)", np.diag([0.5, 3.0]), np.zeros(2), COLOURS[1], {"lw": 2.2}),
    Coordinates("A = (1 1; 0 1)", np.array([[1.0, 1.0], [0.0, 1.0]]), np.zeros(2), COLOURS[3], {"lw": 1.0}),
)


def policy(theta: np.ndarray) -> LogLinearSoftmax:
    """π(stay|s) = σ(θ_s)."""
    return LogLinearSoftmax(theta, FEATURES)


def in_phi(where: Coordinates, theta: np.ndarray) -> Reparameterised:
    """The same policy, in coordinates φ."""
    return reparameterise(policy(theta), where.matrix, where.offset)


def path(where: Coordinates, algorithm: Algorithm, steps: int) -> np.ndarray:
    """θ_0 … θ_steps [steps+1,2] of an algorithm that works in φ."""
    policies, _ = iterate(in_phi(where, START), WORLD, algorithm, steps)
    return np.stack([where.matrix @ np.asarray(p.phi) + where.offset for p in policies])


def transformation_error(where: Coordinates, thetas: np.ndarray) -> float:
    """The largest relative error of ∇_φV = Aᵀ∇_θV, both by differentiation, at some θ on a path."""
    errors = []
    for theta in thetas:
        expected = where.matrix.T @ np.asarray(WORLD.gradient(policy(theta)).theta)
        got = np.asarray(WORLD.gradient(in_phi(where, theta)).phi)
        errors.append(np.linalg.norm(got - expected) / np.linalg.norm(expected))
    return float(max(errors))


def run(quick: bool) -> Outcome:
    steps = 150 if quick else 600
    methods = {"gradient": (pg(step=Fixed(RATE)), steps), "natural": (npg(DELTA), 45)}
    paths = {(m, w.name): path(w, a, n) for m, (a, n) in methods.items() for w in COORDINATES}
    table = []
    for where in COORDINATES:
        there = paths["gradient", where.name]
        g = np.asarray(WORLD.gradient(policy(START)).theta) / WORLD.horizon
        moved = RATE * where.matrix @ where.matrix.T @ g
        apart = {m: float(np.max(np.abs(paths[m, where.name] - paths[m, COORDINATES[0].name]))) for m in methods}
        table.append(
            {
                "coordinates": where.name,
                "error of ∇_φ = Aᵀ∇_θ": transformation_error(where, there[:: steps // 3]),
                "error of the step −ηAAᵀ∇ℓ": float(np.max(np.abs(there[1] - there[0] - moved)) / np.max(np.abs(moved))),
                "gradient: distance in θ from A = I": apart["gradient"],
                "natural: distance in θ from A = I": apart["natural"],
                "gradient: V at the end": float(WORLD.value(policy(there[-1]))),
            }
        )
    gradient, natural = ([row[f"{m}: distance in θ from A = I"] for row in table] for m in methods)
    return Outcome(
        figure=_figure(paths),
        rows=[
            {"method": m, "coordinates": name, "step": i, "stay in poor": t[0], "stay in rich": t[1]}
            for (m, name), thetas in paths.items()
            for i, t in enumerate(thetas)
        ],
        ours=f"{steps} steps of gradient descent at the rate η = {RATE}: with an orthogonal A, and for any b, the path "
        f"is that of θ itself to {max(gradient[:3]):.1e}; with the other two A it is another, at least "
        f"{min(gradient[3:]):.1f} away in θ at some step. 45 natural steps of δ = {DELTA:g} nats agree in all five "
        f"coordinates to {max(natural):.1e}. ∇_φ = Aᵀ∇_θ holds to "
        f"{max(row['error of ∇_φ = Aᵀ∇_θ'] for row in table):.1e}."
        + (" This quick version takes fewer gradient steps." if quick else ""),
        differs="The lecture states this for a general loss and draws no figure; the loss here is −V/H of Kakade's "
        "world of two states, which has a plateau. Natural steps agree as the metric is not damped; with damping they "
        "would not.",
        table=table,
    )


def _figure(paths: dict[tuple[str, str], np.ndarray]) -> Any:
    x, y = np.linspace(-2.0, 8.0, 33), np.linspace(-3.2, 7.2, 33)
    loss = np.array([[-WORLD.value(policy(np.array([a, b]))) / WORLD.horizon for a in x] for b in y])
    with figure_style():
        figure, axes = column_figure(columns=2, height=3.2, sharey=True)
        for ax, method, title in zip(
            axes[0],
            ("gradient", "natural"),
            ("Gradient descent: the path depends on A", "Natural descent: the same for every A and b"),
            strict=True,
        ):
            ax.contour(x, y, loss, levels=14, colors="0.75", linewidths=0.6, linestyles="solid")
            for where in COORDINATES:
                there = paths[method, where.name]
                sparse = where.style.get("marker") is not None
                shown = there[np.unique(np.geomspace(1, len(there), 14).astype(int) - 1)] if sparse else there
                ax.plot(*shown.T, color=where.colour, label=where.name, zorder=4 if sparse else 3, **where.style)
            ax.plot(*START, color="black", marker="s", ms=5, zorder=5)
            ax.set(xlabel=r"$\theta_1$: logit of staying in the poor state", xlim=x[[0, -1]], ylim=y[[0, -1]])
            ax.set_title(title)
        axes[0, 0].set_ylabel(r"$\theta_2$: logit of staying in the rich state")
        handles, labels = axes[0, 0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=5, frameon=False)
    return figure


EXPERIMENT = Experiment(
    title="Gradient descent depends on the coordinates, natural descent does not",
    source="Kakade & Brantley, Natural Policy Gradient, lecture of CS 6789",
    shows="Gradient descent is steepest for the Euclidean distance of the coordinates in use. With θ = Aφ + b, descent "
    "in φ moves θ along AAᵀ∇ℓ: another path, unless AAᵀ = I. A metric that changes with the coordinates, "
    "F_φ = AᵀF_θA, gives one path.",
    run=run,
    claims=("R5", "R6", "R7", "R8"),
)
