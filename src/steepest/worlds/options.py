"""Options of an environment behind its id, wherever an id is taken: `FrozenLake-v1,map_name=8x8,is_slippery=false`.

id,name=value,…   ↦   the id, and {name: value, …} for the environment's constructor

A value is `true` or `false`, a number, `none`, or else a word as it stands. What is neither is for Python, where an
environment may be a function that makes one.
"""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from steepest.errors import UsageError
from steepest.names import unknown

_NUMBER = re.compile(r"[+-]?(\d[\d_]{0,17}(\.\d{0,18})?|\.\d{1,18})([eE][+-]?\d{1,3})?", re.ASCII)
_WORDS: dict[str, Any] = {"true": True, "false": False, "none": None}
_PLAIN = re.compile(r"[\w+-]{1,64}")
_LARGEST = 10**7
"""What the whole numbers that only a file names may multiply to: of sizes, what is allocated by them."""
_OURS = {
    "envs": "--envs N says how many there are",
    "num_envs": "--envs N says how many there are",
    "rows": "--envs N says how many there are",
    "stack": "stack:N:ID stacks frames",
}
_NO_OPTIONS = frozenset(
    {"name", "spec", "called", "backend", "wrappers", "shows_masks", "vectorization_mode", "vector_kwargs",
     "disable_env_checker", "additional_wrappers"}
)  # fmt: skip
"""Arguments that say how an environment is made, and not what it is."""


def bare(spec: str) -> str:
    """The id without its options."""
    return spec.partition(",")[0]


def with_options(spec: str, *, trusted: bool = True) -> tuple[str, dict[str, Any]]:
    """(the id, name ↦ value of its options).

    trusted: False for an id that was read from a file: its options are then plain words and numbers, and no more is
    allocated by them than these say.

    Raises UsageError for an option without a name or a value, one that is said twice, and one that is none.
    """
    identifier, *said = spec.split(",")
    options: dict[str, Any] = {}
    for each in said:
        name, equals, value = (part.strip() for part in each.partition("="))
        if not equals or not value or not name.isidentifier():
            raise UsageError(
                f"environment {spec!r}: {each!r} is no option: they stand behind the id as name=value, as in "
                "FrozenLake-v1,map_name=8x8,is_slippery=false"
            )
        if name in options:
            raise UsageError(f"environment {spec!r}: {name} is said twice")
        if name in _OURS or name in _NO_OPTIONS:
            why = _OURS.get(name, "it says how environments are made")
            raise UsageError(f"environment {spec!r}: {name} is no option of an environment: {why}")
        options[name] = _value(value)
    if not trusted and not _harmless(options.values()):
        raise UsageError(
            f"environment {spec!r} has options that only a file names, and these may read files or take much memory: "
            f"repeat {spec!r} on the command line if you trust it"
        )
    return identifier, options


def _value(text: str) -> Any:
    if text.casefold() in _WORDS:
        return _WORDS[text.casefold()]
    if not _NUMBER.fullmatch(text):
        return text
    digits = text.replace("_", "")
    return int(digits) if re.fullmatch(r"[+-]?\d+", digits) else float(digits)


def _harmless(values: Iterable[Any]) -> bool:
    """Whether they name no file, and are no sizes of much."""
    values = list(values)
    if not all(_PLAIN.fullmatch(value) for value in values if isinstance(value, str)):
        return False
    sizes = [abs(value) for value in values if isinstance(value, int | float) and not isinstance(value, bool)]
    return math.prod(max(1, size) for size in sizes) <= _LARGEST


def wrong_option(identifier: str, options: Mapping[str, Any], error: Exception, make: Callable[..., Any]) -> None:
    """Raise UsageError where an error is that of a constructor that knows no such option, with the nearest that it has.

    make: the constructor.
    """
    if not isinstance(error, TypeError):
        return
    for name in options:
        if f"unexpected keyword argument {name!r}" in str(error):
            raise unknown(f"option of {identifier}", name, _options(make)) from error


def _options(make: Any) -> list[str]:
    """What a constructor takes, and those before it that it hands the rest to."""
    classes = [each for each in inspect.getmro(make) if "__init__" in vars(each)] if inspect.isclass(make) else [make]
    found: dict[str, None] = {}
    for each in classes:
        if each is object:
            continue
        parameters = inspect.signature(each).parameters.values()
        found |= {p.name: None for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
        if not any(p.kind is p.VAR_KEYWORD for p in parameters):
            break
    return [name for name in (*found, "max_episode_steps") if name not in _OURS and name not in _NO_OPTIONS]
