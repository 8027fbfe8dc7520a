"""What is installed, what of it works on this machine, and what is at odds: `steepest doctor`.

Every backend is tried in a process of its own, so that one that crashes, hangs or prints spoils nothing: a world is
made, reset, and takes three steps.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from packaging.markers import Marker
from packaging.requirements import InvalidRequirement, Requirement

from steepest.processors import processors
from steepest.runs.meta import describe_program
from steepest.training.compilations import cache_folder

PATIENCE = 300.0
"""Seconds that a backend has."""


class Backend(NamedTuple):
    """name: as in `backend:id`, or what kind of id it is.  example: an id.  module: what it needs.  extra: of steepest,
    with which that is installed; None for what is always there."""

    name: str
    example: str
    module: str
    extra: str | None = None


BACKENDS = (
    Backend("gymnasium", "CartPole-v1", "gymnasium"),
    Backend("gymnasium, Box2D", "LunarLander-v3", "Box2D", "box2d"),
    Backend("gymnasium, MuJoCo", "Hopper-v5", "mujoco", "mujoco"),
    Backend("atari", "ALE/Pong-v5", "ale_py", "atari"),
    Backend("envpool", "envpool:CartPole-v1", "envpool", "envpool"),
    Backend("gymnax", "gymnax:CartPole-v1", "gymnax", "gymnax"),
    Backend("minigrid", "MiniGrid-Empty-5x5-v0", "minigrid", "minigrid"),
    Backend("pettingzoo", "pettingzoo:classic.rps_v2", "pettingzoo", "pettingzoo"),
    Backend("playground", "playground:CartpoleBalance", "mujoco_playground", "playground"),
    Backend("mdp", "mdp:two-state", "steepest"),
    Backend("lqr", "lqr:scalar", "steepest"),
)

_TRY = """
import sys
import numpy as np
from steepest.spaces import describe
from steepest.worlds import make_world
world = make_world(sys.argv[1], 2)
action = describe(world.action_space, "action")
world.reset(0)
for _ in range(3):
    world.step(np.zeros((2, *action.shape), action.inside))
world.close()
"""

_JAX = """
import json
import jax
import jax.numpy as jnp
assert float(jax.jit(lambda x: (x @ x).sum())(jnp.eye(3))) == 3.0
print(json.dumps({"backend": jax.default_backend(), "devices": [str(d.device_kind) for d in jax.devices()]}))
"""


def examine(progress: Callable[[str], None] = lambda what: None) -> dict[str, Any]:
    """Everything there is to say, as JSON.

    program: versions, platform.  cores.  jax: its backend and devices, or why it does not work.  backends: a list of
    {name, example, state: works | missing | broken, says, seconds}.  conflicts: requirements that what is installed
    does not meet.  folders: what is not writable of those that a run writes into.  advice: what to do, in sentences.
    """
    jax = _jax()
    with ThreadPoolExecutor(2) as pool:
        backends = list(pool.map(lambda backend: _tried(backend, progress), BACKENDS))
    program = {key: value for key, value in describe_program().items() if key not in ("argv", "git", "time", "format")}
    record = {
        "program": program,
        "cores": processors(),
        "jax": jax,
        "backends": backends,
        "conflicts": list(conflicts()),
        "folders": [str(folder) for folder in _written() if not _writable(folder)],
    }
    return {**record, "advice": list(_advice(record))}


def healthy(record: dict[str, Any]) -> bool:
    """Whether nothing is broken of what is installed."""
    return "error" not in record["jax"] and all(each["state"] != "broken" for each in record["backends"])


def in_words(record: dict[str, Any]) -> str:
    """The record for people."""
    program, jax = record["program"], record["jax"]
    devices = jax.get("error") or f"{jax['backend']}: {', '.join(jax['devices'])}"
    lines = [
        f"python    {program['python']}, {program['platform']}, {record['cores']} cores",
        f"jax       {devices}",
        f"packages  {', '.join(f'{name} {version}' for name, version in program['versions'].items())}",
        "",
    ]
    width = max(len(each["name"]) for each in record["backends"])
    for each in record["backends"]:
        lines.append(f"{each['state']:8} {each['name']:{width}}  {each['example']:28} {each['says']}".rstrip())
    lines += ["", *(record["conflicts"] or ["no requirement is at odds with what is installed"])]
    lines += [f"not writable: {folder}" for folder in record["folders"]]
    return "\n".join([*lines, *([""] if record["advice"] else []), *record["advice"]])


def conflicts() -> Iterator[str]:
    """Requirements of steepest, and of what it requires in turn, that what is installed does not meet; those of an
    extra only where its packages are there."""
    seen, waiting = set[str](), ["steepest"]
    while waiting:
        name = waiting.pop()
        if (key := name.lower().replace("_", "-")) in seen:
            continue
        seen.add(key)
        try:
            required = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:
            continue
        for text in required:
            try:
                requirement = Requirement(text)
            except InvalidRequirement:
                continue
            marker = requirement.marker
            optional = marker is not None and not marker.evaluate({"extra": ""})
            of_ours = marker is not None and name == "steepest" and marker.evaluate({"extra": _extra(marker)})
            if optional and not of_ours:
                continue
            try:
                there = importlib.metadata.version(requirement.name)
            except importlib.metadata.PackageNotFoundError:
                if not optional:
                    yield f"{name} requires {requirement.name}, which is not installed"
                continue
            if not requirement.specifier.contains(there, prereleases=True):
                yield f"{name} requires {requirement.name}{requirement.specifier}, and {there} is installed"
            waiting.append(requirement.name)


def _extra(marker: Marker) -> str:
    """The extra of ours that a marker is about."""
    return next((b.extra for b in BACKENDS if b.extra is not None and f'"{b.extra}"' in str(marker)), "")


def _tried(backend: Backend, progress: Callable[[str], None]) -> dict[str, Any]:
    record: dict[str, Any] = {"name": backend.name, "example": backend.example, "seconds": None}
    if importlib.util.find_spec(backend.module) is None:
        return {**record, "state": "missing", "says": f'pip install "steepest[{backend.extra}]"'}
    progress(f"trying {backend.example}")
    began = time.monotonic()
    says = _child(_TRY, backend.example)[1]
    state, record["seconds"] = "works" if says is None else "broken", round(time.monotonic() - began, 1)
    return {**record, "state": state, "says": says or ""}


def _jax() -> dict[str, Any]:
    out, wrong = _child(_JAX)
    return {"error": wrong} if wrong is not None else json.loads(out.splitlines()[-1])


def _child(program: str, *arguments: str) -> tuple[str, str | None]:
    """(what it printed, what went wrong in one line or None)."""
    command = [sys.executable, "-c", program, *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, errors="replace")
    except subprocess.TimeoutExpired:
        return "", f"no answer for {PATIENCE:g} s"
    if done.returncode == 0:
        return done.stdout, None
    last = done.stderr.strip().splitlines()[-1:] or [f"ended with code {done.returncode}"]
    return done.stdout, last[0][:300]


def _written() -> Iterator[Path]:
    yield from (Path.cwd(), cache_folder())


def _writable(folder: Path) -> bool:
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return os.access(folder, os.W_OK)


def _advice(record: dict[str, Any]) -> Iterator[str]:
    jax, works = record["jax"], {each["name"] for each in record["backends"] if each["state"] == "works"}
    if jax.get("backend") == "cpu" and _nvidia():
        yield 'There is a GPU that JAX does not use: pip install "jax[cuda12]". Small policies train as fast on a CPU.'
    if {"envpool", "gymnasium, MuJoCo"} <= works:
        yield "envpool has a MuJoCo of its own, of another version: do not compare its returns with Gymnasium's."
    if platform.system() == "Windows":
        yield "Workers and exact locks need a POSIX system: runs are stepped in one process here."


def _nvidia() -> bool:
    return any(Path(device).exists() for device in ("/dev/nvidia0", "/proc/driver/nvidia"))
