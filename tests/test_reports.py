"""Figures from made-up logs. What is asserted is what a reader relies on: means, grids, labels, and a valid image."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from steepest.errors import RunError, UsageError
from steepest.reports import compare_curves, learning_curve
from steepest.reports.learning_curve import common_grid, running_mean
from steepest.runs import JsonLines, RunFolder


def make_run(
    path: Path, seed: int = 0, *, steps: int = 200_000, episodes: bool = True, evaluations: bool = True
) -> Path:
    """A run folder with a curve that rises to 500 and levels off, like CartPole's."""
    run = RunFolder.create(path)
    run.write_config({"env": "CartPole-v1"})
    run.write_meta({"backend": "cpu"})
    generator = np.random.default_rng(seed)
    tau = steps * generator.uniform(0.15, 0.3)

    def level(step: int) -> float:
        return 500 * (1 - np.exp(-step / tau))

    metrics, log = JsonLines(run.metrics_path), JsonLines(run.episodes_path)
    for iteration, step in enumerate(range(2048, steps, 2048)):
        row = {"return/mean": level(step) + generator.normal(0, 20)}
        if evaluations and iteration % 10 == 0:
            row |= {"evaluation/mean": min(500, level(step) + generator.normal(0, 8)), "evaluation/std": 30.0}
        metrics.write(step, row)
    if episodes:
        step = 0
        while step < steps:
            value = float(np.clip(level(step) * generator.lognormal(0, 0.3), 9, 500))
            step += int(value)
            log.write(step, {"return": value, "length": value})
    return path


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(path.read_bytes())).convert("RGB"))


def test_a_run_becomes_a_picture_with_dots_mean_and_evaluations(tmp_path):
    out = tmp_path / "curve.png"
    learning_curve(make_run(tmp_path / "run"), out, "CartPole-v1 · trpo · seed 0")
    image = pixels(out)
    assert image.shape == (870, 1050, 3)
    for colour in ((0x00, 0x72, 0xB2), (0xD5, 0x5E, 0x00)):  # the running mean and the evaluations
        assert (np.abs(image.astype(int) - colour).sum(-1) < 12).sum() > 200


@pytest.mark.parametrize("episodes", [False, True])
@pytest.mark.parametrize("evaluations", [False, True])
def test_what_the_logs_lack_is_left_out(tmp_path, episodes, evaluations):
    run = make_run(tmp_path / "run", steps=10_000, episodes=episodes, evaluations=evaluations)
    learning_curve(run, tmp_path / "curve.png")
    assert pixels(tmp_path / "curve.png").std() > 5


def test_a_run_without_a_single_episode_has_a_picture_that_says_so(tmp_path):
    run = RunFolder.create(tmp_path / "run")
    run.write_config({})
    run.write_meta({})
    learning_curve(run.path, tmp_path / "curve.png")
    assert pixels(tmp_path / "curve.png").shape == (870, 1050, 3)


def test_methods_are_compared_over_their_seeds(tmp_path):
    few = [make_run(tmp_path / f"few{seed}", seed, steps=100_000, episodes=False) for seed in range(3)]
    many = [make_run(tmp_path / f"many{seed}", 10 + seed, steps=80_000, episodes=False) for seed in range(5)]
    one = [make_run(tmp_path / "one", 20, steps=60_000, episodes=False)]
    out = tmp_path / "compare.png"
    compare_curves({"trpo": few, "npg": many, "pg": one}, out, "CartPole-v1")
    assert pixels(out).shape == (870, 1050, 3)


def test_a_comparison_needs_runs_and_each_needs_a_curve(tmp_path):
    with pytest.raises(UsageError, match="nothing to compare"):
        compare_curves({}, tmp_path / "out.png")
    with pytest.raises(UsageError, match="not a run folder"):
        compare_curves({"trpo": [tmp_path / "nowhere"]}, tmp_path / "out.png")
    empty = RunFolder.create(tmp_path / "empty")
    empty.write_config({})
    empty.write_meta({})
    with pytest.raises(RunError, match="empty has no 'return/mean'"):
        compare_curves({"trpo": [empty.path]}, tmp_path / "out.png")
    assert not (tmp_path / "out.png").exists()


def test_running_mean_is_of_the_last_values_and_of_fewer_at_the_beginning():
    np.testing.assert_allclose(running_mean(np.array([1.0, 2, 3, 4, 5]), 3), [1, 1.5, 2, 3, 4])
    np.testing.assert_allclose(running_mean(np.array([1.0, 2, 3]), 1), [1, 2, 3])


def test_the_common_grid_extrapolates_nothing():
    a = (np.array([0, 10, 20]), np.array([0.0, 10.0, 20.0]))
    b = (np.array([5, 15]), np.array([1.0, 1.0]))
    steps, values = common_grid([a, b], points=3)
    np.testing.assert_allclose(steps, [5, 10, 15])
    np.testing.assert_allclose(values, [[5, 10, 15], [1, 1, 1]])
    apart = (np.array([30, 40]), np.array([0.0, 0.0]))
    assert common_grid([a, apart])[0].size == 0


def test_drawing_needs_no_display_and_leaves_pyplot_alone(tmp_path):
    run = make_run(tmp_path / "run", steps=6_000)
    code = (
        "import sys; from steepest.reports import learning_curve; "
        f"learning_curve({str(run)!r}, {str(tmp_path / 'curve.png')!r}); assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env={"PATH": "", "HOME": str(tmp_path)})
