"""The settings that benchmarks/tuning.py compares: name ↦ (dimension of the action ↦ settings)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

Setting = Callable[[int], dict[str, Any]]

DIMENSIONS = {"Hopper-v5": 3, "HalfCheetah-v5": 6, "Walker2d-v5": 6, "Ant-v5": 8}
SEEDS = (200, 201, 202)
"""That choose; what is reported is by others."""


def sigma(numerator: float, **others: Any) -> Setting:
    """σ₀ = numerator / dimension of the action."""
    return lambda dimension: {"policy.initial_log_std": round(math.log(numerator / dimension), 3), **others}


def plain(log_std: float, **others: Any) -> Setting:
    return lambda dimension: {"policy.initial_log_std": log_std, **others}


def rule(**others: Any) -> Setting:
    """σ₀ = 1 up to three dimensions of the action, 2 / dimension beyond."""

    def settings(dimension: int) -> dict[str, Any]:
        return {"policy.initial_log_std": round(math.log(2 / dimension), 3) if dimension > 3 else 0.0, **others}

    return settings


def square(**others: Any) -> Setting:
    """σ₀ = 18 / dimension², at most 1."""
    return lambda d: {"policy.initial_log_std": round(math.log(min(1.0, 18 / d**2)), 3), **others}


def habit(**others: Any) -> Setting:
    """The defaults, with these settings changed."""
    return lambda _: others


STUDIES: dict[str, dict[str, Setting]] = {
    "settings": {
        "ln σ₀ = 0, δ .03": plain(0.0, **{"update.delta": 0.03}),
        "σ₀ = 1.8/d, δ .03": sigma(1.8, **{"update.delta": 0.03}),
        "σ₀ = 1.8/d, δ .01": sigma(1.8, **{"update.delta": 0.01}),
        "σ₀ = 18/d², δ .03": square(**{"update.delta": 0.03}),
        "σ₀ = 2/d beyond d = 3, δ .02": rule(**{"update.delta": 0.02}),
        "σ₀ = 2/d beyond d = 3, δ .03": rule(**{"update.delta": 0.03}),
        "σ₀ = 2/d beyond d = 3, δ .05": rule(**{"update.delta": 0.05}),
        "ln σ₀ = −.5, δ .03": plain(-0.5, **{"update.delta": 0.03}),
        "ln σ₀ = −.5, δ .05": plain(-0.5, **{"update.delta": 0.05}),
        "σ₀ = 2/d beyond d = 3, δ .05, 4096 rows": rule(**{"update.delta": 0.05, "sampling.rollout": 256}),
        "σ₀ = 2/d beyond d = 3, δ .05, λ .97": rule(**{"update.delta": 0.05, "sampling.gae_lambda": 0.97}),
        "σ₀ = 2/d beyond d = 3, δ .05, 10 epochs": rule(**{"update.delta": 0.05, "critic.epochs": 10}),
        "σ₀ = 2/d beyond d = 3, δ .05, damping .01": rule(**{"update.delta": 0.05, "update.damping": 0.01}),
    },
    "habits": {
        "the defaults": habit(),
        "observations as they are": habit(**{"sampling.normalise_observations": False}),
        "rewards as they are": habit(**{"sampling.scale_rewards": False}),
        "advantages not centred": habit(**{"sampling.centre_advantages": False}),
        "the last layer as large as the others": habit(**{"policy.head_gain": round(math.sqrt(2), 3)}),
        "relu": habit(**{"policy.activation": "relu", "critic.activation": "relu"}),
        "uniform initialisation": habit(**{"policy.initialisation": "uniform", "critic.initialisation": "uniform"}),
        "δ falls to a tenth": habit(**{"update.delta_final": 0.003}),
    },
}
