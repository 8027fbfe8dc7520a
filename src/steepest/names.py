"""Registries: a name on the command line or in a file ↦ the thing it means, never an import.

worlds = Registry("environment backend")
worlds.add("gymnasium", make_gymnasium)
worlds["gymnasuim"]        # UsageError: … did you mean 'gymnasium'?
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Iterable, Iterator
from typing import Any, Generic, TypeVar

from steepest.errors import UsageError

T = TypeVar("T")


def nearest(name: str, known: Iterable[str], count: int = 3) -> list[str]:
    """The `count` known names closest to `name`, best first; differing case counts as almost equal."""
    known = list(dict.fromkeys(known))
    folded = {k.casefold(): k for k in reversed(known)}
    close = difflib.get_close_matches(name.casefold(), list(folded), n=count, cutoff=0.6)
    return [folded[c] for c in close]


def unknown(kind: str, name: str, known: Iterable[str]) -> UsageError:
    """The error for a `name` that is no `kind`: it suggests the nearest, or lists what there is."""
    known = sorted(known)
    close = nearest(name, known)
    if close:
        hint = "did you mean " + " or ".join(repr(c) for c in close) + "?"
    else:
        hint = "known: " + ", ".join(known[:20]) + (" …" if len(known) > 20 else "")
    return UsageError(f"unknown {kind} {name!r}; {hint}")


class Registry(Generic[T]):
    """Names of one kind of thing. A lookup that fails suggests the nearest name."""

    def __init__(self, kind: str):
        self.kind = kind
        self._entries: dict[str, T] = {}

    def add(self, name: str, entry: T) -> T:
        """Register `entry` under `name`; a name can be taken once. Raises UsageError otherwise."""
        if name in self._entries:
            raise UsageError(f"{self.kind} {name!r} is registered already")
        self._entries[name] = entry
        return entry

    def __getitem__(self, name: str) -> T:
        if name not in self._entries:
            raise unknown(self.kind, name, self._entries)
        return self._entries[name]

    def call(self, name: str, /, **arguments: Any) -> Any:
        """The entry of that name, called. Raises UsageError where it takes no such arguments."""
        entry: Any = self[name]
        signature = inspect.signature(entry)
        try:
            signature.bind(**arguments)
        except TypeError as error:
            raise UsageError(f"{self.kind} {name!r}: {error}; it takes {', '.join(signature.parameters)}") from None
        return entry(**arguments)

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)
