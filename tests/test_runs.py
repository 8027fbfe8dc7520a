"""Runs on disk: what is written is whole or not there, and what is read is what was written or a clear RunError."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from steepest.errors import RunError, UsageError
from steepest.runs import (
    DamagedFileError,
    JsonLines,
    RunFolder,
    TensorBoard,
    checkpoint,
    columns,
    default_path,
    meta,
    read_arrays,
    read_json,
    read_lines,
    strict_json,
    write_arrays,
    write_bytes,
    write_json,
)

ARRAYS = {
    "policy.weight": np.arange(6, dtype=np.float32).reshape(2, 3) / 7,
    "normaliser.mean": np.array([1 / 3, -0.0, 5e-324, np.nan, -np.inf]),
    "count": np.array(2**62 + 1),
    "mask": np.array([True, False]),
    "empty": np.zeros((0, 3), np.float32),
}
INFO = {"steps": 2048, "return": 1 / 3, "name": "zwei Zustände", "offsets": {"metrics.jsonl": 17}, "best": None}


def assert_same_bits(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> None:
    assert set(a) == set(b)
    for name, array in a.items():
        assert (array.dtype, array.shape, array.tobytes()) == (b[name].dtype, b[name].shape, b[name].tobytes()), name


def fail_with(code: int):
    def fail(*_args, **_kwargs):
        raise OSError(code, os.strerror(code))

    return fail


# --- files


def test_json_comes_back_and_stays_standard(tmp_path):
    path = tmp_path / "a.json"
    value = {"a": np.float32(0.5), "b": jnp.arange(2), "c": (1, None, True), "d": tmp_path, "e": [np.nan, np.inf]}
    write_json(path, value)
    assert read_json(path) == {"a": 0.5, "b": [0, 1], "c": [1, None, True], "d": str(tmp_path), "e": [None, None]}
    json.loads(path.read_text(), parse_constant=lambda name: pytest.fail(name))
    with pytest.raises(TypeError):
        write_json(path, {"a": object()})
    assert read_json(path)["a"] == 0.5


def test_arrays_come_back_to_the_bit_also_from_views_and_other_byte_orders(tmp_path):
    path = tmp_path / "a.safetensors"
    matrix = np.arange(6.0).reshape(2, 3)
    write_arrays(path, {**ARRAYS, "t": matrix.T, "strided": matrix[:, ::2]}, {})
    assert_same_bits(read_arrays(path)[0], {**ARRAYS, "t": matrix.T.copy(), "strided": matrix[:, ::2].copy()})
    read_arrays(path)[0]["t"][0, 0] = 1.0  # owned, not a view of the file
    write_arrays(path, {"big": matrix.astype(">f8")}, {})
    np.testing.assert_array_equal(read_arrays(path)[0]["big"], matrix)
    with pytest.raises(RunError, match="'z' has dtype complex128"):
        write_arrays(path, {"z": np.ones(2, complex)}, {})


@pytest.mark.parametrize("function", ["fsync", "replace"])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path, monkeypatch, function, code):
    path = tmp_path / "config.json"
    write_json(path, {"old": 1})
    before = path.read_bytes()
    monkeypatch.setattr(os, function, fail_with(code))
    with pytest.raises(RunError) as caught:
        write_json(path, {"new": 2})
    assert str(caught.value) == f"cannot write {path}: {os.strerror(code)}"
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["config.json"]


def test_an_interrupt_during_a_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "a"
    write_bytes(path, b"old")

    def interrupt(_descriptor):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_bytes(path, b"new")
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a"]


@pytest.mark.skipif(sys.platform == "win32", reason="needs a limit on file sizes")
def test_a_disk_that_is_really_full_keeps_checkpoint_and_whole_lines(tmp_path):
    """The kernel refuses in the middle of a file, as on a full disk: a limit on file sizes in a process of its own."""
    script = textwrap.dedent("""
        import resource, sys
        import numpy as np
        from steepest.errors import RunError
        from steepest.runs import JsonLines, RunFolder, TensorBoard
        run = RunFolder.create(sys.argv[1])
        for steps in (1, 2):
            run.save_last({"a": np.ones(10)}, {"steps": steps}, steps=steps, keep=2)
        log, board = JsonLines(run.metrics_path), TensorBoard(run.path)
        board.FLUSH_SECONDS = 0.0
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_001, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))

        def refused(action):
            try:
                for _ in range(100_000):
                    action()
            except RunError as error:
                print(error)
                return
            raise SystemExit("it was not refused")

        refused(lambda: run.save_last({"a": np.ones(5_000)}, {"steps": 3}, steps=3, keep=2))
        refused(lambda: log.write(7, {"return/mean": 1 / 3}))
        refused(lambda: board.write(7, {"return/mean": 1 / 3}))
    """)
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "run")], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("File too large") == 3
    run = RunFolder(tmp_path / "run")
    assert run.load_checkpoint("last")[1]["steps"] == 2
    assert run.checkpoints == ["last", "steps-000000000001", "steps-000000000002"]
    assert len(list(run.checkpoints_path.iterdir())) == 3
    text = run.metrics_path.read_bytes()
    assert text.endswith(b"\n")
    assert 9_900 < len(text) <= 10_001
    assert len(read_lines(run.metrics_path)) == text.count(b"\n")


@pytest.mark.parametrize("content", [b"", b"{", b'{"a": NaN}', b"\xff\xfe", b"[" * 100_000, b"1" * 5_000])
def test_what_is_not_json_is_called_damaged(tmp_path, content):
    path = tmp_path / "config.json"
    path.write_bytes(content)
    with pytest.raises(RunError, match=r"config\.json is damaged: not JSON"):
        read_json(path)


def test_missing_oversized_and_foreign_files_are_run_errors(tmp_path, monkeypatch):
    with pytest.raises(RunError, match=r"cannot read .*: No such file"):
        read_json(tmp_path / "no.json")
    with pytest.raises(RunError, match=r"cannot read .*: No such file"):
        read_arrays(tmp_path / "no.safetensors")
    (tmp_path / "a").write_text("[1, 2, 3]")
    with pytest.raises(RunError, match="not a safetensors file"):
        read_arrays(tmp_path / "a")
    monkeypatch.setattr(strict_json, "LIMIT", 4)
    with pytest.raises(RunError, match="larger than"):
        read_json(tmp_path / "a")


# --- checkpoints


def test_a_checkpoint_comes_back_to_the_bit(tmp_path):
    path = tmp_path / "a.safetensors"
    checkpoint.save(path, ARRAYS, INFO)
    arrays, info = checkpoint.load(path)
    assert_same_bits(arrays, ARRAYS)
    assert info == INFO
    again = tmp_path / "b.safetensors"
    checkpoint.save(again, dict(reversed(ARRAYS.items())), INFO)
    assert again.read_bytes() == path.read_bytes()  # same content, same file


def test_truncated_and_flipped_checkpoints_are_never_accepted(tmp_path):
    path = tmp_path / "a.safetensors"
    checkpoint.save(path, ARRAYS, INFO)
    whole = path.read_bytes()
    generator = np.random.default_rng(0)
    cuts = [0, 1, 7, 8, 9, len(whole) - 1, *generator.integers(0, len(whole), 100)]
    flips = [(byte, int(generator.integers(8))) for byte in range(len(whole))]
    damaged = [whole[:cut] for cut in cuts]
    damaged += [whole[:i] + bytes([whole[i] ^ 1 << bit]) + whole[i + 1 :] for i, bit in flips]
    for data in damaged:
        path.write_bytes(data)
        with pytest.raises(RunError):
            checkpoint.load(path)


def written_as(version: Any, monkeypatch: pytest.MonkeyPatch, write: Callable[[], None]) -> None:
    """Whatever `write` writes is of that format."""
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "FORMAT", version)
        write()


def test_a_later_format_is_refused_and_what_reads_it_is_named(tmp_path, monkeypatch):
    path = tmp_path / "a.safetensors"
    info = {**INFO, "versions": {"steepest": "7.2.0"}}
    written_as(3, monkeypatch, lambda: checkpoint.save(path, ARRAYS, info))
    with pytest.raises(
        RunError, match=r"checkpoint format 3, written by steepest 7\.2\.0.*install steepest 7\.2\.0"
    ) as at:
        checkpoint.load(path)
    assert not isinstance(at.value, DamagedFileError)
    later = path.read_bytes()
    path.write_bytes(later.replace(b"7.2.0", b"7.3.0"))
    with pytest.raises(DamagedFileError, match="checksum"):
        checkpoint.load(path)
    path.write_bytes(later.replace(b'format\\": 3', b'format\\": 2'))
    with pytest.raises(DamagedFileError, match="checksum"):
        checkpoint.load(path)


@pytest.mark.parametrize("version", [0, -1, "1", None, True])
def test_what_is_no_format_is_damage(tmp_path, monkeypatch, version):
    path = tmp_path / "a.safetensors"
    checkpoint.save(path, ARRAYS, INFO)
    arrays, metadata = read_arrays(path)
    record = json.loads(metadata["steepest"])
    write_arrays(path, arrays, {"steepest": json.dumps({**record, "format": version})})
    with pytest.raises(DamagedFileError):
        checkpoint.load(path)


@pytest.mark.parametrize("metadata", [{}, {"steepest": "{"}, {"steepest": "[]"}, {"steepest": '{"format": 1}'}])
def test_a_safetensors_file_of_other_origin_is_refused(tmp_path, metadata):
    write_arrays(tmp_path / "a.safetensors", ARRAYS, metadata)
    with pytest.raises(RunError, match=r"a\.safetensors is"):
        checkpoint.load(tmp_path / "a.safetensors")


class Network(eqx.Module):
    layers: tuple[eqx.nn.Linear, ...]
    activation: object
    scale: float
    nothing: None = None


def make_tree(seed: int) -> dict:
    key = jax.random.key(seed)
    generator = np.random.default_rng(seed)
    with jax.enable_x64(True):
        double = jnp.asarray(generator.normal(size=3))
    return {
        "net": Network((eqx.nn.Linear(2, 3, key=key), eqx.nn.Linear(3, 1, key=key)), jnp.tanh, 0.5 + seed),
        "key": key,
        "rbg": jax.random.key(seed, impl="rbg"),
        "keys": jax.random.split(key, 4),
        "mean": generator.normal(size=4),
        "count": np.array(seed),
        "scalar": np.float64(generator.normal()),
        "zero_d": jnp.asarray(generator.normal(), jnp.float32),
        "double": double,
        "half": jnp.asarray(generator.normal(size=3), jnp.bfloat16),
        "python": seed,
    }


def test_a_tree_comes_back_with_its_kinds_dtypes_and_bits(tmp_path):
    tree, template = make_tree(1), make_tree(2)
    checkpoint.save(tmp_path / "a", checkpoint.flatten(tree, "agent"), {})
    arrays, _ = checkpoint.load(tmp_path / "a")
    assert "agent['net'].layers[0].weight" in arrays
    back = checkpoint.restore(template, {**arrays, "agents": np.ones(1), "critic.weight": np.ones(1)}, "agent")
    assert_same_bits(checkpoint.flatten(back, "agent"), checkpoint.flatten(tree, "agent"))
    assert jax.tree.structure(back) == jax.tree.structure(template)
    for a, b in zip(jax.tree.leaves(back), jax.tree.leaves(tree), strict=True):
        assert type(a) is type(b)
    assert back["net"].activation is jnp.tanh
    assert (back["net"].scale, back["python"]) == (2.5, 2)  # Python numbers are the template's
    assert back["double"].dtype == np.float64
    assert jax.random.uniform(back["rbg"]) == jax.random.uniform(tree["rbg"])


def test_a_tree_that_is_one_array_is_named_by_the_prefix_alone():
    arrays = checkpoint.flatten(np.arange(3), "logits")
    assert list(arrays) == ["logits"]
    np.testing.assert_array_equal(checkpoint.restore(np.zeros(3, int), arrays, "logits"), [0, 1, 2])


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ({"a": np.zeros((2, 2)), "b": np.zeros(1)}, r"p\['a'\] is float64\[3\], expected float64\[2,2\]"),
        ({"a": np.zeros(3, np.float32), "b": np.zeros(1)}, r"p\['a'\] is float64\[3\], expected float32\[3\]"),
        ({"a": np.zeros(3)}, r"p\['b'\] is not expected \(float64\[1\]\)"),
        ({"a": np.zeros(3), "b": np.zeros(1), "c": np.zeros(())}, r"p\['c'\] is missing \(float64\[\] expected\)"),
    ],
)
def test_a_template_that_does_not_fit_is_told_where(template, message):
    arrays = checkpoint.flatten({"a": np.zeros(3), "b": np.zeros(1)}, "p")
    with pytest.raises(RunError, match=message):
        checkpoint.restore(template, arrays, "p")


# --- the run folder


def make_folder(path: Path) -> RunFolder:
    run = RunFolder.create(path)
    run.write_config({"env": "CartPole-v1", "delta": 0.01})
    run.write_meta({"backend": "cpu"})
    return run


def test_a_run_folder_is_made_with_its_parents_and_opened_again(tmp_path):
    run = make_folder(tmp_path / "a" / "b")
    assert RunFolder.open(str(run.path)) == run
    assert run.read_config() == {"env": "CartPole-v1", "delta": 0.01}
    described = run.read_meta()
    assert described["device"] == {"backend": "cpu"}
    assert {"jax", "jaxlib", "numpy", "steepest"} <= set(described["versions"])
    assert {"python", "platform", "git", "argv", "time", "format"} <= set(described)


def test_the_git_commit_is_recorded_inside_a_repository_and_null_elsewhere(tmp_path, monkeypatch):
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    monkeypatch.chdir(tmp_path)
    assert meta.git_commit() is None
    identity = ("-c", "user.name=a", "-c", "user.email=a@example.org")
    (tmp_path / "file").write_text("1")
    for command in (("init", "-q"), ("add", "file"), (*identity, "commit", "-qm", "one")):
        subprocess.run(["git", *command], check=True)
    found = meta.git_commit()
    assert found is not None
    assert len(found["commit"]) == 40
    assert found["dirty"] is False
    (tmp_path / "file").write_text("2")
    assert meta.git_commit() == {"commit": found["commit"], "dirty": True}
    monkeypatch.setenv("PATH", "")
    assert meta.git_commit() is None


def test_a_folder_with_something_in_it_is_not_overwritten(tmp_path):
    (tmp_path / "empty").mkdir()
    RunFolder.create(tmp_path / "empty")
    with pytest.raises(
        UsageError, match=r"exists and is not empty; choose another --out, or `steepest resume .*empty`"
    ):
        RunFolder.create(tmp_path / "empty")
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="exists and is not a folder"):
        RunFolder.create(tmp_path / "file")
    with pytest.raises(UsageError, match="something above it is a file"):
        RunFolder.create(tmp_path / "file" / "run")


def test_a_folder_that_the_system_refuses_is_a_run_error(tmp_path, monkeypatch):
    monkeypatch.setattr(Path, "mkdir", fail_with(errno.ENOSPC))
    with pytest.raises(RunError, match=r"cannot create .*: No space left on device"):
        RunFolder.create(tmp_path / "run")


def test_default_paths_are_safe_names_and_unique_within_a_second(tmp_path, monkeypatch):
    monkeypatch.setattr("time.strftime", lambda *_: "20260102-030405")
    first = default_path("mdp:two-state", "trpo", 3, tmp_path)
    assert first == tmp_path / "mdp-two-state" / "trpo" / "20260102-030405-s3"
    runs = [RunFolder.create_default("mdp:two-state", "trpo", 3, tmp_path).path.name for _ in range(3)]
    assert runs == ["20260102-030405-s3", "20260102-030405-s3-2", "20260102-030405-s3-3"]
    assert default_path("../ALE/Pong v5", "..", 0, "runs").parts[:3] == ("runs", "ALE-Pong-v5", "unnamed")


def test_what_is_no_run_folder_is_refused_with_the_nearest_that_is(tmp_path):
    run = make_folder(tmp_path / "CartPole-v1" / "trpo" / "20260102-030405-s3")
    with pytest.raises(UsageError, match=r"does not exist; did you mean .*20260102-030405-s3\?"):
        RunFolder.open(run.path.with_name("20260102-030405-s4"))
    with pytest.raises(UsageError, match=r"is not a run folder: no config\.json; run folders in it: .*-s3"):
        RunFolder.open(tmp_path / "CartPole-v1")
    with pytest.raises(UsageError, match="is not a run folder: it is a file"):
        RunFolder.open(run.config_path)
    with pytest.raises(UsageError, match=r"does not exist, nor does .*nowhere"):
        RunFolder.open(tmp_path / "nowhere" / "run")
    run.meta_path.unlink()
    with pytest.raises(UsageError, match=r"no meta\.json"):
        RunFolder.open(run.path)


def saved(run: RunFolder, *counts: int, keep: int = 3) -> None:
    for steps in counts:
        run.save_last(ARRAYS, {"steps": steps}, steps=steps, keep=keep)


def steps_of(run: RunFolder, name: str) -> int:
    return run.load_checkpoint(name)[1]["steps"]


def test_the_last_checkpoints_are_kept_and_the_best(tmp_path):
    run = make_folder(tmp_path / "run")
    run.save_checkpoint("best", ARRAYS, {"steps": 1})
    saved(run, 1, 10**12, 2, 8, 10, 11)  # 10¹² was abandoned: the run was taken up before it
    assert run.checkpoints == ["best", "last", "steps-000000000008", "steps-000000000010", "steps-000000000011"]
    assert [steps_of(run, name) for name in run.checkpoints] == [1, 11, 8, 10, 11]
    saved(run, 12, keep=1)
    assert run.checkpoints == ["best", "last", "steps-000000000012"]
    with pytest.raises(UsageError, match="no checkpoint 'first'; there: best, last, steps-000000000012"):
        run.load_checkpoint("first")
    with pytest.raises(UsageError, match="cannot name a checkpoint"):
        run.save_checkpoint("../outside", ARRAYS, {})


def test_a_folder_of_before_keeps_its_previous_until_there_are_enough(tmp_path):
    run = make_folder(tmp_path / "run")
    run.save_checkpoint("previous", ARRAYS, {"steps": 1})
    saved(run, 2, 3)
    assert "previous" in run.checkpoints
    for path in run.checkpoints_path.glob("*s-*"):
        path.unlink()
    run.checkpoint_path("last").unlink()
    with pytest.warns(UserWarning, match=r"previous\.safetensors"):
        assert steps_of(run, "last") == 1
    saved(run, 3, 4, 5)
    assert "previous" not in run.checkpoints


@pytest.mark.parametrize("damage", ["truncated", "replaced", "missing"])
def test_a_damaged_last_checkpoint_falls_back_loudly(tmp_path, damage):
    run = make_folder(tmp_path / "run")
    saved(run, 1, 2)
    last = run.checkpoint_path("last")
    if damage == "truncated":  # and with it the file under its steps, which is the same
        os.truncate(last, last.stat().st_size - 1)
    elif damage == "replaced":
        last.unlink()
        last.write_bytes(b"no")
    else:
        last.unlink()
    with pytest.warns(
        UserWarning, match=r"last\.safetensors is .*going on from the checkpoint before it, .*steps-0"
    ) as at:
        found = run.load_last()
    assert len(at) == 1
    assert_same_bits(found.arrays, ARRAYS)
    assert found.info["steps"] == (1 if damage == "truncated" else 2)
    assert len(found.damaged) == (2 if damage == "truncated" else 1)


def test_without_a_whole_checkpoint_each_is_named(tmp_path):
    run = make_folder(tmp_path / "run")
    with pytest.raises(UsageError, match="no checkpoint 'last'; there: none"):
        run.load_last()
    saved(run, 1, 2)
    run.save_checkpoint("best", ARRAYS, {})
    for path in run.checkpoints_path.iterdir():
        path.write_bytes(b"")
    with pytest.raises(
        RunError, match=r"last\.safetensors is damaged.*0002\.saf.*0001\.saf.*still the checkpoint 'best'"
    ):
        run.load_last()
    with pytest.raises(RunError, match="is damaged"):
        run.load_checkpoint("best")


def test_a_later_format_does_not_fall_back(tmp_path, monkeypatch):
    run = make_folder(tmp_path / "run")
    saved(run, 1)
    written_as(3, monkeypatch, lambda: saved(run, 2))
    with pytest.raises(RunError, match="format 3"):
        run.load_checkpoint("last")


@pytest.mark.parametrize("links", [True, False])
@pytest.mark.parametrize("at", range(1, 7))
def test_whenever_saving_fails_a_whole_checkpoint_remains(tmp_path, monkeypatch, links, at):
    run = make_folder(tmp_path / "run")
    saved(run, 1, 2)
    if not links:
        monkeypatch.setattr(os, "link", fail_with(errno.EPERM))
    real, calls = {name: getattr(os, name) for name in ("fsync", "replace")}, []

    def failing(name):
        def call(*args):
            calls.append(name)
            if len(calls) == at:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return real[name](*args)

        return call

    for name in real:
        monkeypatch.setattr(os, name, failing(name))
    if at == 6 and links:  # fsync, replace, fsync; replace, fsync
        saved(run, 3)
    else:
        with pytest.raises(RunError, match="No space left on device"):
            saved(run, 3)
    monkeypatch.undo()
    assert steps_of(run, "last") == (3 if at in (5, 6) and (links or at == 6) else 2)
    assert not [p for p in run.checkpoints_path.iterdir() if p.name.endswith(".tmp")]


def test_without_hard_links_the_last_is_a_copy(tmp_path, monkeypatch):
    run = make_folder(tmp_path / "run")
    monkeypatch.setattr(os, "link", fail_with(errno.EPERM))
    saved(run, 1, 2)
    assert steps_of(run, "last") == steps_of(run, "steps-000000000002") == 2
    assert run.checkpoint_path("last").stat().st_nlink == 1


def test_who_takes_the_folder_sweeps_it(tmp_path):
    run = make_folder(tmp_path / "run")
    left = [run.path / ".config.json.00112233.tmp", run.checkpoints_path / ".last.safetensors.00112233.tmp"]
    for path in left:
        path.write_bytes(b"half")
    with run.lock():
        assert not any(path.exists() for path in left)


# --- sinks and the reader


def test_a_resumed_log_continues_at_the_checkpoint(tmp_path):
    path = tmp_path / "metrics.jsonl"
    log = JsonLines(path)
    log.write(1, {"return/mean": 0.5})
    log.extend([(2, {"return/mean": float("nan")}), (3, {"kl": 0.25})])
    offset = log.offset()
    log.write(4, {"lost": 1.0})
    log.close()
    log.close()
    log = JsonLines(path)
    log.truncate(offset)
    log.write(5, {"return/mean": 2.0})
    rows = read_lines(path)
    assert [row["step"] for row in rows] == [1, 2, 3, 5]
    steps, values = columns(rows, "return/mean")
    assert (steps.tolist(), values.tolist()) == ([1, 5], [0.5, 2.0])
    assert columns(rows, "absent")[1].shape == (0,)
    assert columns([{"step": 10**19, "a": 1}, {"step": 1e30, "a": 1}, {"step": 2, "a": 1}], "a")[0].tolist() == [2]


def test_a_log_that_is_not_the_checkpoints_log_is_refused(tmp_path):
    log = JsonLines(tmp_path / "metrics.jsonl")
    log.write(1, {"a": 1.0})
    with pytest.raises(RunError, match="lines are lost"):
        log.truncate(log.offset() + 1)
    with pytest.raises(RunError, match="no line ends at byte 3"):
        log.truncate(3)
    log.close()
    with pytest.raises(RunError, match="is closed"):
        log.write(2, {})


def test_a_line_cut_short_is_ignored_by_the_reader_and_dropped_by_the_writer(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step": 1}\n{"step": 2, "a')
    assert read_lines(path) == [{"step": 1}]
    JsonLines(path).write(3, {})
    assert [row["step"] for row in read_lines(path)] == [1, 3]
    path.write_bytes(b'{"step": 1}\n[]\n{"step": 3}\n')
    with pytest.raises(RunError, match="line 2 is no JSON object"):
        read_lines(path)
    with pytest.raises(RunError, match="cannot read"):
        read_lines(tmp_path / "none.jsonl")


def test_a_line_that_does_not_fit_is_taken_back(tmp_path, monkeypatch):
    log = JsonLines(tmp_path / "metrics.jsonl")
    log.write(1, {"a": 1.0})
    real, calls = os.write, []

    def fills_up(descriptor, data):
        calls.append(len(data))
        return real(descriptor, data[:5]) if len(calls) == 1 else fail_with(errno.ENOSPC)()

    monkeypatch.setattr(os, "write", fills_up)
    with pytest.raises(RunError, match=r"cannot write .*metrics\.jsonl: No space left on device"):
        log.write(2, {"a": 2.0})
    monkeypatch.undo()
    log.write(3, {"a": 3.0})
    assert [row["step"] for row in read_lines(log.path)] == [1, 3]


def test_tensorboard_events_are_written_and_purged_on_resume(tmp_path):
    from tensorboardX.proto import event_pb2

    for purge in (None, 20):
        board = TensorBoard(tmp_path, purge_step=purge)
        board.write(10, {"return/mean": 1.5, "kl": float("nan")})
        board.close()
        board.close()
    assert board.offset() is None
    first, second = sorted(tmp_path.iterdir())

    def events(path):
        data = path.read_bytes()
        while data:
            size = int.from_bytes(data[:8], "little")
            yield event_pb2.Event.FromString(data[12 : 12 + size])  # pyright: ignore[reportAttributeAccessIssue]
            data = data[16 + size :]

    _, event = events(first)
    assert (event.step, [(v.tag, v.simple_value) for v in event.summary.value]) == (10, [("return/mean", 1.5)])
    _, start, _ = events(second)
    assert (start.step, start.session_log.status) == (20, 1)
