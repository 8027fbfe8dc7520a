"""Why a run behaves as it does: its trust reports so far, and measurements at the policy of its last checkpoint.

    metrics.jsonl → predicted and realised, reasons, damping
    checkpoint → K rollouts as the run collects them → K batches → algorithms/diagnostics.py

What is returned is plain data; `reports/diagnosis.py` draws it and says it in sentences.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from steepest import trees
from steepest.algorithms import Algorithm
from steepest.algorithms.algorithm import default_damping
from steepest.algorithms.diagnostics import (
    along,
    batch_gradients,
    cosines,
    direction,
    natural_cosine,
    noise_rows,
    residual_curves,
    spectrum,
)
from steepest.batch import Batch
from steepest.errors import UsageError
from steepest.linear import DIRECT_UP_TO, Automatic, ConjugateGradient
from steepest.parameters import split
from steepest.runs import RunFolder, read_lines
from steepest.spaces import describe
from steepest.training.checks import check_seed
from steepest.training.config import TrainConfig
from steepest.training.hosting import shown
from steepest.training.new_batches import Loaded, all_but, collect_batches, cut, load_measured, merged
from steepest.training.persistence import needs
from steepest.training.presets import resolve
from steepest.training.settings import from_record
from steepest.worlds import is_made, make_world
from steepest.worlds.functional.protocol import is_functional_world

BATCHES = 16
"""Batches of the run's own size that are collected, if not said."""
TESTED = 6
"""Natural directions that are solved for, at most."""
COLUMNS = (
    *("predicted_kl", "kl", "predicted_improvement", "improvement", "entropy", "gradient_norm", "normaliser_kl"),
    *("iterations", "residual", "status", "damping", "backtracks", "accepted", "reason"),
)
"""Of the trust report."""


def diagnose(
    path: str | Path,
    *,
    rows: int | None = None,
    seed: int = 0,
    env: Any = None,
    algorithm: str | Algorithm | None = None,
    policy: Any = None,
    progress: Callable[[str], None] = lambda what: None,
) -> dict[str, Any]:
    """Measure a run: its updates so far, and gradient, direction, solver and spectrum at its last checkpoint.

    path: the run folder.  rows: to collect, rounded up to whole batches of the run's size; 16 of them, if not said.
    seed: of the environments and actions.  env, algorithm, policy: as for `st.resume`.
    progress: told what is done next.

    Returns a dictionary of numbers, lists and arrays: run, updates, gradient, natural, spectrum, solver, line. Writes
    nothing. Raises UsageError if `path` is no run folder, has no iteration, or `rows` are fewer than two batches.
    """
    check_seed(seed)
    folder = RunFolder.open(path)
    updates = _updates(folder)
    arrays, info = folder.load_checkpoint("last")
    needs(info, "env", env, "diagnose(path, env=…); the command line takes --env ID")
    needs(info, "algorithm", algorithm, "diagnose(path, algorithm=…); the command line cannot")
    config = from_record(folder.read_config())
    given = config.env if env is None else env
    world = make_world(
        shown(config, given), None if is_made(given) else config.sampling.envs, allow_import=env is not None
    )
    try:
        made, functional = is_made(given), is_functional_world(world)
        config = resolve(config, describe(world.action_space, "action"), world.envs if made else None, functional)
        count = _batches(rows, config)
        loaded = load_measured(config, arrays, info, algorithm, policy)
        progress(f"collecting {count} batches of {config.batch} rows")
        batches = collect_batches(loaded, world, count, seed)
    finally:
        if not is_made(given):
            world.close()
    return {
        "format": 1,
        "run": _run(folder, loaded, updates, count, seed),
        "updates": updates,
        **_measure(loaded, batches, updates, seed, progress),
    }


def _batches(rows: int | None, config: TrainConfig) -> int:
    count = BATCHES if rows is None else math.ceil(rows / config.batch)
    if count < 2:
        raise UsageError(f"rows must be more than one batch of the run's, {config.batch}, to compare with, got {rows}")
    return count


def _measure(
    loaded: Loaded, batches: Batch, updates: dict[str, Any], seed: int, progress: Callable[[str], None]
) -> dict[str, Any]:
    algorithm, policy = loaded.learner.algorithm, loaded.agent.policy
    own: Batch = jax.tree.map(lambda x: x[0], batches)
    damping, deltas = _damping(loaded, updates), _delta(loaded, updates) * 2.0 ** np.arange(-4, 5)
    progress("gradients of batches of several sizes")
    parts, per_part = cut(batches, loaded.config)
    gradients, rows = batch_gradients(algorithm, policy, parts), per_part
    sizes = [g for g in (2**i for i in range(30)) if len(rows) // g >= 2]
    pieces = len(rows) // len(batches.weight)
    whole, whole_rows = merged(gradients, rows, pieces)
    result: dict[str, Any] = {
        "gradient": {
            "rows": [g * loaded.config.batch // pieces for g in sizes],
            "cosine": [cosines(gradients, rows, g) for g in sizes],
            "noise_rows": noise_rows(whole, whole_rows),
            "norm": float(np.linalg.norm(whole[0])),
        }
    }
    progress("natural directions")
    result["natural"] = _natural(loaded, batches, damping)
    progress("spectrum of the Fisher matrix")
    found = spectrum(algorithm, policy, own, jax.random.key(seed))
    result["spectrum"] = {
        "values": found.values,
        "weights": found.weights,
        "floor": found.floor,
        "gradient_values": found.gradient.values,
        "gradient_weights": found.gradient.weights,
        "gradient_bounds": found.gradient.bounds,
    }
    progress("residuals of conjugate gradients")
    used = _iterations(loaded)
    iterations = min(100, max(30, 3 * used if used else 0, used or 0))
    lambdas = [10 * damping, damping, damping / 10, damping / 100] if damping > 0 else [0.1, 0.01, 0.001, 0.0]
    result["solver"] = {
        "name": type(algorithm.solver).__name__ if algorithm.solver is not None else None,
        "metric": type(algorithm.metric).__name__,
        "iterations": used,
        "used": damping,
        "damping": lambdas,
        "residual": residual_curves(algorithm, policy, own, lambdas, iterations),
    }
    progress("predicted and realised along the direction of an update")
    line = along(algorithm, policy, own, all_but(batches, 0), damping, deltas.tolist())
    result["line"] = {**line._asdict(), "used": float(deltas[4])}
    return result


def _natural(loaded: Loaded, batches: Batch, damping: float) -> dict[str, Any] | None:
    """Cosines of the directions of several batches with that of all other rows; None for a method without a metric."""
    algorithm, policy = loaded.learner.algorithm, loaded.agent.policy
    if algorithm.solver is None:
        return None
    found = []
    for k in range(min(TESTED, len(batches.weight))):
        _, x = direction(algorithm, policy, jax.tree.map(lambda leaf, k=k: leaf[k], batches), damping)
        found.append([float(c) for c in natural_cosine(algorithm, policy, all_but(batches, k), damping, x)])
    behaviour, parameters = np.array(found).T
    return {"rows": loaded.config.batch, "cosine": behaviour, "euclidean": parameters}


def _iterations(loaded: Loaded) -> int | None:
    """Of conjugate gradients in an update; None where it solves otherwise."""
    solver, (params, _) = loaded.learner.algorithm.solver, split(loaded.agent.policy)
    if isinstance(solver, ConjugateGradient) or (isinstance(solver, Automatic) and trees.size(params) > DIRECT_UP_TO):
        return solver.iterations
    return None


def _updates(folder: RunFolder) -> dict[str, Any]:
    """The columns of the trust report by iteration, None where a row has no such number; no row is a UsageError."""
    rows = read_lines(folder.metrics_path) if folder.metrics_path.exists() else []
    if not rows:
        raise UsageError(f"{folder.path} has no iteration in its metrics.jsonl: there is nothing to diagnose")
    columns: dict[str, Any] = {name: [row.get(f"update/{name}") for row in rows] for name in COLUMNS}
    return {"step": [row.get("step") for row in rows], **columns}


def _damping(loaded: Loaded, updates: dict[str, Any]) -> float:
    """λ of the last update that says it: an algorithm may change it from update to update."""
    said = [x for x in updates["damping"] if isinstance(x, int | float)]
    algorithm = loaded.learner.algorithm
    if said:
        return float(f"{said[-1]:.7g}")  # 0.1 went through float32
    params, _ = split(loaded.agent.policy)
    fixed = algorithm.damping if isinstance(algorithm.damping, int | float) else None
    return default_damping(params, algorithm.solver) if fixed is None else float(fixed)


def _delta(loaded: Loaded, updates: dict[str, Any]) -> float:
    """δ in nats: the step rule's own, or what its steps come to, for a rule in other units."""
    algorithm = loaded.learner.algorithm
    delta = getattr(algorithm.step, "delta", None)
    if isinstance(delta, int | float) and algorithm.solver is not None:
        return float(delta)
    said = [x for x in updates["predicted_kl"] if isinstance(x, int | float) and x > 0]
    return float(np.median(said)) if said else 0.01


def _run(folder: RunFolder, loaded: Loaded, updates: dict[str, Any], count: int, seed: int) -> dict[str, Any]:
    config, algorithm = loaded.config, loaded.learner.algorithm
    params, _ = split(loaded.agent.policy)
    return {
        "path": str(folder.path),
        "env": config.env,
        "scheme": config.sampling.scheme,
        "algorithm": algorithm.name,
        "seed": config.seed,
        "iterations": len(updates["step"]),
        "steps": loaded.steps,
        "parameters": trees.size(params),
        "batch": config.batch,
        "delta": getattr(algorithm.step, "delta", None),
        "max_backtracks": getattr(algorithm.step, "backtracks", None),
        "batches": count,
        "rows": count * config.batch,
        "sample_seed": seed,
    }
