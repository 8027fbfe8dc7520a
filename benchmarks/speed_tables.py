"""Make the tables and figures of docs/speed.md of the rows that speed.py, returns.py and gpu.py wrote.

    python benchmarks/speed_tables.py
    python benchmarks/speed_tables.py --results FOLDER --page FILE --figures FOLDER --disturbed     # trials elsewhere

A table stands between `<!-- NAME -->` and `<!-- /NAME -->`; the sentences around it are the page's own. Rounds that
others disturbed are counted and left out.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import rows
from speed import ALONE
from speed_figures import draw_returns, draw_scale, draw_throughput, draw_update
from tuning import markdown

from steepest.reports.statistics import probability_of_improvement, stratified_bootstrap

HERE = Path(__file__).parent
Row = dict[str, str]
OURS = "steepest"


def kept(found: Sequence[Row], disturbed: bool) -> list[Row]:
    """The rows of undisturbed rounds, or with `disturbed` all."""
    return [row for row in found if disturbed or row["disturbed"] == "0"]


def values(found: Sequence[Row], case: str, side: str) -> dict[str, float]:
    """round ↦ value."""
    return {row["round"]: float(row["value"]) for row in found if row["case"] == case and row["side"] == side}


def ratios(found: Sequence[Row], case: str, side: str, ours: str = OURS) -> list[float]:
    """Of each round that has both: how many times better ours is. Less is better in seconds, more in steps/s."""
    theirs, mine = values(found, case, side), values(found, case, ours)
    more = next((row["unit"] for row in found if row["case"] == case), "s") == "steps/s"
    pairs = [(mine[k], theirs[k]) for k in mine if k in theirs]
    return [m / t if more else t / m for m, t in pairs]


def spread(numbers: Sequence[float], form: Callable[[float], str] = "{:.1f}".format) -> str:
    """The median, and the least and the greatest."""
    middle = form(statistics.median(numbers))
    return middle if len(numbers) < 2 else f"{middle} ({form(min(numbers))}–{form(max(numbers))})"


def quantity(value: float, unit: str) -> str:
    """A value with its unit, in three digits."""
    if unit == "s" and value < 1:
        return f"{1e3 * value:.3g} ms"
    return f"{value:,.0f} {unit}".strip() if value >= 1000 else f"{value:.3g} {unit}".strip()


def wide(found: Sequence[Row], ours: str = OURS, heading: str = "") -> str:
    """A line a case, a column a side: the median, and how many times better ours is, with its spread.

    A side of ours is not compared with another of ours, but where `ours` is one of several.
    """
    units = {row["unit"] for row in found}
    heading = heading or (units.pop() if units == {"steps/s"} else "")
    sides = list(dict.fromkeys(row["side"] for row in found))
    lines = [f"| {heading} | " + " | ".join(sides) + " |", "|---|" + "--:|" * len(sides)]
    for case in dict.fromkeys(row["case"] for row in found):
        cells = []
        for side in sides:
            numbers = list(values(found, case, side).values())
            unit = next((row["unit"] for row in found if row["case"] == case), "")
            cell = quantity(statistics.median(numbers), "" if heading == unit else unit) if numbers else ""
            compared = side not in (ours, ALONE) and (ours != OURS or not side.startswith(OURS))
            times = ratios(found, case, side, ours) if compared else []
            cells.append(f"{cell}, {spread(times)}×" if times else cell)
        lines.append(f"| {case} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def long(found: Sequence[Row], columns: dict[str, Callable[[dict], str]], ours: str = OURS) -> str:
    """A line a side: its value, how many times better ours is, and what the details of its rows say, in the median."""
    lines = []
    for case in dict.fromkeys(row["case"] for row in found):
        lines += ["", f"| {case} | | ours, times better | " + " | ".join(columns) + " |"]
        lines += ["|---|--:|--:|" + "--:|" * len(columns)]
        for side in dict.fromkeys(row["side"] for row in found if row["case"] == case):
            mine = [row for row in found if row["case"] == case and row["side"] == side]
            times = ratios(found, case, side, ours)
            details = [json.loads(row["detail"]) for row in mine]
            middle = sorted(details, key=lambda d: d.get("peak_mib", d.get("start_and_compilation", 0)))[len(mine) // 2]
            value = quantity(statistics.median(float(row["value"]) for row in mine), mine[0]["unit"])
            said = [say(middle) for say in columns.values()]
            lines.append(f"| {side} | {value} | {'' if side == ours else spread(times)} | " + " | ".join(said) + " |")
    return "\n".join(lines[1:])


def shares(found: Sequence[Row]) -> str:
    """What each side reaches of the speed of the environments alone, round by round."""
    sides = [side for side in dict.fromkeys(row["side"] for row in found) if side != ALONE]
    lines = ["| share of the environments alone | " + " | ".join(sides) + " |", "|---|" + "--:|" * len(sides)]
    for case in dict.fromkeys(row["case"] for row in found):
        cells = []
        for side in sides:
            share = ratios(found, case, ALONE, side)
            cells.append(spread(share, "{:.2f}".format) if share else "")
        lines.append(f"| {case} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def parts(found: Sequence[Row]) -> str:
    """What an iteration is made of, in ms, and how fast its two largest parts compute; of both the median over rounds.

    The environments alone are those of as many steps at the rate that random actions have on both cores.
    """
    times = [
        "| ms | rows | an iteration | rollout | environments alone | policy's update | its products | critic's fit |",
        "|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    speeds = [
        "| 10⁹ operations a second | products | critic's fit | 2 048 × 64 by 64 × 64 | 128 × 64 by 64 × 64 | 1 024² |",
        "|---|--:|--:|--:|--:|--:|",
    ]
    for case in dict.fromkeys(row["case"] for row in found):
        mine = [row for row in found if row["case"] == case and row["side"] == OURS]
        details = [json.loads(row["detail"]) for row in mine]

        def middle(of: Callable[[dict], float], details: list[dict] = details) -> float:
            return statistics.median(of(detail) for detail in details)

        def part(name: str, details: list[dict] = details) -> float:
            return statistics.median(detail["parts"].get(name, 0.0) for detail in details)

        rows_, rate = details[0]["rows"], [float(r["value"]) for r in found if (r["case"], r["side"]) == (case, ALONE)]
        alone = f"{1e3 * rows_ / statistics.median(rate):.1f}" if rate else ""
        whole = statistics.median(float(row["value"]) for row in mine)
        cells = [f"{1e3 * x:.1f}" for x in (whole, part("collect"))] + [alone]
        cells += [f"{1e3 * part(name):.1f}" for name in ("improve", "products", "fit")]
        times.append(f"| {case} | {rows_:,} | " + " | ".join(cells) + " |")
        made = [middle(lambda d, n=n: d[f"{n}_gflop"] / d["parts"][n]) for n in ("products", "fit")]
        made += [middle(lambda d, n=n: d[f"{n}_gflops"]) for n in ("narrow", "minibatch", "large")]
        speeds.append(f"| {case} | " + " | ".join(f"{x:.0f}" for x in made) + " |")
    return "\n".join([*times, "", *speeds])


def made_by(found: Sequence[Row], disturbed: int) -> str:
    """Rounds, machine, threads, versions: what the numbers above are of."""
    count = sorted({len(values(found, case, side)) for case, side in {(r["case"], r["side"]) for r in found}})
    each = f"{count[0]}" if len(count) == 1 else f"{count[0]} to {count[-1]}"
    versions = dict.fromkeys(pair for row in found for pair in row["versions"].split())
    machines = ", ".join(dict.fromkeys(row["machine"] for row in found))
    commits = ", ".join(dict.fromkeys(row["commit"][:7] + row["commit"][40:] for row in found))
    said = ", ".join(pair.replace("=", " ") for pair in sorted(versions))
    return (
        f"Medians of {each} rounds (least–greatest in brackets), {disturbed} disturbed ones discarded; "
        f"{found[-1]['threads']} threads of {machines}; steepest at {commits}; {said}."
    )


def returns(found: Sequence[Row]) -> str:
    """Final evaluations: the interquartile mean over seeds with its interval; how probably a run of ours is better.
    Minutes are of runs that had the machine to themselves."""
    lines = [
        "| | | seeds | IQM, 95 % | mean | lowest seed | lowest episode | steps | minutes | P(ours better) |",
        "|---|---|--:|---|--:|--:|--:|--:|--:|--:|",
    ]
    sides = list(dict.fromkeys(row["side"] for row in found))
    for env in dict.fromkeys(row["env"] for row in found):
        here = {side: [row for row in found if row["env"] == env and row["side"] == side] for side in sides}
        mine = [float(row["mean"]) for row in here.get(OURS, [])]
        for side, its in here.items():
            if not its:
                continue
            means = [float(row["mean"]) for row in its]
            iqm = stratified_bootstrap([means])
            better = "" if side == OURS or not mine else f"{probability_of_improvement([mine], [means]):.2f}"
            steps = np.median([float(row["steps"]) for row in its])
            seconds = [float(row["seconds"]) for row in its if row["disturbed"] == "0"]
            minutes = f"{np.median(seconds) / 60:.1f}" if seconds else "–"
            lowest = min(float(row["min"]) for row in its)
            interval = f"{iqm.estimate:.0f} [{iqm.low:.0f}, {iqm.high:.0f}]"
            cells = (env, side, len(its), interval, f"{np.mean(means):.0f}", f"{min(means):.0f}", f"{lowest:.0f}")
            cells += (f"{steps:,.0f}", minutes, better)
            lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines)


def tables(results: Path, disturbed: bool) -> dict[str, str]:
    """marker ↦ what belongs there, for every table that has rows."""
    made: dict[str, str] = {}
    read = {path.stem: rows.read(path) for path in sorted(results.glob("*.csv"))}
    good = {name: kept(found, disturbed) for name, found in read.items() if found and "disturbed" in found[0]}
    forms: dict[str, Callable[[list[Row]], str]] = {
        "speed-update": lambda found: wide(found, heading="samples, hidden layers"),
        "speed-throughput": lambda found: wide(found) + "\n\n" + shares(found),
        "speed-start": lambda found: wide(found),
        "speed-native": lambda found: long(found, {"start and compilation": _seconds("start_and_compilation")}),
        "speed-memory": lambda found: long(found, MEMORY),
        "speed-scale": lambda found: wide(found),
        "speed-parts": parts,
        "speed-seeds": lambda found: wide(found, f"{OURS}, together"),
        "speed-gpu": lambda found: long(
            found, {"share of peak": lambda d: f"{d['share']:.2f}" if "share" in d else ""}
        ),
    }
    for name, form in forms.items():
        if good.get(name):
            bad = len({(r["case"], r["round"]) for r in read[name] if r["disturbed"] != "0"})
            made[name] = form(good[name]) + "\n\n" + made_by(good[name], 0 if disturbed else bad)
    for name in ("tuning-settings", "tuning-habits"):
        if name in read:
            made[name] = markdown(read[name])
    for name in ("returns-steps", "returns-minutes"):
        found = read.get(name, []) if name == "returns-steps" else good.get(name, [])
        if found:
            made[name] = returns(found)
    return made


def _seconds(name: str) -> Callable[[dict], str]:
    return lambda detail: quantity(detail[name], "s") if name in detail else ""


def _mib(*names: str) -> Callable[[dict], str]:
    """The first, less the others."""
    return lambda d: f"{d[names[0]] - sum(d[n] for n in names[1:]):,.0f} MiB" if set(names) <= set(d) else ""


MEMORY = {
    "peak of the process": _mib("peak_mib"),
    "before the update": _mib("before_mib"),
    "peak less that": _mib("peak_mib", "before_mib"),
    "peak less the batch": _mib("peak_mib", "batch_mib"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--results", type=Path, default=HERE / "results")
    parser.add_argument("--page", type=Path, default=HERE.parent / "docs" / "speed.md")
    parser.add_argument("--figures", type=Path, default=HERE.parent / "docs" / "figures")
    parser.add_argument("--disturbed", action="store_true", help="take disturbed rounds too: to see that it works")
    arguments = parser.parse_args()
    made = tables(arguments.results, arguments.disturbed)
    read = {path.stem: rows.read(path) for path in arguments.results.glob("*.csv")}
    for name, (draw, caption) in FIGURES.items():
        found = read.get(name, [])
        found = found if name == "returns-steps" else kept(found, arguments.disturbed) if name in made else []
        if found and draw(found, arguments.figures / f"{name}.png"):
            made[name] = f"![{caption}](figures/{name}.png)\n\n{made[name]}"
    arguments.page.write_text(filled(arguments.page.read_text(), made))
    print("\n".join(made))


FIGURES: dict[str, tuple[Callable[[list[Row], Path], bool], str]] = {
    "speed-update": (draw_update, "Seconds of one update by size of batch and network, for each library"),
    "speed-throughput": (draw_throughput, "Environment steps a second, all in, for each library and environment"),
    "speed-scale": (draw_scale, "Cost of an update against products, and steps a second against environments"),
    "returns-steps": (draw_returns, "Evaluation returns against steps and against minutes, for each library"),
}


def filled(page: str, made: dict[str, str]) -> str:
    """The page with each text between its markers; one whose marker is not there is an error."""
    for name, text in made.items():
        first, last = f"<!-- {name} -->", f"<!-- /{name} -->"
        if page.count(first) != 1 or page.count(last) != 1:
            raise SystemExit(f"the page needs the markers {first} and {last}, once each")
        head, rest = page.split(first)
        page = f"{head}{first}\n\n{text}\n\n{last}{rest.split(last)[1]}"
    return page


if __name__ == "__main__":
    main()
