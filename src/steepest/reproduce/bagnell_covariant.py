"""Covariant policy search: the same ways of learning in all coordinates, and what its metric costs to sample.

    θ = h(φ),  π(stay|s) = σ(θ_s)        gradient  φ̇ = ∇_φ V        covariant  φ̇ = G_φ⁻¹ ∇_φ V,  G = E[ΨΨᵀ]

    F̂ by steps  (1/NH) Σ_t ψ_t ψ_tᵀ      F̂ by paths  (1/NH) Σ_i Ψ_i Ψ_iᵀ,  Ψ_i = Σ_h ψ_ih

The flows are of the exact V and G of a finite horizon, drawn as curves in the space of policies, where one coordinate
system can be compared with another. The time of the covariant flow is the same in all of them, too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from steepest.geometry.reparameterise import reparameterise, reparameterise_by
from steepest.policies import LogLinearSoftmax
from steepest.reports.figures import COLOURS, column_figure, figure_style
from steepest.reproduce.experiment import Experiment, Outcome
from steepest.worlds.finite import evaluation, information, sample_paths, two_state
from steepest.worlds.finite.precision import exact, inwards

WORLD = two_state(horizon=20)
FEATURES = np.zeros((2, 2, 2))
FEATURES[0, 0, 0] = FEATURES[1, 0, 1] = 1.0  # θ_s is the logit of staying in s
COORDINATES: Mapping[str, Callable[[Any], Any]] = {
    "θ = φ": lambda policy: reparameterise(policy, np.eye(2)),
    "scaled, θ = (φ₁, 4φ₂)": lambda policy: reparameterise(policy, np.diag([1.0, 4.0])),
    "sheared, θ = (φ₁ + 2φ₂, φ₂)": lambda policy: reparameterise(policy, [[1.0, 2.0], [0.0, 1.0]]),
    "nonlinear, θ = sinh φ": lambda policy: reparameterise_by(policy, jnp.sinh, np.arcsinh(policy.theta)),
}
STARTS = ((0.8, 0.1), (0.9, 0.6), (0.4, 0.2))
METHODS = ("gradient", "covariant")
TITLES = {"gradient": "another curve in other coordinates", "covariant": "one curve in all coordinates"}
LASTING = {"gradient": 1e3, "covariant": 1e1}  # time of the flow, unless V is within 0.1 % of the best before
MESH = tuple((a, b) for a in np.linspace(0.06, 0.94, 12) for b in np.linspace(0.06, 0.94, 12))
SAMPLED = (0.7, 0.4)  # the policy whose Fisher matrix is estimated
PATHS, HORIZONS = 100, (1, 2, 5, 10, 20, 50, 100)
COUNTS, HORIZON = (10, 30, 100, 300, 1000), 20


class Flow(NamedTuple):
    """p, the probabilities to stay in i and j: at times shared by all flows of a method, [T,2], after the end of a flow
    where it ended; and at all that the integrator passed, [K,2], to be drawn: late moves are sudden."""

    at_times: np.ndarray
    passed: np.ndarray


def at(stay: Sequence[float]) -> LogLinearSoftmax:
    """The policy with these probabilities to stay in i and in j."""
    p = np.asarray(stay, np.float64)
    return LogLinearSoftmax(np.log(p / (1 - p)), FEATURES)


# Flows


@exact
def velocity(policy: Any, phi: Any) -> tuple[Any, Any, Any, Any]:
    """(∇_φV [2], G_φ [2,2], ∂p/∂φ [2,2] of the probabilities to stay, V) at φ."""
    return _velocity(policy, phi)


@eqx.filter_jit
def _velocity(policy: Any, phi: Any) -> tuple[Array, Array, Array, Array]:
    policy = inwards(eqx.tree_at(lambda p: p.phi, policy, phi))
    gradient = information.gradient(evaluation.value, WORLD.tables, policy).phi
    fisher = information.trajectory_fisher(WORLD.tables, policy)
    stay = _stay(policy, policy.phi)
    table = jnp.stack([stay, 1 - stay], axis=1)
    jacobian = jax.jacfwd(lambda phi: _stay(policy, phi))(policy.phi)
    return gradient, fisher, jacobian, evaluation.value(WORLD.tables, table)


@exact
def probabilities(policy: Any, phis: np.ndarray) -> Any:
    """p [T,2], to stay in i and in j, of T parameters φ."""
    return jax.vmap(lambda phi: _stay(inwards(policy), phi))(jnp.asarray(phis))


def _stay(policy: Any, phi: Array) -> Array:
    return jax.vmap(eqx.tree_at(lambda p: p.phi, policy, phi))(jnp.arange(2)).probs[:, 0]


def direction(policy: Any, phi: np.ndarray, method: str) -> tuple[np.ndarray, np.ndarray]:
    """(φ̇, ṗ) of a method: p are the probabilities to stay."""
    gradient, fisher, jacobian, _ = velocity(policy, phi)
    phi_dot = gradient if method == "gradient" else np.linalg.solve(fisher, gradient)
    return phi_dot, jacobian @ phi_dot


def curve(coordinates: str, start: Sequence[float], method: str, times: np.ndarray, rtol: float) -> Flow:
    """The flow from a policy."""
    from scipy.integrate import solve_ivp

    policy = COORDINATES[coordinates](at(start))
    best = float(WORLD.optimal()[0])

    def short_of_the_best(_: float, phi: np.ndarray) -> float:
        return 0.999 * best - float(velocity(policy, phi)[3])

    short_of_the_best.terminal = True  # type: ignore[attr-defined]
    way = solve_ivp(
        lambda _, phi: direction(policy, phi, method)[0],
        (0.0, times[-1]),
        np.asarray(policy.phi),
        "LSODA",
        rtol=rtol,
        atol=rtol,
        events=short_of_the_best,
        dense_output=True,
    )
    steps = np.interp(np.arange(0, len(way.t) - 0.9, 0.1), np.arange(len(way.t)), way.t)
    at_times, passed = (probabilities(policy, way.sol(t).T) for t in (np.minimum(times, way.t[-1]), steps))
    return Flow(at_times, passed)


def apart(curves: Mapping[tuple[str, Any, str], Flow], method: str) -> float:
    """The largest distance between policies that started as one and followed the flow for the same time."""
    first = next(iter(COORDINATES))
    found = {key: flow.at_times for key, flow in curves.items()}
    gaps = [found[name, start, method] - found[first, start, method] for name in COORDINATES for start in STARTS]
    return float(np.max(np.linalg.norm(gaps, axis=-1)))


def fields(coordinates: str) -> dict[str, np.ndarray]:
    """method ↦ ṗ at the points of the mesh, [144,2], of length 1."""
    policies = [COORDINATES[coordinates](at(point)) for point in MESH]
    out = {m: np.array([direction(policy, policy.phi, m)[1] for policy in policies]) for m in METHODS}
    return {m: arrows / np.linalg.norm(arrows, axis=1, keepdims=True) for m, arrows in out.items()}


def turned(first: np.ndarray, other: np.ndarray) -> float:
    """The largest angle between two fields, degrees."""
    cross = first[:, 0] * other[:, 1] - first[:, 1] * other[:, 0]
    return float(np.degrees(np.max(np.abs(np.arctan2(cross, np.sum(first * other, axis=1))))))


# Estimates


def estimates(paths: int, horizon: int, repeats: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """F̂ by steps and by paths, each [R,2,2], from R independent samples of N paths."""
    policy = at(SAMPLED)
    states, actions, _ = sample_paths(two_state(horizon), policy, repeats * paths, np.random.default_rng(seed))
    score = np.eye(2)[states] * ((actions == 0) - np.array(SAMPLED)[states])[..., None]  # ψ, [RN,H,2]
    score = score.reshape(repeats, paths, horizon, 2)
    total = score.sum(axis=2)
    size = paths * horizon
    return (
        np.einsum("rnhp,rnhq->rpq", score, score) / size,
        np.einsum("rnp,rnq->rpq", total, total) / size,
    )


def errors(paths: int, horizon: int, repeats: int, seed: int) -> tuple[float, float]:
    """The root-mean-square of ‖F̂ − F‖/‖F‖ (Frobenius), by steps and by paths."""
    truth = two_state(horizon).fisher(at(SAMPLED))

    def error(found: np.ndarray) -> float:
        squares = np.sum((found - truth) ** 2, axis=(1, 2))
        return float(np.sqrt(np.mean(squares)) / np.linalg.norm(truth))

    by_steps, by_paths = estimates(paths, horizon, repeats, seed)
    return error(by_steps), error(by_paths)


# The experiment


def run(quick: bool) -> Outcome:
    """Quick: looser tolerances, fewer points on a curve and fewer repetitions of each sample."""
    rtol, points, repeats = (1e-6, 100, 200) if quick else (1e-10, 300, 2000)
    times = {method: np.append(0.0, np.geomspace(1e-3, last, points)) for method, last in LASTING.items()}
    curves = {
        (name, start, method): curve(name, start, method, times[method], rtol)
        for name in COORDINATES
        for start in STARTS
        for method in METHODS
    }
    drawn = [fields(name) for name in COORDINATES]
    base = drawn[0]
    by_horizon = {h: errors(PATHS, h, repeats, seed=h) for h in HORIZONS}
    by_count = {n: errors(n, HORIZON, repeats, seed=n) for n in COUNTS}
    rows = [*_flow_rows(curves, times), *_error_rows(by_horizon, by_count)]
    table = [
        {
            "flow": method,
            "largest angle between fields, degrees": max(turned(base[method], other[method]) for other in drawn),
            "largest distance between flows of one start": apart(curves, method),
        }
        for method in METHODS
    ]
    return Outcome(
        _figure(base, curves, by_horizon, by_count), rows, _ours(table, by_horizon, by_count, quick), DIFFERS, table
    )


def _flow_rows(curves: Mapping[Any, Flow], times: Mapping[str, np.ndarray]) -> list[dict[str, Any]]:
    return [
        {
            "what": f"{method} flow: time, stay in i, in j",
            "case": f"{name} from {start}",
            "x": t,
            "y1": p[0],
            "y2": p[1],
        }
        for (name, start, method), way in curves.items()
        for t, p in zip(times[method], way.at_times, strict=True)
    ]


def _error_rows(by_horizon: Mapping[int, Any], by_count: Mapping[int, Any]) -> list[dict[str, Any]]:
    return [
        {"what": "relative error by steps, by paths", "case": f"against {name}", "x": x, "y1": steps, "y2": paths}
        for name, found in (("H", by_horizon), ("N", by_count))
        for x, (steps, paths) in found.items()
    ]


def _ours(table: Any, by_horizon: Mapping[int, Any], by_count: Mapping[int, Any], quick: bool) -> str:
    slopes = [np.polyfit(np.log(list(by_count)), np.log([pair[k] for pair in by_count.values()]), 1)[0] for k in (0, 1)]
    first, last = by_horizon[HORIZONS[0]], by_horizon[HORIZONS[-1]]
    (_, astray, distant), (_, still, together) = (row.values() for row in table)
    ratio = last[1] / last[0]
    return (
        f"In {len(COORDINATES)} coordinate systems, seen in the space of policies: the gradient's field points in "
        f"directions up to {astray:.0f}° apart on a mesh of {len(MESH)} policies, the covariant field's agree to "
        f"{still:.0e}°. From {len(STARTS)} policies, those that follow the gradient for the same time come to lie up "
        f"to {distant:.2f} apart, those that follow the covariant flow {together:.0e}, which is the integrator's "
        f"error. With {PATHS} paths the root-mean-square error of F̂ by steps falls from {first[0]:.3f} of ‖F‖ at H = "
        f"{HORIZONS[0]} to {last[0]:.4f} at H = {HORIZONS[-1]}; by paths it goes from {first[1]:.3f} to {last[1]:.3f}: "
        f"a path of any length is one sample, and {ratio**2:.0f} times the paths would be needed to make that good. "
        f"At H = {HORIZON} both errors shrink with the number of paths, with slopes {slopes[0]:.2f} and "
        f"{slopes[1]:.2f} on logarithmic axes. The grey arrows are the field in the coordinates θ = φ."
        + (" (Quick: fewer points and repetitions.)" if quick else "")
    )


DIFFERS = (
    "We reproduce the paper's statement, not its experiments, whose numbers we do not state. The covariant flow is one "
    "and the same in any smooth coordinates; steps of finite length agree exactly in linear coordinates, and to first "
    "order in nonlinear ones. Both estimates of the metric are unbiased; the one by steps leaves out cross terms, and "
    "their mean is 0."
)


def _figure(
    arrows: Mapping[str, np.ndarray], curves: Any, by_horizon: Mapping[int, Any], by_count: Mapping[int, Any]
) -> Any:
    with figure_style():
        figure, axes = column_figure(rows=2, columns=2, height=3.0)
        for ax, method in zip(axes[0], METHODS, strict=True):
            _phase(ax, arrows[method], curves, method)
        lines, names = axes[0, 0].get_legend_handles_labels()
        figure.legend(lines, names, loc="outside upper center", ncols=4, frameon=False)
        for ax, found, label in (
            (axes[1, 0], by_horizon, f"horizon H, steps ({PATHS} paths)"),
            (axes[1, 1], by_count, f"number of paths N (H = {HORIZON})"),
        ):
            steps, paths = np.array(list(found.values())).T
            ax.loglog(list(found), paths, "o-", ms=3, color=COLOURS[1], label="by paths, Σ ΨΨᵀ/NH")
            ax.loglog(list(found), steps, "s-", ms=3, color=COLOURS[0], label="by steps, Σ ψψᵀ/NH")
            ax.set(xlabel=label, ylabel="relative error of F̂, root mean square", ylim=(4e-3, 1))
        axes[1, 0].legend(frameon=False, loc="upper right")
    return figure


def _phase(ax: Any, arrows: np.ndarray, curves: Any, method: str) -> None:
    ax.quiver(*np.array(MESH).T, *arrows.T, color="0.8", scale=20, width=0.004, pivot="mid", zorder=1)
    widths = (4.0, 2.8, 1.7, 0.7) if method == "covariant" else (1.3,) * 4  # lines on each other, all to be seen
    for colour, width, name in zip(COLOURS, widths, COORDINATES, strict=False):
        for start in STARTS:
            way = curves[name, start, method].passed
            label = name if start == STARTS[0] else None
            ax.plot(way[:, 0], way[:, 1], color=colour, lw=width, label=label, zorder=2)
    ax.plot(*np.array(STARTS).T, "o", color="black", ms=4, zorder=3)
    ax.set(
        xlim=(-0.02, 1.02), ylim=(0, 1.02), xlabel="π(stay|i)", ylabel="π(stay|j)", title=f"{method}: {TITLES[method]}"
    )
    ax.grid(visible=False)


EXPERIMENT = Experiment(
    title="Covariant policy search: coordinates do not matter, and paths make noisy estimates of the metric",
    source="J. A. Bagnell & J. Schneider, Covariant Policy Search, IJCAI 2003",
    shows="A policy is a distribution of paths, and the Fisher information of that distribution is the one metric that "
    "does not depend on how policies are parameterised. Steepest ascent in it follows the same curve through the space "
    "of policies in all coordinates, which gradient ascent does not; the metric can be estimated from sampled paths.",
    run=run,
    claims=("BS", "R8", "R9", "R18"),
)
