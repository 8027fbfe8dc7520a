"""What the tuned settings of single environments return, beside the rules and the numbers that RL Zoo publishes.

    python benchmarks/tuned.py                              # every environment, ten seeds, tuned and by the rules
    python benchmarks/tuned.py --envs Pendulum-v1 --seeds 1000
    python benchmarks/tuned.py --peer                       # TRPO of sb3-contrib by RL Zoo's settings (`make peers`)
    python benchmarks/tuned.py --trials                     # the trials that chose them, by the seeds 0, 1, 2
    python benchmarks/tuned.py --table                      # only the tables, into docs/tuned.md

A row is added to benchmarks/results/tuned.csv or tuned-trials.csv as a run ends, and a run whose row is there is not
made again. A run is `steepest train ENV --steps N --seed S [--tuned]` on one core, and its evaluation 100 deterministic
episodes of the last policy, in environments of fresh seeds. As many runs are made at once as there are cores.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import rows
from cores import each_on_a_core
from learning import FIELDS, one
from speed import Peers
from speed_tables import filled
from turns import Side, end_on_signals, measure

from steepest.reports.statistics import stratified_bootstrap
from steepest.training.tuned import TUNED

HERE = Path(__file__).parent
RESULTS, PAGE = HERE / "results", HERE.parent / "docs" / "tuned.md"
TRIED = (0, 1, 2)
SEEDS = tuple(range(1000, 1010))
"""By none of which a setting was chosen."""
STEPS = {
    "CartPole-v1": 100_000,
    "Acrobot-v1": 100_000,
    "MountainCar-v0": 100_000,
    "MountainCarContinuous-v0": 50_000,
    "Pendulum-v1": 100_000,
    "LunarLander-v3": 200_000,
    "LunarLanderContinuous-v3": 200_000,
}
"""As many as RL Zoo's TRPO had."""
ZOO = {
    "CartPole-v1": "500",
    "Acrobot-v1": "−83",
    "MountainCar-v0": "−107",
    "Pendulum-v1": "−175",
    "LunarLander-v3": "133 (v2)",
    "LunarLanderContinuous-v3": "262 (v2)",
}
"""Mean returns of its trained TRPO agents: one run each, deterministic."""
PEER = "sb3-contrib TRPO"
LABELS = {"tuned": ["--tuned"], "rules": []}
DROPPED = "dropped: "
"""Before the options of what three seeds chose, and ten fresh ones did not bear out; not made again."""
SCALED = "--normalise-observations True --scale-rewards True"
TRIALS: dict[str, tuple[str, ...]] = {
    "CartPole-v1": ("",),
    "Acrobot-v1": ("", SCALED),
    "MountainCar-v0": (
        "",
        SCALED,
        "--normalise-observations True --policy.head-gain 1",
        f"{SCALED} --envs 16 --policy.head-gain 1",
        f"{SCALED} --envs 16 --policy.head-gain 1 --gamma .999",
    ),
    "MountainCarContinuous-v0": ("", "--gamma .999", "--gamma .999 --policy.initial-log-std 1"),
    "Pendulum-v1": (
        "",
        "--gamma .9",
        "--gamma .95 --envs 8 --rollout 128",
        "--gamma .95 --envs 8 --rollout 128 --delta .05",
        "--gamma .9 --envs 4 --rollout 256",
        "--gamma .9 --envs 4 --rollout 256 --delta .02",
        "--gamma .9 --delta .01",
        "--gamma .9 --delta .01 --normalise-observations False --scale-rewards False",
        "--gamma .9 --envs 2 --rollout 1024 --delta .01 --normalise-observations False --scale-rewards False",
        "--gamma .9 --envs 8 --rollout 128 --scale-rewards False",
        "--gamma .95 --envs 8 --rollout 64",
        "--gamma .95 --envs 8 --rollout 128 --gae-lambda .9",
        "--gamma .95 --envs 8 --rollout 128 --gae-lambda .98",
        "--gamma .95 --envs 8 --rollout 128 --critic.epochs 60",
        "--gamma .95 --envs 8 --rollout 128 --policy.distribution beta",
        "--gamma .95 --envs 8 --rollout 128 --policy.state-dependent-std",
        "--gamma .9 --envs 2 --rollout 1024 --delta .01",
        "--gamma .95 --envs 2 --rollout 1024",
        "--gamma .95 --envs 2 --rollout 1024 --policy.state-dependent-std",
        "--gamma .9 --envs 4 --rollout 512 --delta .01 --normalise-observations False --scale-rewards False",
        "--gamma .9 --envs 2 --rollout 1024 --delta .02 --normalise-observations False --scale-rewards False",
        "--gamma .9 --envs 2 --rollout 1024 --delta .01 --normalise-observations False --scale-rewards False "
        "--policy.state-dependent-std",
    ),
    "LunarLander-v3": (
        "",
        "--damping .001",
        "--damping .01",
        "--damping .01 --envs 2 --rollout 512",
        "--envs 2 --rollout 512",
        "--damping .01 --envs 2 --rollout 1024",
        f"{SCALED} --damping .001",
        "--envs 16 --gamma .999",
        "--scale-rewards True",
        "--scale-rewards True --gamma .995",
        "--scale-rewards True --gamma .999 --delta .02",
        f"{SCALED} --gamma .995",
        f"{SCALED} --gamma .995 --delta .02",
        f"{SCALED} --envs 16 --gamma .999",
        f"{SCALED} --envs 16 --gamma .999 --delta .02",
        f"{SCALED} --gamma .999 --delta .03",
        "--scale-rewards True --delta .02",
        "--envs 16 --rollout 128",
        "--envs 16 --rollout 128 --delta .03",
        "--envs 16 --rollout 256 --delta .03",
        f"{SCALED} --delta .02 --gae-lambda .95",
        f"{SCALED} --delta .02 --envs 16 --rollout 128",
    ),
    "LunarLanderContinuous-v3": (
        "",
        "--gamma .999",
        "--delta .01",
        "--envs 8 --rollout 128",
        "--envs 8 --rollout 128 --delta .01",
        "--gae-lambda .98",
        "--gae-lambda .98 --delta .02",
        "--gae-lambda .98 --envs 4 --rollout 512",
        "--gae-lambda .98 --delta .01",
        "--rollout 256",
        "--rollout 256 --gae-lambda .98",
        "--policy.state-dependent-std",
        "--gae-lambda .98 --policy.state-dependent-std",
        "--normalise-observations False",
        "--policy.distribution beta",
    ),
}
"""Options beside the rules; all that were tried."""


def main() -> None:
    end_on_signals()
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--envs", nargs="+", default=list(TUNED), choices=list(TUNED))
    parser.add_argument("--seeds", nargs="+", type=int)
    parser.add_argument("--trials", action="store_true", help="the trials, instead of what they chose")
    parser.add_argument("--peer", action="store_true", help="sb3-contrib's TRPO by the settings of RL Zoo, instead")
    parser.add_argument("--table", action="store_true", help="only the tables")
    parser.add_argument("--peers", type=Path, default=HERE.parent / ".venv-peers", help="folder of their environments")
    arguments = parser.parse_args()
    name = "tuned-trials" if arguments.trials else "tuned"
    seeds = arguments.seeds or (TRIED if arguments.trials else SEEDS)
    if arguments.trials:
        every = [(env, trial) for env in arguments.envs for trial in TRIALS[env]]
        wanted = [Job(env, trial or "the rules", trial.split(), seed) for seed in seeds for env, trial in every]
    elif arguments.peer:
        wanted = [Job(env, PEER, [], seed) for seed in seeds for env in arguments.envs]
    else:
        ways = [
            (env, label) for env in arguments.envs for label in ("tuned", "rules") if TUNED[env] or label == "rules"
        ]
        wanted = [Job(env, label, LABELS[label], seed) for seed in seeds for env, label in ways]
    failed = [] if arguments.table else run(wanted, RESULTS / f"{name}.csv", arguments.peers)
    made = {
        "tuned": markdown(rows.read(RESULTS / "tuned.csv")),
        "trials": tried(rows.read(RESULTS / "tuned-trials.csv")),
    }
    PAGE.write_text(filled(PAGE.read_text(), made))
    print(made["trials" if arguments.trials else "tuned"])
    sys.exit(bool(failed))


class Job(NamedTuple):
    """One run, `options` beside the rules."""

    env: str
    label: str
    options: list[str]
    seed: int


def run(wanted: list[Job], table: Path, peers: Path) -> list[str]:
    """Every run that has no row yet, one on each core; what failed.  peers: folder of their environments."""
    done = rows.done(rows.read(table), "env", "label", "seed")

    def make(job: Job, core: int) -> None:
        options = [] if job.label == PEER else [*job.options, "--workers", "0"]
        if job.label == PEER:
            found = peer(job, core, peers)
        else:
            found = one(job.env, options, STEPS[job.env], job.seed, core=core, episodes=100)
        said = {"env": job.env, "label": job.label, "options": " ".join(options), "seed": job.seed}
        rows.append(table, said | found | {"cores": 1}, FIELDS)
        print(f"{job.env}, {job.label}, seed {job.seed}: {found['mean']:.1f}", file=sys.stderr, flush=True)

    return each_on_a_core((job for job in wanted if (job.env, job.label, str(job.seed)) not in done), make, str)


def peer(job: Job, core: int, peers: Path) -> dict[str, Any]:
    """A run of sb3-contrib's TRPO, as a row."""
    run = ("learn", job.env, "--seed", str(job.seed), "--steps", str(STEPS[job.env]), "--episodes", "100")
    start = time.monotonic()
    answer = measure(Side(PEER, (*Peers.at(peers).sb3, *run)), (core,))
    returns = answer["returns"]
    return rows.where() | {
        "algorithm": "trpo",
        "steps": answer["steps"],
        "mean": round(statistics.fmean(returns), 2),
        "std": round(statistics.pstdev(returns), 2),
        "min": min(returns),
        "seconds": round(answer["seconds"], 2),
        "wall_seconds": round(time.monotonic() - start, 2),
        "versions": " ".join(f"{name}={version}" for name, version in answer["versions"].items()),
    }


def tried(found: list[dict[str, str]]) -> str:
    """Each trial's mean over seeds, and its seeds."""
    lines = ["| | beside the rules | mean | each seed |", "|---|---|--:|---|"]
    for env, trials in TRIALS.items():
        for trial in trials:
            means = [float(r["mean"]) for r in found if (r["env"], r["label"]) == (env, trial or "the rules")]
            if means:
                each = ", ".join(f"{mean:.0f}" for mean in means)
                lines.append(f"| {env} | {f'`{trial}`' if trial else ''} | {np.mean(means):.0f} | {each} |")
    return "\n".join(lines)


def markdown(found: list[dict[str, str]]) -> str:
    """A line for each environment and way: the interquartile mean over seeds with its interval, and the extremes."""
    lines = [
        "| | settings | steps | seeds | IQM, 95 % | mean | worst seed | best seed | RL Zoo's agent |",
        "|---|---|--:|--:|---|--:|--:|--:|--:|",
    ]
    dropped = dict.fromkeys(row["label"] for row in found if row["label"].startswith(DROPPED))
    for env, label in itertools.product(TUNED, (*LABELS, *dropped, PEER)):
        means = [float(row["mean"]) for row in found if (row["env"], row["label"]) == (env, label)]
        if not means:
            continue
        settings = " ".join(f"`{k} = {v}`" for k, v in TUNED[env].items()) if label == "tuned" else f"the {label}"
        if label == PEER:
            settings = f"{PEER}, RL Zoo's settings"
        if label in dropped:
            settings = f"{DROPPED}`{label.removeprefix(DROPPED)}`"
        iqm = stratified_bootstrap([means])
        interval = f"**{iqm.estimate:.1f}** [{iqm.low:.1f}, {iqm.high:.1f}]"
        extremes = f"{np.mean(means):.1f} | {min(means):.1f} | {max(means):.1f}"
        steps = f"{STEPS[env]:,}"
        lines.append(f"| {env} | {settings} | {steps} | {len(means)} | {interval} | {extremes} | {ZOO.get(env, '–')} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
