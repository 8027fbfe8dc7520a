"""Learning that takes minutes: `make slow`."""

from __future__ import annotations

from pathlib import Path

import pytest

import steepest as st


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_hopper_learns_with_every_seed(tmp_path: Path, seed: int) -> None:
    run = st.train("Hopper-v5", "trpo", steps=300_000, seed=seed, out=tmp_path / "run", evaluation={"every": 0})
    assert run.evaluation.mean() >= 1000
