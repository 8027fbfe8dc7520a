"""Speed against the peers, in turns: what is measured, and by which commands.

    python benchmarks/speed.py                                   # update throughput start native memory
    python benchmarks/speed.py --full                            # those, scale, seeds and parts; more cases and rounds
    python benchmarks/speed.py update --only 64-64 --rounds 3    # cases whose name has this in it

Rows go to benchmarks/results/speed-NAME.csv (or --results FOLDER) as they are measured, and a case that has its rounds
is not measured again. The peers live in environments of their own, which `make bench` builds from
benchmarks/peers/requirements-*.txt. `python benchmarks/speed_tables.py` makes tables and figures of the rows.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from turns import Case, Quiet, Side, SideError, end_on_signals, rounds

HERE = Path(__file__).parent
OURS = (sys.executable, str(HERE / "ours.py"))
PARTS = (sys.executable, str(HERE / "parts.py"))
RAW = (sys.executable, str(HERE / "peers" / "raw.py"))
ALONE = "environments alone"
ENVIRONMENTS, MORE = ("CartPole-v1", "HalfCheetah-v5"), ("Hopper-v5", "Humanoid-v5")
SIZES = ((2_048, 64), (10_240, 64))
LARGE = ((102_400, 64), *((samples, hidden) for hidden in (256, 1024) for samples in (2_048, 10_240, 102_400)))
"""(samples, units of each of two hidden layers). Samples are multiples of the critic's minibatch, 128."""
MILLION = 1_000_064
ONE_THREAD = ("env", "OMP_NUM_THREADS=1")
"""Small operators are sometimes faster so: what its users could do."""


class Peers(NamedTuple):
    """Commands of the peers' sides.  native: of ours, with the gymnax and the JAX of PureJaxRL's environment."""

    sb3: tuple[str, ...]
    tianshou: tuple[str, ...]
    purejaxrl: tuple[str, ...]
    native: tuple[str, ...]

    @staticmethod
    def at(folder: Path) -> Peers:
        """With the interpreters of .venv-peers; SideError where they are not there."""
        python = {name: folder / name / "bin" / "python" for name in ("torch", "jax")}
        for path in python.values():
            if not path.exists():
                raise SideError(f"no interpreter of the peers at {path}: `make peers` installs them")
        scripts = {"peers/sb3": "torch", "peers/tianshou_side": "torch", "peers/purejaxrl_side": "jax", "ours": "jax"}
        return Peers(*((str(python[at]), str(HERE / f"{name}.py")) for name, at in scripts.items()))


def update(peers: Peers, full: bool) -> list[Case]:
    """One TRPO update: gradient, 15 conjugate-gradient products, line search, 10 epochs of the critic."""
    cases = []
    for samples, hidden in SIZES + (LARGE if full else ()):
        size = ("update", "--samples", str(samples), "--hidden", str(hidden))
        sides = (
            Side("steepest", (*OURS, *size)),
            Side("sb3-contrib TRPO", (*peers.sb3, *size)),
            Side("sb3-contrib TRPO, 1 thread", (*ONE_THREAD, *peers.sb3, *size)),
            Side("Tianshou TRPO", (*peers.tianshou, *size)),
            Side("Tianshou NPG", (*peers.tianshou, *size, "--algorithm", "npg")),
        )
        long = samples * hidden > 10_000_000  # minutes an update
        cases.append(Case(f"{samples:,} samples, {hidden}-{hidden}", sides, rounds=1 if long else None))
    return cases


def throughput(peers: Peers, full: bool) -> list[Case]:
    """Environment steps a second, all in, and the environments alone on as many cores."""
    cases = []
    for env in ENVIRONMENTS + (MORE if full else ()):
        run = ("throughput", env, "--seconds", "12")
        sides = (
            Side("steepest", (*OURS, *run)),
            Side("sb3-contrib TRPO, 1 env", (*peers.sb3, *run)),
            Side("sb3-contrib TRPO, 1 env, 1 thread", (*ONE_THREAD, *peers.sb3, *run)),
            Side("sb3-contrib TRPO, 16 envs", (*peers.sb3, *run, "--envs", "16")),
            Side("sb3-contrib TRPO, 16 processes", (*peers.sb3, *run, "--envs", "16", "--processes")),
            Side("SB3 PPO, 1 env", (*peers.sb3, *run, "--algorithm", "ppo")),
            Side("Tianshou TRPO, 16 processes", (*peers.tianshou, *run)),
            Side(ALONE, (*RAW, env)),
        )
        cases.append(Case(env, sides))
    return cases


def start(peers: Peers, full: bool) -> list[Case]:
    """From the command to the first update, and to the prompt with CartPole-v1 solved."""
    cases = []
    for env in ("CartPole-v1", "HalfCheetah-v5"):
        sides = (
            Side("steepest, cold", (*OURS, "start", env)),
            Side("steepest", (*OURS, "start", env, "--warm")),
            Side("sb3-contrib TRPO", (*peers.sb3, "start", env)),
            Side("Tianshou TRPO", (*peers.tianshou, "start", env)),
        )
        cases.append(Case(f"first update, {env}", sides))
    solved = (
        Side("steepest", (*OURS, "solve", "CartPole-v1")),
        Side("steepest, JAX-native", (*peers.native, "solve", "gymnax:CartPole-v1")),
        Side("sb3-contrib TRPO", (*peers.sb3, "solve", "CartPole-v1", "--steps", "200000")),
        Side("SB3 PPO", (*peers.sb3, "solve", "CartPole-v1", "--algorithm", "ppo", "--steps", "200000")),
    )
    return [*cases, Case("CartPole-v1 to 475, to the prompt", solved)]


def native(peers: Peers, full: bool) -> list[Case]:
    """CartPole as one JAX program, all in but start and compilation; and what its compilation takes."""
    steps = ("--steps", "1_000_000")
    sides = (
        Side(
            "steepest", (*peers.native, "throughput", "gymnax:CartPole-v1", *steps, "--skip", "0", "--seconds", "600")
        ),
        Side("PureJaxRL PPO, 4 envs", (*peers.purejaxrl, *steps)),
        Side("PureJaxRL PPO, 64 envs", (*peers.purejaxrl, *steps, "--envs", "64")),
    )
    compilation = (
        Side("steepest", (*peers.native, "compilation", "gymnax:CartPole-v1")),
        Side("PureJaxRL PPO, 4 envs", (*peers.purejaxrl, "--compilation")),
    )
    return [Case("CartPole-v1, JAX-native", sides), Case("its compilation", compilation)]


def memory(peers: Peers, full: bool) -> list[Case]:
    """The first update on a million samples, with one epoch of the critic; the rows' detail has its memory."""
    once = ("update", "--samples", str(MILLION), "--epochs", "1", "--once")
    sides = (
        Side("steepest", (*OURS, *once)),
        Side("sb3-contrib TRPO", (*peers.sb3, *once)),
        Side("Tianshou TRPO", (*peers.tianshou, *once)),
    )
    return [Case(f"{MILLION:,} samples, 64-64", sides, rounds=2)]


def scale(peers: Peers, full: bool) -> list[Case]:
    """The cost of an update against the products of its solver, and of a step against the number of environments.

    That of a natural step against samples and parameters is benchmarks/scaling.py.
    """
    cases = []
    for products in (1, 5, 10, 15, 25, 50):
        at = ("update", "--products", str(products), "--seconds", "3")
        sides = Side("steepest", (*OURS, *at)), Side("sb3-contrib TRPO", (*peers.sb3, *at))
        cases.append(Case(f"{products} {'product' if products == 1 else 'products'}", sides))
    for envs in (1, 2, 4, 8, 16, 32, 64, 128):
        run = ("throughput", "HalfCheetah-v5", "--seconds", "10")
        ours = Side("steepest", (*OURS, *run, f"--options=--envs {envs}"))
        cases.append(
            Case(
                f"{envs} {'environment' if envs == 1 else 'environments'}",
                (ours, Side("sb3-contrib TRPO", (*peers.sb3, *run, "--envs", str(envs)))),
            )
        )
    return cases


def seeds(peers: Peers, full: bool) -> list[Case]:
    """16 seeds as one program, and as 16 commands one after another."""
    run = (*peers.native, "seeds", "gymnax:CartPole-v1", "--steps", "100_000")
    sides = Side("steepest, together", run), Side("steepest, one after another", (*run, "--apart"))
    return [Case("16 seeds of CartPole-v1, JAX-native", sides)]


def parts(peers: Peers, full: bool) -> list[Case]:
    """Where an iteration of ours spends its time, and what the environments alone take of it."""
    cases = []
    for env in ("HalfCheetah-v5", "Humanoid-v5", "CartPole-v1"):
        alone = Side(ALONE, (*RAW, env))
        cases.append(Case(env, (Side("steepest", (*PARTS, env)), alone)))
    return [
        *cases,
        Case("gymnax:CartPole-v1", (Side("steepest", (peers.native[0], *PARTS[1:], "gymnax:CartPole-v1")),)),
    ]


BENCHMARKS: dict[str, Callable[[Peers, bool], list[Case]]] = {
    f.__name__: f for f in (update, throughput, start, native, memory, scale, seeds, parts)
}
QUICK = ("update", "throughput", "start", "native", "memory")


def main() -> None:
    end_on_signals()
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"{', '.join(BENCHMARKS)}; the first five, if not said"
    )
    parser.add_argument("--full", action="store_true", help="everything, in hours")
    parser.add_argument("--rounds", type=int, help="of each case; 5, or with --full 9")
    parser.add_argument("--only", default="", help="only cases whose name has this in it")
    parser.add_argument("--side", default="", help="only sides whose name has this in it")
    parser.add_argument("--results", type=Path, default=HERE / "results", help="folder of the tables")
    parser.add_argument("--peers", type=Path, default=HERE.parent / ".venv-peers", help="folder of their environments")
    parser.add_argument("--allowed", type=float, default=0.1, help="cores that other programs may use")
    parser.add_argument("--list", action="store_true", help="print the commands, and run none")
    arguments = parser.parse_args()
    unknown = set(arguments.names) - set(BENCHMARKS)
    if unknown:
        parser.error(f"no benchmark is named {', '.join(unknown)}: choose from {', '.join(BENCHMARKS)}")
    names = arguments.names or (BENCHMARKS if arguments.full else QUICK)
    failed = False
    for name in names:
        for case in BENCHMARKS[name](Peers.at(arguments.peers), arguments.full):
            sides = tuple(side for side in case.sides if arguments.side in side.name)
            if arguments.only not in case.name or not sides:
                continue
            if arguments.list:
                print(f"# {name}: {case.name}", *(" ".join(side.command) for side in sides), sep="\n")
                continue
            failed |= not run(Case(case.name, sides, case.rounds), name, arguments)
    sys.exit(int(failed))


def run(case: Case, name: str, arguments: argparse.Namespace) -> bool:
    """Measure a case until it has its rounds; whether that went well."""
    table = arguments.results / f"speed-{name}.csv"
    wanted, began = arguments.rounds or (9 if arguments.full else 5), time.monotonic()
    try:
        for made in rounds(case, wanted, table, Quiet(arguments.allowed)):
            values = "   ".join(f"{row['side']} {row['value']} {row['unit']}" for row in made)
            mark = " DISTURBED" if made[0]["disturbed"] else ""
            seconds = time.monotonic() - began
            print(f"{name}: {case.name}: {values}   ({seconds:.0f} s){mark}", file=sys.stderr, flush=True)
    except SideError as error:
        print(f"{name}: {case.name}: {error}", file=sys.stderr, flush=True)
        return False
    return True


if __name__ == "__main__":
    main()
