"""The readers of files, fuzzed by coverage: what reaches new lines of them is kept and changed further.

python tests/coverage_fuzzing.py -max_total_time=120          make fuzz; needs the package atheris

An input is a reader's number and bytes for it. Whatever comes of it is a value or an error of one line; anything else,
and an input that takes longer than five seconds or 1 GiB, ends the program with the input in a file beside it.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import atheris as _atheris  # pyright: ignore[reportMissingImports]

atheris: Any = _atheris  # its functions are compiled
READ = ["steepest.runs", "steepest.spaces", "steepest.training.recorded", "steepest.training.settings"]
with atheris.instrument_imports(include=[*READ, "steepest.training.checks", "steepest.policies.specification"]):
    from steepest.errors import RunError, UsageError
    from steepest.runs import checkpoint, read_arrays, read_lines
    from steepest.runs.strict_json import parse_json
    from steepest.training.checks import check
    from steepest.training.config import TrainConfig
    from steepest.training.recorded import costs_of, logs_of, objects_of, progress_of, space_of, spec_of
    from steepest.training.settings import from_record, to_record

LAST = Path(__file__).parent / "data" / "format-1" / "checkpoints" / "last.safetensors"
ARRAYS, INFO = checkpoint.load(LAST)
SCRATCH = Path(tempfile.mkdtemp(prefix="steepest-fuzz-"))


def json_text(data: bytes) -> None:
    """A value that is JSON again, or a ValueError."""
    try:
        value = parse_json(data)
    except ValueError:
        return
    assert parse_json(json.dumps(value, allow_nan=False)) == value


def checkpoint_file(data: bytes) -> None:
    """No more arrays than there are bytes."""
    path = SCRATCH / "file.safetensors"
    path.write_bytes(data)
    for read in (read_arrays, checkpoint.load):
        arrays = read(path)[0]
        assert sum(array.nbytes for array in arrays.values()) < len(data)


def info(data: bytes) -> None:
    """What a checkpoint says of itself."""
    value = parsed(data)
    if not isinstance(value, dict):
        return
    for read in (progress_of, logs_of, objects_of, costs_of, lambda i: spec_of(i, ARRAYS)):
        tell(lambda read=read: read(value))
    for role in ("observation", "action"):
        tell(lambda role=role: space_of(value, role))


def configuration(data: bytes) -> None:
    """One that is the same again as a record."""
    config = from_record(parsed(data))
    check(config)
    assert from_record(to_record(config)) == config


def log(data: bytes) -> None:
    """Rows of a log."""
    path = SCRATCH / "metrics.jsonl"
    path.write_bytes(data)
    assert all(isinstance(row, dict) for row in read_lines(path))


READERS = (json_text, checkpoint_file, info, configuration, log)


def parsed(data: bytes) -> object:
    """Of JSON; None of anything else."""
    try:
        return parse_json(data)
    except ValueError:
        return None


def tell(read: Callable[[], object]) -> None:
    """Call it; an error has one line."""
    said = ""
    try:
        read()
    except (RunError, UsageError) as error:
        said = str(error)
    assert "\n" not in said, said


def one_input(data: bytes) -> None:
    """libFuzzer's."""
    if data:
        tell(lambda: READERS[data[0] % len(READERS)](data[1:]))


def seeds(folder: Path) -> None:
    """Whole files to begin with."""
    whole = {
        1: LAST.read_bytes(),
        2: json.dumps(INFO).encode(),
        3: json.dumps(to_record(TrainConfig("CartPole-v1"))).encode(),
        4: (LAST.parents[1] / "metrics.jsonl").read_bytes()[:2000],
        0: b'{"a": [1, 2.5e-3, null, true, "\\u00e9"]}',
    }
    for number, data in whole.items():
        (folder / f"seed-{number}").write_bytes(bytes([number]) + data)


if __name__ == "__main__":
    corpus = SCRATCH / "corpus"
    corpus.mkdir()
    seeds(corpus)
    limits = ["-timeout=5", "-rss_limit_mb=3072", "-malloc_limit_mb=1024", "-max_len=16384"]
    atheris.Setup([sys.argv[0], *limits, *sys.argv[1:], str(corpus)], one_input)
    atheris.Fuzz()
