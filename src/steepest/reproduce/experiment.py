"""What an experiment is: a function that computes and draws, and the sentences beside its figure.

Each file in this room holds one, as `EXPERIMENT`; `registry.py` lists them. `run` is pure: it returns an `Outcome`
and writes nothing; `output.py` writes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple


class Outcome(NamedTuple):
    """figure: a matplotlib Figure.  rows: the numbers behind it, for a CSV: one mapping column ↦ value a row, all with
    the same columns.  ours: what we get, with the numbers that were measured in this very run.  differs: where that
    differs from the source, and why.  table: a few rows to print beside the figure, or none."""

    figure: Any
    rows: Sequence[Mapping[str, Any]]
    ours: str
    differs: str
    table: Sequence[Mapping[str, Any]] = ()


@dataclass(frozen=True)
class Experiment:
    """An experiment of a lecture or paper.

    title: one line.  source: who showed it, where.  shows: what the source shows, in our words.  claims: the labels
    that the figure makes visible.  run: (quick) ↦ `Outcome`; quick takes seconds, and says in `ours` what it left out.
    """

    title: str
    source: str
    shows: str
    run: Callable[[bool], Outcome]
    claims: tuple[str, ...] = field(default=())
