"""A functional environment with another space of actions: `Copies` maps them to its own."""

from __future__ import annotations

from typing import Any

from steepest.worlds.functional.protocol import FunctionalEnvironment, name_of


class SquashedActions:
    """environment: of the functional form.  action_space: of `worlds.squashing`, in place of its own."""

    def __init__(self, environment: FunctionalEnvironment, action_space: Any):
        self.name, self.action_space = name_of(environment), action_space
        self.observation_space = environment.observation_space
        self.default_params = getattr(environment, "default_params", None)
        self.time_limit = getattr(environment, "time_limit", None)
        self.reset, self.step = environment.reset, environment.step
