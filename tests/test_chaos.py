"""Runs that are killed at random instants, again and again: each ends as one that nobody killed, to the bit.

STEEPEST_CHAOS=100 pytest tests/test_chaos.py -s     a hundred over all worlds, and where they struck: make chaos
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from sameness import differences
from steepest.runs import RunFolder

KILLS = int(os.environ.get("STEEPEST_CHAOS", "0"))
"""Over all worlds; 0: a few, in one."""
SEED = int(os.environ.get("STEEPEST_CHAOS_SEED", "0"))
"""Of the instants."""

RUNS: dict[str, list[str]] = {
    "CartPole-v1": ["--steps", "60_000" if KILLS else "20_000", "--checkpoint-every", "4"],
    "mdp:two-state": ["--steps", "6_000_000", "--checkpoint-every", "20"],
    "gymnax:CartPole-v1": ["--steps", "600_000", "--checkpoint-every", "10"],
    "Hopper-v5": ["--steps", "60_000", "--checkpoint-every", "3", "--workers", "2"],
}
CASES = list(RUNS) if KILLS else list(RUNS)[:1]
STEEPEST = [sys.executable, "-m", "steepest.cli"]
KILLED = -signal.SIGKILL


class Victim:
    """A run that is killed and taken up again until it is done.  begin: how it is begun, but for its folder."""

    def __init__(self, begin: list[str], folder: Path):
        self._begin, self.folder = begin, folder
        self._env = {**os.environ, "XDG_CACHE_HOME": str(folder.parent / "cache")}
        self.struck: Counter[str] = Counter()

    def live(self, seconds: float | None) -> bool:
        """Let it run for so long at most, then kill it. Returns whether it came to its end."""
        started = (self.folder / "checkpoints" / "last.safetensors").exists()
        command = ["resume", str(self.folder)] if started else [*self._begin, "--out", str(self.folder)]
        if not started:
            subprocess.run(["rm", "-rf", str(self.folder)], check=True)  # a folder without a checkpoint is no run yet
        command = [*STEEPEST, *command, "--quiet"]
        process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, env=self._env)
        try:
            said = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            said = process.communicate()
        assert process.returncode in (0, KILLED), said[1].decode()[-2000:]
        if process.returncode == KILLED:
            self.struck[self._where()] += 1
        return process.returncode == 0 or RunFolder(self.folder).finished

    def _where(self) -> str:
        if not (self.folder / "checkpoints" / "last.safetensors").exists():
            return "before its first checkpoint"
        _, info = RunFolder.open(self.folder).load_checkpoint("last")
        if info["ended"] is not None:
            return "after its last iteration"
        return "while it ran" if info["progress"]["iteration"] else "before its second checkpoint"


@pytest.mark.parametrize("world", CASES)
def test_a_run_that_is_killed_ends_as_one_that_is_not(world: str, tmp_path: Path) -> None:
    begin = ["train", world, *RUNS[world], "--no-tensorboard"]
    whole = Victim(begin, tmp_path / "whole")
    if KILLS:  # how long a life is, once the programs are compiled
        whole.live(None)
        subprocess.run(["rm", "-rf", str(whole.folder)], check=True)
    start = time.monotonic()
    assert whole.live(None)
    life = time.monotonic() - start

    rng = np.random.default_rng((SEED, CASES.index(world)))
    wanted = -(-KILLS // len(CASES)) or 2
    kills, runs, struck = 0, 0, Counter[str]()
    while kills < wanted:
        runs += 1
        victim = Victim(begin, tmp_path / f"killed-{runs}")
        done = False
        while not done:
            done = victim.live(rng.uniform(0.1, life) if kills + victim.struck.total() < wanted else None)
        kills += victim.struck.total()
        struck += victim.struck
        assert differences(whole.folder, victim.folder) == []
    print(f"\n{world}: {kills} kills in {runs} runs of {life:.1f} s each, " + json.dumps(struck))
