"""Registries: a name on the command line or in a file ↦ the thing it means, never an import.

worlds = Registry("environment backend", "steepest.worlds")
worlds.add("gymnasium", make_gymnasium)
worlds["gymnasuim"]        # UsageError: … did you mean 'gymnasium'?
worlds.plug("moon")        # imports the installed package that has an entry point "moon" in the group steepest.worlds

A plugin is imported on the word of whoever types its name, and not because a file has it.
"""

from __future__ import annotations

import difflib
import importlib.metadata
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
    """Names of one kind of thing. A lookup that fails suggests the nearest name.

    group: of the entry points by which other packages add to it; None if they cannot.
    """

    def __init__(self, kind: str, group: str | None = None):
        self.kind, self.group = kind, group
        self._entries: dict[str, T] = {}

    def add(self, name: str, entry: T) -> T:
        """Register `entry` under `name`; a name can be taken once. Raises UsageError otherwise."""
        if name in self._entries:
            raise UsageError(f"{self.kind} {name!r} is registered already")
        self._entries[name] = entry
        return entry

    @property
    def plugins(self) -> dict[str, importlib.metadata.EntryPoint]:
        """What installed packages would add, by name; nothing is imported."""
        if self.group is None:
            return {}
        return {each.name: each for each in importlib.metadata.entry_points(group=self.group)}

    def plug(self, name: str) -> None:
        """Import the plugin of that name, if it is one and no entry yet: only ever on the user's own word.

        Raises UsageError for one that cannot be imported.
        """
        if name in self._entries or name not in self.plugins:
            return
        point = self.plugins[name]
        try:
            self._entries[name] = point.load()
        except Exception as error:
            what = f"{type(error).__name__}: {error}"
            raise UsageError(f"{self.kind} {name!r} is the plugin {point.value!r}, which raised {what}") from error

    def __getitem__(self, name: str) -> T:
        if name in self._entries:
            return self._entries[name]
        if name in self.plugins:
            raise UsageError(
                f"{self.kind} {name!r} is the plugin {self.plugins[name].value!r}, which only a file names; a file's "
                f"word imports nothing: repeat the name if you trust it"
            )
        raise unknown(self.kind, name, [*self._entries, *self.plugins])

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
