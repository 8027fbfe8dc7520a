"""TRPO's own comparison: single path, vine, empirical Fisher matrix, maximum KL, and a natural gradient of fixed rate.

    single path        ½ΔᵀFΔ = δ, then a line search on L and the mean KL
    vine               the same, with L from branches in states that the simulator is put back into
    empirical Fisher   the same as single path, with F̂ = Σ w ∇ln π ∇ln πᵀ over the actions that were taken
    maximum KL         the same, with the largest KL of any visited state in place of the mean
    fixed rate         Δ = β·F⁻¹g, β the median of those that the single path of the first seed took

All count simulator steps, those of branches too. An environment's runs are short trainings by the library's own loop.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from steepest.errors import RunError
from steepest.reports.figures import COLOURS, column_figure, figure_style
from steepest.reproduce.experiment import Experiment, Outcome
from steepest.runs import RunFolder, read_lines
from steepest.training.composition import build_algorithm
from steepest.training.config import PolicyConfig, SamplingConfig, TrainConfig, UpdateConfig
from steepest.training.train import train

DELTA = 0.01
POINTS = 10  # evaluations along a run
EPISODES = 5  # of each


class Task(NamedTuple):
    """An environment, how long and how often it is trained on, and the paper's network for one of its kind."""

    env: str
    steps: int
    seeds: int
    hidden: tuple[int, ...]
    gamma: float = 0.99


QUICK = (Task("CartPole-v1", 12_288, 2, (30,)), Task("Swimmer-v5", 16_384, 1, (30,)))
FULL = (
    Task("CartPole-v1", 40_960, 5, (30,)),
    Task("Swimmer-v5", 204_800, 3, (30,)),
    Task("Hopper-v5", 307_200, 3, (50,)),
)
METHODS: Mapping[str, tuple[UpdateConfig, str]] = {
    "single path": (UpdateConfig(delta=DELTA), "single-path"),
    "vine": (UpdateConfig(delta=DELTA), "vine"),
    "empirical Fisher": (UpdateConfig(delta=DELTA, metric="empirical-fisher"), "single-path"),
    "maximum KL": (UpdateConfig(delta=DELTA, divergence="max"), "single-path"),
}
FIXED = "fixed rate"


class Curve(NamedTuple):
    """One run: simulator steps [T], deterministic returns [T] of its evaluations, the steps β of its updates, and
    whether it broke, with an action that was not finite."""

    steps: np.ndarray
    returns: np.ndarray
    betas: np.ndarray
    broke: bool


def run(quick: bool) -> Outcome:
    """Train, draw, say."""
    wanted = QUICK if quick else FULL
    tasks = [task for task in wanted if task.env == "CartPole-v1" or importlib.util.find_spec("mujoco")]
    curves: dict[tuple[str, str], list[Curve]] = {}
    rates: dict[str, float] = {}
    for task in tasks:
        for name, (update, scheme) in METHODS.items():
            curves[task.env, name] = [_train(task, update, scheme, None, seed) for seed in range(task.seeds)]
        rates[task.env] = float(np.median(curves[task.env, "single path"][0].betas))
        plain, _ = METHODS["single path"]
        curves[task.env, FIXED] = [
            _train(task, plain, "single-path", rates[task.env], seed) for seed in range(task.seeds)
        ]
    table = [_summary(task, name, curves[task.env, name]) for task in tasks for name in (*METHODS, FIXED)]
    left = [task.env for task in wanted if task not in tasks]
    return Outcome(_draw(tasks, curves), list(_rows(curves)), _ours(tasks, table, rates, quick, left), DIFFERS, table)


def _train(task: Task, update: UpdateConfig, scheme: Any, rate: float | None, seed: int) -> Curve:
    """One run in a folder that is thrown away. rate: of the natural gradient of fixed rate; None for TRPO."""
    from steepest.geometry import Fixed

    config = TrainConfig(
        task.env,
        steps=task.steps,
        seed=seed,
        update=update if rate is None else UpdateConfig(),
        sampling=SamplingConfig(scheme=scheme, gamma=task.gamma),
        policy=PolicyConfig(task.hidden),
        tensorboard=False,
    )
    evaluation = dataclasses.replace(
        config.evaluation, every=task.steps // POINTS, episodes=EPISODES, final_episodes=EPISODES
    )
    config = dataclasses.replace(config, evaluation=evaluation)
    algorithm: Any = "trpo"
    if rate is not None:
        algorithm = dataclasses.replace(build_algorithm("npg", UpdateConfig(damping=0.1)), step=Fixed(rate))
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        broke = False
        try:
            train(task.env, algorithm, config=config, out=out)
        except RunError:  # a policy or an action that is not finite any more: a fixed rate has no bound
            broke = True
        rows = read_lines(RunFolder(out).metrics_path)
        jax.clear_caches()  # a process has room for so many compiled programs, and these are not used again
    seen = [row for row in rows if "evaluation/mean" in row]
    steps = np.array([row["step"] for row in seen], float)
    betas = np.array([row["update/step_size"] for row in rows if row["update/accepted"]], float)
    return Curve(steps, np.array([row["evaluation/mean"] for row in seen], float), betas, broke)


def _grid(runs: Sequence[Curve]) -> tuple[np.ndarray, np.ndarray]:
    """Common steps [T], and the returns of the runs there [seeds,T]: of the last evaluation before, NaN if none was."""
    longest = max((curve.steps for curve in runs), key=len)
    returns = np.full((len(runs), len(longest)), np.nan)
    for i, curve in enumerate(runs):
        if len(curve.steps):
            last = np.searchsorted(curve.steps, longest, side="right") - 1
            returns[i] = np.where(last >= 0, curve.returns[np.maximum(last, 0)], np.nan)
    return longest, returns


def _summary(task: Task, name: str, runs: Sequence[Curve]) -> dict[str, Any]:
    finals = np.array([np.nan if curve.broke or not len(curve.returns) else curve.returns[-1] for curve in runs])
    means = np.array([curve.returns.mean() if len(curve.returns) else np.nan for curve in runs])
    error = finals.std(ddof=1) / np.sqrt(len(finals)) if len(finals) > 1 else np.nan
    return {
        "environment": task.env,
        "method": name,
        "seeds": len(runs),
        "final return": f"{np.mean(finals):.1f}" + ("" if np.isnan(error) else f" ± {error:.1f}"),
        "lowest seed": f"{np.min(finals):.1f}",
        "mean over the run": f"{np.mean(means):.1f}",
        "broke": f"{sum(curve.broke for curve in runs)} of {len(runs)}",
    }


def _rows(curves: Mapping[tuple[str, str], Sequence[Curve]]) -> Any:
    for (env, name), runs in curves.items():
        for seed, curve in enumerate(runs):
            for steps, value in zip(curve.steps, curve.returns, strict=True):
                yield {"environment": env, "method": name, "seed": seed, "steps": int(steps), "return": float(value)}


def _draw(tasks: Sequence[Task], curves: Mapping[tuple[str, str], Sequence[Curve]]) -> Any:
    with figure_style():
        figure, axes = column_figure(columns=len(tasks))
        for task, ax in zip(tasks, np.ravel(axes), strict=True):
            for colour, name in zip(COLOURS, (*METHODS, FIXED), strict=False):
                steps, returns = _grid(curves[task.env, name])
                mean = returns.mean(axis=0)
                ax.plot(steps / 1000, mean, color=colour, label=name)
                if len(returns) > 1:
                    spread = returns.std(axis=0, ddof=1) / np.sqrt(len(returns))
                    ax.fill_between(steps / 1000, mean - spread, mean + spread, color=colour, alpha=0.15, lw=0)
            ax.set_xlabel("simulator steps, thousands")
            ax.set_ylabel("return of the mode")
            ax.set_title(f"{task.env}, {task.seeds} seed{'s' if task.seeds > 1 else ''}")
        figure.legend(*np.ravel(axes)[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
        return figure


def _ours(
    tasks: Sequence[Task], table: Sequence[Mapping[str, Any]], rates: Mapping[str, float], quick: bool, left: list[str]
) -> str:
    def say(row: Mapping[str, Any]) -> str:
        if row["broke"].startswith("0 "):
            return f"{row['method']} {row['final return']}"
        return f"{row['method']} broke in {row['broke']} (an action that was not finite)"

    parts = []
    for task in tasks:
        rows = [row for row in table if row["environment"] == task.env]
        parts.append(
            f"{task.env} after {task.steps:,} steps (mean ± standard error over {task.seeds} seed(s)): "
            + ", ".join(map(say, rows))
            + f"; the fixed rate was {rates[task.env]:.3g}."
        )
    if quick:
        parts.append("The full version has more seeds, more steps, and Hopper-v5.")
    if left:
        parts.append(f"Without the extra [mujoco], {', '.join(left)} was left out.")
    return " ".join(parts)


DIFFERS = (
    "The paper's single path and vine use discounted sums of rewards alone and far larger batches (50 000 steps an "
    "iteration for Swimmer, a million for Hopper); here advantages are those of GAE with a critic, and branches end in "
    "the critic's value. The paper chose the rate of its natural gradient by a search; here it is the median of what "
    "TRPO itself did, so that only its being fixed is compared. The paper's maximum KL was over all states of a small "
    "cart-pole problem; here over the states that were visited."
)

EXPERIMENT = Experiment(
    title="TRPO: single path, vine, and the variants it was compared with",
    source="Schulman, Levine, Moritz, Jordan & Abbeel, Trust Region Policy Optimization, ICML 2015, figure 4",
    shows="Learning curves on cart-pole and locomotion tasks: single path and vine solve all of them; a natural "
    "gradient of fixed step and the empirical Fisher matrix do as well on the easy ones; the maximum KL is slower.",
    run=run,
    claims=("VINE1",),
)
