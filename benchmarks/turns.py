"""Measure sides in turns: A B C, A B C, …, each a process of its own, and throw away the rounds that others disturbed.

    for done in rounds(case, 5, table):  …            # rows of each good round, written to the table as it ends

A round is one measurement of every side, one after the other: what the machine does slowly (heat, memory) is then the
same for all, and the ratio of two sides is taken within a round. Before a round the processors must be idle for a
second; during it, the time that they worked for others is what /proc/stat counts as busy, less what our own processes
used. A round that others had more of than allowed is kept in the table, marked, and measured again.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import rows

FIELDS = (
    "case", "side", "round", "value", "unit", "disturbed", "detail", "load", "others_before", "others_during",
    "threads", "time", "machine", "cores", "commit", "versions",
)  # fmt: skip
THREADS = 2
"""Of every side: the first two cores, and two threads of whichever library."""


class SideError(RuntimeError):
    """A side's process failed, or said nothing."""


@dataclass(frozen=True)
class Side:
    """One that is measured.

    name: in the table.  command: prints one JSON object in its last line: value, unit, versions, and whatever else.
    seconds: how long it may take.
    """

    name: str
    command: tuple[str, ...]
    seconds: float = 3600.0


@dataclass(frozen=True)
class Case:
    """What is measured: one task and setting, for every side the same.  rounds: at most, where each takes long."""

    name: str
    sides: tuple[Side, ...] = field(default_factory=tuple)
    rounds: int | None = None


@dataclass(frozen=True)
class Quiet:
    """allowed: cores that others may use, on average.  patience: seconds to wait for that before a round."""

    allowed: float = 0.1
    patience: float = 600.0


def rounds(case: Case, wanted: int, table: Path, quiet: Quiet) -> Iterator[list[dict[str, Any]]]:
    """Measure until the table has `wanted` undisturbed rounds of the case; yields the rows of each round that is made.

    Raises SideError where a side fails, and where the machine is not quiet within the patience, or never for a round.
    """
    wanted = min(wanted, case.rounds or wanted)
    before = [row for row in rows.read(table) if row["case"] == case.name]
    number = 1 + max((int(row["round"]) for row in before), default=-1)
    good = len({row["round"] for row in before if row["disturbed"] == "0"})
    for _ in range(4 * wanted):
        if good >= wanted:
            return
        made = one_round(case, number, quiet)
        for row in made:
            rows.append(table, row, FIELDS)
        number, good = number + 1, good + (made[0]["disturbed"] == 0)
        yield made
    if good < wanted:
        raise SideError(f"{case.name}: {good} undisturbed rounds of {wanted}; others work on this machine")


def one_round(case: Case, number: int, quiet: Quiet) -> list[dict[str, Any]]:
    """Each side once: rows of the table, all with the same load and the same verdict."""
    others, load = wait_until_quiet(quiet), os.getloadavg()[0]
    before, start, found = processes(), Usage.now(), [(side, measure(side)) for side in case.sides]
    during = Usage.now().others_since(start)
    if during > quiet.allowed:
        print(f"disturbed: others used {during:.2f} cores; {busiest(before, processes())}", file=sys.stderr, flush=True)
    shared = {
        "case": case.name,
        "round": number,
        "disturbed": int(during > quiet.allowed),
        "load": f"{load:.2f}",
        "others_before": f"{others:.3f}",
        "others_during": f"{during:.3f}",
        "threads": THREADS,
        "time": datetime.now().astimezone().isoformat(timespec="seconds"),
        "machine": machine(),
    } | {name: value for name, value in rows.where().items() if name != "versions"}
    return [shared | {"side": side.name} | _columns(answer) for side, answer in found]


def _columns(answer: dict[str, Any]) -> dict[str, Any]:
    """value, unit and versions have columns of their own; the rest is the detail."""
    versions = " ".join(f"{name}={version}" for name, version in answer.pop("versions", {}).items())
    value, unit = answer.pop("value"), answer.pop("unit")
    return {"value": f"{value:.6g}", "unit": unit, "versions": versions, "detail": json.dumps(answer)}


def measure(side: Side, cores: tuple[int, ...] = ()) -> dict[str, Any]:
    """Run a side's command on these cores, or else on the first, a thread on each; what it says.

    The environment variable BEGAN is the time at which it was started, for those that measure from the command on.
    """
    cores = cores or tuple(sorted(os.sched_getaffinity(0))[:THREADS])
    limits = {name: str(len(cores)) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
    environment = {**os.environ, **limits, "BEGAN": repr(time.time()), "PYTHONUNBUFFERED": "1"}
    command = ["taskset", "-c", ",".join(map(str, cores)), *side.command]
    try:
        code, out, err = run(command, environment, side.seconds)
    except subprocess.TimeoutExpired as error:
        raise SideError(f"{side.name}: not done after {side.seconds:.0f} s: {' '.join(side.command)}") from error
    lines = out.strip().splitlines()
    if code or not lines:
        last = (err.strip().splitlines() or ["no output"])[-1]
        raise SideError(f"{side.name}: exit code {code}: {last[:300]}\n  {' '.join(side.command)}")
    return json.loads(lines[-1])


def run(
    command: Sequence[str], environment: Mapping[str, str] | None = None, seconds: float | None = None
) -> tuple[int, str, str]:
    """(exit code, output, errors) of a command, which is ended with all that it started: after so many seconds, which
    raises subprocess.TimeoutExpired, and where this one is told to end."""
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, start_new_session=True
    )
    _running.add(process.pid)
    try:
        out, err = process.communicate(timeout=seconds)
        return process.returncode, out, err
    finally:
        _end(process.pid)
        process.wait()
        _running.discard(process.pid)


def end_on_signals() -> None:
    """Told to end, a benchmark ends what it has started too, in whichever thread."""

    def end(number: int, _: Any) -> None:
        for group in tuple(_running):
            _end(group)
        sys.exit(128 + number)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)


_running: set[int] = set()
"""Process groups of the sides that are measured now."""


def _end(group: int) -> None:
    """With all that it started: nothing trains on behind our back."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)


@dataclass(frozen=True)
class Usage:
    """Seconds since some moment: of the clock, that all processors were busy, and that they worked for us."""

    wall: float
    busy: float
    ours: float

    @staticmethod
    def now() -> Usage:
        fields = Path("/proc/stat").read_text().splitlines()[0].split()[1:]
        user, nice, system, _, _, irq, soft, steal, *_ = (float(x) / os.sysconf("SC_CLK_TCK") for x in fields)
        mine = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        ours = sum(usage.ru_utime + usage.ru_stime for usage in mine)
        return Usage(time.monotonic(), user + nice + system + irq + soft + steal, ours)

    def others_since(self, start: Usage) -> float:
        """Cores that others used, on average, since then."""
        return max(0.0, (self.busy - start.busy - self.ours + start.ours) / (self.wall - start.wall))


def processes() -> dict[str, float]:
    """Seconds that every process of this machine has worked, by "number name", but for this one."""
    found = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            number, rest = path.read_text().split(" (", 1)
        except OSError:  # it has ended
            continue
        name, _, fields = rest.rpartition(") ")
        if int(number) != os.getpid():
            user, system = fields.split()[11:13]
            found[f"{number} {name}"] = (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")
    return found


def busiest(before: dict[str, float], after: dict[str, float]) -> str:
    """Who has worked most in between, of those that are still there: our own sides are not."""
    worked = {name: seconds - before.get(name, 0.0) for name, seconds in after.items()}
    three = sorted(worked, key=worked.__getitem__, reverse=True)[:3]
    return "still there: " + ", ".join(f"{name} ({worked[name]:.1f} s)" for name in three)


def wait_until_quiet(quiet: Quiet) -> float:
    """Wait until a second passes in which others use no more than is allowed; how much they used in it."""
    end = time.monotonic() + quiet.patience
    while True:
        start = Usage.now()
        time.sleep(1.0)
        others = Usage.now().others_since(start)
        if others <= quiet.allowed:
            return others
        if time.monotonic() > end:
            raise SideError(f"others use {others:.2f} cores of this machine after {quiet.patience:.0f} s of waiting")
        print(f"waiting: others use {others:.2f} cores", file=sys.stderr, flush=True)
        time.sleep(min(10.0, max(0.0, end - time.monotonic())))


def machine() -> str:
    """The processor, as it calls itself."""
    path = Path("/proc/cpuinfo")
    names = [line.split(":")[1].strip() for line in path.read_text().splitlines() if line.startswith("model name")]
    return names[0] if names else platform.machine()
