"""Where the time of an iteration goes: its parts one by one, nothing beside them, and the iteration as a run has it.

    python benchmarks/parts.py HalfCheetah-v5
    python benchmarks/parts.py gymnax:CartPole-v1

One measurement, one JSON object, as of ours.py; `python benchmarks/speed.py parts` takes it in rounds. The critic
is fitted beside the policy's update and the next rollout, so that an iteration may be shorter than its parts together.
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import equinox as eqx
import jax
import numpy as np
from peers.report import repeat, say

import steepest as st
from steepest.parameters import split
from steepest.sampling.unroll import begin
from steepest.training.beginning import first_snapshot, is_native, learner_of
from steepest.training.collecting import build_gather
from steepest.training.engine import ACT, Before, Engine, key_of
from steepest.training.from_workers import FromWorkers
from steepest.training.host_engine import HostEngine
from steepest.training.hosting import make_worlds, open_world, place
from steepest.training.iteration import Given, LearnerState
from steepest.training.learner import Learner
from steepest.training.native_engine import NativeEngine, NativeRuns, on_device
from steepest.training.native_program import collect
from steepest.training.persistence import Snapshot

STEPS = 10**9
"""Of a run that is never ended: long enough for workers to repay their start."""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("env")
    parser.add_argument("--algorithm", default="trpo")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=3.0, help="to measure each part for")
    arguments = parser.parse_args()
    config = st.TrainConfig(arguments.env, algorithm=arguments.algorithm, seed=arguments.seed, steps=STEPS)
    with ExitStack() as stack:
        parts, detail = measured(stack, config, arguments.seconds)
    whole = parts.pop("iteration")
    say(whole, "s", parts=parts, **detail)


def measured(stack: ExitStack, config: st.TrainConfig, seconds: float) -> tuple[dict[str, float], dict[str, Any]]:
    """(part ↦ seconds, what else there is to know) of a run by a configuration."""
    config, world, workers = place(stack, config, config.env)
    learner = learner_of(config, None)
    snapshot = first_snapshot(config, learner, world, None)
    if is_native(config, world):
        engine: Engine = NativeEngine(config, learner, world, stepwise=False)
        alone = native_collection(config, learner, world, snapshot)
    else:
        if workers is None:
            worlds = make_worlds(config, lambda envs: open_world(stack, config.env, envs))
            gather: Any = build_gather(config, worlds, snapshot.agent.policy, shared=False)
        else:
            sampling = config.sampling
            gather = FromWorkers(workers, snapshot.agent.policy, sampling.group or 1, sampling.envs or 1)
        engine = HostEngine(config, learner, gather, world.name)
        alone = host_collection(config, gather, snapshot)
    stack.callback(engine.close)
    parts = {"collect": repeat(alone, lambda: None, seconds)["value"]}
    snapshot, parts["iteration"], before = advanced(engine, snapshot, seconds)
    state, given = update_of(config, learner, world, before)
    of_learning, products = of_update(config, learner, state, given, seconds)
    sizes = {"rows": config.batch, "workers": config.sampling.workers, "products_made": products}
    return parts | of_learning, sizes | operations(config, state, products) | rates(seconds / 3)


def host_collection(config: st.TrainConfig, gather: Any, snapshot: Snapshot) -> Callable[[], Any]:
    """A rollout under the first policy, the processors its own."""
    gather.reset(config.seed)
    params, _ = split(snapshot.agent.policy)
    acted = None if snapshot.agent.normaliser is None else snapshot.agent.normaliser.scaling()
    key = key_of(config.seed, ACT, 0)

    def once() -> None:
        gather.start(params, acted, key)
        gather.finish()

    return once


def native_collection(config: st.TrainConfig, learner: Learner, world: Any, snapshot: Snapshot) -> Callable[[], Any]:
    """A rollout in a functional world, as a program of its own."""
    copies, steps = world.copies, config.sampling.rollout or 1
    carry, rest = on_device(snapshot)
    carry = carry._replace(underway=begin(copies, copies.tables, jax.random.key(config.seed), world.envs))
    program = jax.jit(lambda *these: collect(learner, rest, copies, steps, *these)[:2])
    seed, number = np.uint32(config.seed), np.int32(0)
    return lambda: jax.block_until_ready(program(copies.tables, carry, seed, number))


def advanced(engine: Engine, snapshot: Snapshot, seconds: float) -> tuple[Snapshot, float, Before]:
    """(the run after some iterations, seconds of one by the wall clock, what came before the last update)."""
    engine.reset(snapshot)
    for _ in range(3):  # all is compiled, and the length of a stretch is settled
        snapshot = engine.advance(snapshot).snapshot
    times, began = [], time.perf_counter()
    while time.perf_counter() - began < seconds or len(times) < 3:
        start, before = time.perf_counter(), snapshot.progress.iteration
        last = engine.advance(snapshot)
        snapshot = last.snapshot
        times.append((time.perf_counter() - start) / (snapshot.progress.iteration - before))
    return snapshot, statistics.median(times), last.before(0)


def update_of(config: st.TrainConfig, learner: Learner, world: Any, before: Before) -> tuple[LearnerState, Given]:
    """What an update began with, and what it was given; no longer the worker's memory."""
    if before.given is None:
        return NativeRuns(config, [config.seed], learner, world).given(before.snapshot, before.ahead)
    given = jax.tree.map(lambda x: np.array(x) if isinstance(x, np.ndarray) else x, before.given)
    return before.snapshot.learner, given


def of_update(
    config: st.TrainConfig, learner: Learner, state: LearnerState, given: Given, seconds: float
) -> tuple[dict[str, float], int]:
    """(part ↦ seconds, products with the Fisher matrix).  improve: all of the policy's update, its products too."""
    improved, lesson, step, _ = learner.improve(state, given)
    once = dataclasses.replace(config, update=dataclasses.replace(config.update, cg_iterations=1))
    least = learner_of(once, None)

    def timed(call: Callable[[], Any]) -> float:
        return repeat(lambda: jax.block_until_ready(eqx.filter(call(), eqx.is_array)), lambda: None, seconds)["value"]

    full, one = timed(lambda: learner.improve(state, given)), timed(lambda: least.improve(state, given))
    products = int(step.iterations)
    parts = {"improve": full, "fit": timed(lambda: learner.fit_critics(improved, lesson))}
    if products > 1:
        parts["products"] = (full - one) * products / (products - 1)
    return parts, products


def operations(config: st.TrainConfig, state: LearnerState, products: int) -> dict[str, float]:
    """Of the products and of the fit, in 10⁹ and to leading order, for networks of dense layers: J·v and Jᵀ·y are each
    two matrix products a layer, one in the first; a gradient is three, two in the first."""

    def weights(module: Any) -> tuple[int, int]:
        sizes = [x.size for x in jax.tree.leaves(eqx.filter(module, eqx.is_array)) if x.ndim == 2]
        return sum(sizes), sizes[0]

    (policy, first), (critic, below) = weights(state.policy), weights(state.critic)
    seen, epochs = config.batch * config.update.subsample, config.critic.epochs or 0
    return {
        "products_gflop": products * seen * (8 * policy - 4 * first) / 1e9,
        "fit_gflop": epochs * config.batch * (6 * critic - 2 * below) / 1e9,
    }


def rates(seconds: float) -> dict[str, float]:
    """10⁹ operations a second of a large matrix product, and of one as narrow as a layer of 64 units is."""
    found = {}
    for name, rows, units in (("large_gflops", 1024, 1024), ("narrow_gflops", 2048, 64), ("minibatch_gflops", 128, 64)):
        x, w = jax.numpy.ones((rows, units)), jax.numpy.full((units, units), 1 / units)
        again = max(1, 2**32 // (2 * rows * units**2))  # some 4·10⁹ operations in a program
        program = jax.jit(lambda x, w, again=again: jax.lax.fori_loop(0, again, lambda _, y: y @ w, x))
        took = repeat(lambda program=program, x=x, w=w: jax.block_until_ready(program(x, w)), lambda: None, seconds)
        found[name] = again * 2 * rows * units**2 / took["value"] / 1e9
    return found


if __name__ == "__main__":
    main()
