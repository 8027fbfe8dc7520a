"""MuJoCo Playground's environments as functional ones: `playground:CartpoleBalance`, `playground:WalkerWalk`.

MuJoCo as a JAX program (impl="jax"; Playground's own default wants a GPU). Its auto-reset is gone round: it repeats the
first observations of an episode and loses the last one. Actions are in [−1, 1], as Playground's own training has them.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PRNGKeyArray

from steepest.errors import UsageError
from steepest.names import unknown
from steepest.worlds.missing import missing


class PlaygroundEnvironment:
    """One environment.  environment: Playground's.  time_limit: control steps of an episode.  name: as in Playground.

    Its state is Playground's; `done` there is a simulation that broke down.
    """

    default_params: Any = None

    def __init__(self, environment: Any, time_limit: int, name: str):
        from gymnasium.spaces import Box

        size = environment.observation_size
        if not isinstance(size, int):
            raise UsageError(f"playground:{name} has observations of several parts, {size}; supported: one vector")
        self._environment = environment
        self.name, self.time_limit = name, time_limit
        self.observation_space = Box(-np.inf, np.inf, (size,), np.float32)
        self.action_space = Box(-1.0, 1.0, (environment.action_size,), np.float32)

    def reset(self, key: PRNGKeyArray, params: Any) -> tuple[Any, Any]:
        """The first observation, and Playground's state."""
        state = self._environment.reset(jax.random.key_data(key))  # it keeps it, and a checkpoint holds numbers
        return state.obs, state

    def step(
        self, key: PRNGKeyArray, state: Any, action: Any, params: Any
    ) -> tuple[Any, Any, Any, Any, Any, dict[str, Any]]:
        """The true successor; the time limit is not looked at here."""
        state = self._environment.step(state, action)
        return state.obs, state, state.reward, state.done > 0, jnp.zeros((), bool), {}


def make_playground(name: str, **kwargs: Any) -> PlaygroundEnvironment:
    """Playground's environment of that name.

    kwargs: entries of its configuration, as in episode_length=500.

    Raises UsageError where Playground is not installed, for an unknown name or entry, and for one whose files would
    have to be downloaded and cannot be.
    """
    try:
        from mujoco_playground import registry  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise missing(f"playground:{name}", error, "playground") from error
    if name not in registry.ALL_ENVS:
        raise unknown("Playground environment", name, registry.ALL_ENVS)
    try:
        config = registry.get_default_config(name)
        for wrong in set(kwargs) - set(config):
            raise unknown(f"entry of Playground's {name}", wrong, list(config))
        overrides: Any = {"impl": "jax", **kwargs} if "impl" in config else kwargs
        environment = registry.load(name, config_overrides=overrides)
    except UsageError:
        raise
    except Exception as error:
        raise UsageError(
            f"environment 'playground:{name}' could not be made: {type(error).__name__}: {error}"
        ) from error
    length, repeat = ({**config, **overrides}[key] for key in ("episode_length", "action_repeat"))
    return PlaygroundEnvironment(environment, int(length) // int(repeat), name)
