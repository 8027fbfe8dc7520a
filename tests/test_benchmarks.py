"""The benchmark harness, without peers and without a clock: rows, turns, ratios, tables."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


def module(name: str) -> Any:
    """A module of benchmarks/, which finds its neighbours beside it."""
    sys.path.insert(0, str(BENCHMARKS))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(BENCHMARKS))


rows, turns, tables = (module(name) for name in ("rows", "turns", "speed_tables"))


def side(name: str, value: float) -> Any:
    said = json.dumps({"value": value, "unit": "s", "extra": 7, "versions": {"thing": "1.0"}})
    return turns.Side(name, (sys.executable, "-S", "-c", f"print('noise'); print({said!r})"))


@pytest.fixture
def usage(monkeypatch):
    """The cores that others use during each measurement, one after another; none while nobody measures."""
    others = [0.0]
    monkeypatch.setattr(turns, "wait_until_quiet", lambda quiet: 0.0)
    monkeypatch.setattr(turns.Usage, "others_since", lambda self, start: others.pop(0) if others else 0.0)
    return others


def test_a_disturbed_round_is_kept_marked_and_measured_again(usage, tmp_path):
    usage[:] = [0.0, 0.7, 0.0]
    table, case = tmp_path / "t.csv", turns.Case("a case", (side("ours", 1.0), side("theirs", 3.0)))
    made = list(turns.rounds(case, 2, table, turns.Quiet()))
    found = rows.read(table)
    assert [[row["side"] for row in one] for one in made] == [["ours", "theirs"]] * 3  # in turns
    assert [row["disturbed"] for row in found[::2]] == ["0", "1", "0"]
    assert (found[1]["value"], found[1]["versions"], json.loads(found[1]["detail"])) == ("3", "thing=1.0", {"extra": 7})
    assert list(turns.rounds(case, 2, table, turns.Quiet())) == []  # nothing is measured twice
    assert len(list(turns.rounds(case, 3, table, turns.Quiet()))) == 1  # and what is missing is
    assert tables.ratios(tables.kept(found, False), "a case", "theirs", "ours") == [3.0, 3.0]


def test_a_machine_that_is_never_quiet_ends_in_an_error(usage, tmp_path):
    usage[:] = [0.5] * 100
    case = turns.Case("a case", (side("ours", 1.0),))
    with pytest.raises(turns.SideError, match="0 undisturbed rounds of 1"):
        list(turns.rounds(case, 1, tmp_path / "t.csv", turns.Quiet()))


def test_a_side_that_fails_says_why(usage, tmp_path):
    broken = turns.Side("theirs", (sys.executable, "-S", "-c", "print(1); raise SystemExit('no such library')"))
    with pytest.raises(turns.SideError, match="theirs: exit code 1: no such library"):
        turns.one_round(turns.Case("a case", (broken,)), 0, turns.Quiet())
    assert not (tmp_path / "t.csv").exists()


def test_time_of_ones_own_children_is_not_the_others():
    start = turns.Usage(wall=0.0, busy=10.0, ours=1.0)
    assert turns.Usage(wall=2.0, busy=14.0, ours=4.0).others_since(start) == 0.5
    assert turns.Usage(wall=2.0, busy=10.5, ours=2.0).others_since(start) == 0.0  # clocks of unlike grain


def test_who_disturbed_is_named():
    child = subprocess.Popen([sys.executable, "-S", "-c", "import time; print('up', flush=True); time.sleep(60)"],
                             stdout=subprocess.PIPE)  # fmt: skip
    assert child.stdout is not None
    child.stdout.readline()
    with child:
        assert any(name.startswith(f"{child.pid} ") for name in turns.processes())
        child.kill()
    after = {"1 init": 5.0, "7 a (b) c": 9.0, "8 new": 3.0, "9 idle": 1.0}
    said = turns.busiest({"1 init": 5.0, "7 a (b) c": 2.0, "9 idle": 1.0}, after)
    assert said.startswith("still there: 7 a (b) c (7.0 s), 8 new (3.0 s), ")


@pytest.mark.parametrize("how", ["too long", "interrupted", "done"])
def test_what_a_side_started_ends_with_it(how, tmp_path, monkeypatch):
    """A training that went on would disturb all that is measured after it, and never end."""
    started = tmp_path / "pid"
    code = (
        "import pathlib, subprocess, sys, time\n"
        "nothing = {'stdout': subprocess.DEVNULL, 'stderr': subprocess.DEVNULL}\n"
        "child = subprocess.Popen([sys.executable, '-S', '-c', 'import time; time.sleep(60)'], **nothing)\n"
        f"pathlib.Path({str(started)!r}).write_text(str(child.pid))\n"
        f"print('{{}}', flush=True); time.sleep({0 if how == 'done' else 60})"
    )
    limited = turns.Side("side", (sys.executable, "-S", "-c", code), seconds=3.0)
    if how == "interrupted":

        def interrupted(process: Any, *_: Any, **__: Any) -> None:
            while not (started.exists() and started.read_text()):
                time.sleep(0.01)
            raise KeyboardInterrupt

        monkeypatch.setattr(subprocess.Popen, "communicate", interrupted)
    expected = {"too long": turns.SideError, "interrupted": KeyboardInterrupt, "done": type(None)}[how]
    ended: Any = None
    try:
        turns.measure(limited)
    except (turns.SideError, KeyboardInterrupt) as error:
        ended = error
    assert isinstance(ended, expected)
    status = Path("/proc") / started.read_text() / "stat"
    until = time.monotonic() + 10
    while status.exists() and status.read_text().rsplit(")", 1)[1].split()[0] not in "ZX":
        assert time.monotonic() < until, "it is still there"
        time.sleep(0.01)


def test_a_table_resumes_and_refuses_a_column_that_it_has_not(tmp_path):
    table = tmp_path / "deep" / "t.csv"
    assert rows.read(table) == []
    rows.append(table, {"env": "a", "seed": 0}, ("env", "seed", "mean"))
    rows.append(table, {"env": "b", "seed": 1, "mean": 2.5}, ("env", "seed", "mean"))
    assert rows.done(rows.read(table), "env", "seed") == {("a", "0"), ("b", "1")}
    assert table.read_text() == "env,seed,mean\na,0,\nb,1,2.5\n"
    with pytest.raises(ValueError, match="typo"):
        rows.append(table, {"typo": 1}, ("env", "seed", "mean"))


def row(side: str, number: int, value: float, unit: str = "s") -> dict[str, str]:
    return {"case": "c", "side": side, "round": str(number), "value": str(value), "unit": unit}


def test_ratios_are_of_one_round_and_say_how_many_times_better_ours_is():
    found = [row("steepest", 0, 1.0), row("peer", 0, 4.0), row("steepest", 1, 2.0), row("peer", 1, 6.0)]
    assert tables.ratios([*found, row("peer", 2, 99.0)], "c", "peer") == [4.0, 3.0]
    rates = [row("steepest", 0, 8.0, "steps/s"), row("peer", 0, 2.0, "steps/s")]
    assert tables.ratios(rates, "c", "peer") == [4.0]
    assert tables.shares([*rates, row("environments alone", 0, 16.0, "steps/s")]).endswith("| c | 0.50 | 0.12 |")
    assert tables.wide(found).splitlines()[-1] == "| c | 1.5 s | 5 s, 3.5 (3.0–4.0)× |"


def test_a_page_gets_its_tables_and_keeps_its_words():
    page = "before\n<!-- a -->\nold\n<!-- /a -->\nafter <!-- b --><!-- /b -->"
    filled = tables.filled(page, {"a": "new"})
    assert filled == "before\n<!-- a -->\n\nnew\n\n<!-- /a -->\nafter <!-- b --><!-- /b -->"
    assert tables.filled(filled, {"a": "new"}) == filled
    with pytest.raises(SystemExit, match="<!-- c -->"):
        tables.filled(page, {"c": "new"})


def test_the_page_has_a_place_for_every_table():
    made = dict.fromkeys([*(f"speed-{name}" for name in module("speed").BENCHMARKS), "speed-gpu"], "@@")
    made |= {f"returns-{study}": "@@" for study in module("returns").STUDIES}
    assert tables.filled((BENCHMARKS.parent / "docs" / "speed.md").read_text(), made).count("@@") == len(made)


def test_the_parts_of_an_iteration_are_in_milliseconds_beside_the_environments_alone(tmp_path):
    detail = {
        "rows": 2000, "parts": {"collect": 0.03, "improve": 0.02, "products": 0.01, "fit": 0.04},
        "products_gflop": 0.5, "fit_gflop": 2.0, "narrow_gflops": 60.0, "minibatch_gflops": 55.0, "large_gflops": 90.0,
    }  # fmt: skip
    ours = {"case": "an env", "side": "steepest", "value": "0.08", "detail": json.dumps(detail)}
    twice = json.dumps(detail | {"parts": detail["parts"] | {"fit": 0.06}})
    alone = {"case": "an env", "side": "environments alone", "value": "100000", "detail": "{}"}
    text = tables.parts([ours, alone, ours | {"detail": twice, "value": "0.1"}, alone])
    assert "| an env | 2,000 | 90.0 | 30.0 | 20.0 | 20.0 | 10.0 | 50.0 |" in text
    assert "| an env | 50 | 42 | 60 | 55 | 90 |" in text
    assert "| an env | 2,000 | 80.0 | 30.0 |  | 20.0 |" in tables.parts([ours])
