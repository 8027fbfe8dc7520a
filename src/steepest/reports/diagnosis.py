"""A diagnosis on disk: NAME.png and NAME.svg of each figure, diagnosis.json with the numbers, diagnosis.md to read.

Everything is drawn and said before the first file is written, and each file is whole or not there.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from steepest.reports.diagnosis_figures import draw
from steepest.reports.diagnosis_text import Finding, findings, numbers
from steepest.reports.figures import save_png, save_svg
from steepest.runs import write_bytes, write_json
from steepest.runs.files import failure, standard


def write_diagnosis(data: Mapping[str, Any], out: Path | str) -> dict[str, Any]:
    """Write the figures, numbers and sentences of a diagnosis into the folder `out`, which is made if needed.

    data: as `training.diagnose.diagnose` gives it.

    Returns the record of diagnosis.json, in the types of JSON: the data, `numbers` (the table) and `findings`. Raises
    RunError where the system refuses.
    """
    out = Path(out)
    said = findings(data)
    figures = {finding.figure: draw(finding.figure, data) for finding in said}
    table = numbers(data)
    record = standard({**data, "numbers": table, "findings": [finding._asdict() for finding in said]})
    page = _page(data, table, said)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise failure("make the folder", out, error) from error
    for name, figure in figures.items():
        save_png(figure, out / f"{name}.png")
        save_svg(figure, out / f"{name}.svg")
    write_json(out / "diagnosis.json", record)
    write_bytes(out / "diagnosis.md", page.encode())
    return record


def _page(data: Mapping[str, Any], table: Mapping[str, Any], said: list[Finding]) -> str:
    run = data["run"]
    head = (
        f"# Diagnosis of {run['env']}, {run['algorithm']}, seed {run['seed']}\n\n"
        f"{run['iterations']} updates are in the log. What is measured below is measured at the policy of the last "
        f"checkpoint, after {run['steps']:,} steps, on {run['rows']:,} new rows: {run['batches']} batches of the run's "
        f"own size (seed {run['sample_seed']})"
    )
    vine = run["scheme"] == "vine"
    head += ", with the advantages of a single path instead of the run's vine.\n" if vine else ".\n"
    advice = [f"- {finding.advice} ({finding.title.lower()})" for finding in said if finding.advice]
    points = "## What may help\n\n" + ("\n".join(advice) if advice else "Nothing here calls for a change.") + "\n"
    sections = [
        f"## {finding.title}\n\n![{finding.title}]({finding.figure}.png)\n\n{finding.says}"
        + (f" **{finding.advice}**" if finding.advice else "")
        + "\n"
        for finding in said
    ]
    rows = "\n".join(f"| {name} | {_cell(value)} |" for name, value in table.items())
    return "\n".join([head, points, *sections, f"## Numbers\n\n| | |\n|---|---|\n{rows}\n"])


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    return str(value) if isinstance(value, int) else f"{float(value):.4g}"
