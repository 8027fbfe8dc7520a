"""The shapes in the annotations are checked while the tests run (jaxtyping + beartype); claims are marked by label.

@pytest.mark.claim("R11")          pytest --claim R11 [--claim R12 …]
"""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from collections.abc import Iterator

if "JAX_COMPILATION_CACHE_DIR" not in os.environ:  # one for all processes of a session: tests have programs in common
    os.environ["JAX_COMPILATION_CACHE_DIR"] = folder = tempfile.mkdtemp(prefix="steepest-programs-")
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"
    atexit.register(shutil.rmtree, folder, ignore_errors=True)

# most of the time is XLA's, for programs that run once: a fifth to a quarter less of it. What is fastest is not tested
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")

import jax
import pytest
from jaxtyping import install_import_hook

from steepest import commands
from steepest.names import unknown
from steepest.reproduce.claims import CLAIMS

CHECKED = ("layers", "batch", "trees", "linear", "distributions", "policies", "geometry", "critics")

install_import_hook([f"steepest.{room}" for room in (*CHECKED, "sampling.advantages")], "beartype.beartype")


@pytest.fixture(autouse=True)
def no_cache_on_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """`main` in this process leaves the switches of JAX and the user's cache as they are; a subprocess has its own."""
    monkeypatch.setattr(commands, "cache_compilations", lambda: None)


@pytest.fixture(autouse=True, scope="module")
def programs_are_freed() -> Iterator[None]:
    """XLA maps memory for each program, and a process that runs out of maps crashes: a module takes its own with it."""
    yield
    jax.clear_caches()


@pytest.fixture(scope="module")
def x64_off() -> Iterator[None]:
    """What a script has that sets no switch, whatever another module left behind."""
    with jax.enable_x64(False):
        yield


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--claim", action="append", default=[], metavar="LABEL", help="only the tests of this claim")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        for label in (label for mark in item.iter_markers("claim") for label in mark.args):
            if label not in CLAIMS:
                raise pytest.UsageError(f"{item.nodeid}: {unknown('claim', label, CLAIMS)}")
    wanted = set(config.getoption("--claim") or [])
    for label in wanted - CLAIMS.keys():
        raise pytest.UsageError(str(unknown("claim", label, CLAIMS)))
    if wanted:
        kept = [item for item in items if any(wanted & set(mark.args) for mark in item.iter_markers("claim"))]
        config.hook.pytest_deselected(items=[item for item in items if item not in set(kept)])
        items[:] = kept
