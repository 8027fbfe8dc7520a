"""What a GPU makes of it: training in 4 096 worlds as one program, updates of large batches, Fisher products.

    python benchmarks/gpu.py                # benchmarks/results/speed-gpu.csv; make bench-gpu

A product's share is of what a matrix product of 8 192 rows reaches on the same device in the same precision. Where JAX
sees no GPU it says so and stops.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from speed import HERE, OURS, run
from turns import Case, Side

WORLDS = 4096
BATCH = 131_072


def cases() -> list[Case]:
    """What is measured, this library alone."""
    every = [
        Case(f"Fisher product, {BATCH:,} samples, {h}-{h}", (_ours("fisher", *_size(BATCH, h), "--square", "8192"),))
        for h in (64, 256, 1024)
    ]
    every += [Case(f"update, {n:,} samples, {h}-{h}", (_ours("update", *_size(n, h)),)) for n, h in SIZES]
    native = ("throughput", "gymnax:CartPole-v1", f"--options=--envs {WORLDS} --rollout 32")
    return [*every, Case(f"CartPole-v1, {WORLDS:,} worlds", (_ours(*native, "--skip", "0", "--steps", "20_000_000"),))]


SIZES = ((2_048, 64), (BATCH, 64), (BATCH, 256), (BATCH, 1024))


def _ours(*options: str) -> Side:
    return Side("steepest", (*OURS, *options))


def _size(samples: int, hidden: int) -> tuple[str, ...]:
    return "--samples", str(samples), "--hidden", str(hidden)


def backend() -> str:
    """What JAX computes on: asked in a process of its own, which would keep a GPU's memory to itself."""
    command = [sys.executable, "-c", "import jax; print(jax.default_backend())"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5, help="of each case")
    parser.add_argument("--results", type=Path, default=HERE / "results", help="folder of the table")
    parser.add_argument("--allowed", type=float, default=0.5, help="cores that other programs may use")
    arguments = parser.parse_args()
    found = backend()
    if found != "gpu":
        sys.exit(f"bench-gpu: JAX sees no GPU here (its backend is {found}); nothing was measured")
    failed = [case.name for case in cases() if not run(case, "gpu", arguments)]
    sys.exit(int(bool(failed)))


if __name__ == "__main__":
    main()
