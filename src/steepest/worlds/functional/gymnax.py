"""gymnax's environments as functional ones: `gymnax:CartPole-v1`, `gymnax:Breakout-MinAtar`, `gymnax:Catch-bsuite`.

gymnax's own step resets itself and mixes the time limit into it; its step_env and reset_env do neither.
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import PRNGKeyArray

from steepest.errors import UsageError
from steepest.names import unknown
from steepest.worlds.missing import missing


class GymnaxEnvironment:
    """One gymnax environment.  environment: gymnax's.  params: of it; its default_params, if not given."""

    def __init__(self, environment: Any, params: Any = None, name: str | None = None):
        self._environment = environment
        self.default_params = environment.default_params if params is None else params
        self.name = name or str(environment.name)
        self.time_limit = int(self.default_params.max_steps_in_episode)
        self.observation_space = _space(environment.observation_space(self.default_params), self.name)
        self.action_space = _space(environment.action_space(self.default_params), self.name)

    def reset(self, key: PRNGKeyArray, params: Any) -> tuple[Any, Any]:
        """The first observation, and gymnax's state."""
        return self._environment.reset_env(key, params)

    def step(
        self, key: PRNGKeyArray, state: Any, action: Any, params: Any
    ) -> tuple[Any, Any, Any, Any, Any, dict[str, Any]]:
        """The true successor; the time limit is not looked at here."""
        obs, state, reward, terminated, info = self._environment.step_env(key, state, action, params)
        return obs, state, reward, terminated, jnp.zeros((), bool), info


def make_gymnax(name: str, **kwargs: Any) -> GymnaxEnvironment:
    """The gymnax environment of that name.

    kwargs: single values of its params, as in gravity=1.6 or max_steps_in_episode=200.

    Raises UsageError where gymnax is not installed, for an unknown name, and for params that it does not have.
    """
    try:
        import gymnax
    except ImportError as error:
        raise missing(f"gymnax:{name}", error, "gymnax") from error
    if name not in gymnax.registered_envs:
        raise unknown("gymnax environment", name, gymnax.registered_envs)
    params: Any = None
    try:
        environment, params = gymnax.make(name)
    except Exception as error:  # MNISTBandit wants its data from the network
        raise UsageError(f"gymnax environment {name!r} could not be made: {type(error).__name__}: {error}") from error
    for wrong in set(kwargs) - set(vars(params)):
        raise unknown(f"parameter of gymnax's {name}", wrong, vars(params))
    for key, value in kwargs.items():
        if isinstance(value, str) or value is None:
            raise UsageError(f"{key} of gymnax's {name} is a number, such as {getattr(params, key)}, got {value!r}")
    return GymnaxEnvironment(environment, params.replace(**kwargs), name)


def _space(space: Any, name: str) -> Any:
    """gymnax's space as Gymnasium's."""
    from gymnasium import spaces

    kind = type(space).__name__
    if kind == "Discrete":
        return spaces.Discrete(int(space.n))
    if kind == "Box":
        low, high = (np.broadcast_to(np.asarray(bound), space.shape) for bound in (space.low, space.high))
        dtype = np.dtype(space.dtype)
        return spaces.Box(low.astype(dtype), high.astype(dtype), tuple(space.shape), dtype.type)
    raise UsageError(f"gymnax environment {name!r} has a space that is not supported: {space}")
