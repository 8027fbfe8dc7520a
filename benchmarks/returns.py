"""Returns against the peers, each library with its own recommended settings: against steps, and against wall-clock.

    python benchmarks/returns.py steps                  # a million steps, five seeds: curves and final evaluations
    python benchmarks/returns.py minutes                # five minutes from the command on, as many steps as that gives
    python benchmarks/returns.py steps --envs Hopper-v5 --seeds 0 1 --sides steepest
    python benchmarks/returns.py steps --apart          # as many runs at once as there are cores, each on one

A row is added to benchmarks/results/returns-STUDY.csv as a run ends, and a run whose row is there is not made again.
The final evaluation is 20 deterministic episodes of the last policy in environments of fresh seeds; curves are 5 such
episodes each 50 000 steps, and the clock stands still meanwhile. A row says how many cores others used during the run:
where that is more than allowed the run is no evidence about time, and in the study of minutes it is made again.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import rows
from cores import each_on_a_core
from speed import OURS, Peers
from turns import THREADS, Quiet, Side, SideError, Usage, end_on_signals, machine, measure, wait_until_quiet

HERE = Path(__file__).parent
ENVIRONMENTS = ("Hopper-v5", "HalfCheetah-v5", "Walker2d-v5", "Ant-v5")
STUDIES: dict[str, tuple[str, ...]] = {
    "steps": ("--steps", "1_000_000", "--every", "50_000"),
    "minutes": ("--steps", "100_000_000", "--seconds", "300"),
}
"""study ↦ options of every side's `learn`. A million steps may take a peer an hour."""
SEEDS = (100, 101, 102, 103, 104)
"""By none of which a setting of ours was chosen."""
FIELDS = (
    "env", "side", "seed", "mean", "std", "min", "steps", "seconds", "disturbed", "others_during", "curve_steps",
    "curve_seconds", "curve_means", "returns", "threads", "machine", "cores", "commit", "versions",
)  # fmt: skip


def sides(peers: Peers, env: str, seed: int, study: str) -> dict[str, Side]:
    """name ↦ the command of one run."""
    run = ("learn", env, "--seed", str(seed), *STUDIES[study])
    # its learning rate falls to 0 at a horizon that is known beforehand: in a study of time, that of its examples
    tianshou = (*peers.tianshou, *run, *(("--horizon", "3_000_000") if study == "minutes" else ()))
    commands = {
        "steepest": (*OURS, *run),
        "sb3-contrib TRPO": (*peers.sb3, *run),
        "SB3 PPO": (*peers.sb3, *run, "--algorithm", "ppo"),
        "Tianshou TRPO": tianshou,
        "Tianshou NPG": (*tianshou, "--algorithm", "npg"),
    }
    return {name: Side(name, command, seconds=4 * 3600.0) for name, command in commands.items()}


def main() -> None:
    end_on_signals()
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("study", choices=sorted(STUDIES))
    parser.add_argument("--envs", nargs="+", default=ENVIRONMENTS)
    parser.add_argument("--seeds", nargs="+", type=int, default=SEEDS)
    parser.add_argument("--sides", nargs="+", default=(), help="only these")
    parser.add_argument("--apart", action="store_true", help="one run on each core at once: their time is no evidence")
    parser.add_argument("--options", default="", help="more options for every side, such as '--seconds 20'")
    parser.add_argument("--results", type=Path, default=HERE / "results", help="folder of the tables")
    parser.add_argument("--peers", type=Path, default=HERE.parent / ".venv-peers", help="folder of their environments")
    parser.add_argument("--allowed", type=float, default=0.1, help="cores that other programs may use")
    arguments = parser.parse_args()
    if arguments.apart and arguments.study != "steps":
        parser.error("--apart is for steps: a run that shares the machine says nothing about minutes")
    table, quiet = arguments.results / f"returns-{arguments.study}.csv", Quiet(arguments.allowed)
    peers, options = Peers.at(arguments.peers), arguments.options.split()
    jobs = [
        Job(env, seed, Side(name, (*side.command, *options), side.seconds))
        for seed, env in itertools.product(arguments.seeds, arguments.envs)
        for name, side in sides(peers, env, seed, arguments.study).items()
        if not arguments.sides or name in arguments.sides
    ]
    if arguments.apart:
        sys.exit(bool(apart(jobs, table)))
    sys.exit(not all([run(job, arguments.study, table, quiet) for job in jobs]))


class Job(NamedTuple):
    """One run."""

    env: str
    seed: int
    side: Side


def apart(jobs: Sequence[Job], table: Path) -> list[str]:
    """Every run that has no row yet, on one core each; what failed."""
    done = rows.done(rows.read(table), "env", "side", "seed")

    def make(job: Job, core: int) -> None:
        row = one(job, (core,)) | {"disturbed": 1, "cores": 1}  # its seconds are no evidence
        rows.append(table, row, FIELDS)
        print(_said(row), file=sys.stderr, flush=True)

    return each_on_a_core((job for job in jobs if (job.env, job.side.name, str(job.seed)) not in done), make, _name)


def run(job: Job, study: str, table: Path, quiet: Quiet) -> bool:
    """One run, unless its row is there; in a study of time again while others disturb it. Whether there is a row."""
    for _ in range(3):
        kept = [row for row in rows.read(table) if study == "steps" or row["disturbed"] == "0"]
        if (job.env, job.side.name, str(job.seed)) in rows.done(kept, "env", "side", "seed"):
            return True
        try:
            wait_until_quiet(quiet)
            row = one(job)
        except SideError as error:
            print(f"{_name(job)}: {error}", file=sys.stderr, flush=True)
            return False
        row["disturbed"] = int(float(row["others_during"]) > quiet.allowed)
        rows.append(table, row, FIELDS)
        mark = f" (others used {row['others_during']} cores)" if row["disturbed"] else ""
        print(f"{_said(row)}, {row['seconds']:.0f} s{mark}", file=sys.stderr, flush=True)
    return study == "steps"


def _name(job: Job) -> str:
    return f"{job.env}, {job.side.name}, seed {job.seed}"


def _said(row: dict[str, Any]) -> str:
    return f"{row['env']}, {row['side']}, seed {row['seed']}: {row['mean']:.0f} after {row['steps']} steps"


def one(job: Job, cores: tuple[int, ...] = ()) -> dict[str, Any]:
    """One run, and its row but for `disturbed`.  cores: as of `measure`."""
    start = Usage.now()
    answer = measure(job.side, cores)
    others = Usage.now().others_since(start)
    returns, curve = answer["returns"], answer["curve"]
    columns = list(zip(*curve, strict=True)) or [(), (), ()]
    names = ("curve_steps", "curve_seconds", "curve_means")
    threads = len(cores) or THREADS
    return (
        rows.where()
        | {"env": job.env, "side": job.side.name, "seed": job.seed, "threads": threads, "machine": machine()}
        | {name: " ".join(map(str, column)) for name, column in zip(names, columns, strict=True)}
        | {
            "mean": round(statistics.fmean(returns), 2),
            "std": round(statistics.pstdev(returns), 2),
            "min": min(returns),
            "returns": " ".join(map(str, returns)),
            "steps": answer["steps"],
            "seconds": round(answer["seconds"], 2),
            "others_during": f"{others:.3f}",
            "versions": " ".join(f"{name}={version}" for name, version in answer["versions"].items()),
        }
    )


if __name__ == "__main__":
    main()
