"""This library's side of the benchmarks: one measurement, one JSON object, through its public names alone.

    update                     one TRPO update and critic fit on the batch of peers/problem.py: seconds
    fisher                     one product with the Fisher matrix: seconds, and its share of the device's peak
    throughput ENV             steps a second, all in
    start ENV [--warm]         seconds from the command to the first update
    compilation ENV            seconds of tracing, lowering and compiling all programs of a run, with no cache
    solve ENV                  seconds from the command to the prompt, stopped at a return of 475
    seeds ENV [--apart]        seconds of 16 seeds in one program, or of 16 runs one after another
    learn ENV                  a whole run by the default settings: curve, and a final evaluation

`--set name=value` passes any setting on in Python: --set update.chunk=8192. What measures the command line itself takes
its options as they are: --options="--envs 32".
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from peers.problem import ACTION, OBSERVATION, problem
from peers.report import Rate, peak_mib, repeat, resident_mib, say, since_command

COMMAND = (sys.executable, "-m", "steepest.cli")


def update(arguments: argparse.Namespace) -> None:
    """The whole of `Learner.update`: advantages, policy, critic, report. Each time from the same state."""
    import jax

    import steepest as st
    from steepest.batch import Rollout
    from steepest.critics import MlpValue
    from steepest.training.assembly import build_learner
    from steepest.training.composition import build_algorithm
    from steepest.training.iteration import Given
    from steepest.training.presets import resolve
    from steepest.training.settings import with_settings

    hidden = (arguments.hidden, arguments.hidden)
    settings = {
        "update.delta": 0.01,
        "update.damping": 0.1,
        "update.cg_iterations": arguments.products,
        "critic.epochs": arguments.epochs,
        "critic.minibatch": arguments.minibatch,
        "sampling.envs": 16,
        "sampling.rollout": arguments.samples // 16,
    }
    config = with_settings(st.TrainConfig("HalfCheetah-v5"), settings | arguments.settings)
    config = resolve(config, _box())
    learner = build_learner(config, build_algorithm("trpo", config.update))
    data = problem(arguments.samples)
    policy = st.MlpGaussian(OBSERVATION, ACTION, hidden, key=jax.random.key(0))
    state = learner.init(policy, MlpValue(OBSERVATION, hidden, key=jax.random.key(1)))
    never = np.zeros_like(data.terminated)
    rollout = Rollout(data.obs, data.action, data.reward, data.next_obs, data.terminated, never, ~never)
    given, info = Given(rollout, None, None, np.float32(1.0), jax.random.key(2)), None
    before = resident_mib()

    def once() -> None:
        nonlocal info
        _, info = jax.block_until_ready(learner.update(state, given))

    if arguments.once:
        start = time.perf_counter()
        once()
        timing = {"value": time.perf_counter() - start}
    else:
        timing = repeat(once, lambda: None, arguments.seconds)
    assert info is not None
    step = {name: float(getattr(info.step, name)) for name in ("kl", "iterations", "backtracks", "accepted")}
    batch = sum(np.asarray(x).nbytes for x in rollout if x is not None) / 2**20
    say(timing.pop("value"), "s", **timing, before_mib=before, peak_mib=peak_mib(), batch_mib=batch, **step)


def _box() -> Any:
    from steepest.spaces import Box

    return Box(np.full(ACTION, -1.0, np.float32), np.full(ACTION, 1.0, np.float32))


def fisher(arguments: argparse.Namespace) -> None:
    """One product with F, of twenty in a program.  share: of what a large matrix product reaches in the same precision.

    Operations, to leading order: J·v and Jᵀ·y are each two matrix products a layer, one in the first.
    """
    import jax
    import jax.numpy as jnp

    import steepest as st
    from steepest.batch import Batch
    from steepest.geometry import linearise

    hidden, n, products = (arguments.hidden, arguments.hidden), arguments.samples, 20
    policy = st.MlpGaussian(OBSERVATION, ACTION, hidden, key=jax.random.key(0))
    obs = jax.random.normal(jax.random.key(1), (n, OBSERVATION))
    one = jnp.ones((n, 1))
    batch = Batch(obs, one[:, 0] / n, jnp.zeros((n, 1, ACTION)), one, one, jnp.arange(n))

    @jax.jit
    def power(policy: Any) -> Any:
        """F applied again and again, each time to what came out."""
        local = linearise(policy, obs)
        operator = st.fisher.operator(local, batch)

        def again(v: Any, _: None) -> tuple[Any, None]:
            v = operator(v)
            norm = jnp.sqrt(sum(jnp.vdot(x, x) for x in jax.tree.leaves(v)))
            return jax.tree.map(lambda x: x / norm, v), None

        return jax.lax.scan(again, jax.tree.map(jnp.ones_like, local.params), None, products)[0]

    square = jax.random.normal(jax.random.key(2), (arguments.square, arguments.square))
    multiply = jax.jit(lambda a: a @ a)
    timing = repeat(lambda: jax.block_until_ready(power(policy)), lambda: None, arguments.seconds)
    peak = repeat(lambda: jax.block_until_ready(multiply(square)), lambda: None, arguments.seconds)
    weights = [x.size for x in jax.tree.leaves(policy) if getattr(x, "ndim", 0) == 2]
    seconds = timing["value"] / products
    rate, best = n * (8 * sum(weights) - 4 * weights[0]) / seconds, 2 * arguments.square**3 / peak["value"]
    device = jax.devices()[0].device_kind
    say(seconds, "s", gflops=rate / 1e9, peak_gflops=best / 1e9, share=rate / best, device=device)


def throughput(arguments: argparse.Namespace) -> None:
    """All in: environments, updates, run folder and logs, as metrics.jsonl grows."""
    rate, first = Rate(arguments.skip, arguments.seconds), (0, 0.0)
    with tempfile.TemporaryDirectory() as folder:
        steps = str(arguments.steps or 10**12)
        for done, seconds in _watch(arguments, Path(folder), "run", "--steps", steps, *arguments.options.split()):
            first = first if first[0] else (done, seconds)
            if rate(done):
                break
        sampling = json.loads((Path(folder) / "run" / "config.json").read_text())["sampling"]
    said = {name: sampling.get(name) for name in ("envs", "rollout", "workers", "group")}
    compilation = first[1] - first[0] / rate.value
    say(rate.value, "steps/s", steps=rate.steps, warm_up=rate.warm_up, start_and_compilation=compilation, **said)


def start(arguments: argparse.Namespace) -> None:
    """Until the first line of metrics.jsonl is there.  Cold: no compiled program is kept.  Warm: of one run before."""
    with tempfile.TemporaryDirectory() as folder:
        first = 0.0
        for name in ("priming", "run") if arguments.warm else ("run",):
            _, first = next(_watch(arguments, Path(folder), name, "--steps", str(10**8)))
        say(first, "s")


def compilation(arguments: argparse.Namespace) -> None:
    """While anything was traced, lowered or compiled, of a run of two iterations without an evaluation: by the wall
    clock, since some of it is done in threads, and tracing is nested."""
    import jax

    import steepest as st

    spent: list[tuple[float, float]] = []  # from when to when

    def heard(event: str, duration_secs: float, **_: str | int) -> None:
        if event.startswith("/jax/core/compile/"):
            spent.append((time.perf_counter() - duration_secs, time.perf_counter()))

    jax.config.update("jax_enable_compilation_cache", False)
    jax.monitoring.register_event_duration_secs_listener(heard)
    with tempfile.TemporaryDirectory() as folder:
        given = {"evaluation.every": 0, "evaluation.final_episodes": 1, "out": Path(folder) / "run", "steps": 4096}
        st.train(arguments.env, seed=arguments.seed, **given | arguments.settings)
    total, until = 0.0, 0.0
    for begin, end in sorted(spent):
        total += max(0.0, end - max(begin, until))
        until = max(until, end)
    say(total, "s")


def _watch(arguments: argparse.Namespace, folder: Path, name: str, *options: str) -> Iterator[tuple[int, float]]:
    """`steepest train ENV`, its run and its compilation cache in the folder: (steps, seconds since the command) each
    time that metrics.jsonl has grown. The command is told to stop when nobody looks any more: killed, its workers would
    be nobody's, and their time no longer ours."""
    log, size = folder / name / "metrics.jsonl", 0
    quiet = ("--evaluation.every", "0", "--evaluation.final-episodes", "1", "--quiet", "--out", str(folder / name))
    command, began = [*COMMAND, "train", arguments.env, *quiet, *options], time.time()
    process = subprocess.Popen(command, env=_with_cache(folder), stdout=subprocess.DEVNULL)
    try:
        while True:
            ended = process.poll()
            written = log.read_bytes() if log.exists() and log.stat().st_size > size else b""
            if b"\n" in written[size:]:
                last = written[: written.rindex(b"\n")].rsplit(b"\n", 1)[-1]
                size = len(written)
                yield json.loads(last)["step"], time.time() - began
            elif ended is not None:
                break
            time.sleep(0.005)
        if ended or not size:
            raise SystemExit(f"{' '.join(command)} ended with exit code {ended}")
    finally:
        process.terminate()
        process.wait()


def solve(arguments: argparse.Namespace) -> None:
    """The command alone, with a warm compilation cache; it stops at the first evaluation of 475 or more."""
    with tempfile.TemporaryDirectory() as folder:
        command = [*COMMAND, "train", arguments.env, "--steps", "100_000", "--stop-at-return", str(arguments.target)]
        command += ["--json", "--seed", str(arguments.seed)]
        said: dict[str, Any] = {}
        seconds = 0.0
        for name in ("priming", "run"):
            began = time.time()
            out = ["--out", str(Path(folder) / name)]
            done = subprocess.run([*command, *out], check=True, stdout=subprocess.PIPE, env=_with_cache(Path(folder)))
            seconds, said = time.time() - began, json.loads(done.stdout)
        if said["return_mean"] < arguments.target and "reached" not in said["ended"]:
            raise SystemExit(f"{arguments.target:g} not reached: {said}")
        say(seconds, "s", run_seconds=said["seconds"], wall_seconds=said["wall_seconds"], steps=said["steps"])


def seeds(arguments: argparse.Namespace) -> None:
    """Commands alone, with a warm compilation cache.  Apart: one run for each seed, one after another."""
    shared = ["--steps", str(arguments.steps or 100_000), "--evaluation.every", "0", "--json"]
    with tempfile.TemporaryDirectory() as folder:

        def train(*options: str) -> None:
            command = [*COMMAND, "train", arguments.env, *shared, *options]
            subprocess.run(command, check=True, stdout=subprocess.PIPE, env=_with_cache(Path(folder)), cwd=folder)

        count = str(arguments.count)
        train("--seeds", count) if not arguments.apart else train("--seed", "1000")
        began = time.time()
        if arguments.apart:
            for seed in range(arguments.count):
                train("--seed", str(seed))
        else:
            train("--seeds", count)
        say(time.time() - began, "s", seeds=arguments.count)


def learn(arguments: argparse.Namespace) -> None:
    """A run by the default settings, until its steps are done or its seconds are over.

    The clock starts with the command and stands still in evaluations.
    """
    import steepest as st

    curve, away, seconds = [], 0.0, 0.0

    def after(event: Any) -> str | None:
        nonlocal away, seconds
        seconds = since_command() - away
        if arguments.every and event.steps // arguments.every > len(curve):
            begun = time.time()
            returns = st.evaluate(event.agent, arguments.env, 5, seed=10_000 + arguments.seed)
            away += time.time() - begun
            curve.append((event.steps, round(seconds, 2), round(float(returns.mean()), 2)))
        return "time is over" if arguments.seconds and seconds >= arguments.seconds else None

    with tempfile.TemporaryDirectory() as folder:
        settings = {"evaluation.every": 0, "evaluation.final_episodes": 1} | arguments.settings
        given = {"steps": arguments.steps or 1_000_000, "seed": arguments.seed, "out": Path(folder) / "run"}
        run = st.train(arguments.env, "trpo", callbacks=[after], **given, **settings)
    returns = [round(float(x), 2) for x in st.evaluate(run.agent, arguments.env, 20, seed=20_000 + arguments.seed)]
    say(float(np.mean(returns)), "return", returns=returns, steps=run.steps, seconds=seconds, curve=curve)


def _with_cache(folder: Path) -> dict[str, str]:
    """The environment of a command that keeps its compiled programs there."""
    without = {k: v for k, v in os.environ.items() if k != "JAX_COMPILATION_CACHE_DIR"}
    return {**without, "XDG_CACHE_HOME": str(folder / "cache")}


def _setting(text: str) -> tuple[str, Any]:
    name, _, value = text.partition("=")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


SECONDS = {"update": 5.0, "fisher": 2.0, "throughput": 20.0}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    verbs = parser.add_subparsers(required=True)
    for call in (update, fisher, throughput, start, compilation, solve, seeds, learn):
        verb = verbs.add_parser(call.__name__)
        verb.set_defaults(call=call)
        verb.add_argument("--seconds", type=float, default=SECONDS.get(call.__name__, 0.0))
        verb.add_argument("--set", dest="given", type=_setting, action="append", default=[], metavar="NAME=VALUE")
        if call in (update, fisher):
            for name, value in {"samples": 2048, "hidden": 64, "products": 15, "epochs": 10, "minibatch": 128}.items():
                verb.add_argument(f"--{name}", type=int, default=value)
            verb.add_argument("--once", action="store_true", help="the first update alone: for its memory")
            verb.add_argument("--square", type=int, default=4096, help="rows of the matrix product that is the peak")
            continue
        verb.add_argument("env")
        verb.add_argument("--seed", type=int, default=0)
        verb.add_argument("--steps", type=int, default=0)
        verb.add_argument("--skip", type=float, default=3.0)
        verb.add_argument("--every", type=int, default=0, help="steps between evaluations")
        verb.add_argument("--target", type=float, default=475.0)
        verb.add_argument("--options", default="", help="of `steepest train`, for throughput: --options=--envs=32")
        verb.add_argument("--warm", action="store_true")
        verb.add_argument("--apart", action="store_true")
        verb.add_argument("--count", type=int, default=16)
    arguments = parser.parse_args()
    arguments.settings = dict(arguments.given)
    arguments.call(arguments)


if __name__ == "__main__":
    main()
