"""Functional worlds: an environment as two pure functions of JAX, without auto-reset. Nothing to inherit.

    reset(key, params) → (obs, state)
    step(key, state, action, params) → (obs, state, reward, terminated, truncated, info)

They are traced, not run: many copies at once, over many steps, are one compiled program. Copies, time limit and reset
are ours (`copies.py`), so that the observation at the end of an episode is always the true one.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:  # the name would import JAX
    from jaxtyping import PRNGKeyArray


class FunctionalEnvironment(Protocol):
    """One environment. It may also have

    name: what it is called; by default the name of its class.
    default_params: a pytree that both functions are given; None if there is none.
    time_limit: steps after which an episode is cut; None for no limit.

    observation_space, action_space: Gymnasium spaces of one environment; Box or Discrete.
    """

    observation_space: Any
    action_space: Any

    def reset(self, key: PRNGKeyArray, params: Any) -> tuple[Any, Any]:
        """The first observation of an episode, and the state: a pytree of arrays."""
        ...

    def step(
        self, key: PRNGKeyArray, state: Any, action: Any, params: Any
    ) -> tuple[Any, Any, Any, Any, Any, dict[str, Any]]:
        """What follows: the true successor's observation, whatever ended.

        action: within the bounds of the space.  terminated: the successor is absorbing, its value 0.  truncated: the
        episode was cut here.  info: may hold "cost", what a limit is set on.
        """
        ...


def is_functional(environment: Any) -> bool:
    """Whether something is of this form: Gymnasium's own step takes one argument, not four."""
    if isinstance(environment, str | type) or not callable(getattr(environment, "reset", None)):
        return False
    try:
        return len(inspect.signature(environment.step).parameters) == 4
    except (AttributeError, TypeError, ValueError):
        return False


def is_functional_world(world: Any) -> bool:
    """Whether a world is made of such an environment: a `FunctionalWorld`, whose module imports JAX."""
    return hasattr(world, "copies")


def name_of(environment: Any) -> str:
    """What to call it."""
    return str(getattr(environment, "name", None) or type(environment).__name__)
