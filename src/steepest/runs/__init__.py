"""The run folder: checkpoints, atomic files, metric sinks, reader. Data in, data out; nothing here executes a file."""

from steepest.runs import checkpoint
from steepest.runs.files import (
    DamagedFileError,
    read_arrays,
    read_json,
    write_arrays,
    write_bytes,
    write_json,
)
from steepest.runs.folder import RunFolder, default_path
from steepest.runs.kept import Found, set_aside
from steepest.runs.reader import columns, read_lines
from steepest.runs.sinks import SINKS, JsonLines, Plugged, Sink, TensorBoard

__all__ = [
    "SINKS",
    "DamagedFileError",
    "Found",
    "JsonLines",
    "Plugged",
    "RunFolder",
    "Sink",
    "TensorBoard",
    "checkpoint",
    "columns",
    "default_path",
    "read_arrays",
    "read_json",
    "read_lines",
    "set_aside",
    "write_arrays",
    "write_bytes",
    "write_json",
]
