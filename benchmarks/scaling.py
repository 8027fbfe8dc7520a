"""What one natural step costs: seconds and peak memory, from 10³ to 10⁷ parameters and 10³ to 10⁵ samples.

    python benchmarks/scaling.py                    # benchmarks/results/scaling.csv and docs/figures/scaling.png
    python benchmarks/scaling.py --figure           # only the figure and the table, from the CSV
    python benchmarks/scaling.py --cell sample-space 10000000 2048          # one cell, printed

The policy is a Gaussian over ℝ⁸ with two equal hidden layers, observations in ℝ¹⁰⁰, float32, λ = 0.1; a step is one
compiled `Algorithm.update`: gradient, solve, length and trust report. Every cell is a process of its own, and its
memory all of that process, with the interpreter, JAX and the compilation; the row `imports` is such a process without
a step. A row is added as a cell ends, and a cell whose row is there is not done again. What would take too long is not
run, and its row says how long it would, from the largest cell of that method before it and the operations of both.
`cpu_seconds` is the processor's time, the sum over the cores: other work on the machine changes it less than `seconds`.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from rows import append, read, where

HERE = Path(__file__).parent
TABLE = HERE / "results" / "scaling.csv"
FIGURE = HERE.parent / "docs" / "figures" / "scaling.png"

INPUTS, ACTIONS = 100, 8
PARAMETERS = (1_000, 10_000, 100_000, 1_000_000, 10_000_000)
SAMPLES = (1_024, 2_048, 8_192, 102_400)
LIMIT = 40.0  # seconds of the processor that a step may be estimated at: all of it then takes some ten minutes
FIELDS = [
    "method", "parameters", "samples", "seconds", "median", "cpu_seconds", "repeats", "peak_mib", "iterations",
    "residual", "status", "compile_seconds", "cores", "commit", "versions",
]  # fmt: skip


class Method(NamedTuple):
    """build: () ↦ the algorithm.  operations: (P, N, h) ↦ floating-point operations of a step, to leading order.
    label: in the figure."""

    build: Callable[[], Any]
    operations: Callable[[int, int, int], float]
    label: str


def _conjugate_gradient(iterations: int, tolerance: float) -> Callable[[], Any]:
    def build() -> Any:
        import steepest as st

        return st.npg(solver=st.ConjugateGradient(iterations, tolerance), damping=0.1)

    return build


def _sample_space(momentum: float) -> Callable[[], Any]:
    def build() -> Any:
        import steepest as st

        return st.npg(metric=st.empirical_fisher, solver=st.SampleSpace(momentum=momentum), damping=0.1)

    return build


def _kronecker() -> Any:
    import steepest as st
    from steepest.geometry import kronecker
    from steepest.linear import Factored

    return st.npg(metric=kronecker, solver=Factored(), damping=0.1)


def _around(p: int, n: int) -> float:
    """Gradient, length of the step, trial and report: 7 passes over the network of 2NP, forward or backward."""
    return 14.0 * n * p


METHODS = {
    "cg-10": Method(_conjugate_gradient(10, 1e-10), lambda p, n, h: _around(p, n) + 80.0 * n * p, "CG, 10 products"),
    "cg-1e-3": Method(
        _conjugate_gradient(1_000, 1e-3), lambda p, n, h: _around(p, n) + 400.0 * n * p, "CG to a residual of 10⁻³"
    ),
    "sample-space": Method(
        _sample_space(0.0), lambda p, n, h: _around(p, n) + 22.0 * n * p + 4.0 * n**2 * p / h + n**3 / 3, "sample space"
    ),
    "spring": Method(
        _sample_space(0.9), lambda p, n, h: _around(p, n) + 26.0 * n * p + 4.0 * n**2 * p / h + n**3 / 3, "SPRING"
    ),
    "kronecker": Method(
        _kronecker, lambda p, n, h: _around(p, n) + 36.0 * n * p + 40.0 * h**3, "Kronecker factors"
    ),
}  # fmt: skip


def width(parameters: int) -> int:
    """h with h² + (INPUTS + ACTIONS + 2)h + 2·ACTIONS ≈ P."""
    b = INPUTS + ACTIONS + 2
    return max(1, round((-b + (b * b + 4 * (parameters - 2 * ACTIONS)) ** 0.5) / 2))


def cell(method: str, parameters: int, samples: int) -> dict[str, Any]:
    """One step of a method in this process: compiled, then run until it has taken two seconds or five repeats."""
    import jax

    if method == "imports":
        import steepest as st

        jax.block_until_ready(jax.numpy.zeros(1) + 1)
        _ = st.npg()
        return {"peak_mib": _peak()}
    import equinox as eqx
    import numpy as np

    from steepest.algorithms.algorithm import update
    from steepest.errors import UsageError

    policy, batch = problem(parameters, samples)
    algorithm = METHODS[method].build()
    state = algorithm.init(policy)
    start = time.perf_counter()
    try:
        jitted: Any = eqx.filter_jit(update)
        program = jitted.lower(algorithm, policy, state, batch, None).compile()
    except UsageError as error:
        return {"peak_mib": _peak(), "status": f"refused: {error}"}
    row: dict[str, Any] = {"compile_seconds": time.perf_counter() - start}
    seconds: list[float] = []
    processor: list[float] = []
    info: Any = None
    while len(seconds) < 5 and sum(seconds) < 2:
        start, busy = time.perf_counter(), time.process_time()
        _, state, info = jax.block_until_ready(program(algorithm, policy, state, batch, None))
        seconds.append(time.perf_counter() - start)
        processor.append(time.process_time() - busy)
    times = {"seconds": min(seconds), "median": float(np.median(seconds)), "cpu_seconds": min(processor)}
    row |= times | {"repeats": len(seconds), "peak_mib": _peak()}
    row |= {"iterations": int(info.iterations), "residual": float(info.residual)}
    return row | {"status": "accepted" if bool(info.accepted) else f"reason {int(info.reason)}"}


def problem(parameters: int, samples: int) -> tuple[Any, Any]:
    """(policy of about as many parameters, a batch of its own actions with advantages that know nothing).

    Weights are N(0, 2/in): an orthogonal start of layers this wide takes longer than the step.
    """
    import equinox as eqx
    import jax
    import jax.numpy as jnp
    import numpy as np

    from steepest.batch import Batch
    from steepest.policies import MlpGaussian

    hidden, rng = width(parameters), np.random.default_rng(0)

    def build(key: Any) -> MlpGaussian:
        return MlpGaussian(INPUTS, ACTIONS, (hidden, hidden), key=key)

    def draw(leaf: Any) -> Any:
        scale = (2 / leaf.shape[0]) ** 0.5 if len(leaf.shape) == 2 else 0.0
        return jnp.asarray(scale * rng.normal(size=leaf.shape), jnp.float32)

    policy = jax.tree.map(draw, eqx.filter_eval_shape(build, jax.random.key(0)))
    obs = jnp.asarray(rng.normal(size=(samples, INPUTS)), jnp.float32)
    mean = jax.jit(jax.vmap(lambda o: policy(o).mean))(obs)
    noise = jnp.asarray(rng.normal(size=mean.shape), jnp.float32)
    one = jnp.ones((samples, 1))
    batch = Batch(
        obs=obs,
        weight=one[:, 0] / samples,
        action=(mean + noise)[:, None],
        action_weight=one,
        advantage=jnp.asarray(rng.normal(size=(samples, 1)), jnp.float32),
        segment=jnp.arange(samples),
    )
    return policy, batch


def _peak() -> float:
    """MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def run() -> None:
    """Do every cell that has no row yet, the small ones first."""
    rows = read(TABLE)
    done = {(row["method"], int(row["parameters"]), int(row["samples"])) for row in rows}
    sizes = sorted(((p, n) for p in PARAMETERS for n in SAMPLES), key=lambda size: size[0] * size[1])
    for method, p, n in [("imports", 0, 0), *((m, p, n) for p, n in sizes for m in METHODS)]:
        if (method, p, n) in done:
            continue
        row = {"method": method, "parameters": p, "samples": n} | (_not_run(method, p, n, rows) or _apart(method, p, n))
        row = {k: f"{v:.4g}" if isinstance(v, float) else str(v) for k, v in (row | where()).items()}
        rows.append(row)
        append(TABLE, row, FIELDS)
        print(method, p, n, row.get("cpu_seconds", ""), row.get("peak_mib", ""), row.get("status", ""), flush=True)


def _not_run(method: str, p: int, n: int, rows: list[dict[str, str]]) -> dict[str, Any] | None:
    """The row of a cell that would take too long, or was refused for as many samples before; None for one to be run."""
    refused = [row for row in rows if row["method"] == method and row["status"].startswith("refused")]
    for row in refused:
        if row["samples"] == str(n):  # what it says is of the rows alone
            return {"status": row["status"]}
    before = [row for row in rows if row["method"] == method and row.get("cpu_seconds")]
    if not before or (method in ("sample-space", "spring") and n > 8_192):
        return None
    operations = METHODS[method].operations

    def work(size: int, samples: int) -> float:
        return operations(size, samples, width(size))

    largest = max(before, key=lambda row: work(int(row["parameters"]), int(row["samples"])))
    scale = work(p, n) / work(int(largest["parameters"]), int(largest["samples"]))
    seconds = float(largest["cpu_seconds"]) * scale
    return {"status": f"not run: estimated at {seconds:.0f} s of a processor"} if seconds > LIMIT else None


def _apart(method: str, p: int, n: int) -> dict[str, Any]:
    """`cell` in a process of its own."""
    command = [sys.executable, __file__, "--cell", method, str(p), str(n)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["killed"])[-1]
        return {"status": f"failed with {done.returncode}: {last[:200]}"}
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--figure", action="store_true", help="only rebuild the figure and the table")
    parser.add_argument("--cell", nargs=3, metavar=("METHOD", "P", "N"), help="one cell in this process")
    arguments = parser.parse_args()
    if arguments.cell:
        method, p, n = arguments.cell
        print(json.dumps(cell(method, int(p), int(n))))
        return
    if not arguments.figure:
        run()
    rows = read(TABLE)
    print(markdown(rows))
    draw(rows, FIGURE)
    print(FIGURE)


def markdown(rows: list[dict[str, str]]) -> str:
    """Seconds and MiB of every cell, a row for each size."""
    cells = {(row["method"], int(row["parameters"]), int(row["samples"])): row for row in rows}
    lines = [
        "| parameters | samples | " + " | ".join(m.label for m in METHODS.values()) + " |",
        "|--:|--:|" + "--:|" * 5,
    ]
    for p in PARAMETERS:
        for n in SAMPLES:
            found = [_said(cells.get((method, p, n))) for method in METHODS]
            lines.append(f"| {p:,} | {n:,} | " + " | ".join(found) + " |")
    return "\n".join(lines)


def _said(row: dict[str, str] | None) -> str:
    if row is None:
        return ""
    if row["seconds"]:
        return f"{float(row['seconds']):.3g} s, {float(row['peak_mib']):.0f} MiB"
    return row["status"].split(":")[0] if row["status"].startswith("refused") else row["status"]


def draw(rows: list[dict[str, str]], out: Path) -> None:
    """Seconds, and peak memory, of a step from 2 048 samples against the number of parameters."""
    from steepest.reports.figures import COLOURS, column_figure, figure_style, save_png

    with figure_style():
        figure, _ = column_figure(columns=2)
        left, right = figure.axes
        for colour, (name, method) in zip(COLOURS, METHODS.items(), strict=False):
            chosen = [r for r in rows if r["method"] == name and r["samples"] == "2048" and r["seconds"]]
            chosen.sort(key=lambda row: int(row["parameters"]))
            p = [int(row["parameters"]) for row in chosen]
            left.loglog(p, [float(row["seconds"]) for row in chosen], "o-", ms=3, color=colour, label=method.label)
            right.semilogx(p, [float(row["peak_mib"]) for row in chosen], "o-", ms=3, color=colour, label=method.label)
        base = next(float(row["peak_mib"]) for row in rows if row["method"] == "imports")
        right.axhline(base, color="0.4", lw=1, ls="--")
        right.text(1e3, base - 20, "interpreter and JAX alone", fontsize=7, color="0.3", va="top")
        right.set_ylim(bottom=0)
        left.set_ylabel("time of a step [s]")
        right.set_ylabel("peak memory [MiB]")
        for axes in (left, right):
            axes.set_xlabel("parameters, at 2,048 samples")
            axes.minorticks_off()
        handles, labels = left.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=len(METHODS), frameon=False)
        save_png(figure, out)


if __name__ == "__main__":
    main()
