"""What is in a checkpoint, as plain data and in words; of whoever's file, and without JAX.

    inspect(path) → {"path", "whole", "problem", "format", "versions", "config", "progress", …, "arrays": […]}

Of a run folder: every checkpoint in it, and the newest whole one in full.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from steepest.errors import RunError, UsageError
from steepest.runs import checkpoint
from steepest.runs.files import reachable
from steepest.runs.folder import RunFolder

_LONGEST = 200
"""Characters of a word from a file that are shown."""


def inspect(path: Path | str) -> dict[str, Any]:
    """What is in a checkpoint file, or in the checkpoints of a run folder.

    Returns what JSON can hold. `whole` is False, and `problem` says why, where a file is damaged; of a run folder,
    where none is whole. Raises UsageError if `path` is neither.
    """
    path = reachable(path)
    if not path.is_dir():
        if not path.exists():
            raise UsageError(f"{path} is neither a checkpoint nor a run folder: it does not exist")
        return _file(path.resolve() if path.is_file() else path)
    folder = RunFolder.open(path)
    names = [name for name in folder.checkpoints if name != "last"]
    if not folder.checkpoints:
        raise UsageError(f"{path} has no checkpoint")
    order = ["last", *sorted((n for n in names if n.startswith("steps-")), reverse=True)]
    order += sorted(set(names) - set(order))
    found = {name: _file(folder.checkpoint_path(name)) for name in order if name in folder.checkpoints}
    going_on = [record for name, record in found.items() if record["whole"] and name != "best"]
    newest = going_on[0] if going_on else next(iter(found.values()))
    brief = [
        {"name": name, **{k: r[k] for k in ("whole", "problem", "format", "progress")}} for name, r in found.items()
    ]
    return {**newest, "run": str(path), "checkpoints": brief}


def _file(path: Path) -> dict[str, Any]:
    empty = {"format": None, "progress": {}, "arrays": [], "info": {}}
    try:
        envelope, arrays = checkpoint.read(path)
    except RunError as error:
        return {"path": str(path), "whole": False, "problem": str(error), **empty}
    info = envelope.info
    return {
        "path": str(path),
        "whole": True,
        "problem": None,
        "format": envelope.format,
        "progress": info.get("progress"),
        "arrays": [_array(name, arrays[name]) for name in sorted(arrays)],
        "info": info,
    }


def _array(name: str, array: np.ndarray) -> dict[str, Any]:
    exact = array.dtype.kind in "biu"
    return {
        "name": name,
        "dtype": array.dtype.name,
        "shape": list(array.shape),
        "bytes": array.nbytes,
        "not_finite": 0 if exact else int(array.size - np.isfinite(array).sum()),
    }


def in_words(record: dict[str, Any]) -> str:
    """What `inspect` found, a line each; what a file says is shown so that a terminal takes it for text."""
    lines = []
    for each in record.get("checkpoints", ()):
        state = f"whole, format {each['format']}, {_counters(each['progress'])}" if each["whole"] else "DAMAGED"
        lines.append(f"{each['name']:<24}{state}")
    if not record["whole"]:
        return "\n".join([*lines, _word(record["problem"], 10 * _LONGEST)])
    info, arrays = record["info"], record["arrays"]
    rows = {
        "checkpoint": record["path"],
        "checksum": "matches: every bit is as it was written",
        "format": record["format"],
        "written by": _pairs(info.get("versions")) or "not said",
        "run": _run(info.get("config")),
        "progress": _counters(record["progress"]),
        "policy": _pairs(info.get("policy")) or "a module of the user's",
        "observation": _space(info.get("observation")),
        "action": _space(info.get("action")),
        "arrays": f"{len(arrays)}, {sum(a['bytes'] for a in arrays):,} bytes, "
        f"{sum(a['not_finite'] for a in arrays)} numbers that are not finite",
    }
    lines += [f"{name:<12}{_word(value)}" for name, value in rows.items()]
    for a in arrays:
        shape = f"{a['dtype']}[{','.join(map(str, a['shape']))}]"
        bad = f", {a['not_finite']} not finite" if a["not_finite"] else ""
        lines.append(f"  {_word(a['name']):<52} {shape:<20} {a['bytes']:,} bytes{bad}")
    return "\n".join(lines)


def _run(config: Any) -> str:
    if not isinstance(config, dict):
        return "not said; in the run folder's config.json"
    return f"{_word(config.get('algorithm'))} on {_word(config.get('env'))}, seed {_word(config.get('seed'))}"


def _space(record: Any) -> str:
    """A space without its bounds, which are as many as it has entries."""
    return _pairs({k: v for k, v in record.items() if k not in ("low", "high")} if isinstance(record, dict) else None)


def _counters(progress: Any) -> str:
    return _pairs({k: v for k, v in progress.items() if v} if isinstance(progress, dict) else None) or "no step yet"


def _pairs(record: Any) -> str:
    if not isinstance(record, dict):
        return ""
    return ", ".join(f"{_word(name)} {_word(value)}" for name, value in record.items())


def _word(value: Any, longest: int = _LONGEST) -> str:
    text = f"{value:.6g}" if isinstance(value, float) else str(value)
    return (text if text.isprintable() else ascii(text))[:longest]
