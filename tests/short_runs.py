"""Settings of trainings that take seconds."""

from __future__ import annotations

from typing import Any

SHORT: dict[str, Any] = {
    "envs": 8,
    "rollout": 64,
    "tensorboard": False,
    "evaluation": {"every": 0, "final_episodes": 10},
}
NEAR: dict[str, Any] = {**SHORT, "gamma": 0.5, "delta": 0.05}
"""Of tasks in which what a step is worth is seen at once."""
