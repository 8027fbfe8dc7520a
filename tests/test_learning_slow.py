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


@pytest.mark.slow
@pytest.mark.parametrize(("seed", "memory"), [(0, "gru"), (1, "gru"), (0, "none")])
def test_cartpole_without_velocities_needs_memory(tmp_path: Path, seed: int, memory: str) -> None:
    settings = {"policy": {"memory": memory}, "evaluation": {"every": 0}, "delta_final": 0.001}
    run = st.train("steepest/CartPoleMasked-v0", steps=300_000, seed=seed, out=tmp_path / "run", **settings)
    assert (run.evaluation.mean() >= 475) == (memory == "gru")


@pytest.mark.slow
def test_a_t_maze_is_solved_to_the_optimum(tmp_path: Path) -> None:
    settings = {"policy": {"memory": "gru"}, "evaluation": {"every": 0}}
    run = st.train("steepest/TMaze-v0", steps=200_000, out=tmp_path / "run", **settings)
    assert run.evaluation == pytest.approx(4.0)
