"""An exact natural step on large sparse MDPs, by a solve in each state and by conjugate gradients.

    python benchmarks/sparse.py                       # 100 000 states, 4 actions, 100 steps
    python benchmarks/sparse.py --states 2000

Two worlds: a random graph, where all states are visited about equally often, and a walk from the corner of a grid,
where most are visited hardly or never. A row for each solver goes to benchmarks/results/sparse.csv: products with F,
residual, seconds of everything (the exact batch, compilation, the step), the peak memory of the process so far, and how
far the step is from that of the pseudo-inverse in each state, in behaviour: ‖S(Δ − Δ₀)‖/‖SΔ₀‖, F = SᵀS.
"""

from __future__ import annotations

import argparse
import csv
import math
import os
import resource
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from steepest.algorithms import improve, npg
from steepest.geometry import fisher, linearise
from steepest.linear import Blocks, ConjugateGradient, Solver, Status
from steepest.policies import TabularSoftmax
from steepest.runs.meta import git_commit, versions
from steepest.worlds.finite.large import random_graph, sparse_grid
from steepest.worlds.finite.precision import exact
from steepest.worlds.finite.sparse import SparseMDP

RESULTS = Path(__file__).parent / "results" / "sparse.csv"
DELTA = 1e-6


class Case(NamedTuple):
    """A solver and its λ."""

    name: str
    solver: Solver
    damping: float


CASES = (
    Case("blocks", Blocks(), 0.0),
    Case("conjugate gradient", ConjugateGradient(10), 0.0),
    Case("conjugate gradient", ConjugateGradient(100), 0.0),
    Case("conjugate gradient", ConjugateGradient(1000, tolerance=1e-10), 0.0),
    Case("blocks", Blocks(), 1e-8),
    Case("conjugate gradient", ConjugateGradient(1000, tolerance=1e-10), 1e-8),
    Case("conjugate gradient", ConjugateGradient(10), 0.1),  # what npg() takes for so many parameters
)


def graph(states: int, horizon: int) -> SparseMDP:
    """Five successors for each of four actions."""
    return random_graph(states, actions=4, successors=5, horizon=horizon, seed=0)


def corner(states: int, horizon: int) -> SparseMDP:
    """The walk on a square of about so many cells, to a goal a fifth of the horizon away in both directions."""
    side = math.isqrt(states)
    goal = min(side - 1, horizon // 5)
    return sparse_grid(side, math.ceil(states / side), slip=0.2, horizon=horizon, goal=(goal, goal))


WORLDS = {"random graph": graph, "grid": corner}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--states", type=int, default=100_000)
    parser.add_argument("--horizon", type=int, default=100)
    parser.add_argument("--out", type=Path, default=RESULTS)
    given = parser.parse_args(arguments)
    rows = [row for name in WORLDS for row in measure(name, given.states, given.horizon)]
    given.out.parent.mkdir(parents=True, exist_ok=True)
    with given.out.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def measure(name: str, states: int, horizon: int) -> list[dict[str, Any]]:
    """One row for each of `CASES`; the first is what the others are compared with."""
    started = time.perf_counter()
    world = WORLDS[name](states, horizon)
    made = time.perf_counter() - started
    policy = TabularSoftmax(np.random.default_rng(0).normal(size=(world.states, world.actions)))
    value, best = world.value(policy), world.optimal()[0]
    print(f"{world} made in {made:.1f} s: V = {value:.6g}, V* = {best:.6g}", flush=True)
    machine = {"cores": os.cpu_count(), "commit": git_commit(), "versions": versions()}
    rows, directions = [], []
    for case in CASES:
        started = time.perf_counter()
        new, info = improve(policy, world, npg(delta=DELTA, solver=case.solver, damping=case.damping))
        seconds = time.perf_counter() - started
        directions.append((np.asarray(new.logits) - policy.logits) / info.step_size)
        row = {
            "world": name,
            "states": world.states,
            "actions": world.actions,
            "horizon": horizon,
            "entries": world.transition.nnz,
            "solver": case.name,
            "damping": case.damping,
            "products": int(info.iterations),
            "status": Status(int(info.status)).name.lower(),
            "residual": f"{info.residual:.3g}",
            "seconds": round(seconds, 2),
            "peak_gib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
            "from_blocks": f"{_apart(world, policy, directions[-1], directions[0]):.3g}",
            "kl": f"{info.kl:.6g}",
            "gain": f"{world.value(new) - value:.6g}",
        }
        print(
            "  ".join(
                f"{k}={v}" for k, v in row.items() if k not in ("world", "states", "actions", "horizon", "entries")
            )
        )
        rows.append(row | machine)
    return rows


@exact
def _apart(world: SparseMDP, policy: TabularSoftmax, x: np.ndarray, reference: np.ndarray) -> Any:
    """‖Su − Su₀‖ of the directions at unit length, ‖Su‖ = ‖Su₀‖ = 1: the step does not see their scale."""
    at = TabularSoftmax(jnp.asarray(policy.logits))
    batch = jax.tree.map(jnp.asarray, world.batch(policy))
    move = fisher.operator(linearise(at, batch.obs), batch).forward
    y, y0 = (move(TabularSoftmax(jnp.asarray(d))) for d in (x, reference))
    return jnp.linalg.norm(y / jnp.linalg.norm(y) - y0 / jnp.linalg.norm(y0))


if __name__ == "__main__":
    main()
