"""How good Kronecker factors are: as the Fisher matrix itself, and as what conjugate gradients are preconditioned by.

    python benchmarks/kronecker.py              # both tables, and benchmarks/results/kronecker*.csv; about ten minutes
    python benchmarks/kronecker.py --table      # only rebuild the tables from the CSVs

The batches are those that TRPO collected, update after update, at θ before each. In the first table (float64, exact)

    block   ‖diag_l F_l − M‖ / ‖diag_l F_l‖        whole   ‖F − M‖ / ‖F‖        Frobenius norms
    cosine  of (M + λI)⁻¹g and (F + λI)⁻¹g in the inner product of F
    gain    gᵀy / √(yᵀFy · gᵀF⁺g) of y = (M + λI)⁻¹g: the part of the best linear gain at equal KL

In the second (float32, as in training) the products with F until the true residual ‖b − (F + λI)x‖/‖b‖ is at most
r, the median over updates; a warm start costs one of them. Milliseconds are those of one processor: `taskset -c 1 …`.
"""

from __future__ import annotations

import argparse
import csv
import functools
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

import steepest as st
from steepest import parameters, trees
from steepest.algorithms import trpo
from steepest.batch import Batch
from steepest.geometry import (
    Moment,
    Preconditioned,
    diagonal,
    expected_advantage,
    fisher,
    kronecker,
    linearise,
)
from steepest.linear import ConjugateGradient
from steepest.linear.residuals import residual_history

RESULTS = Path(__file__).parent / "results"
ERRORS, PRODUCTS, COSTS = (RESULTS / f"kronecker{part}.csv" for part in ("", "-products", "-costs"))
SMALL = (("CartPole-v1", (16,)), ("CartPole-v1", (16, 16)), ("Hopper-v5", (16, 16)), ("Hopper-v5", (16, 16, 16)))
LARGE = (("CartPole-v1", (64, 64)), ("Hopper-v5", (64, 64)))
UPDATES = 24
CONSECUTIVE = range(19, 24)
"""The updates that products are counted in."""
DAMPING = (0.1, 0.01, 0.001)
RESIDUALS = (1e-1, 1e-2, 1e-3, 1e-4)
MOST = 60
"""Products at most."""


@dataclass(frozen=True)
class Recorded:
    """F, and a note of every θ and batch that it is asked for."""

    seen: list = field(default_factory=list, hash=False, compare=False)

    def operator(self, local: Any, batch: Batch) -> Any:
        jax.debug.callback(lambda *x: self.seen.append(jax.tree.map(np.array, x)), local.params, batch)
        return fisher.operator(local, batch)

    def dual(self, local: Any, batch: Batch, gradient: Any) -> None:
        return None


@functools.cache
def recorded(env: str, hidden: tuple[int, ...], seed: int = 0) -> tuple[Any, list[tuple[Any, Batch]]]:
    """(what of the policy is not θ, (θ, batch) of every update of a short run of TRPO)."""
    metric = Recorded()
    rows = 1024 if env == "CartPole-v1" else 2048
    algorithm = trpo(0.01, metric=metric, damping=0.1)
    with tempfile.TemporaryDirectory() as folder:
        settings: dict[str, Any] = {"evaluation": {"every": 0}, "tensorboard": False}
        run = st.train(env, algorithm, steps=rows * UPDATES, seed=seed, out=Path(folder) / "run",
                       policy={"hidden": hidden}, **settings)  # fmt: skip
    jax.effects_barrier()
    return parameters.split(run.agent.policy)[1], metric.seen


def name(env: str, hidden: tuple[int, ...]) -> str:
    return f"{env.split('-')[0]} {'×'.join(str(n) for n in hidden)}"


def errors(env: str, hidden: tuple[int, ...]) -> list[dict]:
    """Rows of the first table: fresh and after the last update."""
    rest, seen = recorded(env, hidden)
    rows = []
    with jax.enable_x64(True):
        for when, (theta, batch) in (("fresh", seen[0]), (f"{UPDATES} updates", seen[-1])):
            theta, batch = jax.tree.map(
                lambda x: jnp.asarray(x, jnp.float64 if x.dtype == np.float32 else None), (theta, batch)
            )
            rows += [{"policy": name(env, hidden), "when": when, **row} for row in compared(theta, batch, rest)]
    return rows


def compared(theta: Any, batch: Batch, rest: Any) -> list[dict]:
    local = linearise(parameters.merge(theta, rest), batch.obs)
    dense = {
        key: np.asarray(operator.matrix(theta))
        for key, operator in {
            "F": fisher.operator(local, batch),
            "Kronecker": kronecker.operator(local, batch),
            "diagonal": diagonal.operator(local, batch),
        }.items()
    }
    f, g = dense["F"], np.asarray(trees.ravel(expected_advantage.gradient(local, batch).vector)[0])
    layer = np.concatenate([np.full(leaf.size, n) for n, leaf in enumerate(layers(local))])
    same = layer[:, None] == layer
    dense["blocks of F"] = np.where(same, f, 0.0)
    values, vectors = np.linalg.eigh(f)
    kept = values > values[-1] * len(values) * np.finfo(float).eps
    best = np.sum((vectors[:, kept].T @ g) ** 2 / values[kept])
    rows = []
    for damping in DAMPING:
        eye = damping * np.eye(len(g))
        exact = np.linalg.solve(f + eye, g)
        directions = {key: np.linalg.solve(m + eye, g) for key, m in dense.items()}
        directions["CG, 10 products"] = cg(f + eye, g, 10)
        directions["gradient"] = g
        for metric, y in directions.items():
            m = dense.get(metric)
            row = {"parameters": len(g), "damping": damping, "metric": metric, "block": "", "whole": ""}
            if m is not None:
                row["block"] = f"{np.linalg.norm((f - m)[same]) / np.linalg.norm(f[same]):.4g}"
                row["whole"] = f"{np.linalg.norm(f - m) / np.linalg.norm(f):.4g}"
            row["cosine"] = f"{exact @ f @ y / np.sqrt((exact @ f @ exact) * (y @ f @ y)):.4f}"
            row["gain"] = f"{g @ y / np.sqrt((y @ f @ y) * best):.4f}"
            rows.append(row)
    return rows


def layers(local: Any) -> list[Any]:
    """θ's leaves, gathered by layer: a layer's leaves lie side by side."""
    taps, leaves = local.taps().taps, jax.tree.leaves(local.params)
    return [np.concatenate([np.ravel(leaves[n]) for n in (tap.weight, tap.bias) if n is not None]) for tap in taps]


def cg(m: np.ndarray, b: np.ndarray, iterations: int) -> np.ndarray:
    x, r = np.zeros_like(b), b
    p = r
    for _ in range(iterations):
        product = m @ p
        alpha = r @ r / (p @ product)
        x, new = x + alpha * p, r - alpha * product
        p, r = new + (new @ new) / (r @ r) * p, new
    return x


PRECONDITIONERS: dict[str, Any] = {
    "none": fisher,
    "diagonal": Preconditioned(fisher, by=diagonal),
    "Kronecker": Preconditioned(fisher, by=kronecker),
}


def products(env: str, hidden: tuple[int, ...]) -> list[dict]:
    """Rows of the second table: products until each residual, by preconditioner, damping and start."""
    rest, seen = recorded(env, hidden)
    seen = [jax.tree.map(jnp.asarray, seen[n]) for n in CONSECUTIVE]
    rows = []
    for preconditioner, metric in PRECONDITIONERS.items():
        histories = solved(metric, rest, seen)
        for (damping, warm), curves in histories.items():
            counts = [[first_below(curve, r) for r in RESIDUALS] for curve in curves]
            row = {"policy": name(env, hidden), "damping": damping, "preconditioner": preconditioner, "warm": warm}
            median = np.median(np.array(counts, float), axis=0)
            rows.append({**row, **{f"{r:g}": f"{n:g}" for r, n in zip(RESIDUALS, median, strict=True)},
                         "at 10": f"{np.median([curve[10] for curve in curves]):.3g}"})  # fmt: skip
    return rows


def solved(metric: Any, rest: Any, seen: list[tuple[Any, Batch]]) -> dict[tuple[str, bool], list[np.ndarray]]:
    """The histories of the true residual over products with F, by (λ, warm), of consecutive updates."""

    @eqx.filter_jit
    def solve(theta: Any, batch: Batch, carried: Any, update: Any, damping: Any, relative: bool, last: Any) -> Any:
        local = linearise(parameters.merge(theta, rest), batch.obs)
        part, carried = metric, carried
        if carried is not None:
            part, carried = metric.begin(carried, Moment(local, batch, jax.random.key(0), update))
        g = expected_advantage.gradient(local, batch).vector
        if relative:
            damping = damping * mean_diagonal(local, batch)
        operator = part.operator(local, batch).damped(damping)
        cold = residual_history(ConjugateGradient(MOST, 0.0), operator, g)
        product = operator(last)
        curvature = trees.dot(last, product)
        c = jnp.where(curvature > 0, trees.dot(g, last) / jnp.where(curvature > 0, curvature, 1.0), 0.0)
        rest_of_g = trees.axpy(-c, product, g)
        warm = residual_history(ConjugateGradient(MOST, 0.0), operator, rest_of_g)
        warm = jnp.concatenate([jnp.ones(1), warm[:-1] * trees.norm(rest_of_g) / trees.norm(g)])
        x = ConjugateGradient(MOST, 1e-4)(operator, g).x
        return cold, warm, x, carried

    histories: dict[tuple[str, bool], list[np.ndarray]] = {}
    for label, value, relative in [(f"{d:g}", d, False) for d in DAMPING] + [("0.1·tr F/P", 0.1, True)]:
        carried = metric.init(seen[0][0]) if isinstance(metric, Preconditioned) else None
        last = trees.zeros_like(seen[0][0])
        for update, (theta, batch) in enumerate(seen):
            cold, warm, last, carried = solve(theta, batch, carried, jnp.asarray(update), value, relative, last)
            histories.setdefault((label, False), []).append(np.asarray(cold))
            if update:  # the first has no last solution
                histories.setdefault((label, True), []).append(np.asarray(warm))
    return histories


def mean_diagonal(local: Any, batch: Batch) -> Any:
    entries = trees.ravel(diagonal.operator(local, batch).direction.entries)[0]  # type: ignore[attr-defined]
    return jnp.mean(entries)


def first_below(curve: np.ndarray, residual: float) -> float:
    """The least number of products with a residual of at most this; ∞ where it is never reached."""
    below = np.flatnonzero(curve <= residual)
    return float(below[0]) if len(below) else np.inf


def costs(env: str, hidden: tuple[int, ...]) -> list[dict]:
    """Processor milliseconds: to prepare the operator with its preconditioner, and of one iteration."""
    rest, seen = recorded(env, hidden)
    theta, batch = jax.tree.map(jnp.asarray, seen[-1])
    rows = []
    for preconditioner in ("none", "diagonal", "Kronecker"):
        metric = PRECONDITIONERS[preconditioner]

        def solve(iterations: int, metric: Any = metric) -> Callable[[], Any]:
            @jax.jit
            def program(theta: Any, batch: Batch) -> Any:
                local = linearise(parameters.merge(theta, rest), batch.obs)
                operator = metric.operator(local, batch).damped(0.1)
                return ConjugateGradient(iterations, 0.0)(operator, expected_advantage.gradient(local, batch).vector).x

            return lambda: jax.block_until_ready(program(theta, batch))

        one, many = seconds(solve(1)), seconds(solve(21))
        rows.append({"policy": name(env, hidden), "preconditioner": preconditioner, "rows": len(batch.weight),
                     "parameters": trees.size(theta), "first": one * 1e3,
                     "iteration": (many - one) / 20 * 1e3})  # fmt: skip
    for row in reversed(rows):
        row["preparation"] = row["first"] - rows[0]["first"]
    return [{k: f"{v:.3f}" if isinstance(v, float) else v for k, v in row.items()} for row in rows]


def seconds(program: Callable[[], Any], repeats: int = 15) -> float:
    """The least processor time of several runs."""
    program()
    times = []
    for _ in range(repeats):
        start = time.process_time()
        program()
        times.append(time.process_time() - start)
    return min(times)


def write(path: Path, rows: list[dict]) -> None:
    path.parent.mkdir(exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0].keys(), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def markdown(path: Path) -> str:
    with path.open() as file:
        rows = list(csv.DictReader(file))
    lines = ["| " + " | ".join(rows[0]) + " |", "|" + "---|" * len(rows[0])]
    return "\n".join(lines + ["| " + " | ".join(row.values()) + " |" for row in rows])


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--table", action="store_true", help="only rebuild the tables")
    parser.add_argument("--only", choices=["errors", "products", "costs"], help="one part")
    arguments = parser.parse_args()
    parts: dict[str, tuple[Path, Callable, Any]] = {
        "products": (PRODUCTS, products, LARGE),
        "costs": (COSTS, costs, LARGE),
        "errors": (ERRORS, errors, SMALL),
    }
    for part, (path, function, policies) in parts.items():
        rows: list[dict] = []
        for policy in policies if not arguments.table and arguments.only in (None, part) else ():
            rows += function(*policy)
            write(path, rows)
        if path.exists():
            print(markdown(path), end="\n\n", flush=True)


if __name__ == "__main__":
    main()
