"""Files that are either the old one or the new one, never half of each; data only, nothing that executes.

    write    temporary file in the same folder → flush → fsync → rename over the old file → fsync of the folder

A power cut, a kill or a full disk leaves the old file as it was. Arrays are safetensors, the rest is JSON.
"""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
import secrets
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import numpy as np
import safetensors.numpy

from steepest.errors import RunError, UsageError
from steepest.runs import strict_json, tensor_file
from steepest.runs.strict_json import parse_json

T = TypeVar("T")

_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
"""A pipe in place of a file is not waited for, and a link is not followed: a run folder may be of a stranger."""


class DamagedFileError(RunError):
    """A file that is there but is not what was written: cut short, overwritten, or of another kind."""


def failure(action: str, path: Path | str, error: OSError) -> RunError:
    """The error for an operating system's refusal: 'cannot write runs/a/config.json: No space left on device'."""
    return RunError(f"cannot {action} {path}: {error.strerror or error}")


def reachable(path: Path | str) -> Path:
    """The path, whether or not anything is there. Raises UsageError where the system does not even look: for a name too
    long, or in a folder that is closed to us."""
    path = Path(path)
    try:
        path.exists()
    except OSError as error:
        raise UsageError(f"{str(path)!r:.200}: {error.strerror or error}") from error
    return path


def write_bytes(path: Path | str, data: bytes) -> None:
    """Replace the file at `path` by `data`, atomically and durably.

    Raises RunError where the system refuses (a full disk, no permission); the old file is then intact.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        try:
            with open(temporary, "xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise
        sync_folder(path.parent)
    except OSError as error:
        raise failure("write", path, error) from error


def sync_folder(folder: Path) -> None:
    """Make a rename inside `folder` survive a power cut, on the systems that can."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some network file systems have no such operation
            raise
    finally:
        os.close(descriptor)


def standard(value: Any) -> Any:
    """`value` in the types of standard JSON: arrays become lists, paths strings, and NaN and ±∞ become null.

    JSON has no word for a number that is not finite; what reads these files elsewhere would refuse Python's own.
    """
    if isinstance(value, dict):
        return {str(k): standard(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [standard(v) for v in value]
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if hasattr(value, "tolist"):  # NumPy and JAX, scalars included
        return standard(value.tolist())
    return value


def write_json(path: Path | str, value: Any) -> None:
    """Write `value` as standard JSON (see `standard`: NaN and ±∞ become null), atomically.

    Raises RunError as `write_bytes`, TypeError for a value JSON has no form for.
    """
    text = json.dumps(standard(value), indent=2, allow_nan=False)
    write_bytes(path, text.encode() + b"\n")


def write_arrays(path: Path | str, arrays: dict[str, np.ndarray], metadata: dict[str, str]) -> None:
    """Write named arrays of any shape and the text `metadata` as one safetensors file, atomically.

    Raises RunError as `write_bytes`, and for a dtype that safetensors has no name for (complex128, objects, strings).
    """
    # safetensors reads the memory behind each array in order: a transposed view would be stored permuted
    contiguous = {name: np.asarray(array, order="C") for name, array in arrays.items()}
    for name, array in contiguous.items():
        if array.dtype.name not in tensor_file.DTYPES.values():
            raise RunError(
                f"cannot write {path}: array {name!r} has dtype {array.dtype}, which safetensors cannot hold"
            )
    write_bytes(path, safetensors.numpy.save(contiguous, metadata))


@contextlib.contextmanager
def open_file(path: Path | str) -> Iterator[tuple[BinaryIO, int]]:
    """(file, size in bytes) of a file, open to be read.

    Raises RunError if it is missing or cannot be read; DamagedFileError for a folder, a symbolic link, a pipe or a
    device, on none of which it waits, and where the disk fails.
    """
    try:
        descriptor = os.open(path, _READ)
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            os.close(descriptor)
            raise DamagedFileError(f"{path} is not a file")
        with open(descriptor, "rb") as file:
            yield file, status.st_size
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise DamagedFileError(f"{path} is a symbolic link; put the file itself in its place") from error
        if error.errno == errno.EIO:
            raise DamagedFileError(f"{path} is damaged: {error.strerror}") from error
        raise failure("read", path, error) from error
    except MemoryError as error:
        raise RunError(f"cannot read {path}: it is larger than the memory") from error


def read_bytes(path: Path | str) -> bytes:
    """The whole file. Raises RunError as `open_file`."""
    with open_file(path) as (file, _):
        return file.read()


def read_json(path: Path | str) -> Any:
    """The value in a JSON file of at most 16 MiB.

    Raises RunError as `open_file`, and if it is larger than that, cut short or not standard JSON.
    """
    with open_file(path) as (file, size):
        if size > strict_json.LIMIT:
            raise DamagedFileError(f"{path} is larger than {strict_json.LIMIT // 2**20} MiB: not a file of a run")
        data = file.read(strict_json.LIMIT + 1)
    try:
        return parse_json(data)
    except ValueError as error:
        raise DamagedFileError(f"{path} is damaged: not JSON ({error})") from error


def read_header(path: Path | str) -> tensor_file.Header:
    """What a safetensors file says it holds. Raises RunError as `read_arrays`."""
    with open_file(path) as (file, size):
        return _parsed(path, lambda: tensor_file.read_header(file, size))


def read_arrays(path: Path | str) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """(arrays, metadata) of a safetensors file; the arrays own their memory and can be written to.

    Raises RunError as `open_file`, DamagedFileError for a file that is cut short or of another kind.
    """
    with open_file(path) as (file, size):
        return _parsed(path, lambda: tensor_file.read(file, size))


def _parsed(path: Path | str, read: Callable[[], T]) -> T:
    try:
        return read()
    except ValueError as error:
        raise DamagedFileError(f"{path} is damaged: not a safetensors file ({error})") from error
