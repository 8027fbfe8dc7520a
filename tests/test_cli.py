"""The command line as a program: what it prints, its exit codes, and that it never shows a traceback."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from steepest.cli import main

SMALL = ["--steps", "512", "--envs", "4", "--rollout", "32", "--critic.epochs", "2", "--critic.minibatch", "64"]
FEW = ["--evaluation.every", "0", "--evaluation.final-episodes", "3", "--no-tensorboard"]


def steepest(*arguments: str | Path, cwd: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "steepest.cli", *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**os.environ, **environment},
        timeout=300,
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("cli") / "run"
    assert main(["train", "CartPole-v1", "--out", str(out), "--json", *SMALL, *FEW]) == 0
    return out


def test_version_and_help_load_no_jax() -> None:
    for arguments in (["--version"], ["--help"], ["train", "--help"], ["resume", "--help"], ["evaluate", "--help"]):
        code = (
            "import sys\nfrom steepest.cli import main\n"
            f"try:\n    main({arguments!r})\nexcept SystemExit as end:\n    assert not end.code\n"
            "assert not {'jax', 'gymnasium', 'matplotlib'} & set(sys.modules), 'heavy'"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        assert "steepest" in done.stdout


def test_train_prints_a_table_and_one_line_of_evaluation(tmp_path: Path) -> None:
    done = steepest("train", "CartPole-v1", *SMALL, *FEW, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(r"evaluation mean=\d+\.\d\d std=\d+\.\d\d episodes=3\n", done.stdout)
    folder = next((tmp_path / "runs" / "CartPole-v1" / "trpo").iterdir())
    assert re.fullmatch(r"\d{8}-\d{6}-s0", folder.name)
    assert (folder / "learning_curve.png").is_file()
    assert folder.name in done.stderr
    assert "steps/s" in done.stderr


def test_json_is_one_object(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", str(run), "--episodes", "4", "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert set(record) == {"returns", "mean", "std", "episodes", "deterministic"}
    assert len(record["returns"]) == record["episodes"] == 4
    assert record["deterministic"] is True
    assert main(["evaluate", str(run), "--episodes", "4", "--json", "--stochastic", "--seed", "3"]) == 0
    assert json.loads(capsys.readouterr().out)["deterministic"] is False
    assert main(["evaluate", str(run), "--episodes", "4"]) == 0
    assert capsys.readouterr().out == f"evaluation mean={record['mean']:.2f} std={record['std']:.2f} episodes=4\n"
    assert main(["resume", str(run), "--steps", "1e3", "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert {"run", "steps", "seconds", "wall_seconds", "return_mean"} <= set(record)
    assert record["steps"] >= 1000
    assert record["wall_seconds"] >= record["seconds"] > 0


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["train", "CartPol-v1"], 2, "unknown environment 'CartPol-v1'; did you mean 'CartPole-v1'"),
        (["train", "CartPole-v1", "--algorithm", "tpro"], 2, "unknown algorithm 'tpro'; did you mean 'trpo'"),
        (["train", "CartPole-v1", "--algoritm", "trpo"], 2, "--algorithm"),
        (["train", "CartPole-v1", "--delta", "0"], 2, "delta must be a finite number > 0"),
        (["train", "CartPole-v1", "--gamma", "2"], 2, "gamma must be in [0, 1]"),
        (["train", "CartPole-v1", "--steps", "-5"], 2, "steps must be at least 1"),
        (["train", "CartPole-v1", "--steps", "1.5"], 2, "1.5"),
        (["train", "CartPole-v1", "--envs", "3", "--rollout", "5"], 2, "not divisible into minibatches of 128"),
        (["train", "no_such_module:X-v0"], 2, "'no_such_module' is neither a backend nor a Python module"),
        (["train"], 2, "required"),
        (["tarin", "CartPole-v1"], 2, "train"),
        (["evaluate", "no-such-run"], 2, "no-such-run is not a run folder: it does not exist"),
        (["resume", "."], 2, "is not a run folder: no config.json"),
        (["evaluate", "9" * 5000], 2, "999: File name too long"),
        (["inspect", "9" * 5000], 2, "999: File name too long"),
        (["diagnose", "9" * 5000], 2, "999: File name too long"),
    ],
)
def test_wrong_usage(arguments: list[str], code: int, message: str, tmp_path: Path) -> None:
    done = steepest(*arguments, cwd=tmp_path, COLUMNS="200")
    assert done.returncode == code
    assert message in done.stderr + done.stdout
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_there_is_not_touched(run: Path, capfd: pytest.CaptureFixture[str]) -> None:
    before = {p: p.read_bytes() for p in run.rglob("*") if p.is_file()}
    assert main(["train", "CartPole-v1", "--out", str(run), *SMALL, *FEW]) == 2
    assert "is not empty; choose another --out, or `steepest resume" in capfd.readouterr().err
    assert {p: p.read_bytes() for p in run.rglob("*") if p.is_file()} == before


def test_damaged_runs(run: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for name, spoil, code in (
        ("config.json", b"{", 1),
        ("config.json", b'{"env": 3}', 2),
        ("checkpoints/last.safetensors", b"no", 1),
    ):
        copy = tmp_path / "copy"
        subprocess.run(["cp", "-r", str(run), str(copy)], check=True)
        for before in (copy / "checkpoints").glob("steps-*"):
            before.unlink()
        (copy / name).write_bytes(spoil)
        assert main(["resume", str(copy), "--steps", "2e3"]) == code
        said = capfd.readouterr().err
        assert "Traceback" not in said
        assert said.startswith("steepest: ")
        subprocess.run(["rm", "-r", str(copy)], check=True)


def test_a_module_named_by_a_file_is_not_imported(run: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    subprocess.run(["cp", "-r", str(run), str(copy)], check=True)
    (tmp_path / "evil_package.py").write_text("raise SystemExit('imported')")
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**config, "env": "evil_package:CartPole-v1"}))
    for command in ("evaluate", "resume"):
        done = steepest(command, copy, *(["--steps", "5000"] if command == "resume" else []), PYTHONPATH=str(tmp_path))
        assert done.returncode == 2
        assert "repeat 'evil_package:CartPole-v1' on the command line" in done.stderr
        assert "imported" not in done.stderr


def test_a_module_of_your_own_on_the_command_line(tmp_path: Path) -> None:
    (tmp_path / "my_package.py").write_text(
        "import gymnasium\n"
        "from gymnasium.envs.classic_control import CartPoleEnv\n"
        "gymnasium.register('MyEnv-v0', CartPoleEnv, max_episode_steps=50)\n"
    )
    out = tmp_path / "run"
    done = steepest("train", "my_package:MyEnv-v0", "--out", out, *SMALL, *FEW, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert steepest("evaluate", out, cwd=tmp_path).returncode == 2
    done = steepest("evaluate", out, "--env", "my_package:MyEnv-v0", "--episodes", "2", cwd=tmp_path)
    assert done.returncode == 0, done.stderr


def test_an_environment_that_breaks(tmp_path: Path) -> None:
    (tmp_path / "breaking.py").write_text(
        "import gymnasium\n"
        "from gymnasium.envs.classic_control import CartPoleEnv\n"
        "class Breaking(CartPoleEnv):\n"
        "    count = 0\n"
        "    def step(self, action):\n"
        "        self.count += 1\n"
        "        if self.count == 50: raise OSError('the simulator is gone')\n"
        "        return super().step(action)\n"
        "gymnasium.register('Breaking-v0', Breaking)\n"
    )
    arguments = ["train", "breaking:Breaking-v0", "--out", tmp_path / "run", *SMALL, *FEW, "--faults", "0"]
    done = steepest(*arguments, cwd=tmp_path)
    assert done.returncode == 1
    assert re.search(r"steepest: .*Breaking-v0: environment \d of 4 raised OSError: the simulator is gone", done.stderr)
    assert "Traceback" not in done.stderr
    assert (tmp_path / "run" / "checkpoints" / "last.safetensors").is_file()
    assert "Traceback" in steepest(*arguments[:3], tmp_path / "debug", *arguments[4:], "--debug", cwd=tmp_path).stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals(number: signal.Signals, tmp_path: Path) -> None:
    out = tmp_path / "run"
    with subprocess.Popen(
        [sys.executable, "-m", "steepest.cli", "train", "CartPole-v1", "--out", str(out), "--steps", "1e8", *FEW],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        metrics, began = out / "metrics.jsonl", time.monotonic()
        while not (metrics.is_file() and metrics.read_text().count("\n") >= 2):
            assert process.poll() is None
            assert time.monotonic() - began < 120
            time.sleep(0.1)
        process.send_signal(number)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert f"stopped by {number.name}" in said
    assert f"steepest resume {out}" in said
    rows = metrics.read_text().count("\n")
    assert main(["resume", str(out), "--steps", str(1024 * (rows + 2)), "--quiet"]) == 0
    assert metrics.read_text().count("\n") > rows


def test_a_second_start_finds_its_programs_compiled(tmp_path: Path) -> None:
    """The persistent cache: the second run of the same command reads what the first has compiled."""
    code = (
        "import sys, jax\nfrom steepest.cli import main\ncounts = {}\n"
        "def count(event, **_): counts[event] = counts.get(event, 0) + 1\n"
        "jax.monitoring.register_event_listener(count)\n"
        f"main(['train', 'CartPole-v1', '--out', sys.argv[1], '--quiet', *{SMALL!r}, *{FEW!r}])\n"
        "print('hits', counts.get('/jax/compilation_cache/cache_hits', 0))\n"
        "print('misses', counts.get('/jax/compilation_cache/cache_misses', 0))\n"
    )
    found = []
    own = {name: value for name, value in os.environ.items() if not name.startswith("JAX_")}
    for name in ("a", "b"):
        done = subprocess.run(
            [sys.executable, "-c", code, str(tmp_path / name)],
            capture_output=True,
            text=True,
            timeout=300,
            env={**own, "XDG_CACHE_HOME": str(tmp_path / "cache")},
        )
        assert done.returncode == 0, done.stderr
        found.append({k: int(n) for k, n in re.findall(r"^(hits|misses) (\d+)$", done.stdout, flags=re.MULTILINE)})
    assert found[0]["hits"] == 0
    assert found[0]["misses"] > 0
    assert found[1]["hits"] > 0
    assert found[1]["misses"] == 0
