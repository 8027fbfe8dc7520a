"""Why a run behaves as it does: its trust reports so far, and measurements at the policy of its last checkpoint.

    metrics.jsonl → predicted and realised, reasons, damping
    checkpoint → K rollouts as the run collects them → K batches → algorithms/diagnostics.py

What is returned is plain data; `reports/diagnosis.py` draws it and says it in sentences.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from steepest import trees
from steepest.agent import Agent, compile_actor, normalise
from steepest.algorithms import Algorithm
from steepest.algorithms.algorithm import default_damping
from steepest.algorithms.diagnostics import (
    along,
    batch_gradients,
    cosines,
    direction,
    metric_of,
    natural_cosine,
    noise_rows,
    residual_curves,
    spectrum,
)
from steepest.batch import Batch, Rollout
from steepest.critics import Critic
from steepest.errors import UsageError
from steepest.normaliser import Scaling
from steepest.parameters import split
from steepest.runs import RunFolder, read_lines
from steepest.sampling.advantages import batch_from_rollout, gae
from steepest.sampling.rollout import Collector
from steepest.spaces import describe
from steepest.training.assembly import build_algorithm, build_critic, build_learner
from steepest.training.config import TrainConfig, check_seed, from_record
from steepest.training.learner import Learner
from steepest.training.persistence import needs, restore_agent, restore_critic
from steepest.training.presets import resolve
from steepest.worlds import is_made, make_world
from steepest.worlds.world import World

BATCHES = 16
"""Batches of the run's own size that are collected, if not said."""
PARTS = 4
"""A batch is also cut into so many, where its steps can be."""
TESTED = 8
"""Natural directions that are solved for, at most."""
COLUMNS = (
    "predicted_kl kl predicted_improvement improvement entropy gradient_norm iterations residual status damping "
    "backtracks accepted reason normaliser_kl"
).split()


class Loaded(NamedTuple):
    """What of a run is measured. reward_scale: of the critic's rewards.  scaling: of the observations."""

    config: TrainConfig
    learner: Learner
    agent: Agent
    critic: Critic
    reward_scale: np.float32
    scaling: Scaling | None
    steps: int


def diagnose(
    path: str | Path,
    *,
    rows: int | None = None,
    seed: int = 0,
    env: Any = None,
    algorithm: Algorithm | None = None,
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
    world = make_world(given, None if is_made(given) else config.sampling.envs, allow_import=env is not None)
    try:
        config = resolve(config, describe(world.action_space, "action"), world.envs if is_made(given) else None)
        count = _batches(rows, config)
        loaded = _load(config, arrays, info, algorithm, policy)
        progress(f"collecting {count} batches of {config.batch} rows")
        batches = _collect(loaded, world, count, seed)
    finally:
        if not is_made(given):
            world.close()
    return {
        "format": 1,
        "run": _run(folder, loaded, updates, count, seed),
        "updates": updates,
        **_measure(loaded, batches, updates, seed, progress),
    }


def batch_of(
    learner: Learner, critic: Critic, rollout: Rollout, scaling: Scaling | None, reward_scale: np.float32
) -> Batch:
    """The batch that the learner makes of a rollout: observations as the policy takes them, advantages by GAE."""
    return _batch_of(learner, critic, rollout, scaling, reward_scale)


@eqx.filter_jit
def _batch_of(learner: Learner, critic: Critic, rollout: Rollout, scaling: Any, reward_scale: Array) -> Batch:
    obs, next_obs = normalise(scaling, rollout.obs), normalise(scaling, rollout.next_obs)
    value, next_value = (jax.vmap(jax.vmap(critic))(x) for x in (obs, next_obs))
    ends = rollout.terminated, rollout.truncated
    reward = rollout.reward / reward_scale
    advantage, _ = gae(
        reward, value, next_value, *ends, rollout.valid, gamma=learner.gamma, lam=learner.gae_lambda
    )  # fmt: skip
    raw, done = advantage * reward_scale, rollout.terminated | rollout.truncated
    return batch_from_rollout(
        obs, rollout.action, raw, rollout.valid, done, centre=learner.centre, segment=learner.segment
    )


def _load(config: TrainConfig, arrays: Any, info: Any, algorithm: Algorithm | None, policy: Any) -> Loaded:
    method = build_algorithm(config.algorithm, config.update) if algorithm is None else algorithm
    if method.damping is None:
        method = dataclasses.replace(method, damping=config.update.damping)
    agent = restore_agent(arrays, info, policy)
    critic, scale = restore_critic(build_critic(config, agent.observation, jax.random.key(0)), arrays)
    scaling = None if agent.normaliser is None else agent.normaliser.scaling()
    steps = int(info.get("progress", {}).get("steps", 0))
    return Loaded(config, build_learner(config, method), agent, critic, scale, scaling, steps)


def _batches(rows: int | None, config: TrainConfig) -> int:
    count = BATCHES if rows is None else math.ceil(rows / config.batch)
    if count < 2:
        raise UsageError(f"rows must be more than one batch of the run's, {config.batch}, to compare with, got {rows}")
    return count


def _collect(loaded: Loaded, world: World, count: int, seed: int) -> Batch:
    """`count` batches of consecutive rollouts, their leaves stacked on a first axis."""
    collector, steps = Collector(world), loaded.config.sampling.rollout
    assert steps is not None
    collector.reset(int(np.random.SeedSequence((seed, 0)).generate_state(1)[0] >> 1))
    act, (params, _) = compile_actor(loaded.agent.policy), split(loaded.agent.policy)
    batches = []
    for k in range(count):
        key = jax.random.fold_in(jax.random.key(seed), k)
        rollout, _ = collector.collect(lambda obs, t, key=key: act(params, loaded.scaling, obs, key, t), steps)
        batches.append(batch_of(loaded.learner, loaded.critic, rollout, loaded.scaling, loaded.reward_scale))
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *batches)


def _measure(
    loaded: Loaded, batches: Batch, updates: dict[str, Any], seed: int, progress: Callable[[str], None]
) -> dict[str, Any]:
    algorithm, policy = loaded.learner.algorithm, loaded.agent.policy
    own: Batch = jax.tree.map(lambda x: x[0], batches)
    damping, deltas = _damping(loaded, updates), _delta(loaded, updates) * 2.0 ** np.arange(-4, 5)
    progress("gradients of batches of several sizes")
    parts, per_part = _parts(batches, loaded.config)
    gradients, rows = batch_gradients(algorithm.objective, policy, parts), per_part
    sizes = [g for g in (2**i for i in range(30)) if len(rows) // g >= 2]
    pieces = len(rows) // len(batches.weight)
    whole, whole_rows = _merge(gradients, rows, pieces)
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
    found = spectrum(algorithm.objective, policy, own, jax.random.key(seed))
    result["spectrum"] = {
        "values": found.values,
        "weights": found.weights,
        "floor": found.floor,
        "gradient_values": found.gradient.values,
        "gradient_weights": found.gradient.weights,
        "gradient_bounds": found.gradient.bounds,
    }
    progress("residuals of conjugate gradients")
    used = getattr(algorithm.solver, "iterations", None)
    iterations = min(100, max(30, 3 * used if isinstance(used, int) else 0))
    lambdas = [10 * damping, damping, damping / 10, damping / 100] if damping > 0 else [0.1, 0.01, 0.001, 0.0]
    result["solver"] = {
        "name": type(algorithm.solver).__name__ if algorithm.solver is not None else None,
        "metric": type(metric_of(algorithm)).__name__,
        "iterations": used,
        "used": damping,
        "damping": lambdas,
        "residual": residual_curves(algorithm, policy, own, lambdas, iterations),
    }
    progress("predicted and realised along the direction of an update")
    line = along(algorithm, policy, own, _without(batches, 0), damping, deltas.tolist())
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
        found.append([float(c) for c in natural_cosine(algorithm, policy, _without(batches, k), damping, x)])
    behaviour, parameters = np.array(found).T
    return {"rows": loaded.config.batch, "cosine": behaviour, "euclidean": parameters}


def _without(batches: Batch, k: int) -> Batch:
    """All batches but the k-th as one, its rows with weight 0: always of the same shape, compiled once."""
    count, rows = batches.weight.shape
    share = jnp.where(jnp.arange(count) == k, 0.0, jnp.sum(batches.weight > 0, axis=1))
    weight = batches.weight * (share / jnp.sum(share))[:, None]
    segment = batches.segment + rows * jnp.arange(count, dtype=batches.segment.dtype)[:, None]
    apart = batches._replace(weight=weight, segment=segment)
    return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), apart)


def _parts(batches: Batch, config: TrainConfig) -> tuple[Batch, np.ndarray]:
    """Every batch cut in time into PARTS where its steps can be, with weights of their own; and their valid rows."""
    pieces = math.gcd(PARTS, config.sampling.rollout or 1)
    cut = jax.tree.map(lambda x: x.reshape(-1, x.shape[1] // pieces, *x.shape[2:]), batches)
    valid = np.asarray(jnp.sum(cut.weight > 0, axis=1), np.float64)
    total = jnp.sum(cut.weight, axis=1, keepdims=True)
    return cut._replace(weight=cut.weight / jnp.where(total > 0, total, 1.0)), valid


def _merge(gradients: np.ndarray, rows: np.ndarray, pieces: int) -> tuple[np.ndarray, np.ndarray]:
    """The gradients of whole batches from those of their parts."""
    share = rows.reshape(-1, pieces)
    total = share.sum(1)
    return np.einsum("kp,kpd->kd", share / total[:, None], gradients.reshape(*share.shape, -1)), total


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
    return default_damping(params, algorithm.solver) if algorithm.damping is None else algorithm.damping


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
