"""The batch that every side updates on: observations of 17 numbers and actions of 6, as HalfCheetah's, and noise.

Nothing here knows any of the libraries. Actions are drawn as each side's first policy draws them (mean about 0, σ = 1);
rewards are noise, so that the critic has something to fit and the advantages are as dense as any.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

OBSERVATION, ACTION, ENVS = 17, 6, 16
EPISODE = 1000


class Problem(NamedTuple):
    """T steps of 16 environments, T·16 samples.

    obs, next_obs: [T,16,17].  action: [T,16,6].  reward: [T,16].  terminated: [T,16] bool, about one in `EPISODE`.
    """

    obs: np.ndarray
    action: np.ndarray
    reward: np.ndarray
    next_obs: np.ndarray
    terminated: np.ndarray


def problem(samples: int, seed: int = 0) -> Problem:
    """So many samples, a multiple of 16; float32."""
    if samples % ENVS:
        raise SystemExit(f"samples must be a multiple of {ENVS}, got {samples}")
    rng, shape = np.random.default_rng(seed), (samples // ENVS, ENVS)
    obs, after = (rng.standard_normal((*shape, OBSERVATION), dtype=np.float32) for _ in range(2))
    action, reward = rng.standard_normal((*shape, ACTION), dtype=np.float32), rng.standard_normal(shape, np.float32)
    return Problem(obs, action, reward, after, rng.random(shape) < 1 / EPISODE)
