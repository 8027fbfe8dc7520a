"""One MDP, several parameterisations: whose path through the policies depends on them.

gradient                     of course it does
natural, λ = 0               it does not, whatever A in θ = Aφ
natural, λ > 0               it does: λI in φ is λ(AAᵀ)⁻¹ in θ
natural, truncated CG        it does: the first iterations see the eigenvalues of AᵀFA
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import jax.numpy as jnp
import numpy as np

from steepest.algorithms import Algorithm, iterate, npg, pg, policy_path
from steepest.geometry import reparameterise, reparameterise_by
from steepest.linear import ConjugateGradient
from steepest.policies import TabularSoftmax
from steepest.reports.figures import COLOURS, column_figure, figure_style
from steepest.reproduce.experiment import Experiment, Outcome
from steepest.worlds.finite import two_state

WORLD = two_state(horizon=10)
START = TabularSoftmax(np.log([[0.8, 0.2], [0.1, 0.9]]))
DELTA, DAMPING = 2e-3, 0.1

_RNG = np.random.default_rng(0)
_U, _, _V = np.linalg.svd(_RNG.normal(size=(4, 4)))
PLAIN, BENT = r"$\theta$", r"$\theta = \sinh\phi$"
MATRICES = {
    PLAIN: np.eye(4),
    "poor state × 10": np.diag([10.0, 10.0, 1.0, 1.0]),
    "rich state × 10": np.diag([1.0, 1.0, 10.0, 10.0]),
    "all mixed": _U @ np.diag([10.0, 4.0, 2.0, 1.0]) @ _V,
}


def policies() -> dict[str, Any]:
    """The policy START in every parameterisation, by name; the plain one first."""
    linear = {name: reparameterise(START, matrix) for name, matrix in MATRICES.items()}
    return {**linear, BENT: reparameterise_by(START, jnp.sinh, np.arcsinh(np.ravel(START.logits)))}


def methods(steps: int, gradient_steps: int) -> dict[str, tuple[Callable[[str], Algorithm], int]]:
    """Panel ↦ (parameterisation ↦ algorithm, steps). The gradient's steps are no longer in θ than those of A = I."""

    def gradient(name: str) -> Algorithm:
        return pg(2e-2 if name in (PLAIN, BENT) else 2e-4)  # the other A stretch by up to 10

    return {
        "gradient": (gradient, gradient_steps),
        "natural, undamped": (lambda name: npg(DELTA, damping=0.0), steps),
        f"natural, λ = {DAMPING}": (lambda name: npg(DELTA, damping=DAMPING), steps),
        "natural, one CG iteration": (lambda name: npg(DELTA, damping=0.0, solver=ConjugateGradient(1)), steps),
    }


def apart(one: np.ndarray, other: np.ndarray) -> float:
    """How far the curve `one` [T,S,A] strays from the curve `other`: the largest distance to its nearest point, in
    probabilities, whenever the two are there."""
    points = np.concatenate([np.linspace(a, b, 30) for a, b in pairwise(other)])
    distance = np.abs(one[:, None] - points[None]).max(axis=(2, 3))
    return float(np.max(distance.min(axis=1)))


def run(quick: bool) -> Outcome:
    panels = methods(30 if quick else 60, 100 if quick else 1500)
    starts = policies()
    paths = {
        (panel, name): policy_path(iterate(start, WORLD, algorithm(name), steps)[0], WORLD)
        for panel, (algorithm, steps) in panels.items()
        for name, start in starts.items()
    }
    table = [
        {"parameterisation": name.replace("$", ""), **{p: apart(paths[p, name], paths[p, PLAIN]) for p in panels}}
        for name in starts
        if name != PLAIN
    ]
    first, undamped, damped, truncated = panels
    matrices = [name for name in MATRICES if name != PLAIN]
    same_time = max(float(np.max(np.abs(paths[undamped, n] - paths[undamped, PLAIN]))) for n in matrices)
    bent = table[-1][undamped]
    strays = {p: max(row[p] for row in table[:-1]) for p in panels}
    return Outcome(
        figure=_figure(paths, list(panels), list(starts)),
        rows=[
            {
                "method": panel,
                "parameterisation": name.replace("$", ""),
                "step": i,
                "stay in poor": table_[0, 0],
                "stay in rich": table_[1, 0],
            }
            for (panel, name), path in paths.items()
            for i, table_ in enumerate(path)
        ],
        ours=f"Under linear reparameterisations the undamped natural policies agree step by step to {same_time:.1e} in "
        f"probability. The curves of the gradient stray by up to {strays[first]:.2f}, those of natural steps "
        f"with λ = {DAMPING} by {strays[damped]:.2f}, with one iteration of CG by {strays[truncated]:.2f}. Under the "
        f"nonlinear θ = sinh φ undamped natural steps of δ = {DELTA:g} stray by {bent:.1e}, as they agree to first "
        "order. (Distances of curves of as many steps: they count how far each has come.)"
        + (" This quick version takes fewer steps." if quick else ""),
        differs="The lecture proves it for the exact natural gradient and shows no figure. Practice damps and "
        "truncates, and so loses part of it: the last two panels.",
        table=table,
    )


def _figure(paths: dict[tuple[str, str], np.ndarray], panels: list[str], names: list[str]) -> Any:
    with figure_style():
        figure, axes = column_figure(2, 2, height=2.5, sharex=True, sharey=True)
        for ax, panel in zip(np.ravel(axes), panels, strict=True):
            for k, (name, colour) in enumerate(zip(names, (COLOURS[6], *COLOURS), strict=False)):
                x, y = paths[panel, name][:, :, 0].T
                dashes = (0, (2.5, 10)) if k == 0 else (2.5 * k, (2.5, 10))  # those that coincide show all colours
                solid = panel != panels[1]
                ax.plot(x, y, color=colour, ls="-" if solid else dashes, lw=1.3 if solid else 2.0, label=name)
            ax.plot(0.8, 0.1, color="black", marker="s", ms=5, zorder=5)
            ax.set_title(panel)
            ax.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.04))
        for ax in axes[1]:
            ax.set_xlabel("π(stay | poor state)")
        for ax in axes[:, 0]:
            ax.set_ylabel("π(stay | rich state)")
        handles, labels = axes[0, 0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=5, frameon=False)
    return figure


EXPERIMENT = Experiment(
    title="The path through the policies: one for all parameterisations, or one for each",
    source="Kakade & Brantley, Natural Policy Gradient, lecture of CS 6789",
    shows="The natural gradient is steepest for a distance between policies, not between parameters: its direction in "
    "policy space is the same for every parameterisation, that of the gradient is not.",
    run=run,
    claims=("R8", "R9"),
)
