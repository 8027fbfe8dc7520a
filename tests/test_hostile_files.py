"""Files of somebody who means harm: each is refused in one line, nothing in it runs, nothing outside is written.

All are met in one process of its own (this file, as a program), which an audit hook watches: PEP 578 reports every
import, compilation, execution, unpickling, process, connection, and every file opened to be written.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import os
import pickle
import re
import shutil
import subprocess
import sys
import tracemalloc
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from steepest.errors import RunError, UsageError
from steepest.runs import RunFolder, checkpoint, read_arrays, read_json
from steepest.runs.files import write_arrays, write_bytes
from steepest.runs.migrations import FORMAT

RUN = Path(__file__).parent / "data" / "format-1"
WATCHED = {
    *("import", "compile", "exec", "pickle.find_class", "marshal.loads", "code.__new__", "ctypes.dlopen"),
    *("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.fork", "os.forkpty", "socket.connect"),
    *("os.remove", "os.rename", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.truncate", "os.chmod"),
}


class Evil:
    """Unpickling it runs a command."""

    def __reduce__(self) -> Any:
        return os.system, ("touch PWNED",)


def header(record: Any, body: bytes = b"") -> bytes:
    text = record if isinstance(record, bytes) else json.dumps(record).encode()
    return len(text).to_bytes(8, "little") + text + body


def tensor(shape: Any, begin: Any, end: Any, dtype: Any = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def zipped(payload: bytes) -> bytes:
    """What torch.save writes."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("archive/data.pkl", payload)
    return file.getvalue()


def no_checkpoints() -> dict[str, bytes]:
    """Files that are no safetensors file, or are none that can be."""
    evil, numbers = pickle.dumps(Evil()), io.BytesIO()
    np.save(numbers, np.array([Evil()], dtype=object), allow_pickle=True)
    one = tensor([2], 0, 8)
    return {
        "a pickle": evil,
        "a torch file": zipped(evil),
        "an npy of objects": numbers.getvalue(),
        "nothing": b"",
        "seven bytes": b"1234567",
        "a header longer than the address space": (2**64 - 1).to_bytes(8, "little") + b"{}",
        "a header longer than the file": (10**8).to_bytes(8, "little") + b"{}",
        "a header of 17 MiB": header(b" " * (17 * 2**20) + b"{}"),
        "no object": header([1]),
        "a text in Latin-1": header(b'{"\xe4": 1}'),
        "nested 100 000 deep": header(b'{"a":' * 10**5 + b"1" + b"}" * 10**5),
        "nested 900 deep": header(b"[" * 900 + b"]" * 900),
        "a million lists": header(b"[" + b"[]," * 10**6 + b"[]]"),
        "a string without an end, of quotes": header(b'{"' + b'\\"' * 10**6),
        "a billion elements": header({"a": tensor([10**9, 1000], 0, 4 * 10**12)}),
        "none, of many axes": header({"a": tensor([0, 2**62, 2**62], 0, 0)}),
        "more axes than NumPy has": header({"a": tensor([1] * 100, 0, 4)}, b"1234"),
        "a size that overflows": header({"a": tensor([2**32, 2**32, 2**32], 0, 0)}),
        "a negative size": header({"a": tensor([-2], 0, 8)}, b"12345678"),
        "two negative sizes": header({"a": tensor([-2, -1], 0, 8)}, b"12345678"),
        "a size that is true": header({"a": tensor([True], 0, 4)}, b"1234"),
        "a size of 4300 digits": header(b'{"a":{"dtype":"F32","shape":[' + b"9" * 4300 + b'],"data_offsets":[0,8]}}'),
        "offsets in reverse": header({"a": tensor([2], 8, 0)}, b"12345678"),
        "offsets before the file": header({"a": tensor([2], -8, 0)}, b"12345678"),
        "arrays that overlap": header({"a": one, "b": tensor([2], 4, 12)}, b"123456789012"),
        "arrays at one place": header({"a": one, "b": one}, b"12345678"),
        "a gap": header({"a": one, "b": tensor([1], 12, 16)}, b"1234567890123456"),
        "bytes after the last": header({"a": one}, b"12345678" + b"PK\x03\x04"),
        "an unknown dtype": header({"a": tensor([1], 0, 8, "OBJECT")}, b"12345678"),
        "a dtype that is a list": header({"a": tensor([1], 0, 8, [["x", "O"]])}, b"12345678"),
        "a bool of 2": header({"a": tensor([1], 0, 1, "BOOL")}, b"\x02"),
        "a name twice": header(b'{"a":%b,"a":%b}' % ((json.dumps(one).encode(),) * 2), b"12345678"),
        "a name that clears the terminal": header({"\x1b[2J\n": one}, b"12345678"),
        "more keys than there are": header({"a": {**one, "path": "/etc/passwd"}}, b"12345678"),
        "metadata that are numbers": header({"__metadata__": {"steepest": 1}}),
        "a path for a name, and no metadata": header({"../../../PWNED": one}, b"12345678"),
    }


def false_checkpoints() -> Iterator[tuple[str, dict[str, np.ndarray], dict[str, Any]]]:
    """(name, arrays, info) of whole checkpoints, with a true checksum, that say what cannot be."""
    arrays, info = checkpoint.load(RUN / "checkpoints" / "last.safetensors")
    info |= {"config": json.loads((RUN / "config.json").read_text()), "versions": {"steepest": "0.1.0"}}
    for part, name, value in (
        *(("progress", name, value) for name in ("steps", "iteration") for value in (-5, None, "5", 1.5, 2**60, [1])),
        *(("progress", "seconds", value) for value in (-1.0, None, "1")),
        ("progress", "import", "os"),
        *(("policy", "kind", value) for value in ("os.system", "evil_package:Policy", ["tabular"], "mlp-gaussian")),
        *(("policy", "inputs", value) for value in (-2, 0, 10**15, 2**31, "2; 3", None)),
        ("policy", "hidden", [64] * 100_000),
        ("policy", "hidden", [2**31, 2**31]),
        ("observation", "kind", "evil_package"),
        *(("observation", "n", value) for value in (-1, 10**15, 0)),
        ("logs", "metrics", -1),
        ("logs", "metrics", 10**18),
    ):
        yield f"{part}.{name} is {value!r:.20}", arrays, {**info, part: {**info[part], name: value}}
    yield "an import", arrays, {**info, "config": {**info["config"], "env": "evil_package:CartPole-v1"}}
    yield "no config", arrays, {**info, "config": None}
    yield "a config of words", arrays, {**info, "config": "import os"}
    for name in ("progress", "policy", "observation", "action", "logs"):
        yield f"{name} is a list", arrays, {**info, name: [1]}
        if name != "policy":  # without one it is a module of the user's
            yield f"no {name}", arrays, {k: v for k, v in info.items() if k != name}
    box = {"kind": "box", "shape": [2], "dtype": "float32", "low": [0, 0], "high": [1, 1]}
    for name, value in (("dtype", "O"), ("dtype", {"a": ["O", 0]}), ("shape", [10**9]), ("low", ["x", 0])):
        yield f"a box's {name} is {value!r}", arrays, {**info, "observation": {**box, name: value}}
    yield "objects are a number", arrays, {**info, "objects": 5}
    logits = arrays["learner.policy.logits"]
    yield "weights of another shape", {**arrays, "learner.policy.logits": logits[:1]}, info
    yield "weights of another dtype", {**arrays, "learner.policy.logits": logits.astype(np.float64)}, info
    yield "no weights", {k: v for k, v in arrays.items() if "policy" not in k}, info
    yield "weights too many", {**arrays, "learner.policy.more": logits}, info
    yield "statistics of NaN", {**arrays, **statistics(np.float64(np.nan))}, info
    yield "statistics of a negative count", {**arrays, **statistics(np.float64(-1))}, info
    yield "statistics of another shape", {**arrays, **statistics(np.ones(3))}, info
    yield "statistics cut in half", {**arrays, "normaliser.count": np.array(1.0)}, info


def statistics(count: Any) -> dict[str, np.ndarray]:
    return {"normaliser.count": np.asarray(count), "normaliser.mean": np.zeros(()), "normaliser.m2": np.ones(())}


def envelopes() -> Iterator[tuple[str, str]]:
    """(name, metadata) that no `save` would write."""
    good = {"format": FORMAT, "checksum": "0" * 64, "info": {}}
    yield "a checksum of nothing", json.dumps(good)
    yield "format 0", json.dumps({**good, "format": 0})
    yield "format -1", json.dumps({**good, "format": -1})
    yield "a format of words", json.dumps({**good, "format": "__import__('os')"})
    yield "a NaN", json.dumps({**good, "info": {"steps": float("nan")}})
    yield "1e999", json.dumps(good).replace("{}", '{"steps": 1e999}')
    yield "an info 60 deep", json.dumps(good).replace("{}", '{"a":' * 60 + "1" + "}" * 60)
    yield "a key twice", json.dumps(good).replace("{}", '{"steps": 1, "steps": 2}')
    yield "a list", "[]"
    yield "no JSON", "import os"


# --- the process that meets them


def hostile_files(folder: Path) -> Iterator[Path]:
    for count, (name, data) in enumerate(no_checkpoints().items()):
        yield _written(folder / f"{count:03d} {name}.safetensors", lambda path, data=data: write_bytes(path, data))
    for count, (name, arrays, info) in enumerate(false_checkpoints(), start=100):
        path = folder / f"{count:03d} {name.replace('/', ' ')}.safetensors"
        yield _written(path, lambda path, a=arrays, i=info: checkpoint.save(path, a, i))
    for count, (name, text) in enumerate(envelopes(), start=200):
        path = folder / f"{count:03d} {name}.safetensors"
        yield _written(path, lambda path, text=text: write_arrays(path, {"a": np.ones(2)}, {"steepest": text}))


def _written(path: Path, write: Callable[[Path], None]) -> Path:
    write(path)
    return path


def hostile_folders(folder: Path, outside: Path) -> Iterator[Path]:
    """Run folders of which one entry is not what it should be."""
    last = "checkpoints/last.safetensors"

    def run(name: str, spoil: Callable[[Path], Any]) -> Path:
        path = Path(shutil.copytree(RUN, folder / name))
        for each in (path / "checkpoints").iterdir():
            if each.name != "last.safetensors":
                each.unlink()
        spoil(path)
        return path

    def put(entry: str, data: bytes) -> Callable[[Path], Any]:
        return lambda path: (path / entry).write_bytes(data)

    def instead(entry: str, make: Callable[[Path], Any]) -> Callable[[Path], Any]:
        def spoil(path: Path) -> None:
            with contextlib.suppress(FileNotFoundError):
                (path / entry).unlink() if (path / entry).is_file() else shutil.rmtree(path / entry)
            make(path / entry)

        return spoil

    def setting(**changed: Any) -> Callable[[Path], Any]:
        config = json.loads((RUN / "config.json").read_text())
        return put("config.json", json.dumps({**config, **changed}).encode())

    yield run("an import", setting(env="evil_package:CartPole-v1"))
    yield run("an import by gymnasium", setting(env="gymnasium:evil_package:CartPole-v1"))
    yield run("an unknown setting", setting(callbacks=["evil_package.run"]))
    yield run("an unknown algorithm", setting(algorithm="evil_package.Method"))
    yield run("an env that is a list", setting(env=["evil_package"]))
    yield run("a config 1000 deep", put("config.json", b'{"env":' * 1000))
    yield run("a config of 17 MiB", put("config.json", b" " * (17 * 2**20)))
    yield run("a config of NaN", put("config.json", b'{"env": NaN}'))
    for entry in ("config.json", last):
        yield run(f"a pipe for {entry[-7:]}", instead(entry, os.mkfifo))
        yield run(f"a folder for {entry[-7:]}", instead(entry, os.mkdir))
        yield run(f"zeros for {entry[-7:]}", instead(entry, lambda path: path.symlink_to("/dev/zero")))
        yield run(f"a link for {entry[-7:]}", instead(entry, lambda p, e=entry: p.symlink_to(RUN / e)))
    for entry in ("metrics.jsonl", "episodes.jsonl", ".lock", "events.jsonl", "learning_curve.png"):
        yield run(f"{entry} is elsewhere", instead(entry, lambda path: path.symlink_to(outside / "precious")))
        yield run(f"{entry} is to be elsewhere", instead(entry, lambda path: path.symlink_to(outside / "new")))
    for entry in ("checkpoints", "tensorboard"):
        yield run(f"{entry} are elsewhere", instead(entry, lambda path: path.symlink_to(outside / "folder")))
    yield run("a pipe for the log", instead("metrics.jsonl", os.mkfifo))


READABLE = (" elsewhere", "for the log", "an unknown algorithm")
"""Folders with which a reader has no quarrel: it is `resume` that refuses them, before it writes."""


def attack(root: Path) -> None:
    """Meet all of them; print what was said and what was seen as JSON."""
    import steepest as st
    from steepest.cli import main

    outside, inside = root / "outside", root / "files"
    (outside / "folder").mkdir(parents=True)
    (outside / "precious").write_text('{"step": 100}\n')
    inside.mkdir()
    good = Path(shutil.copytree(RUN, root / "good"))
    said: dict[str, Any] = {}
    seen: list[str] = []
    watching = False

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if not watching:
            return
        writes = (
            event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        )
        if event in WATCHED or writes:
            seen.append(re.sub(r"0x[0-9a-f]+", "", f"{event} {arguments!r:.200}"))

    def meet(*arguments: str) -> dict[str, Any]:
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = main(list(arguments))
        return {"code": code, "out": out.getvalue(), "err": err.getvalue(), "seen": seen.copy()}

    usual: dict[str, set[str]] = {}  # what these do with a good run: the command line's own evaluation of annotations
    sys.addaudithook(hook)
    for again in (False, True):  # what they import is imported by the second time
        watching = again
        for arguments in (("inspect",), ("evaluate", "--episodes", "1"), ("resume",)):
            met = meet(arguments[0], str(good), *arguments[1:])
            # `good` lacks what a run leaves at its end: the first resume writes that, and to the second it is done
            assert met["code"] == (2 if arguments[0] == "resume" and again else 0), met
            usual[arguments[0]] = set(met["seen"])
            seen.clear()
    watching = False
    files = list(hostile_files(inside))
    folders = list(hostile_folders(root / "runs", outside))
    sys.path.insert(0, str(root))  # where evil_package is to be found
    (root / "evil_package.py").write_text("import os; os.system('touch PWNED')")
    os.chdir(root)
    commands = ("inspect",), ("evaluate", "--episodes", "1"), ("resume", "--steps", "401", "--quiet")
    meetings = [*itertools.product(files, commands[:2]), *itertools.product(folders, commands)]
    for path, command in meetings:
        if command[0] != "resume" and path.name.endswith(READABLE):
            continue
        watching = True
        met = meet(command[0], str(path), *command[1:])
        watching = False
        met["seen"] = [event for event in met["seen"] if event not in usual[command[0]]]
        said[f"{command[0]} {path.name}"] = met
        seen.clear()
    kept = (outside / "precious").read_text() == '{"step": 100}\n' and len(list(outside.rglob("*"))) == 2
    pwned = [str(path) for path in root.rglob("PWNED")]
    report = {"said": said, "kept": kept, "pwned": pwned, "modules": "evil_package" in sys.modules}
    print(json.dumps({**report, "version": st.__version__}))


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    root = tmp_path_factory.mktemp("attack")
    done = subprocess.run(
        [sys.executable, __file__, str(root)],
        capture_output=True,
        text=True,
        timeout=500,
        env={**os.environ, "HOME": str(root)},
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_nothing_ran_and_nothing_outside_was_touched(report: dict[str, Any]) -> None:
    assert report["kept"]
    assert not report["pwned"]
    assert not report["modules"]


def test_every_file_is_refused_in_one_line(report: dict[str, Any]) -> None:
    count = 0
    for what, met in report["said"].items():
        command = what.split()[0]
        if not what.endswith(".safetensors"):
            continue
        count += 1
        false = what.split()[1].startswith("1")  # whole, but not true: that is seen by whoever believes it
        if command == "inspect" and false:
            assert met["code"] == 0, (what, met)
            assert met["out"].replace("\n", "").isprintable()
        else:
            assert met["code"] in (1, 2), (what, met)
            line = met["out"] if command == "inspect" else met["err"]
            assert line.count("\n") == 1, (what, met)
            assert line.strip().isprintable()
            assert len(line) < 1000
            assert "defect" not in line
            assert command == "inspect" or line.startswith("steepest: ")
        assert not met["seen"], (what, met["seen"])
    assert count > 150


def test_every_folder_is_refused_before_it_is_written(report: dict[str, Any]) -> None:
    resumed = 0
    for what, met in report["said"].items():
        if what.endswith(".safetensors"):
            continue
        command = what.split()[0]
        if command == "resume":
            resumed += 1
            assert met["code"] in (1, 2), (what, met)
        elif command == "evaluate":
            assert met["code"] in (1, 2), (what, met)
        if met["code"]:
            line = met["out"] + met["err"] if command == "inspect" else met["err"]
            assert line.splitlines()[-1].startswith("steepest: ") or command == "inspect", (what, met)
            assert "defect" not in line, (what, met)
        wrote = [event for event in met["seen"] if ".lock" not in event]
        assert not wrote, (what, wrote)
    assert resumed > 20


@pytest.mark.parametrize(
    ("limit", "names"), [(1, ("a billion", "a header longer", "none, of many")), (2, ("a million",))]
)
def test_memory_is_bounded_by_the_file(limit: int, names: tuple[str, ...], tmp_path: Path) -> None:
    """Besides what the file itself takes, twice: as bytes and as text."""
    for name, data in no_checkpoints().items():
        if name.startswith(names):
            path = tmp_path / "a.safetensors"
            path.write_bytes(data)
            tracemalloc.start()
            with pytest.raises(RunError):
                read_arrays(path)
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
            assert peak < 200_000 + 2 * limit * len(data), (name, peak)


def test_pipes_and_devices_are_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "zeros").symlink_to("/dev/zero")
    (tmp_path / "link").symlink_to(RUN / "config.json")
    with pytest.raises(RunError, match="is a symbolic link"):
        read_json(tmp_path / "link")
    for path in (tmp_path / "pipe", tmp_path / "zeros", Path("/dev/zero"), tmp_path):
        for read in (read_json, read_arrays):
            with pytest.raises(RunError, match=r"is not a file|is a symbolic link"):
                read(path)
        with pytest.raises((RunError, UsageError)):
            RunFolder.open(path)


if __name__ == "__main__":
    attack(Path(sys.argv[1]))
