"""Damaged checkpoints: whatever is cut off or flipped is found and said, and the run goes on from the one before.

STEEPEST_FUZZ=20 pytest tests/test_corruption.py -s        twenty times as many, and how many they were
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

import steepest as st
from steepest.cli import main
from steepest.runs import DamagedFileError, RunFolder, checkpoint, read_lines
from steepest.training import persistence
from steepest.training.persistence import Snapshot, best_return
from steepest.training.recorded import Progress
from steepest.training.recorder import Recorder
from test_runs import assert_same_bits
from test_training import same

FORMAT_1 = Path(__file__).parent / "data" / "format-1"
"""A run of steepest 0.1.0: trpo on mdp:two-state, four iterations of 100 steps, checkpoints at 200 and 400."""
TIMES = int(os.environ.get("STEEPEST_FUZZ", "1"))
CUTS, FLIPS = 200 * TIMES, 1000 * TIMES


@pytest.fixture
def old(tmp_path: Path) -> Path:
    return Path(shutil.copytree(FORMAT_1, tmp_path / "run"))


@pytest.fixture
def run(old: Path) -> RunFolder:
    """That run, its checkpoints written by this version: 200, and 400 as the last."""
    folder = RunFolder.open(old)
    for steps, (arrays, info) in {n: folder.load_checkpoint(c) for n, c in ((200, "previous"), (400, "last"))}.items():
        folder.save_last(arrays, info, steps=steps, keep=3)
    folder.save_checkpoint("best", *folder.load_checkpoint("best"))
    folder.checkpoint_path("previous").unlink()
    return folder


def damages(whole: bytes, seed: int) -> Iterator[bytes]:
    """The file cut at CUTS places and with FLIPS single bits flipped, spread over all of it."""
    generator = np.random.default_rng(seed)
    for cut in np.linspace(0, len(whole) - 1, CUTS).astype(int):
        yield whole[:cut]
    for bit in generator.choice(8 * len(whole), FLIPS, replace=8 * len(whole) < FLIPS):
        flipped = bytearray(whole)
        flipped[bit // 8] ^= 1 << bit % 8
        yield bytes(flipped)


@pytest.mark.parametrize("name", ["last", "steps-000000000200", "best", "format 1"])
def test_no_damage_is_loaded_in_silence(run: RunFolder, name: str, tmp_path: Path) -> None:
    source = FORMAT_1 / "checkpoints" / "last.safetensors" if name == "format 1" else run.checkpoint_path(name)
    path, refused = tmp_path / "damaged.safetensors", 0
    expected, expected_info = checkpoint.load(source)
    for data in damages(source.read_bytes(), 1):
        path.write_bytes(data)
        try:
            arrays, info = checkpoint.load(path)
        except DamagedFileError as error:  # and no other: it is what falls back
            said = str(error)
            refused += said.startswith(str(path)) and "\n" not in said
        else:  # an upper-case digit of an escape, say: it says the same
            assert_same_bits(arrays, expected)
            assert info == expected_info
    print(f"{name}: {CUTS + FLIPS} damaged files, {refused} refused, the rest the same to the bit")
    assert refused >= 0.99 * (CUTS + FLIPS), refused


def test_from_every_damaged_last_the_run_falls_back(run: RunFolder) -> None:
    last = run.checkpoint_path("last")
    whole, before, fallen = run.load_checkpoint("last"), run.load_checkpoint("steps-000000000200")[0], 0
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        for data in damages(last.read_bytes(), 2):
            last.write_bytes(data)  # and the file under its steps, which is the same
            found = run.load_last()
            if found.info == whole[1]:  # an upper-case digit of an escape, say
                assert_same_bits(found.arrays, whole[0])
                continue
            fallen += 1
            assert found.info["progress"]["steps"] == 200
            assert_same_bits(found.arrays, before)
            assert len(said) == fallen
            message = str(said[-1].message)
            assert all(p in message for p in (str(last), str(run.checkpoint_path("steps-000000000200"))))
    assert len(said) == fallen >= 0.99 * (CUTS + FLIPS)


def test_a_run_of_format_1_goes_on_from_the_checkpoint_before(old: Path) -> None:
    """Its last is damaged by one bit, and its best too; what it writes from there on is of this format."""
    folder = RunFolder.open(old)
    assert np.isfinite(st.evaluate(st.load(old), "mdp:two-state", episodes=2)).all()
    rows = read_lines(folder.metrics_path)
    for name in ("last", "best"):
        damaged = bytearray(folder.checkpoint_path(name).read_bytes())
        damaged[-1] ^= 4
        folder.checkpoint_path(name).write_bytes(damaged)
    with pytest.warns(UserWarning, match="is damaged") as said:
        again = st.resume(old, steps=400)
    warned = " | ".join(str(w.message) for w in said)
    assert re.search(r"last\.safetensors is damaged.*going on from the checkpoint before it, .*previous\.saf", warned)
    assert re.search(r"best\.safetensors is damaged.*the next evaluation is the best", warned)
    assert again.new_steps == 200
    assert [row["step"] for row in again.metrics] == [100, 200, 300, 400]
    assert again.metrics[:2] == rows[:2]
    (event,) = read_lines(folder.events_path)
    assert (event["event"], event["step"]) == ("damaged checkpoint", 200)
    assert (event["file"], event["used"]) == ("last.safetensors", "previous.safetensors")
    assert (folder.checkpoints_path / "last.damaged").is_file()
    assert folder.checkpoints == [
        *("best", "last", "previous", "steps-000000000200", "steps-000000000400")
    ]  # three, and the best
    assert best_return(folder) == again.metrics[3]["evaluation/mean"]
    found = folder.load_last()
    assert found.info["config"]["algorithm"] == "trpo"
    assert {"steepest", "jax", "numpy"} <= set(found.info["versions"])
    assert found.info["progress"]["resumed"] == 1


def test_a_checkpoint_file_is_enough(run: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arrays, info = run.load_last()[:2]
    alone = tmp_path / "alone.safetensors"
    checkpoint.save(alone, arrays, {**info, "config": run.read_config()})
    assert same(st.load(alone), st.load(run.path))
    assert main(["evaluate", str(alone), "--episodes", "2"]) == 0
    assert capsys.readouterr().out.startswith("evaluation mean=")
    with pytest.raises(st.UsageError, match="has no 'best' in it"):
        st.load(alone, checkpoint="best")
    assert main(["evaluate", str(FORMAT_1 / "checkpoints" / "last.safetensors")]) == 2
    assert "give the run folder" in capsys.readouterr().err


def test_a_better_agent_that_is_there_is_not_overwritten(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that is taken up before its best: what it then finds is worse, until it is not."""
    arrays, info = run.load_checkpoint("best")
    best = info["progress"]["best"]

    def contents(snapshot: Any, *_: Any) -> Any:
        return arrays, {**info, "progress": snapshot.progress._asdict()}

    monkeypatch.setattr(persistence, "contents", contents)
    recorder = Recorder(run, Progress(), tensorboard=False, display=None, keep=3, origin={})
    for mean, expected in ((best - 2, best), (best - 1, best), (best + 1, best + 1), (best + 1, best + 1)):
        nothing = cast(Any, None)
        recorder.best(Snapshot(nothing, nothing, nothing, Progress(best=mean)))
        assert best_return(run) == expected
    recorder.close()


@pytest.mark.parametrize("as_json", [False, True])
def test_inspect_says_what_is_there(run: RunFolder, capsys: pytest.CaptureFixture[str], as_json: bool) -> None:
    option = ["--json"] if as_json else []
    path = run.checkpoint_path("last")
    assert main(["inspect", str(run.path), *option]) == 0
    out = capsys.readouterr().out
    if as_json:
        record = json.loads(out)
        assert record["progress"]["steps"] == 400
        assert [each["name"] for each in record["checkpoints"]] == [
            *("last", "steps-000000000400", "steps-000000000200", "best")
        ]
        assert {a["name"]: (a["dtype"], a["shape"], a["bytes"]) for a in record["arrays"]}["learner.policy.logits"] == (
            *("float32", [2, 2], 16),
        )
    else:
        for part in ("format      2", "iteration 4, steps 400", "learner.policy.logits", "float32[2,2]", "0 numbers"):
            assert part in out
    path.write_bytes(path.read_bytes()[:-1])
    assert main(["inspect", str(path), *option]) == 1
    assert "is damaged" in capsys.readouterr().out
    assert main(["inspect", str(run.path), *option]) == 0  # there is the one before it
    assert "steps 200" in capsys.readouterr().out or as_json
    arrays, info = run.load_checkpoint("best")
    arrays["learner.policy.logits"][0, 0] = np.nan
    checkpoint.save(path, arrays, {**info, "config": {"env": "\x1b[2J", "algorithm": "a\nb", "seed": 0}})
    assert main(["inspect", str(path), *option]) == 0
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert json.loads(out)["arrays"][-1]["not_finite"] == 1 if as_json else "1 numbers that are not finite" in out


def test_inspect_loads_no_jax() -> None:
    code = (
        "import sys\nfrom steepest.cli import main\n"
        f"assert main(['inspect', {str(FORMAT_1)!r}]) == 0\n"
        "assert not {'jax', 'gymnasium', 'matplotlib', 'scipy'} & set(sys.modules), 'heavy'"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
