"""Gauss–Newton for the critic of a run: its settings, its state in checkpoints, one compilation, and older folders."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

import steepest as st
from steepest.critics import NaturalFit, trust_region
from steepest.linear import ConjugateGradient
from steepest.runs import RunFolder
from steepest.training.assembly import build_learner
from steepest.training.config import CriticConfig
from steepest.training.settings import from_record, to_record, with_settings

SMALL: dict[str, Any] = {
    "steps": 128,
    "envs": 4,
    "rollout": 15,  # 60 rows, which Adam's minibatches of 128 would not divide
    "critic": {"fit": "gauss-newton", "hidden": (8,), "newton_damping": 0.5},
    "policy": {"hidden": (8,)},
    "evaluation": {"every": 0, "final_episodes": 1},
    "tensorboard": False,
}


def test_every_setting_reaches_the_fit() -> None:
    critic = {
        "fit": "gauss-newton",
        "newton_steps": 3,
        "newton_products": 7,
        "newton_delta": 0.2,
        "newton_damping": 0.3,
    }
    config = with_settings(st.TrainConfig("X"), {"gamma": 0.9, "gae_lambda": 0.8, "critic": critic})
    expected = NaturalFit(3, solver=ConjugateGradient(7), step=trust_region(0.2), damping=0.3)
    assert build_learner(config, st.npg()).fit == expected
    plain = with_settings(st.TrainConfig("X"), {"gamma": 0.9, "gae_lambda": 0.8, "fit": "gauss-newton"})
    assert build_learner(plain, st.npg()).fit == NaturalFit()  # one default in both places


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"fit": "newton"}, "one of 'adam', 'gauss-newton'"),
        ({"newton_steps": 0}, "critic.newton_steps must be at least 1"),
        ({"newton_products": 0}, "critic.newton_products must be at least 1"),
        ({"newton_delta": 0.0}, "critic.newton_delta must be a finite number > 0"),
        ({"newton_damping": -0.5}, "critic.newton_damping must be a finite number > 0"),
    ],
)
def test_bad_settings(setting: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(st.UsageError, match=message):
        st.train("CartPole-v1", "trpo", out=tmp_path / "run", critic=setting)


def test_a_run_fits_its_critic_keeps_the_damping_and_compiles_once(tmp_path: Path) -> None:
    compilations: list[str] = []
    at: list[int] = []

    def listen(event: str, duration_secs: float, **_: Any) -> None:
        if event.endswith("backend_compile_duration"):
            compilations.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)
    watch: Any = [lambda e: at.append(len(compilations))]
    first = st.train("CartPole-v1", "trpo", out=tmp_path / "run", callbacks=watch, **SMALL)
    rows = first.metrics
    assert len(at) == len(rows) >= 3
    assert at[0] == at[-1], at
    assert any(row["critic/kept"] for row in rows)
    arrays, _ = RunFolder.open(first.path).load_checkpoint("last")
    (damping,) = (x for name, x in arrays.items() if "optimiser" in name)
    assert 0.5 <= float(damping) <= 1.0
    again = st.resume(first.path, steps=first.steps + 1)
    assert len(again.metrics) == len(rows) + 1


def test_a_folder_from_before_there_was_a_choice_is_resumed_with_adam(tmp_path: Path) -> None:
    adam = {**SMALL, "rollout": 16, "critic": {"hidden": (8,), "epochs": 1, "minibatch": 64}}
    run = st.train("CartPole-v1", "trpo", out=tmp_path / "run", **adam)
    file = run.path / "config.json"
    record = json.loads(file.read_text())
    new = [name for name in record["critic"] if name == "fit" or name.startswith("newton")]
    assert len(new) == 5
    record["critic"] = {k: v for k, v in record["critic"].items() if k not in new}
    file.write_text(json.dumps(record))
    none = {"memory": "none", "memory_units": 64}
    assert from_record(record).critic == CriticConfig(hidden=(8,), epochs=1, minibatch=64, **none)
    assert st.resume(run.path, steps=run.steps + 1).steps > run.steps
    assert to_record(from_record(record))["critic"]["fit"] == "adam"
    assert np.isfinite(run.evaluation).all()
