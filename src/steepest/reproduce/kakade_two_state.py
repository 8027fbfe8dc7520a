"""Kakade's two-state MDP: gradient flow starves the better state and waits; natural gradient flow does not.

    π(stay|s) = σ(θ_s)        gradient  θ̇ = ∇η        natural  θ̇ = (F + λI)⁻¹∇η

Each entry of ∇η has its state's ρ(s) as a factor, and so has each entry of F: the natural flow divides it out. The
flows are integrated from the exact η, ∇η and F of `AverageMDP`; nothing is sampled. The gradient's is stiff.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np

from steepest.policies import LogLinearSoftmax
from steepest.reports.figures import COLOURS, column_figure, figure_style
from steepest.reproduce.experiment import Experiment, Outcome
from steepest.worlds.finite import two_state

WORLD = two_state().average()
FEATURES = np.zeros((2, 2, 2))
FEATURES[0, 0, 0] = FEATURES[1, 0, 1] = 1.0  # θ_s is the logit of staying in s
STAY_I = 0.8
TARGET, END = 1.9, 1.99
EXACT = 1e-10  # relative tolerance of the integrator


class Setting(NamedTuple):
    """A flow: damping is λ, or None for the gradient; stay_j the first π(stay|j).  reference_time, reference_rho: what
    an independent integration found (closed forms of η and ∇η, implicit Runge–Kutta)."""

    name: str
    damping: float | None
    stay_j: float
    reference_time: float
    reference_rho: float


SETTINGS = (
    Setting("gradient, from (.8, .1)", None, 0.1, 2.684e6, 1.30e-6),
    Setting("gradient, from (.8, .2)", None, 0.2, 306.0, 1.22e-2),
    Setting("natural, λ = 1e-3, from (.8, .1)", 1e-3, 0.1, 2.400, 0.0525),
    Setting("natural, λ = 0, from (.8, .1)", 0.0, 0.1, 2.257, 0.0583),
)


class Flow(NamedTuple):
    """time [T], θ [T,2], η [T] and ρ(j) [T] along a flow, and when η was `TARGET`."""

    time: np.ndarray
    theta: np.ndarray
    eta: np.ndarray
    rho_j: np.ndarray
    reached: float


def at(theta: Any) -> LogLinearSoftmax:
    """The policy with π(stay|s) = σ(θ_s)."""
    return LogLinearSoftmax(np.asarray(theta, np.float64), FEATURES)


def start(stay_j: float) -> np.ndarray:
    """θ of π(stay|i) = .8 and π(stay|j) = stay_j."""
    return np.log([STAY_I / (1 - STAY_I), stay_j / (1 - stay_j)])


def velocity(theta: np.ndarray, damping: float | None) -> np.ndarray:
    """θ̇: ∇η, or (F + λI)⁻¹∇η where there is a damping λ."""
    policy = at(theta)
    gradient = np.asarray(WORLD.gradient(policy).theta)
    if damping is None:
        return gradient
    return np.linalg.solve(WORLD.fisher(policy) + damping * np.eye(2), gradient)


def flow(damping: float | None, stay_j: float, rtol: float = EXACT) -> Flow:
    """The flow from `start(stay_j)` until η = `END`."""
    from scipy.integrate import solve_ivp

    def above(level: float) -> Any:
        return lambda _, theta: float(WORLD.value(at(theta))) - level

    end = above(END)
    end.terminal = True
    way = solve_ivp(
        lambda _, theta: velocity(theta, damping),
        (0.0, 1e9),
        start(stay_j),
        "LSODA",  # it turns to a stiff method where the plateau begins
        rtol=rtol,
        atol=rtol,
        events=(above(TARGET), end),
    )
    thetas = way.y.T
    eta = np.array([WORLD.value(at(theta)) for theta in thetas])
    rho_j = np.array([WORLD.state_distribution(at(theta))[1] for theta in thetas])
    return Flow(way.t, thetas, eta, rho_j, float(way.t_events[0][0]))


def run(quick: bool) -> Outcome:
    """All flows; quick integrates to a relative tolerance of 1e-7 instead of 1e-10."""
    flows = [flow(one.damping, one.stay_j, 1e-7 if quick else EXACT) for one in SETTINGS]
    table = [
        {
            "flow": one.name,
            f"time to η = {TARGET}": way.reached,
            "time, reference": one.reference_time,
            "least ρ(j)": way.rho_j.min(),
            "least ρ(j), reference": one.reference_rho,
        }
        for one, way in zip(SETTINGS, flows, strict=True)
    ]
    rows = [
        {"flow": one.name, "time": t, "eta": eta, "rho(j)": rho, "theta_i": theta[0], "theta_j": theta[1]}
        for one, way in zip(SETTINGS, flows, strict=True)
        for t, eta, rho, theta in zip(way.time, way.eta, way.rho_j, way.theta, strict=True)
    ]
    return Outcome(_figure(flows), rows, _ours(flows, quick), DIFFERS, table)


def _ours(flows: Sequence[Flow], quick: bool) -> str:
    policy = at(start(0.1))
    rho, eta = WORLD.state_distribution(policy), Fraction(float(WORLD.value(policy))).limit_denominator(1000)
    gradient, natural = velocity(start(0.1), None), velocity(start(0.1), 0.0)
    fisher = np.diag(WORLD.fisher(policy))
    slow, other, damped, exact = flows
    stuck = slow.time[np.abs(slow.eta - 1.0) < 0.01]
    return (
        f"At the start (π(stay|i), π(stay|j)) = (.8, .1): ρ = ({_over(rho[0], 11)}, {_over(rho[1], 11)}), η = {eta}, "
        f"∇η = ({_over(gradient[0], 12100)}, {_over(gradient[1], 12100)}), F = diag({fisher[0]:.7f}, {fisher[1]:.7f}) "
        f"and F⁻¹∇η = ({_over(natural[0], 11)}, {_over(natural[1], 11)}): the gradient cares "
        f"{gradient[0] / gradient[1]:.1f} times as much for staying in i as in j, the natural gradient "
        f"{natural[0] / natural[1]:.2f} times. The best average is {WORLD.optimal()[0]:.0f}. The gradient flow is "
        f"within 0.01 of η = 1 from t = {stuck[0]:.3g} to {stuck[-1]:.3g}, while ρ(j) falls to {slow.rho_j.min():.3g}, "
        f"and reaches {TARGET} at t = {slow.reached:.4g}; from π(stay|j) = .2 it does at {other.reached:.4g}. The "
        f"natural flow needs {exact.reached:.3f}, and {damped.reached:.3f} with λ = 1e-3; its ρ(j) is never below "
        f"{min(exact.rho_j.min(), damped.rho_j.min()):.4f}."
        + (" (Quick: relative tolerance 1e-7, which blurs the longest time in its seventh digit.)" if quick else "")
    )


def _over(value: float, denominator: int) -> str:
    """The fraction with that denominator, or the decimals if it is none."""
    whole = round(value * denominator)
    return f"{whole}/{denominator}" if abs(value * denominator - whole) < 1e-9 * denominator else f"{value:.7g}"


DIFFERS = (
    "The paper prints curves, not times; the reference numbers beside ours are those of an independent integration. "
    "The start (.8, .1) has ρ = (9/11, 2/11); the start (.8, .2), whose ρ is (.8, .2) itself, is shown beside it: it "
    "leads to no plateau worth the name. Time is that of the flow θ̇ = ∇η: gradient ascent at a learning rate of 1 "
    "would take about as many steps. With λ = 1e-3 the natural flow is a little slower than without, as F is small, "
    "but not on that scale, on its way."
)


def _figure(flows: Sequence[Flow]) -> Any:
    styles = ("-", "--", "-", "--")
    colours = (COLOURS[1], COLOURS[1], COLOURS[0], COLOURS[0])
    with figure_style():
        figure, axes = column_figure(columns=2)
        left, right = axes[0]
        for one, way, style, colour in zip(SETTINGS, flows, styles, colours, strict=True):
            left.plot(way.time[1:], way.eta[1:], style, color=colour)
            right.plot(way.time[1:], way.rho_j[1:], style, color=colour, label=one.name)
        left.axhline(TARGET, color="0.5", lw=0.6, ls=":")
        left.text(2e4, TARGET, f"η = {TARGET}", ha="center", va="bottom", fontsize=7)
        left.text(2e4, 1.01, "plateau", ha="center", va="bottom", fontsize=7)
        left.set(xscale="log", xlabel="time of the flow", ylabel="average reward η, per step", xlim=(1e-2, 1e7))
        right.set(xscale="log", yscale="log", xlabel="time of the flow", xlim=(1e-2, 1e7))
        right.set_ylabel("ρ(j), share of steps in the better state")
        right.legend(frameon=False, loc="lower left")
    return figure


EXPERIMENT = Experiment(
    title="Two-state MDP: the gradient forgets the state that it does not visit",
    source="S. Kakade, A Natural Policy Gradient, NIPS 14 (2001), section 5, the two-state MDP of figure 2",
    shows="Two states, each with an action that stays, for a reward of 1 in i and of 2 in j, and one that crosses over "
    "for nothing. Gradient ascent on the average reward first learns to stay in i, so that j is hardly visited and the "
    "gradient vanishes there: a plateau near 1 that lasts for millions of units of time. The natural gradient goes to "
    "the optimum of 2 at once.",
    run=run,
    claims=("KB",),
)
