"""The house has floors: a module imports its own room and lower ones, and heavy packages live in the rooms named here.

Every `import` statement counts, also inside functions and under `if TYPE_CHECKING`.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import steepest

SOURCE = Path(steepest.__file__).parent

ROOMS = (  # top to bottom
    "__init__",
    "cli",
    "commands",
    "doctor",
    "reproduce",
    "training",
    "reports",
    "runs",
    "agent",
    "algorithms",
    "critics",
    "sampling",
    "worlds",
    "policies",
    "geometry",
    "distributions",
    "linear",
    "cells",
    "layers",
    "taps",
    "parameters",
    "chunks",
    "sequences",
    "shuffle",
    "batch",
    "normaliser",
    "spaces",
    "trees",
    "processors",
    "names",
    "errors",
)
ONLY = {"reports": {"reports", "runs", "names", "errors"}}  # stricter than the order
HEAVY = {
    "matplotlib": {"reports", "reproduce"},
    "PIL": {"reports"},
    "gymnasium": {"worlds"},
    "mujoco": {"worlds"},
    "Box2D": {"worlds"},
    "ale_py": {"worlds"},
    "envpool": {"worlds"},
    "gymnax": {"worlds"},
    "minigrid": {"worlds"},
    "pettingzoo": {"worlds"},
    "mujoco_playground": {"worlds"},
    "safetensors": {"runs"},
    "tensorboardX": {"runs"},
    "wandb": {"runs"},
    "ray": {"sampling"},
    "pickle": {"sampling"},  # what goes to a worker; what comes from a file is never unpickled
    "cloudpickle": {"sampling"},
    "marshal": set(),
    "shelve": set(),
}
NOT_AT_IMPORT = ("jax", "jaxlib", "matplotlib", "gymnasium", "equinox", "tensorboardX", "scipy")


def imported(source: str, module: str, is_package: bool) -> list[str]:
    """The full dotted names that a module's import statements name; for `from a import b`, 'a.b'."""
    names = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = module.split(".")
                parents = parts[: len(parts) - node.level + is_package]
                base = ".".join([*parents, base] if base else parents)
            names += [f"{base}.{alias.name}" for alias in node.names]
    return names


def room(dotted: str) -> str:
    """The room of a name in steepest: 'steepest.runs.files.x' ↦ 'runs'; of the package's own names, '__init__'."""
    part = dotted.split(".")[1] if "." in dotted else "__init__"
    return part if part in ROOMS or (SOURCE / part).is_dir() or (SOURCE / f"{part}.py").is_file() else "__init__"


def violations(source: str, module: str, is_package: bool = False) -> list[str]:
    """What the imports of `source`, as the module of that dotted name, do that the house forbids."""
    here = room(module)
    if here not in ROOMS:
        return [f"{module} is in no known room; add {here!r} to ROOMS where it belongs"]
    wrong = []
    for name in imported(source, module, is_package):
        package = name.split(".")[0]
        if package == "steepest":
            there = room(name)
            if there not in ROOMS:
                wrong.append(f"{module} imports {name}, which is in no known room")
            elif ROOMS.index(there) < ROOMS.index(here):
                wrong.append(f"{module} ({here}) imports {name} ({there}), which is above it")
            elif there not in ONLY.get(here, {there}):
                wrong.append(f"{module} ({here}) may import only {sorted(ONLY[here])}, not {name}")
        elif here not in HEAVY.get(package, {here}):
            wrong.append(f"{module} ({here}) imports {package}, which belongs in {sorted(HEAVY[package]) or 'no room'}")
    return wrong


def test_imports_go_downward_and_heavy_packages_stay_in_their_rooms():
    wrong = []
    for path in sorted(SOURCE.rglob("*.py")):
        parts = ["steepest", *path.relative_to(SOURCE).with_suffix("").parts]
        is_package = parts[-1] == "__init__"
        module = ".".join(parts[:-1] if is_package else parts)
        wrong += violations(path.read_text(), module, is_package)
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    ("source", "module", "complaint"),
    [
        ("from steepest.training import train", "steepest.linear.direct", "above"),
        ("import steepest.agent", "steepest.trees", "above"),
        ("from steepest import cli", "steepest.runs.files", "above"),
        ("from steepest import __version__", "steepest.runs.files", "above"),
        ("import steepest", "steepest.names", "above"),
        ("def f():\n    from steepest.worlds import make_world", "steepest.geometry.steps", "above"),
        ("if TYPE_CHECKING:\n    from steepest.agent import Agent", "steepest.critics.fit", "above"),
        ("from ..training import loop", "steepest.runs.files", "above"),
        ("from .. import cli", "steepest.runs.files", "above"),
        ("from steepest.trees import dot", "steepest.reports.plots", "may import only"),
        ("import matplotlib.pyplot as plt", "steepest.training.loop", "belongs in ['reports', 'reproduce']"),
        ("from tensorboardX import SummaryWriter", "steepest.cli", "belongs in ['runs']"),
        ("import pickle", "steepest.runs.checkpoint", "belongs in"),
        ("x = 1", "steepest.runs.files", None),
        ("from steepest.errors import RunError", "steepest.runs.files", None),
        ("from . import files", "steepest.runs.folder", None),
        ("from ..errors import RunError", "steepest.runs.folder", None),
        ("import equinox, jax, numpy", "steepest.trees", None),
        ("from steepest.worlds import gymnasium", "steepest.sampling.rollout", None),
    ],
)
def test_the_checker_finds_what_it_should(source, module, complaint):
    wrong = violations(source, module)
    assert [complaint in w for w in wrong] == [True] if complaint else wrong == []


def test_an_unknown_room_is_refused(monkeypatch, tmp_path):
    (tmp_path / "utils").mkdir()
    monkeypatch.setitem(globals(), "SOURCE", tmp_path)
    assert "no known room" in violations("", "steepest.utils.misc")[0]
    assert "no known room" in violations("from steepest.utils import misc", "steepest.cli")[0]


@pytest.mark.parametrize("module", ["steepest", "steepest.runs", "steepest.errors", "steepest.names"])
def test_importing_the_package_loads_nothing_heavy(module):
    command = [sys.executable, "-X", "importtime", "-c", f"import {module}"]
    log = subprocess.run(command, check=True, capture_output=True, text=True).stderr
    loaded = {line.rsplit("|", 1)[-1].strip().split(".")[0] for line in log.splitlines()}
    assert "steepest" in loaded
    assert loaded.isdisjoint(NOT_AT_IMPORT)
