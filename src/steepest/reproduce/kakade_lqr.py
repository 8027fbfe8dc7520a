"""Kakade's linear-quadratic regulator: gradient and natural gradient flow under six scalings of two parameters.

    x' = 0.7x + u + ε,  ε ~ N(0,1)        π(u|x) ∝ exp(θ₁s₁u² + θ₂s₂xu)
    gradient  θ̇ = −∇J        natural  θ̇ = −(F + λI)⁻¹∇J        J = E Σ_{t=1..20} x_t²,  x_0 = 0

The flows are integrated from the exact J, ∇J and F of `LQR`; nothing is sampled.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from steepest.policies.linear_gaussian import ExponentialGaussian
from steepest.reports.figures import COLOURS, column_figure, figure_style
from steepest.reproduce.experiment import Experiment, Outcome
from steepest.worlds.lqr import LQR

WORLD = LQR(0.7, 1.0, 1.0, 0.0, 1.0, 20, final_cost=1.0)  # x_0 = 0 is known: cost over x_1 … x_20
SCALINGS = ((1.0, 1.0), (10.0, 1.0), (1.0, 10.0), (0.1, 1.0), (1.0, 0.1), (0.1, 0.1))
START = -0.8  # θ₁s₁ = θ₂s₂: N(−0.5x, 0.625), the same policy for every scaling
TARGET = 22.0
DAMPING = 1e-3
METHODS = {"gradient": None, "natural, λ=1e-3": DAMPING, "natural, λ=0": 0.0}


class Flow(NamedTuple):
    """time [T], cost [T], and when the cost was `TARGET`."""

    time: np.ndarray
    cost: np.ndarray
    reached: float


def start(scaling: tuple[float, float]) -> ExponentialGaussian:
    """The first policy in the coordinates of that scaling."""
    return ExponentialGaussian(START / np.array(scaling), np.array(scaling))


def velocity(policy: ExponentialGaussian, damping: float | None) -> np.ndarray:
    """θ̇: −∇J, or −(F + λI)⁻¹∇J where there is a damping λ."""
    if not policy.theta[0] < 0:
        return np.full(2, np.nan)  # no density: a step that the integrator tried was too long, and NaN halves it
    ascent = np.asarray(WORLD.gradient(policy).theta)
    if damping is None:
        return ascent
    return np.linalg.solve(WORLD.fisher(policy) + damping * np.eye(2), ascent)


def flow(scaling: tuple[float, float], damping: float | None, lasting: float, rtol: float) -> Flow:
    """The flow from `start(scaling)` until `lasting` times as long as it took to reach the target."""
    from scipy.integrate import solve_ivp

    at = policies(scaling)

    def cost_above_target(_: float, theta: np.ndarray) -> float:
        return float(WORLD.cost(at(theta))) - TARGET

    cost_above_target.terminal = True  # type: ignore[attr-defined]

    def integrate(theta: np.ndarray, begin: float, end: float, events: Any = None) -> Any:
        def rate(_: float, now: np.ndarray) -> np.ndarray:
            return velocity(at(now), damping)

        return solve_ivp(rate, (begin, end), theta, "DOP853", rtol=rtol, atol=rtol, events=events, dense_output=True)

    down = integrate(START / np.array(scaling), 0.0, 1e5, cost_above_target)
    reached = float(down.t_events[0][0])
    after = integrate(down.y_events[0][0], reached, lasting * reached)
    time = np.concatenate([[0.0], np.geomspace(1e-6, lasting, 90) * reached])
    thetas = [(down if t <= reached else after).sol(min(t, after.t[-1])) for t in time]
    return Flow(time, np.array([WORLD.cost(at(theta)) for theta in thetas]), reached)


def policies(scaling: tuple[float, float]) -> Callable[[np.ndarray], ExponentialGaussian]:
    """θ ↦ the policy, in the coordinates of that scaling."""
    return lambda theta: ExponentialGaussian(theta, np.array(scaling))


def run(quick: bool) -> Outcome:
    """All flows; quick integrates to a relative tolerance of 1e-6 instead of 1e-10 and stops them sooner."""
    rtol, lasting = (1e-6, 3.0) if quick else (1e-10, 30.0)
    flows = {(s, m): flow(s, damping, lasting, rtol) for s in SCALINGS for m, damping in METHODS.items()}
    table = [
        {"s1": s[0], "s2": s[1], **{f"time to {TARGET:.0f}, {m}": flows[s, m].reached for m in METHODS}}
        for s in SCALINGS
    ]
    rows = [
        {"s1": s[0], "s2": s[1], "method": m, "time": t, "cost": c}
        for (s, m), one in flows.items()
        for t, c in zip(one.time, one.cost, strict=True)
    ]
    return Outcome(_figure(flows), rows, _ours(flows, quick), DIFFERS, table)


def _ours(flows: dict[Any, Flow], quick: bool) -> str:
    first = start((1.0, 1.0))
    slope = -np.asarray(WORLD.gradient(first).theta)
    fisher = WORLD.fisher(first)
    times = {m: [flows[s, m].reached for s in SCALINGS] for m in METHODS}
    gradient, damped, exact = (times[m] for m in METHODS)
    return (
        f"At the start J = {WORLD.cost(first):.4f}, ∇J = ({slope[0]:.6f}, {slope[1]:.6f}) and F = "
        f"[[{fisher[0, 0]:.6f}, {fisher[0, 1]:.6f}], [{fisher[1, 0]:.6f}, {fisher[1, 1]:.6f}]]; the optimum, by the "
        f"Riccati recursion, is {-WORLD.optimal()[0]:.4f}. The time to a cost of {TARGET:.0f} goes from "
        f"{min(gradient):.3g} to {max(gradient):.4g} with the scaling for the gradient, a factor of "
        f"{max(gradient) / min(gradient):.0f}, and from {min(damped):.4f} to {max(damped):.3f} for the natural "
        f"gradient with λ = {DAMPING:g}. Without damping the six natural flows are one: {min(exact):.5f} for all, "
        f"within {max(exact) - min(exact):.0e}." + (" (Quick: relative tolerance 1e-6.)" if quick else "")
    )


DIFFERS = (
    "The paper prints curves, not times. It does not say which steps its cost counts or where x starts; x_0 = 0 and "
    "t = 1 … 20 are our reading. It puts down to the "
    "weighting of F by the state distribution that its natural curves are not identical; F is weighted so here too, "
    "and the curves differ through the λI added to it, and through nothing else."
)


def _figure(flows: dict[Any, Flow]) -> Any:
    with figure_style():
        figure, axes = column_figure(columns=2, sharey=True, sharex=True)
        for panel, method, title in (
            (axes[0, 0], "gradient", "gradient"),
            (axes[0, 1], "natural, λ=1e-3", "natural gradient, λ = 10⁻³"),
        ):
            for colour, scaling in zip(COLOURS, SCALINGS, strict=False):
                one = flows[scaling, method]
                panel.plot(one.time[1:], one.cost[1:], color=colour, label=f"({scaling[0]:g}, {scaling[1]:g})")
            panel.axhline(TARGET, color="0.5", lw=0.6, ls=":")
            panel.set(xscale="log", xlim=(2e-4, 5e4), ylim=(19.5, 34.5), xlabel="time of the flow", title=title)
            panel.set_yticks([20, 22, 26, 30, 34])
        exact = flows[SCALINGS[0], "natural, λ=0"]
        axes[0, 1].plot(exact.time[1:], exact.cost[1:], color="k", ls="--", lw=1.0, label="any, λ = 0")
        axes[0, 0].set_ylabel("cost of 20 steps, Σ E[x²]")
        axes[0, 1].legend(title="$(s_1, s_2)$, both panels", frameon=False)
    return figure


EXPERIMENT = Experiment(
    title="Linear-quadratic regulator: the natural gradient does not see how the parameters are scaled",
    source="S. Kakade, A Natural Policy Gradient, NIPS 14 (2001), section 5, figure 1 (left)",
    shows="Cost against the logarithm of time for gradient and natural gradient on a one-dimensional linear regulator, "
    "under three scalings of the parameters each. The gradient needs about three orders of magnitude more time to come "
    "down to a cost of 22, and how much depends on the scaling; the natural curves lie close together.",
    run=run,
    claims=("KA", "N4"),
)
