"""Settings of single environments, found by trial: what `tuned=True` (--tuned) takes where nothing else is said.

What is not here is by the rules of `presets.py`, as are all other environments. The returns that these gave, by seeds
that chose none of them, and the trials are in docs/tuned.md (`python benchmarks/tuned.py`).
"""

from __future__ import annotations

from typing import Any

from steepest.names import unknown

SCALED: dict[str, Any] = {"sampling.normalise_observations": True, "sampling.scale_rewards": True}

TUNED: dict[str, dict[str, Any]] = {
    "CartPole-v1": {},
    "Acrobot-v1": {},
    "MountainCar-v0": SCALED,
    "MountainCarContinuous-v0": {"sampling.gamma": 0.999, "policy.initial_log_std": 1.0},
    "Pendulum-v1": {"rows": 2048, "sampling.envs": 2, "sampling.gamma": 0.95},
    "LunarLander-v3": {},
    "LunarLanderContinuous-v3": {"rows": 4096, "sampling.gae_lambda": 0.98},
}
"""name of the environment ↦ settings by path, of those that are None by default; rows: of a batch, about. Empty:
fresh seeds bore out nothing that was tried."""


def tuned_settings(env: str) -> dict[str, Any]:
    """A fresh copy. Raises UsageError for an environment that has none, naming the nearest."""
    if env not in TUNED:
        raise unknown("environment with tuned settings", env, TUNED)
    return dict(TUNED[env])
