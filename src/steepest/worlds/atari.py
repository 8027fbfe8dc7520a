"""Atari games by ale-py's own vector environment: `ALE/Pong-v5`, `atari:Pong-v5`.

Frames as DQN's: the maximum of the last two of four, grey, 84 × 84, four of them in a stack [4,84,84]; up to 30 steps
of nothing at the start; sticky actions with the probability that the id has (Machado et al. 2018). Rewards are the
game's own, so that returns are scores; a lost life ends no episode. `gymnasium:ALE/Pong-v5` is the bare environment.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from steepest.errors import UsageError
from steepest.names import unknown
from steepest.worlds.gymnasium import GymnasiumWorld
from steepest.worlds.missing import missing
from steepest.worlds.options import wrong_option


def make_atari(name: str, envs: int | None = None, **kwargs: Any) -> GymnasiumWorld:
    """`envs` copies of a game, each with a seed of its own, stepped by ale-py's threads.

    name: the game's id, with or without "ALE/".  kwargs: of `ale_py.AtariVectorEnv`, as in episodic_life=True.

    Raises UsageError where ale-py is not installed, for an unknown game, and for arguments that it does not take.
    """
    try:
        import ale_py
        import gymnasium
    except ImportError as error:
        raise missing(name, error, "atari") from error
    gymnasium.register_envs(ale_py)
    identifier = f"ALE/{name.removeprefix('ALE/')}"
    if identifier not in gymnasium.registry:
        games = [each for each in gymnasium.registry if each.startswith("ALE/")]
        raise unknown("Atari game", identifier, games)
    given = {"reward_clipping": False, **kwargs}
    try:
        env = gymnasium.make_vec(
            identifier, 1 if envs is None else envs, vectorization_mode="vector_entry_point", **given
        )
    except Exception as error:
        wrong_option(identifier, kwargs, error, ale_py.AtariVectorEnv)
        raise UsageError(f"environment {identifier!r} could not be made: {type(error).__name__}: {error}") from error
    return AtariWorld(env, identifier)


class AtariWorld(GymnasiumWorld):
    """A world of ale-py's, whose environments take a seed each: of one for all it would give them its successors."""

    backend = "atari"

    def _seeds(self, seed: int | None) -> Any:
        each = self._each_seed(seed)
        return None if each is None else np.asarray(each)
