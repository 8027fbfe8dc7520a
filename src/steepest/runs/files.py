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
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy

from steepest.errors import RunError

JSON_LIMIT = 16 * 2**20  # bytes; a config or meta file beyond it was not written here

_DTYPES = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U64": "uint64",
    "U32": "uint32",
    "U16": "uint16",
    "U8": "uint8",
    "BOOL": "bool",
    "C64": "complex64",
}


class DamagedFileError(RunError):
    """A file that is there but is not what was written: cut short, overwritten, or of another kind."""


def failure(action: str, path: Path | str, error: OSError) -> RunError:
    """The error for an operating system's refusal: 'cannot write runs/a/config.json: No space left on device'."""
    return RunError(f"cannot {action} {path}: {error.strerror or error}")


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
        _sync_folder(path.parent)
    except OSError as error:
        raise failure("write", path, error) from error


def _sync_folder(folder: Path) -> None:
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
        if array.dtype.name not in _DTYPES.values():
            raise RunError(
                f"cannot write {path}: array {name!r} has dtype {array.dtype}, which safetensors cannot hold"
            )
    write_bytes(path, safetensors.numpy.save(contiguous, metadata))


def read_bytes(path: Path | str) -> bytes:
    """The whole file. Raises RunError if it is missing or cannot be read."""
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise failure("read", path, error) from error


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not standard JSON")


def parse_json(text: bytes | str) -> Any:
    """Standard JSON. Raises ValueError for anything else: NaN, bad UTF-8, nesting beyond the interpreter's depth."""
    try:
        return json.loads(text, parse_constant=_refuse_constant)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def read_json(path: Path | str) -> Any:
    """The value in a JSON file of at most 16 MiB.

    Raises RunError if it is missing, larger than that, cut short or not standard JSON.
    """
    try:
        with open(path, "rb") as file:
            data = file.read(JSON_LIMIT + 1)
    except OSError as error:
        raise failure("read", path, error) from error
    if len(data) > JSON_LIMIT:
        raise DamagedFileError(f"{path} is larger than {JSON_LIMIT // 2**20} MiB: not a file of a run")
    try:
        return parse_json(data)
    except ValueError as error:
        raise DamagedFileError(f"{path} is damaged: not JSON ({error})") from error


def read_arrays(path: Path | str) -> dict[str, np.ndarray]:
    """The named arrays of a safetensors file. Raises RunError if it is missing, cut short or of another kind."""
    return parse_arrays(read_bytes(path), path)[0]


def parse_arrays(data: bytes, path: Path | str) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """(arrays, metadata) of a safetensors file's content; `path` is for the message only.

    The arrays own their memory and can be written to. Raises RunError if `data` is not such a file.
    """
    try:
        arrays = {
            name: np.frombuffer(entry["data"], dtype=_dtype(entry["dtype"])).reshape(entry["shape"])
            for name, entry in safetensors.deserialize(data)
        }
        header = parse_json(data[8 : 8 + int.from_bytes(data[:8], "little")])
        return arrays, header.get("__metadata__") or {}
    except (safetensors.SafetensorError, ValueError, KeyError) as error:
        raise DamagedFileError(f"{path} is damaged: not a safetensors file ({error})") from error


def _dtype(name: str) -> np.dtype:
    if name == "BF16":
        import ml_dtypes  # comes with JAX, and gives NumPy its 'bfloat16'

        return np.dtype(ml_dtypes.bfloat16)
    return np.dtype(_DTYPES[name])
