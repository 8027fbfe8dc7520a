"""Named linear-quadratic regulators."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from steepest.errors import UsageError
from steepest.names import Registry
from steepest.worlds.lqr.model import LQR

LQRS: Registry[Callable[..., LQR]] = Registry("linear-quadratic regulator")


def scalar(horizon: int = 20) -> LQR:
    """x' = 0.7x + u + ε, ε ~ N(0,1), from x = 0; the cost is x² over x_1 … x_H, and of the action none.

    Source: Kakade, A Natural Policy Gradient (2001), figure 1.
    """
    return LQR(0.7, 1.0, 1.0, 0.0, 1.0, horizon, final_cost=1.0)


def double_integrator(horizon: int = 50, step: float = 0.2, noise: float = 0.01) -> LQR:
    """A point mass on a line, pushed: position and velocity, x_0 ~ N(0, I), to be brought to rest at 0.

    step: seconds of a step.  noise: variance of ε in each entry.  The cost of a step is position² + 0.1·velocity² +
    0.1·force².
    """
    if step <= 0 or noise < 0:
        raise UsageError(f"a double integrator has step > 0 and noise ≥ 0, got {step} and {noise}")
    dynamics = [[1.0, step], [0.0, 1.0]]
    control = [[step**2 / 2], [step]]
    return LQR(
        dynamics, control, np.diag([1.0, 0.1]), 0.1, noise * np.eye(2), horizon, initial_covariance=np.eye(2)
    )  # fmt: skip


LQRS.add("scalar", scalar)
LQRS.add("double-integrator", double_integrator)
