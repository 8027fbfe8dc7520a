"""The trust-region problem before it is linearised, and its closed form after: the same as δ → 0.

    before   max V(θ)   s.t.  KL(Pr^θ₀‖Pr^θ)/H ≤ δ            SLSQP, with exact derivatives
    after    max gᵀΔ    s.t.  ½ΔᵀFΔ ≤ δ                       Δ = √(2δ/gᵀF⁺g) F⁺g

The sequential convex programme solves the second one again and again: it is `npg`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from steepest.algorithms import improve, iterate, npg, policy_path
from steepest.policies import TabularSoftmax
from steepest.reports.figures import COLOURS, column_figure, figure_style
from steepest.reproduce.experiment import Experiment, Outcome
from steepest.worlds.finite import FiniteHorizonMDP, two_state

START = np.log([[0.8, 0.2], [0.1, 0.9]])  # Kakade's start: stay in the poor state, leave the rich one
HORIZON, RADIUS, STEPS = 5, 0.05, 7


class Optimum(NamedTuple):
    """policy: θ'.  gain: V(θ') − V(θ₀).  kl: per step, nats.  multiplier: η in ∇V = η∇KL, and the relative residual."""

    policy: TabularSoftmax
    gain: float
    kl: float
    multiplier: float
    residual: float


def constrained_optimum(mdp: FiniteHorizonMDP, policy: TabularSoftmax, delta: float) -> Optimum:
    """max V(θ) s.t. KL(Pr^θ₀‖Pr^θ)/H ≤ δ, from the closed form, by sequential quadratic programming (SLSQP).

    The variables are (θ − θ₀)/√δ, of order 1 for every δ. ∇KL/H = d(s)(π_θ(a|s) − π_θ₀(a|s)), d that of θ₀.
    """
    from scipy.optimize import minimize

    before, table = np.asarray(policy.logits, np.float64), mdp.probabilities(policy)
    visits, value, scale = mdp.occupancy(policy).sum(axis=1, keepdims=True), mdp.value(policy), np.sqrt(delta)
    first, _ = improve(policy, mdp, npg(delta))

    def at(z: np.ndarray) -> TabularSoftmax:
        return TabularSoftmax(before + scale * z.reshape(before.shape))

    def kl(z: np.ndarray) -> float:
        return float(mdp.trajectory_kl(policy, at(z))) / mdp.horizon

    def kl_gradient(z: np.ndarray) -> np.ndarray:
        return np.ravel(visits * (mdp.probabilities(at(z)) - table))

    def gradient(z: np.ndarray) -> np.ndarray:
        return np.ravel(mdp.gradient(at(z)).logits)

    size = np.linalg.norm(gradient(np.zeros(before.size)))
    found = minimize(
        lambda z: -(mdp.value(at(z)) - value) / (scale * size),
        0.9 * np.ravel(first.logits - before) / scale,
        jac=lambda z: -gradient(z) / size,
        constraints={
            "type": "ineq",
            "fun": lambda z: 1 - kl(z) / delta,
            "jac": lambda z: -kl_gradient(z) * scale / delta,
        },
        method="SLSQP",
        options={"ftol": 1e-14, "maxiter": 200},
    )
    up, out = gradient(found.x), kl_gradient(found.x)
    eta = float(up @ out / (out @ out))
    gain = float(mdp.value(at(found.x)) - value)
    return Optimum(at(found.x), gain, kl(found.x), eta, float(np.linalg.norm(up - eta * out) / np.linalg.norm(up)))


def compare(mdp: FiniteHorizonMDP, policy: TabularSoftmax, delta: float) -> dict[str, float]:
    """The gains of the closed form, as predicted and as realised, beside that of the problem before linearising."""
    best = constrained_optimum(mdp, policy, delta)
    after, info = improve(policy, mdp, npg(delta))
    return {
        "delta": delta,
        "best gain": best.gain,
        "predicted/best": mdp.horizon * float(info.predicted_improvement) / best.gain,
        "realised/best": float(mdp.value(after) - mdp.value(policy)) / best.gain,
        "KL of best/delta": best.kl / delta,
        "KL of closed form/delta": float(info.kl) / delta,
        "KKT residual": best.residual,
    }


def path_kl(horizon: int, delta: float) -> dict[str, float]:
    """The KL of whole paths after one step of `delta` per step, and of `delta` per path, that is delta/H per step."""
    mdp, start = two_state(horizon), TabularSoftmax(START)
    per_step, per_path = (improve(start, mdp, npg(d))[0] for d in (delta, delta / horizon))
    return {
        "horizon": horizon,
        "path KL, delta per step": float(mdp.trajectory_kl(start, per_step)),
        "path KL, delta per path": float(mdp.trajectory_kl(start, per_path)),
    }


def run(quick: bool) -> Outcome:
    mdp, start = two_state(HORIZON), TabularSoftmax(START)
    deltas = np.geomspace(1e-7, 1e-1, 4 if quick else 13)
    compared = [compare(mdp, start, float(d)) for d in deltas]
    horizons = [path_kl(h, 1e-3) for h in ((2, 10, 50) if quick else (2, 3, 5, 10, 20, 50, 100))]
    closed = policy_path(iterate(start, mdp, npg(RADIUS), STEPS)[0], mdp)
    exact = [start]
    for _ in range(STEPS):
        exact.append(constrained_optimum(mdp, exact[-1], RADIUS).policy)
    best = policy_path(exact, mdp)
    first, last = compared[0], compared[-1]
    slope = np.polyfit(np.log(deltas), [np.log(abs(c["realised/best"] - 1)) for c in compared], 1)[0]
    values = [float(mdp.value(table)) for table in (closed[-1], best[-1])]
    longest = horizons[-1]
    return Outcome(
        figure=_figure(mdp, closed, best, compared, horizons),
        rows=[
            {"iteration": i, "iterates of": name, "stay in i": t[0, 0], "stay in j": t[1, 0], "V": float(mdp.value(t))}
            for name, path in (("closed form", closed), ("problem before linearising", best))
            for i, t in enumerate(path)
        ],
        ours=f"At δ = {first['delta']:.0e} the closed form gains {first['realised/best']:.6f} of what the problem "
        f"before linearising gains, at δ = {last['delta']:.0e} {last['realised/best']:.3f}; the difference falls as "
        f"δ^{slope:.2f}. The optimum satisfies ∇V = η∇KL to {max(c['KKT residual'] for c in compared):.0e}. After "
        f"{STEPS} iterations with δ = {RADIUS} the two have V = {values[0]:.3f} and {values[1]:.3f}, of at most "
        f"{mdp.optimal()[0]:g}. One step of δ = 10⁻³ per step moves the paths of {longest['horizon']} steps by "
        f"{longest['path KL, delta per step']:.3g} nats; of δ per path, by {longest['path KL, delta per path']:.3g}."
        + (" This quick version has fewer δ and horizons." if quick else ""),
        differs="The lecture bounds the KL of whole paths, KL(Pr‖Pr) ≤ δ, and writes its expansion without the "
        "horizon; here δ is per step, δ_path = H·δ. It derives ½ΔᵀFΔ ≤ δ and drops the ½; here the ½ is kept, so that "
        "the realised KL is δ. It shows no figure of this.",
        table=compared,
    )


def _figure(
    mdp: FiniteHorizonMDP,
    closed: np.ndarray,
    best: np.ndarray,
    compared: list[dict[str, float]],
    horizons: list[dict[str, float]],
) -> Any:
    with figure_style():
        figure, axes = column_figure(columns=3, height=2.9)
        _plane(axes[0, 0], mdp, closed, best)
        delta = np.array([c["delta"] for c in compared])
        ax = axes[0, 1]
        for key, colour, marker in (("predicted/best", COLOURS[0], "o"), ("realised/best", COLOURS[1], "s")):
            gap = [abs(c[key] - 1) for c in compared]
            ax.loglog(delta, gap, color=colour, marker=marker, ms=3.5, label=f"{key.split('/')[0]} gain")
        guide = abs(compared[0]["realised/best"] - 1) * np.sqrt(delta / delta[0])
        ax.loglog(delta, 3 * guide, color="black", ls=":", lw=1, label=r"slope $\frac{1}{2}$")
        ax.set(xlabel=r"$\delta$ (nats per step)", ylabel="|gain of closed form / best gain − 1|")
        ax.set_title("As δ → 0 the closed form is the optimum")
        ax.legend(frameon=False, loc="upper left")
        ax = axes[0, 2]
        h = [row["horizon"] for row in horizons]
        for key, colour, marker in (("per step", COLOURS[0], "o"), ("per path", COLOURS[1], "s")):
            ax.loglog(h, [r[f"path KL, delta {key}"] for r in horizons], color=colour, marker=marker, ms=3.5)
            ax.annotate(rf"$\delta$ {key}", (h[-1], horizons[-1][f"path KL, delta {key}"]), (0, 7), color=colour,
                        textcoords="offset points", ha="right")  # fmt: skip
        ax.set(xlabel="horizon $H$ (steps)", ylabel="KL of whole paths after one step (nats)", ylim=(5e-4, 4e-1))
        ax.set_xticks([2, 5, 10, 20, 50, 100], ["2", "5", "10", "20", "50", "100"], minor=False)
        ax.tick_params(axis="x", which="minor", bottom=False, labelbottom=False)
        ax.set_title(r"$\delta = 10^{-3}$, read per step and per path")
    return figure


def _plane(ax: Any, mdp: FiniteHorizonMDP, closed: np.ndarray, best: np.ndarray) -> None:
    """V and the iterates in the plane of policies, and the trust region around the first."""
    x, y, tables = _policies(31)
    values = np.array([[mdp.value(t) for t in row] for row in tables])
    ax.contour(x, y, values, levels=12, colors="0.75", linewidths=0.6)
    start = closed[0]
    x, y, tables = _policies(300)
    kl = np.einsum("s,sa,xysa->xy", mdp.occupancy(start).sum(axis=1), start, np.log(start) - np.log(tables))
    ax.contourf(x, y, kl, levels=[0, RADIUS], colors=[COLOURS[5]], alpha=0.35)
    ax.plot(*best[:, :, 0].T, color=COLOURS[1], marker="s", ms=4, mfc="white", label="before linearising")
    ax.plot(*closed[:, :, 0].T, color=COLOURS[0], marker="o", ms=2.5, label="closed form")
    ax.annotate(r"KL $\leq \delta$", (0.7, 0.16), ha="center", fontsize=7)
    ax.set(xlabel="π(stay | poor state)", ylabel="π(stay | rich state)", xlim=(0, 1), ylim=(0, 1.03))
    ax.set_title(rf"Iterates at $\delta$ = {RADIUS} nats per step, on $V$")
    ax.legend(frameon=True, framealpha=0.9, loc="lower left", title="iterates; grey: contours of $V$")


def _policies(size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """π(stay|i), π(stay|j) on a grid, and the tables [size,size,S,A]."""
    grid = np.linspace(0.005, 0.995, size)
    x, y = np.meshgrid(grid, grid)
    return x, y, np.stack([np.stack([x, 1 - x], axis=-1), np.stack([y, 1 - y], axis=-1)], axis=-2)


EXPERIMENT = Experiment(
    title="The trust-region problem before it is linearised, and its closed form",
    source="Kakade & Brantley, Natural Policy Gradient, lecture of CS 6789",
    shows="The problem is to maximise the value within a KL ball around the current policy. Linearising the value and "
    "expanding the KL to second order gives a convex programme with a closed-form solution, the natural gradient; "
    "it is solved again at each new policy.",
    run=run,
    claims=("R24", "R26", "R26b"),
)
