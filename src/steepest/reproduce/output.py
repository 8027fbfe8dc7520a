"""Writing what experiments made: NAME.png, NAME.svg, NAME.csv, NAME.md, and one index.html over all of them.

A folder is filled file by file, each whole or not at all; the index is rebuilt from the records that are there, so
that experiments may be run one by one.
"""

from __future__ import annotations

import base64
import csv
import html
import io
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from steepest.errors import RunError
from steepest.reports.figures import save_png, save_svg
from steepest.reproduce.experiment import Experiment, Outcome
from steepest.reproduce.registry import EXPERIMENTS, experiment
from steepest.runs import write_bytes
from steepest.runs.files import failure
from steepest.runs.meta import versions


def reproduce(name: str, out: Path, quick: bool) -> dict[str, Any]:
    """Run one experiment and write its files into the folder `out`.

    Returns its record: name, seconds, quick, files. Raises UsageError for an unknown name and, before it runs, RunError
    where `out` cannot be written or holds a damaged record.
    """
    what = experiment(name)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise failure("make the folder", out, error) from error
    write_index(out)  # what cannot be written is known before the minutes that follow
    started = time.perf_counter()
    outcome = what.run(quick)
    seconds = time.perf_counter() - started
    save_png(outcome.figure, out / f"{name}.png")
    save_svg(outcome.figure, out / f"{name}.svg")
    write_bytes(out / f"{name}.csv", _csv(outcome.rows))
    write_bytes(out / f"{name}.md", _markdown(name, what, outcome).encode())
    record = {
        "name": name,
        "seconds": round(seconds, 1),
        "quick": quick,
        "ours": outcome.ours,
        "differs": outcome.differs,
        "table": [{k: _cell(v) for k, v in row.items()} for row in outcome.table],
        "versions": versions(),
    }
    write_bytes(out / f"{name}.json", json.dumps(record, indent=1).encode())
    write_index(out)
    files = [str(out / f"{name}.{ending}") for ending in ("png", "svg", "csv", "md")]
    return {"name": name, "seconds": record["seconds"], "quick": quick, "files": files}


def write_index(out: Path) -> None:
    """One static page, with the figures in it, of the experiments whose records are in `out`."""
    sections = []
    for name in EXPERIMENTS:
        if (out / f"{name}.json").exists() and (out / f"{name}.png").exists():
            try:
                sections.append(_section(name, json.loads((out / f"{name}.json").read_text()), out))
            except (ValueError, KeyError) as error:
                raise RunError(f"{out / name}.json is damaged ({error}): make it again or remove it") from error
    page = _PAGE.format(sections="\n".join(sections))
    write_bytes(out / "index.html", page.encode())


def _csv(rows: Sequence[Mapping[str, Any]]) -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: _digits(value) for name, value in row.items()} for row in rows)
    return text.getvalue().encode()


def _digits(value: Any) -> Any:
    """Twelve significant digits of what is no whole number: more only make a file large."""
    return value if isinstance(value, bool | str | int | np.integer) else f"{float(value):.12g}"


def _markdown(name: str, what: Experiment, outcome: Outcome) -> str:
    claims = f"\n\nClaims: {', '.join(what.claims)}." if what.claims else ""
    table = f"\n\n{_table(outcome.table)}" if outcome.table else ""
    return (
        f"# {what.title}\n\n*{what.source}*{claims}\n\n![{what.title}]({name}.png)\n\n"
        f"**The source shows.** {what.shows}\n\n**We get.** {outcome.ours}{table}\n\n"
        f"**Where they differ.** {outcome.differs}\n"
    )


def _table(rows: Sequence[Mapping[str, Any]]) -> str:
    """A Markdown table."""
    cells = [list(rows[0]), *([str(_cell(value)) for value in row.values()] for row in rows)]
    head, *body = ("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in cells)
    return "\n".join([head, "|" + "---|" * len(rows[0]), *body])


def _cell(value: Any) -> str | int:
    if isinstance(value, bool | str | int):
        return value
    return f"{float(value):.6g}"


def _section(name: str, record: Mapping[str, Any], out: Path) -> str:
    what = experiment(name)
    image = base64.b64encode((out / f"{name}.png").read_bytes()).decode()
    rows = record["table"]
    table = ""
    if rows:
        head = "".join(f"<th>{html.escape(k)}</th>" for k in rows[0])
        body = "".join("<tr>" + "".join(f"<td>{html.escape(str(v))}</td>" for v in r.values()) + "</tr>" for r in rows)
        table = f"<table><tr>{head}</tr>{body}</table>"
    claims = f" · {', '.join(what.claims)}" if what.claims else ""
    note = " · quick version" if record["quick"] else ""
    return (
        f'<section id="{name}"><h2>{html.escape(what.title)}</h2>'
        f"<p class=source>{html.escape(what.source)}{claims}{note} · {record['seconds']} s</p>"
        f'<img alt="{html.escape(what.title)}" src="data:image/png;base64,{image}">'
        f"<p><b>The source shows.</b> {html.escape(what.shows)}</p>"
        f"<p><b>We get.</b> {html.escape(record['ours'])}</p>{table}"
        f"<p><b>Where they differ.</b> {html.escape(record['differs'])}</p>"
        f'<p class=source><a href="{name}.svg">SVG</a> · <a href="{name}.csv">CSV</a> · '
        f"<code>steepest reproduce {name}{' --quick' if record['quick'] else ''}</code></p></section>"
    )


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>steepest: the experiments</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 46rem; margin: 2rem auto; padding: 0 1rem; color: #222 }}
img {{ max-width: 100%; width: 40rem }} .source {{ color: #666; font-size: 14px }}
table {{ border-collapse: collapse; font-size: 14px; margin: 1rem 0; display: block; overflow-x: auto }}
td, th {{ border-bottom: 1px solid #ddd; padding: .2rem .7rem; text-align: right }}
section {{ border-top: 1px solid #ccc; margin-top: 2rem }}
</style></head><body>
<h1>The experiments of the lecture and the papers</h1>
<p>Each figure, its numbers and its sentences were made by the command below it.</p>
{sections}
</body></html>
"""
