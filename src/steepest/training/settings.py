"""Settings by name, and configurations as records: the way from what a user wrote, or a file says, to a `TrainConfig`.

Every value is checked against the type of its field: a file is data, and so is a keyword argument.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Iterator, Mapping
from typing import Any, Literal

from steepest.errors import UsageError
from steepest.names import unknown
from steepest.training.config import TrainConfig


def with_settings(config: TrainConfig, settings: Mapping[str, Any]) -> TrainConfig:
    """The configuration with some settings changed.

    settings: by dotted path ("sampling.envs"), by name where only one setting has it ("envs", "delta"), or a whole part
        ("critic": CriticConfig(…) or a mapping of its fields).

    Raises UsageError for an unknown or ambiguous name, naming the nearest, and for a value of another type.
    """
    paths = list(_paths(config))
    for name, value in settings.items():
        matches = [p for p in paths if p == name] or [p for p in paths if p.rpartition(".")[2] == name]
        if not matches:
            raise unknown("setting", name, {*paths, *(p.rpartition(".")[2] for p in paths)})
        if len(matches) > 1:
            raise UsageError(f"setting {name!r} could be {' or '.join(matches)}")
        config = _set(config, matches[0].split("."), value)
    return from_record(to_record(config))


def to_record(config: Any) -> dict[str, Any]:
    """JSON of a configuration."""
    return dataclasses.asdict(config)


def from_record(record: Any) -> TrainConfig:
    """The configuration of a JSON record. Raises UsageError for a field that is missing, unknown or of another type."""
    return _build(TrainConfig, _since_networks(record), "config")


def _since_networks(record: Any) -> Any:
    """The record of a run whose networks had no names: all were MLPs, of images too."""
    if not isinstance(record, dict):
        return record
    named = {
        part: {"network": "mlp", **value}
        for part in ("policy", "critic")
        if isinstance(value := record.get(part), dict)
    }
    return {**record, **named}


def _paths(config: Any, prefix: str = "") -> Iterator[str]:
    for f in dataclasses.fields(config):
        yield prefix + f.name
        if dataclasses.is_dataclass(getattr(config, f.name)):
            yield from _paths(getattr(config, f.name), prefix + f.name + ".")


def _set(config: Any, path: list[str], value: Any) -> Any:
    current = getattr(config, path[0])
    if len(path) > 1:
        value = _set(current, path[1:], value)
    elif dataclasses.is_dataclass(current) and isinstance(value, Mapping):
        for name, inner in value.items():
            if name not in {f.name for f in dataclasses.fields(current)}:
                raise unknown(f"setting of {path[0]}", name, [f.name for f in dataclasses.fields(current)])
            current = _set(current, [name], inner)
        value = current
    elif dataclasses.is_dataclass(current) and type(value) is not type(current):
        raise UsageError(f"{path[0]} takes a {type(current).__name__} or a mapping, got {value!r}")
    elif isinstance(value, list):
        value = tuple(value)
    return dataclasses.replace(config, **{path[0]: value})


def _build(cls: Any, record: Any, where: str) -> Any:
    if not isinstance(record, dict):
        raise UsageError(f"{where} is not a JSON object: {record!r:.80}")
    types_of = typing.get_type_hints(cls)
    for name in record:
        if name not in types_of:
            raise unknown(f"setting of {where}", name, types_of)
    missing = [f.name for f in dataclasses.fields(cls) if f.name not in record and _required(f)]
    if missing:
        raise UsageError(f"{where} lacks {', '.join(missing)}")
    return cls(**{name: _typed(f"{where}.{name}", types_of[name], value) for name, value in record.items()})


def _required(f: dataclasses.Field) -> bool:
    return f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING


def _typed(where: str, kind: Any, value: Any) -> Any:
    """A JSON value as a field's type: a dataclass, a union, a Literal, a tuple of ints, or int, float, str, bool."""
    if dataclasses.is_dataclass(kind):
        return _build(kind, value, where)
    union = typing.get_origin(kind) in (types.UnionType, typing.Union)  # the latter of a Literal or None
    for option in typing.get_args(kind) if union else (kind,):
        origin = typing.get_origin(option)
        if option is int and isinstance(value, float) and value.is_integer():
            return int(value)
        if origin is Literal and value in typing.get_args(option):
            return value
        if origin is tuple and isinstance(value, list | tuple):
            part = typing.get_args(option)[0]
            if all(type(each) is part for each in value):
                return tuple(value)
        if option is float and isinstance(value, int | float) and not isinstance(value, bool):
            return float(value)
        if origin is None and type(value) is option:
            return value
    raise UsageError(f"{where} must be {_say(kind)}, got {value!r:.80}")


def _say(kind: Any) -> str:
    if typing.get_origin(kind) is Literal:
        return "one of " + ", ".join(map(repr, typing.get_args(kind)))
    return (
        kind.__name__ if isinstance(kind, type) and not typing.get_args(kind) else str(kind).replace("NoneType", "None")
    )
