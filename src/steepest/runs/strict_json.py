"""JSON of strangers: the standard and no more, in bounded depth, size and digits.

What a reader does with its memory and its stack is decided here, before a value exists. Two keys of one name, numbers
that are not finite and integers that no counter reaches are refused: two readers could take them for different things.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any

LIMIT = 16 * 2**20
"""Bytes of one text; nothing written here comes near it."""
DEPTH = 32
"""Of nesting. The deepest that is written is 5."""
CONTAINERS = 200_000
"""Objects and lists of one text: an empty one takes 64 bytes of memory for 2 in the file."""
DIGITS = 20
"""Of an integer: as many as 2⁶⁴ has."""

_STRUCTURE = re.compile(r'"(?:[^"\\]|\\.)*+"?|[\[{]|[\]}]', re.DOTALL)
"""Strings, closed or not, so that no text is looked at twice; and brackets outside of them."""


def parse_json(text: bytes | str) -> Any:
    """The value of a text in standard JSON.

    Raises ValueError, in one line, for anything else, and for what is beyond the limits above.
    """
    if len(text) > LIMIT:
        raise ValueError(f"larger than {LIMIT // 2**20} MiB")
    if isinstance(text, bytes):
        text = text.decode()
    _check_structure(text)
    return _decoder.decode(text)


def _check_structure(text: str) -> None:
    """Raise ValueError for a text that is nested too deeply or has too many parts, without building any."""
    if text.count("[") + text.count("{") < DEPTH:  # true of nearly every text, and quick to see
        return
    depth = containers = 0
    for match in _STRUCTURE.finditer(text):
        first = match[0][0]
        if first in "[{":
            depth, containers = depth + 1, containers + 1
            if depth > DEPTH:
                raise ValueError(f"nested more than {DEPTH} deep")
            if containers > CONTAINERS:
                raise ValueError(f"more than {CONTAINERS} objects and lists")
        elif first in "]}":
            depth -= 1


def _constant(name: str) -> None:
    raise ValueError(f"{name} is not standard JSON")


def _integer(digits: str) -> int:
    if len(digits) > DIGITS:
        raise ValueError(f"an integer of {len(digits)} digits")
    return int(digits)


def _number(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text:.20} is not a finite number")
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        raise ValueError("two values under one name")
    return value


_decoder = json.JSONDecoder(
    object_pairs_hook=_object, parse_float=_number, parse_int=_integer, parse_constant=_constant
)
