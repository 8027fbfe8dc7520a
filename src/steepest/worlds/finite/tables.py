"""What a finite MDP is: a few tables, checked once.

    P(s'|s,a)  [S,A,S] or [H,S,A,S]      r(s,a)  [S,A] or [H,S,A]      ρ(s)  [S]      H  int      γ  float

Nothing is repaired: rows that do not sum to 1 within `TOLERANCE` are refused, the others are used as they are.
"""

from __future__ import annotations

import operator
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from steepest.errors import UsageError

TOLERANCE = 1e-8


class Tables(NamedTuple):
    """Of a finite horizon.

    transition: [S,A,S] or [H,S,A,S]; reward: [S,A] or [H,S,A]; initial: [S]; horizon: H. Arrays are float64.
    """

    transition: Float[Any, "*H S A S"]
    reward: Float[Any, "*H S A"]
    initial: Float[Any, " S"]
    horizon: int


class Discounted(NamedTuple):
    """transition: [S,A,S]; reward: [S,A]; initial: [S]; gamma: γ ∈ [0, 1), [] so that no program is compiled for it."""

    transition: Float[Any, "S A S"]
    reward: Float[Any, "S A"]
    initial: Float[Any, " S"]
    gamma: Float[Any, ""]


class Average(NamedTuple):
    """transition: [S,A,S]; reward: [S,A]. Where it starts makes no difference."""

    transition: Float[Any, "S A S"]
    reward: Float[Any, "S A"]


def at(table: Any, h: Any, axes: int) -> Any:
    """The table of step h, whether it depends on time (axes + 1 axes) or not (`axes` axes)."""
    return table[h] if table.ndim == axes + 1 else table


def checked(transition: Any, reward: Any, initial: Any, horizon: Any) -> Tables:
    """The tables as read-only NumPy float64 copies.

    Raises UsageError for shapes that disagree, a horizon < 1, NaN or infinite entries, negative probabilities and rows
    that do not sum to 1; it names the first offending index.
    """
    steps = checked_horizon(horizon)
    p, r, rho = numbers("transition", transition), numbers("reward", reward), numbers("initial", initial)
    if rho.ndim != 1 or rho.size < 1:
        raise UsageError(f"initial must have shape [S] with S ≥ 1, got {list(rho.shape)}")
    states = rho.shape[0]
    if r.ndim not in (2, 3) or r.shape[-1] < 1:
        raise UsageError(f"reward must have shape [S,A] or [H,S,A] with A ≥ 1, got {list(r.shape)}")
    actions = r.shape[-1]
    sizes = f"(S={states} from initial, A={actions} from reward, H={steps})"
    _require_shape("reward", r, (states, actions), sizes, steps)
    _require_shape("transition", p, (states, actions, states), sizes, steps)
    _finish(p, r, rho)
    return Tables(p, r, rho, steps)


def checked_discounted(transition: Any, reward: Any, initial: Any, gamma: Any) -> Discounted:
    """As `checked`, of tables that do not depend on time. Raises UsageError also for a γ outside [0, 1)."""
    p, r = _stationary(transition, reward)
    rho, discount = numbers("initial", initial), numbers("gamma", gamma)
    _require_shape("initial", rho, (r.shape[0],), f"(S={r.shape[0]} from reward)")
    if discount.shape != () or not 0 <= discount < 1:
        raise UsageError(f"gamma must be one number in [0, 1), got {gamma!r}; for γ = 1 there is the average reward")
    _finish(p, r, rho)
    return Discounted(p, r, rho, discount)


def checked_average(transition: Any, reward: Any) -> Average:
    """As `checked`, of tables that do not depend on time, and without a start."""
    p, r = _stationary(transition, reward)
    _finish(p, r)
    return Average(p, r)


def numbers(name: str, given: Any) -> np.ndarray:
    """A float64 copy of `given`; UsageError if it is no array of real numbers."""
    try:
        array = np.asarray(given)
        if array.dtype.kind not in "biuf":
            raise TypeError(f"entries of type {array.dtype}")
        return np.array(array, np.float64)
    except (TypeError, ValueError) as error:
        raise UsageError(f"{name} must be an array of real numbers: {error}") from error


def require_finite(name: str, array: np.ndarray) -> None:
    """UsageError at the first NaN or infinite entry."""
    if not np.all(np.isfinite(array)):
        index = first(~np.isfinite(array))
        raise UsageError(f"{name}{list(index)} is {array[index]}; expected a finite number")


def require_distribution(name: str, array: np.ndarray) -> None:
    """UsageError unless the last axis holds probabilities that sum to 1 within `TOLERANCE`."""
    require_finite(name, array)
    if np.any(array < 0):
        index = first(array < 0)
        raise UsageError(f"{name}{list(index)} is {array[index]}; probabilities cannot be negative")
    total = array.sum(axis=-1)
    wrong = np.abs(total - 1.0) > TOLERANCE
    if np.any(wrong):
        index = first(wrong)
        row = ", ".join([*map(str, index), ":"])
        raise UsageError(f"{name}[{row}] sums to {float(total[index])!r}; expected 1 within {TOLERANCE}, in float64")


def first(mask: np.ndarray) -> tuple[int, ...]:
    """The index of the first True, in C order."""
    return tuple(int(i) for i in np.argwhere(mask)[0])


def checked_horizon(given: Any) -> int:
    """H as an int; UsageError if it is none, or < 1."""
    try:
        steps = operator.index(given)
    except TypeError:
        raise UsageError(f"horizon must be an integer ≥ 1, got {given!r}") from None
    if steps < 1:
        raise UsageError(f"horizon must be an integer ≥ 1, got {steps}")
    return steps


def _stationary(transition: Any, reward: Any) -> tuple[np.ndarray, np.ndarray]:
    p, r = numbers("transition", transition), numbers("reward", reward)
    if r.ndim != 2 or 0 in r.shape:
        raise UsageError(f"reward must have shape [S,A] with S, A ≥ 1, got {list(r.shape)}")
    states, actions = r.shape
    _require_shape("transition", p, (states, actions, states), f"(S={states} and A={actions} from reward)")
    return p, r


def _finish(p: np.ndarray, r: np.ndarray, *rho: np.ndarray) -> None:
    """Refuse entries that cannot be, and make the tables read-only."""
    require_finite("reward", r)
    for start in rho:
        require_distribution("initial", start)
    require_distribution("transition", p)
    for array in (p, r, *rho):
        array.setflags(write=False)


def _require_shape(name: str, array: np.ndarray, shape: tuple[int, ...], sizes: str, *horizon: int) -> None:
    """UsageError unless the shape is `shape`, or `shape` for each of H steps where a horizon is given."""
    allowed = [shape, *((steps, *shape) for steps in horizon)]
    if array.shape not in allowed:
        expected = " or ".join(str(list(each)) for each in allowed)
        raise UsageError(f"{name} must have shape {expected} {sizes}, got {list(array.shape)}")
