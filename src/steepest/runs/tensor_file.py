"""Reads safetensors: named arrays and a text, of which the file proves every byte before memory is taken for it.

    8 bytes: n, little-endian │ n bytes: JSON │ the arrays, one after the other
    {"__metadata__": {text: text}, name: {"dtype": "F32", "shape": [2, 3], "data_offsets": [begin, end]}, …}

The arrays must fill the rest of the file: none overlaps another, nothing lies between them or after the last. The
writer is the safetensors package; what is read by one parser cannot be two things to two of them.
"""

from __future__ import annotations

import math
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from steepest.runs.strict_json import LIMIT, parse_json

DTYPES = {
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
NAME_LIMIT = 1000
"""Characters of an array's name."""
_AXES = 32
_KEYS = {"dtype", "shape", "data_offsets"}


class Entry(NamedTuple):
    """An array in a file.  begin, end: bytes, from the first array's first."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


class Header(NamedTuple):
    """What a file says it holds, found to be possible.  arrays: in the order they lie in."""

    metadata: dict[str, str]
    arrays: tuple[Entry, ...]


def read_header(file: BinaryIO, size: int) -> Header:
    """The header of an open file of `size` bytes, which is then at its first array.

    Raises ValueError for a file that is no safetensors file, or is not of the size that its header says.
    """
    length = int.from_bytes(_exactly(file, 8, "its first 8 bytes"), "little")
    if length > min(LIMIT, size - 8):
        raise ValueError(f"a header of {length} bytes, in a file of {size}")
    record = parse_json(_exactly(file, length, "its header"))
    if not isinstance(record, dict):
        raise ValueError("its header is no object")
    metadata = record.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise ValueError("its metadata is not text by name")
    arrays = sorted((_entry(name, entry) for name, entry in record.items()), key=lambda e: (e.begin, e.end))
    end = 0
    for entry in arrays:
        if entry.begin != end:
            raise ValueError(f"array {entry.name!r} begins at byte {entry.begin}, where {end} was expected")
        end = entry.end
    if end != size - 8 - length:
        raise ValueError(f"its arrays take {end} bytes, of {size - 8 - length} that there are")
    return Header(metadata, tuple(arrays))


def read(file: BinaryIO, size: int) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """(arrays, metadata) of an open file of `size` bytes; the arrays own their memory.

    Raises ValueError as `read_header`, where the file becomes shorter, and for a bool that is neither 0 nor 1.
    """
    header, arrays = read_header(file, size), {}
    for entry in header.arrays:
        array = np.empty(entry.shape, _numpy(entry.dtype))
        raw = array.reshape(-1).view(np.uint8)
        if array.size and file.readinto(raw.data) != len(raw):  # pyright: ignore[reportAttributeAccessIssue]
            raise ValueError(f"it ends within array {entry.name!r}")
        if entry.dtype == "BOOL" and array.size and raw.max() > 1:
            raise ValueError(f"array {entry.name!r} has a bool that is neither 0 nor 1")
        arrays[entry.name] = array
    return arrays, header.metadata


def _entry(name: str, entry: Any) -> Entry:
    """One line of the header. Raises ValueError for one that cannot be."""
    if not name.isprintable() or len(name) > NAME_LIMIT:
        raise ValueError(f"an array's name that is no printable text of {NAME_LIMIT} characters: {name!r:.80}")
    if not isinstance(entry, dict) or set(entry) != _KEYS:
        raise ValueError(f"array {name!r} has not just dtype, shape and data_offsets")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise ValueError(f"array {name!r} has the unknown dtype {dtype!r:.80}")
    if not _naturals(shape) or len(shape) > _AXES:
        raise ValueError(f"array {name!r} has the impossible shape {shape!r:.80}")
    if not _naturals(offsets) or len(offsets) != 2:
        raise ValueError(f"array {name!r} has the impossible offsets {offsets!r:.80}")
    begin, end = offsets
    size = math.prod(shape) * _numpy(dtype).itemsize
    if end - begin != size:
        raise ValueError(
            f"array {name!r}, {dtype} of shape {shape!r:.80}, takes {end - begin} bytes in place of {size}"
        )
    return Entry(name, dtype, tuple(shape), begin, end)


def _naturals(value: Any) -> bool:
    return isinstance(value, list) and all(type(n) is int and 0 <= n < 2**63 for n in value)


def _numpy(name: str) -> np.dtype:
    if name == "BF16":
        import ml_dtypes  # comes with JAX, and gives NumPy its 'bfloat16'

        return np.dtype(ml_dtypes.bfloat16)
    return np.dtype(DTYPES[name])


def _exactly(file: BinaryIO, count: int, what: str) -> bytes:
    data = file.read(count)
    if len(data) != count:
        raise ValueError(f"it ends within {what}")
    return data
