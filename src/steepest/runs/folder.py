"""The run folder: where one training run keeps everything it will ever be asked for.

runs/<env>/<algorithm>/<time>-s<seed>/
    config.json  meta.json  metrics.jsonl  episodes.jsonl  faults.jsonl  events.jsonl  evaluation.json  checkpoints/
    updates/  learning_curve.png
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from steepest.errors import RunError, UsageError
from steepest.names import nearest
from steepest.runs import checkpoint, kept
from steepest.runs.files import DamagedFileError, failure, reachable, read_json, write_json
from steepest.runs.meta import describe_program


def default_path(env: str, algorithm: str, seed: int, root: Path | str = "runs") -> Path:
    """runs/<env>/<algorithm>/<YYYYmmdd-HHMMSS>-s<seed>, in local time, with -2, -3, … if that exists already.

    Characters that a file name cannot hold everywhere become '-': `mdp:two-state` ↦ `mdp-two-state`.
    """
    stem = Path(root) / _file_name(env) / _file_name(algorithm) / f"{time.strftime('%Y%m%d-%H%M%S')}-s{seed}"
    path, count = stem, 1
    while path.exists():
        count += 1
        path = stem.with_name(f"{stem.name}-{count}")
    return path


def _file_name(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.")[:100] or "unnamed"


@dataclass(frozen=True)
class RunFolder:
    """The paths of a run, and the checkpoints in it. Made by `create`, `create_default` or `open`."""

    path: Path

    @property
    def config_path(self) -> Path:
        return self.path / "config.json"

    @property
    def meta_path(self) -> Path:
        return self.path / "meta.json"

    @property
    def metrics_path(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def episodes_path(self) -> Path:
        return self.path / "episodes.jsonl"

    @property
    def events_path(self) -> Path:
        return self.path / "events.jsonl"

    @property
    def faults_path(self) -> Path:
        return self.path / "faults.jsonl"

    @property
    def checkpoints_path(self) -> Path:
        return self.path / "checkpoints"

    @property
    def evaluation_path(self) -> Path:
        return self.path / "evaluation.json"

    @property
    def learning_curve_path(self) -> Path:
        return self.path / "learning_curve.png"

    @classmethod
    def create(cls, path: Path | str) -> RunFolder:
        """A new run folder at `path`, parents included; an empty folder that is there already will do.

        Raises UsageError if `path` is a file or a folder with something in it, RunError where the system refuses.
        """
        run = cls(Path(path))
        try:
            run.path.mkdir(parents=True, exist_ok=True)
            if any(run.path.iterdir()):
                raise _not_empty(run.path)
            run.checkpoints_path.mkdir()  # the claim: of two runs that found the folder empty, one fails here
        except FileExistsError as error:
            if run.path.is_dir():
                raise _not_empty(run.path) from error
            raise UsageError(f"{path} exists and is not a folder; choose another --out") from error
        except NotADirectoryError as error:
            raise UsageError(
                f"{path} cannot be a folder: something above it is a file; choose another --out"
            ) from error
        except OSError as error:
            raise failure("create", path, error) from error
        return run

    @classmethod
    def create_default(cls, env: str, algorithm: str, seed: int, root: Path | str = "runs") -> RunFolder:
        """A new run folder at `default_path`, also when several runs ask for the same one at once."""
        for _ in range(100):
            path = default_path(env, algorithm, seed, root)
            try:
                return cls.create(path)
            except UsageError:
                if not path.is_dir():
                    raise
        raise RunError(f"cannot create a run folder under {root}: others take every name first")

    @classmethod
    def open(cls, path: Path | str) -> RunFolder:
        """The run folder that is at `path`.

        Raises UsageError if there is none: it names what is missing and the nearest folders that are there.
        """
        run = cls(reachable(path))
        if not run.path.exists():
            raise UsageError(f"{path} is not a run folder: it does not exist{_siblings(run.path)}")
        if not run.path.is_dir():
            raise UsageError(f"{path} is not a run folder: it is a file")
        for needed in (run.config_path, run.meta_path):
            if not needed.is_file():
                raise UsageError(f"{path} is not a run folder: no {needed.name}{_inside(run.path)}")
        return run

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the folder: of two processes that would write into it the second gets a UsageError. A process that dies
        lets go. Raises RunError where something in the folder is a link to elsewhere."""
        try:
            _refuse_strangers(self.path)
            descriptor = os.open(self.path / ".lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
        except OSError as error:
            raise failure("open", self.path / ".lock", error) from error
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise UsageError(f"{self.path} is in use: another process is writing into it") from error
            _sweep(self.path)
            yield
        finally:
            os.close(descriptor)

    def discard(self) -> None:
        """Remove everything, from a run that has not got as far as its first iteration."""
        shutil.rmtree(self.path, ignore_errors=True)

    def write_config(self, config: dict[str, Any]) -> None:
        """Write config.json: everything needed to start the same run again."""
        write_json(self.config_path, config)

    def read_config(self) -> dict[str, Any]:
        """What `write_config` was given. Raises RunError if it is damaged."""
        return _object(self.config_path)

    def write_evaluation(self, evaluation: dict[str, Any]) -> None:
        """Write evaluation.json: the returns of the last agent, and the seed that gives them again."""
        write_json(self.evaluation_path, evaluation)

    @property
    def finished(self) -> bool:
        """Whether everything was written that a run leaves at its end."""
        return self.evaluation_path.exists() and self.learning_curve_path.exists()

    def forget_end(self) -> None:
        """Remove what a run leaves at its end: it goes on. Raises RunError where the system refuses."""
        for path in (self.evaluation_path, self.learning_curve_path):
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                raise failure("remove", path, error) from error

    def write_meta(self, device: dict[str, Any]) -> None:
        """Write meta.json: versions, platform, git commit, command line, time, and `device`: what JAX runs on."""
        write_json(self.meta_path, {**describe_program(), "device": device})

    def read_meta(self) -> dict[str, Any]:
        """What `write_meta` wrote. Raises RunError if it is damaged."""
        return _object(self.meta_path)

    @property
    def checkpoints(self) -> list[str]:
        """The names of the checkpoints that are there, sorted: 'best', 'last', 'steps-000000204800'."""
        return kept.names(self.checkpoints_path)

    def checkpoint_path(self, name: str) -> Path:
        """Where the checkpoint `name` is kept."""
        if name != _file_name(name):
            raise UsageError(f"{name!r} cannot name a checkpoint; letters, digits, '.', '_' and '-' can")
        return self.checkpoints_path / f"{name}{kept.SUFFIX}"

    def save_checkpoint(self, name: str, arrays: dict[str, np.ndarray], info: dict[str, Any]) -> None:
        """Save a checkpoint under a name of its own (see `checkpoint.save`). Raises RunError where that fails."""
        checkpoint.save(self.checkpoint_path(name), arrays, info)

    def save_last(self, arrays: dict[str, np.ndarray], info: dict[str, Any], *, steps: int, keep: int) -> None:
        """Save the checkpoint that a resumed run goes on from, and keep the last `keep`; see `kept.save_last`."""
        kept.save_last(self.checkpoints_path, arrays, info, steps, keep)

    def save_update(self, iteration: int, arrays: dict[str, np.ndarray], info: dict[str, Any]) -> None:
        """Save an update that failed as updates/iteration-000012.safetensors. Raises RunError where that fails."""
        folder = self.path / "updates"
        try:
            folder.mkdir(exist_ok=True)
        except OSError as error:
            raise failure("create", folder, error) from error
        checkpoint.save(folder / f"iteration-{iteration:06d}{kept.SUFFIX}", arrays, info)

    def load_last(self) -> kept.Found:
        """The newest whole checkpoint; see `kept.load_last`."""
        return kept.load_last(self.checkpoints_path)

    def load_checkpoint(self, name: str) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """(arrays, info) of a checkpoint; for 'last', of the newest that is whole, with a warning if that is another.

        Raises UsageError if there is no such checkpoint, RunError if it is damaged or of a later format.
        """
        if name == "last":
            found = self.load_last()
            return found.arrays, found.info
        path = self.checkpoint_path(name)
        if not os.path.lexists(path):
            there = ", ".join(self.checkpoints) or "none"
            raise UsageError(f"{self.path} has no checkpoint {name!r}; there: {there}")
        return checkpoint.load(path)


def _refuse_strangers(folder: Path) -> None:
    """Raise RunError for what is no file of a run folder's own: what a link points to would be written, wherever it is,
    and a pipe waits for ever."""
    for path in (folder, *(folder / name for name in ("checkpoints", "tensorboard", "updates"))):
        for entry in os.scandir(path) if path.is_dir() else ():
            if entry.is_symlink() or not (entry.is_file() or entry.is_dir()):
                what = "a symbolic link" if entry.is_symlink() else "neither a file nor a folder"
                raise RunError(
                    f"{entry.path} is {what}, and a run is written inside its own folder only: put the file or folder "
                    "itself in its place"
                )


def _sweep(folder: Path) -> None:
    """Remove what a killed process left half written."""
    for path in (*folder.glob(".*.tmp"), *folder.glob("checkpoints/.*.tmp"), *folder.glob("updates/.*.tmp")):
        path.unlink(missing_ok=True)


def _object(path: Path) -> dict[str, Any]:
    value = read_json(path)
    if not isinstance(value, dict):
        raise DamagedFileError(f"{path} is damaged: a JSON object expected, not {type(value).__name__}")
    return value


def _not_empty(path: Path) -> UsageError:
    return UsageError(f"{path} exists and is not empty; choose another --out, or `steepest resume {path}`")


def _siblings(path: Path) -> str:
    """A hint with the folders next to `path` whose names are close to its own."""
    try:
        folders = [p.name for p in path.parent.iterdir() if p.is_dir()]
    except OSError:
        return f", nor does {path.parent}" if not path.parent.exists() else ""
    close = nearest(path.name, folders)
    return "; did you mean " + " or ".join(str(path.parent / c) for c in close) + "?" if close else ""


def _inside(path: Path) -> str:
    """A hint with the newest run folders below `path`, for whoever named the folder of an environment."""
    found = [p.parent for depth in ("*", "*/*", "*/*/*") for p in path.glob(f"{depth}/config.json")]
    newest = sorted(found, key=lambda p: p.name)[-3:][::-1]
    return "; run folders in it: " + ", ".join(map(str, newest)) if newest else ""
