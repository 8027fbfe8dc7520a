"""Whatever is put into a reader or on the command line: a value or an error of one line; no traceback, and it ends.

STEEPEST_FUZZ=50 pytest tests/test_fuzzing.py -s        fifty times as many, others each time, and how many they were
"""

from __future__ import annotations

import copy
import io
import json
import os
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import numpy as np
import pytest
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

from steepest.cli import main
from steepest.commands import COMMANDS
from steepest.errors import RunError, UsageError
from steepest.runs import checkpoint, columns, read_arrays, read_lines
from steepest.runs.files import standard
from steepest.runs.strict_json import DEPTH, parse_json
from steepest.spaces import Discrete
from steepest.training.checks import check
from steepest.training.config import TrainConfig
from steepest.training.persistence import restore_agent
from steepest.training.recorded import costs_of, logs_of, normaliser_of, objects_of, progress_of
from steepest.training.settings import from_record, to_record

TIMES = int(os.environ.get("STEEPEST_FUZZ", "1"))
LAST = Path(__file__).parent / "data" / "format-1" / "checkpoints" / "last.safetensors"
ARRAYS, INFO = checkpoint.load(LAST)
WHOLE = LAST.read_bytes()
METRICS = (LAST.parents[1] / "metrics.jsonl").read_bytes()
tried: Counter[str] = Counter()


def fuzz(count: int) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """So many examples, drawn once; of more of them others each time. What fails is shown as it came: making a command
    line smaller takes minutes."""
    return hypothesis.settings(
        max_examples=count * TIMES,
        derandomize=TIMES == 1,
        print_blob=True,
        database=None,
        deadline=None,
        phases=[hypothesis.Phase.generate],
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.filter_too_much],
    )


@pytest.fixture(scope="module", autouse=True)
def counted() -> Iterator[None]:
    yield
    print("\n" + "\n".join(f"{name}: {count} inputs" for name, count in tried.items()), f"\nin all: {tried.total()}")


# --- what may be found in a file

NUMBERS = st.one_of(
    st.integers(), st.sampled_from([0, -1, 2**31, 2**53 + 1, 2**63, 2**64, 10**19, 10**25]), st.floats(), st.booleans()
)
LEAVES = st.one_of(
    st.none(), NUMBERS, st.text(max_size=20), st.sampled_from(["os:system", "../..", "\x1b[2J", "O", "f4,f4"])
)
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(st.text(max_size=8), inner, max_size=4),
        st.builds(lambda: [0] * 200),
    ),
    max_leaves=12,
)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The paths of everything in a JSON value but itself."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [found for key, each in inner for found in ((*path, key), *places(each, (*path, key)))]


@st.composite
def changed(draw: st.DrawFn, value: Any) -> Any:
    """A JSON value with one to three of its parts replaced, removed, or joined by another."""
    value = copy.deepcopy(value)
    for _ in range(draw(st.integers(1, 3))):
        found = places(value)
        if not found:
            break
        *path, key = draw(st.sampled_from(found))
        holder = value
        for step in path:
            holder = holder[step]
        act = draw(st.sampled_from(["replace", "replace", "replace", "remove", "add"]))
        if act == "replace":
            holder[key] = draw(VALUES)
        elif act == "remove":
            del holder[key]
        elif isinstance(holder, dict):
            holder[draw(st.text(max_size=8))] = draw(VALUES)
    return value


@st.composite
def spliced(draw: st.DrawFn, whole: bytes) -> bytes:
    """A file with one to four parts overwritten, removed, repeated or filled in."""
    for _ in range(draw(st.integers(1, 4))):
        begin = draw(st.integers(0, len(whole)))
        end = min(len(whole), begin + draw(st.integers(0, 64)))
        new = draw(
            st.one_of(st.binary(max_size=64), st.just(whole[begin:end] * 2), st.sampled_from([b'"', b"[", b"9" * 30]))
        )
        whole = whole[:begin] + new + whole[end:]
    return whole


def one_line(error: BaseException) -> None:
    assert isinstance(error, RunError | UsageError), repr(error)
    assert str(error)
    assert "\n" not in str(error)
    assert len(str(error)) < 2000


def as_read(value: Any) -> Any:
    """What a reader makes of a file with that value; nothing, where it refuses the text already."""
    try:
        return parse_json(json.dumps(standard(value)))
    except ValueError:
        return hypothesis.reject()


# --- the readers


def deep(value: Any) -> int:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return 0 if inner is None else 1 + max(map(deep, inner), default=0)


@fuzz(300)
@given(
    st.one_of(
        st.binary(max_size=200),
        st.text(max_size=200),
        st.text(alphabet='{}[]",:\\0123456789eE+-. \ntrufalsn', max_size=120),
        VALUES.map(json.dumps),
        VALUES.map(json.dumps).flatmap(lambda text: spliced(text.encode())),
        st.integers(0, 2000).map(lambda n: '{"a":[' * n),
    )
)
def test_json(text: bytes | str) -> None:
    """A value that is JSON again, or a ValueError: never a RecursionError, an infinity or a MemoryError."""
    tried["JSON"] += 1
    try:
        value = parse_json(text)
    except ValueError:
        return
    assert deep(value) <= DEPTH
    assert parse_json(json.dumps(value, allow_nan=False)) == value


@fuzz(300)
@given(
    st.one_of(
        st.binary(max_size=300),
        spliced(WHOLE),
        VALUES.map(lambda v: json.dumps({"a": v}).encode()).map(lambda t: len(t).to_bytes(8, "little") + t),
        changed(json.loads(WHOLE[8 : 8 + int.from_bytes(WHOLE[:8], "little")])).map(
            lambda h: (t := json.dumps(h).encode(), len(t).to_bytes(8, "little") + t + bytes(232))[1]
        ),
    )
)
def test_checkpoint_files(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    tried["checkpoint files"] += 1
    path = tmp_path_factory.getbasetemp() / "fuzzed.safetensors"
    path.write_bytes(data)
    for read in (read_arrays, checkpoint.load):
        try:
            arrays = read(path)[0]
        except (RunError, UsageError) as error:
            one_line(error)
        else:
            assert sum(array.nbytes for array in arrays.values()) < len(data)


@fuzz(150)
@given(
    changed(INFO),
    st.lists(
        st.tuples(
            st.sampled_from(sorted(ARRAYS)),
            st.sampled_from([np.zeros(0), np.zeros((2, 2), np.float32), np.array(np.nan), np.zeros(3, bool), None]),
        ),
        max_size=2,
    ),
)
def test_what_a_whole_checkpoint_says(info: Any, replaced: list[tuple[str, Any]]) -> None:
    """With a true checksum, so that it is read to its end: an agent that plays, or an error."""
    tried["checkpoints with a true checksum"] += 1
    info = as_read(info)
    arrays = {name: array for name, array in {**ARRAYS, **dict(replaced)}.items() if array is not None}
    for read in (progress_of, logs_of, objects_of, costs_of, lambda i: normaliser_of(arrays, "normaliser", ())):
        try:
            read(info)
        except (RunError, UsageError) as error:
            one_line(error)
    try:
        agent = restore_agent(arrays, info)
    except (RunError, UsageError) as error:
        one_line(error)
    else:
        assert isinstance(agent.observation, Discrete)
        assert isinstance(agent.action, Discrete)
        assert agent.predict(agent.observation.start)[0] - agent.action.start in (0, 1)


@fuzz(300)
@given(st.one_of(VALUES, changed(to_record(TrainConfig("CartPole-v1")))))
def test_configurations(record: Any) -> None:
    """A configuration that is one again as a record, or an error."""
    tried["configurations"] += 1
    try:
        config = from_record(as_read(record))
        check(config)
    except (RunError, UsageError) as error:
        one_line(error)
    else:
        assert from_record(to_record(config)) == config


@fuzz(150)
@given(st.one_of(st.binary(max_size=300), spliced(METRICS[:2000]), st.lists(VALUES.map(json.dumps)).map("\n".join)))
def test_logs(tmp_path_factory: pytest.TempPathFactory, data: bytes | str) -> None:
    tried["logs"] += 1
    path = tmp_path_factory.getbasetemp() / "fuzzed.jsonl"
    path.write_bytes(data if isinstance(data, bytes) else data.encode("utf-8", "replace"))
    try:
        rows = read_lines(path)
    except (RunError, UsageError) as error:
        one_line(error)
        return
    for name in {name for row in rows for name in row} | {"step"}:
        steps, values = columns(rows, name)
        assert steps.shape == values.shape


# --- the command line


def options() -> list[str]:
    """Every option of every command, as its help names them."""
    import contextlib
    import re

    found = set()
    for command in COMMANDS:
        text = io.StringIO()
        with contextlib.redirect_stdout(text), pytest.raises(SystemExit):
            main([command, "--help"])
        found |= set(re.findall(r"--[a-z][a-z0-9.-]+", text.getvalue()))
    return sorted(found)


WORDS = st.one_of(
    st.sampled_from(
        ["CartPole-v1", "mdp:two-state", "nowhere", "no_such_module:X-v0", "mdp:random", "lqr:scalar", ":", "a:b:c"]
    ),
    st.sampled_from(
        ["0", "1", "-1", "1e9", "1e400", "-1e400", "nan", "inf", "1_0", "0x10", "1.5", "9" * 400, "9" * 5000]
    ),
    st.sampled_from(
        ["", " ", "-", "--", "---", "=", "--=", "-h", "None", "True", "[]", "{}", "64 64", "\udcff", "é\x1b[2J", "\n"]
    ),
    st.sampled_from(
        ["trpo", "npg", "auto", "cg", "vine", "adam", "last", "best", "all", str(LAST), str(LAST.parents[1])]
    ),
    st.text(st.characters(exclude_characters="\0", exclude_categories=()), max_size=10),
)


@pytest.fixture
def dry(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Everything up to where a world would be made, a folder written or a run read; there it says so, and ends."""
    import steepest.doctor
    import steepest.reproduce.output
    import steepest.training.diagnose
    import steepest.training.evaluation
    import steepest.training.hosting
    import steepest.training.train

    def reached(*_: Any, **__: Any) -> Any:
        raise RunError("reached")

    monkeypatch.setattr(steepest.training.hosting, "place", reached)
    monkeypatch.setattr(steepest.training.train, "place", reached)
    monkeypatch.setattr(steepest.training.evaluation, "evaluate", reached)
    monkeypatch.setattr(steepest.training.diagnose, "make_world", reached)
    monkeypatch.setattr(steepest.reproduce.output, "reproduce", reached)
    monkeypatch.setattr(steepest.doctor, "examine", reached)
    monkeypatch.chdir(tmp_path)


@fuzz(60)
@given(data=st.data())
def test_the_command_line(dry: None, capsys: pytest.CaptureFixture[str], tmp_path: Path, data: st.DataObject) -> None:
    tried["command lines"] += 1
    known = st.sampled_from(KNOWN)
    piece = st.one_of(st.tuples(known, WORDS), st.tuples(WORDS), st.tuples(known))
    pieces = data.draw(st.lists(piece, max_size=5))
    command = data.draw(st.one_of(st.sampled_from(sorted(COMMANDS)), WORDS))
    arguments = [command, *(word for piece in pieces for word in piece)]
    try:
        code = main([word for word in arguments if word != "--debug"])
    except SystemExit as end:  # of the parser: help, or what it does not know
        code = end.code
    said = capsys.readouterr()
    assert code in (0, 1, 2), (arguments, said.err)
    for part in ("Traceback", "defect"):
        assert part not in said.err, (arguments, said.err)
    assert code == 0 or said.err or said.out
    assert not list(tmp_path.iterdir()), arguments


KNOWN = options()
