"""From settings to an algorithm: a name says which method, and each setting exchanges one of its parts.

    metric     --metric  --subsample  --preconditioner         objective   --entropy
    solver     --solver  --cg-iterations  --warm-start  --momentum
    damping    --damping  --damping-rule
    step       --delta  --delta-final  --divergence  --backtracks  --shrink  --damped-form

Settings that contradict one another are refused here, before anything is made or written.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from steepest.algorithms import Algorithm, LevenbergMarquardt, RelativeDamping, methods
from steepest.algorithms.damping import Damping
from steepest.errors import UsageError
from steepest.geometry import (
    Constrained,
    Decaying,
    EntropyRegularised,
    MaxKL,
    Metric,
    MirrorDescent,
    Normalised,
    Preconditioned,
    Step,
    Subsampled,
    TrustRegion,
    diagonal,
    empirical_fisher,
    euclidean,
    expected_advantage,
    fisher,
    kronecker,
    trajectory,
)
from steepest.linear import Automatic, ConjugateGradient, Direct, Factored, SampleSpace, Solver
from steepest.training.config import UpdateConfig

METRICS: dict[str, Metric] = {
    "fisher": fisher,
    "empirical-fisher": empirical_fisher,
    "trajectory": trajectory,
    "kronecker": kronecker,
}


def algorithm_of(name: str, given: str | Algorithm | None, config: UpdateConfig, updates: int = 1) -> Algorithm:
    """The algorithm of a run.  name: as a configuration has it.  given: what the user said, if anything: an algorithm,
    or a name, whose plugin is then imported.  config, updates: as of `build_algorithm`."""
    if given is not None and not isinstance(given, str):
        return given
    if given is not None:
        methods.plug(given)
    return build_algorithm(given or name, config, updates)


def build_algorithm(name: str, config: UpdateConfig, updates: int = 1) -> Algorithm:
    """The algorithm that a name and settings mean.

    updates: of the run, in all: --delta-final is reached at the last one.

    Raises UsageError for an unknown name, and for settings that contradict it or one another.
    """
    method = methods[name]
    algorithm: Algorithm = method() if config.delta is None else method(config.delta)
    _check(name, algorithm, config)
    solver = _solver(algorithm, config)
    step = _decaying(_step(algorithm.step, solver, config), config, updates)
    algorithm = dataclasses.replace(algorithm, chunk=config.chunk)
    if algorithm.solver is None:
        return dataclasses.replace(algorithm, objective=_objective(algorithm, config), step=step)
    return dataclasses.replace(
        algorithm,
        objective=_objective(algorithm, config),
        metric=_metric(algorithm, config),
        solver=solver,
        damping=_damping(config),
        step=step,
    )


def _check(name: str, algorithm: Algorithm, config: UpdateConfig) -> None:
    """Refuse what contradicts the method, or another setting, naming what would work."""
    own = algorithm.metric not in (fisher, euclidean)
    settings: dict[str, bool] = {
        "solver": config.solver != "auto",
        "metric": config.metric not in ("auto", "fisher"),  # "fisher" was the default once
        "subsample": _fraction(config) < 1,
        "preconditioner": config.preconditioner != "none",
        "warm_start": config.warm_start,
        "momentum": config.momentum > 0,
        "damping_rule": config.damping_rule != "fixed",
    }
    given = [setting for setting, chosen in settings.items() if chosen]
    if algorithm.solver is None and given:
        raise UsageError(f"{name} has no solver and no Fisher metric: leave {given[0]} at its default, or choose npg")
    if own and config.metric != "auto":
        raise UsageError(f"{name} is npg in a metric of its own: leave metric at auto, or choose npg")
    factors = config.metric == "kronecker" or (algorithm.metric == kronecker and config.metric == "auto")
    if factors and config.solver not in ("auto", "kronecker", "cg", "direct"):
        raise UsageError("Kronecker factors have no rows to solve in: leave solver at auto, or choose cg")
    if config.solver == "kronecker" and not factors:
        raise UsageError(
            "solver=kronecker inverts Kronecker factors: choose metric=kronecker too, or algorithm acktr; to keep the "
            "Fisher metric and use the factors all the same: solver=cg, preconditioner=kronecker"
        )
    effective = _solver(algorithm, config)
    iterative = isinstance(effective, ConjugateGradient)
    for setting in ("preconditioner", "warm_start"):
        if settings[setting] and not iterative:
            raise UsageError(f"{setting} is for conjugate gradients: choose solver=cg too, or leave it at its default")
    if settings["preconditioner"] and factors:
        raise UsageError("metric=kronecker is inverted exactly and needs no preconditioner: choose metric=fisher")
    if settings["momentum"] and config.solver != "sample-space":
        raise UsageError("momentum is SPRING's, of the sample-space solver: choose solver=sample-space too")
    if config.solver == "sample-space" and settings["subsample"]:
        raise UsageError(
            "a gradient of all rows is no combination of those of a subsample, which solver=sample-space needs: choose "
            "solver=cg, or leave subsample at 1"
        )
    if config.solver == "sample-space" and config.entropy and config.metric != "fisher":
        raise UsageError("entropy has no coefficient for each sample, which the empirical Fisher matrix needs in a "
                         "sample-space solve: choose metric=fisher too, or solver=cg")  # fmt: skip
    if isinstance(algorithm.step, MirrorDescent) and (factors or config.solver == "sample-space"):
        raise UsageError(f"{name} climbs on in the Fisher metric, by products: leave metric and solver at auto, or "
                         "choose solver=direct")  # fmt: skip
    if config.damped_form and (config.divergence == "max" or isinstance(algorithm.step, Constrained | MirrorDescent)):
        raise UsageError("damped_form is how npg and trpo measure a step by the mean KL: leave it out here")
    if config.divergence == "max" and not isinstance(algorithm.step, TrustRegion):
        raise UsageError(f"divergence=max is a trust region's, and {name} has none: choose trpo, or divergence=mean")
    if config.entropy and algorithm.objective != expected_advantage:
        raise UsageError(f"entropy regularises the return, and {name} has an objective of its own: choose npg or trpo")
    if config.delta_final is not None and config.delta is not None and config.delta_final > config.delta:
        raise UsageError(f"delta_final is at most delta, got {config.delta_final} > {config.delta}")


def _metric(algorithm: Algorithm, config: UpdateConfig) -> Metric:
    metric = algorithm.metric if config.metric == "auto" else METRICS[config.metric]
    if config.solver == "sample-space" and config.metric == "auto" and metric == fisher:
        metric = empirical_fisher  # one row a sample; the expected matrix has one for each parameter of a distribution
    if config.preconditioner != "none":
        metric = Preconditioned(metric, {"diagonal": diagonal, "kronecker": kronecker}[config.preconditioner])
    return Subsampled(metric, _fraction(config)) if _fraction(config) < 1 else metric


def _fraction(config: UpdateConfig) -> float:
    return 1.0 if config.subsample is None else config.subsample


def _solver(algorithm: Algorithm, config: UpdateConfig) -> Solver | None:
    if algorithm.solver is None:
        return None
    warm = config.warm_start
    solvers: dict[str, Callable[[], Solver]] = {
        "auto": lambda: _own(algorithm.solver, config),
        "cg": lambda: ConjugateGradient(config.cg_iterations, warm=warm),
        "direct": Direct,
        "sample-space": lambda: SampleSpace(momentum=config.momentum),
        "kronecker": Factored,
    }
    return solvers[config.solver]()


def _own(solver: Any, config: UpdateConfig) -> Solver:
    """The method's own solver, with the settings that it has."""
    if config.metric == "kronecker":
        return Factored()
    if isinstance(solver, ConjugateGradient):
        return dataclasses.replace(solver, iterations=config.cg_iterations, warm=config.warm_start)
    if isinstance(solver, Automatic):
        return dataclasses.replace(solver, iterations=config.cg_iterations)
    return solver


def _damping(config: UpdateConfig) -> float | Damping | None:
    """λ, or a rule that starts from it; relative: λ is that fraction of the mean diagonal."""
    if config.damping_rule == "adaptive":
        first = 0.1 if config.damping is None else config.damping
        default = LevenbergMarquardt()
        return LevenbergMarquardt(first, least=min(default.least, first), most=max(default.most, first))
    if config.damping_rule == "relative":
        return RelativeDamping() if config.damping is None else RelativeDamping(config.damping)
    return config.damping


def _objective(algorithm: Algorithm, config: UpdateConfig) -> Any:
    if not config.entropy:
        return algorithm.objective
    return EntropyRegularised(config.entropy, algorithm.objective)


def _step(step: Any, solver: Solver | None, config: UpdateConfig) -> Step:
    if isinstance(step, Normalised):
        return dataclasses.replace(step, damped_form=config.damped_form)
    searched = {"backtracks": config.backtracks, "shrink": config.shrink}
    if isinstance(step, TrustRegion) and config.divergence == "max":
        return MaxKL(step.delta, **searched)
    if isinstance(step, TrustRegion):
        return dataclasses.replace(step, damped_form=config.damped_form, **searched)
    if isinstance(step, Constrained):
        return dataclasses.replace(step, **searched)
    if isinstance(step, MirrorDescent) and solver is not None:
        return dataclasses.replace(step, solver=solver, backtracks=config.backtracks)
    return step


def _decaying(step: Any, config: UpdateConfig, updates: int) -> Step:
    if config.delta_final is None:
        return step
    return Decaying(step, over=max(1, updates - 1), to=config.delta_final / step.delta)
