"""What every environment looks like to the sampler: B copies in step, and one canonical transition.

    (obs, action) ↦ reward, next_obs, terminated, truncated, valid, cost

Truncation is not termination: `next_obs` is the true successor in both cases, so that V(next_obs) can be bootstrapped
where the episode was only cut. A row with valid = False is a ghost: the environment used the step to reset itself and
ignored the action; or a fault, which ends an episode without a good row (`faults.py`). It is in no batch, no metric and
no count.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import numpy as np


class Transition(NamedTuple):
    """What one step of B environments answered to their actions.

    reward: [B] float32, raw; 0 where not valid.
    next_obs: [B,…] the true successor, never the reset observation (where not valid it means nothing).
    terminated: [B] bool, the successor is absorbing, its value 0.
    truncated: [B] bool, the episode was cut; the successor has a value.
    valid: [B] bool, False in a ghost row, where both flags are False, and in that of a fault, where truncated is True.
    cost: [B] float32, what a constraint may limit, 0 in a ghost row and NaN where an environment reported none; None
        where none did.
    """

    reward: np.ndarray
    next_obs: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray
    valid: np.ndarray
    cost: np.ndarray | None = None


class World(Protocol):
    """B environments that are stepped together and reset themselves. Nothing to inherit: anything of this form is one.

    name: what `make_world` was given, as in "Hopper-v5".
    backend: the registered name of the kind of world, as in "gymnasium".
    envs: B.
    observation_space, action_space: Gymnasium spaces of one environment.
    """

    name: str
    backend: str
    envs: int
    observation_space: Any
    action_space: Any

    @property
    def obs(self) -> np.ndarray:
        """[B,…] float32, or int32 state indices: the observations to act upon next. Not to be written into."""
        ...

    def reset(self, seed: int | None = None) -> np.ndarray:
        """Start B new episodes, seeded by `environment_seeds`, or going on with the same streams for None."""
        ...

    def step(self, action: np.ndarray) -> Transition:
        """Take action [B,…] upon `obs`, and advance `obs`. Raises RunError where an environment breaks."""
        ...

    def close(self) -> None:
        """Release what the environments hold; may be called twice."""
        ...


def seed_anew(seed: int | None, *which: int) -> int | None:
    """A seed for what is made again in a world that was reset with `seed`, None for None: never the one before.

    which: of what, and how often it was made again."""
    if seed is None:
        return None
    return int(np.random.SeedSequence((seed, *which)).generate_state(1)[0] >> 1)


def environment_seeds(seed: int, envs: int) -> list[int]:
    """B independent seeds for a run's environments: [envs] ints in [0, 2³¹).

    They are hashed from `seed`: seed + i would give runs 0 and 1 all but one of their streams in common. 31 bits is
    what simulators written in C take.
    """
    return [int(s >> 1) for s in np.random.SeedSequence(seed).generate_state(envs)]
