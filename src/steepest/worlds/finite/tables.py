"""What a finite MDP is: four tables, checked once.

    P(s'|s,a)  [S,A,S] or [H,S,A,S]      r(s,a)  [S,A] or [H,S,A]      ρ(s)  [S]      H  int

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
    """transition: [S,A,S] or [H,S,A,S]; reward: [S,A] or [H,S,A]; initial: [S]; horizon: H. Arrays are float64."""

    transition: Float[Any, "*H S A S"]
    reward: Float[Any, "*H S A"]
    initial: Float[Any, " S"]
    horizon: int


def at(table: Any, h: Any, axes: int) -> Any:
    """The table of step h, whether it depends on time (axes + 1 axes) or not (`axes` axes)."""
    return table[h] if table.ndim == axes + 1 else table


def checked(transition: Any, reward: Any, initial: Any, horizon: Any) -> Tables:
    """The tables as read-only NumPy float64 copies.

    Raises UsageError for shapes that disagree, a horizon < 1, NaN or infinite entries, negative probabilities and rows
    that do not sum to 1; it names the first offending index.
    """
    steps = _horizon(horizon)
    p, r, rho = numbers("transition", transition), numbers("reward", reward), numbers("initial", initial)
    if rho.ndim != 1 or rho.size < 1:
        raise UsageError(f"initial must have shape [S] with S ≥ 1, got {list(rho.shape)}")
    states = rho.shape[0]
    if r.ndim not in (2, 3) or r.shape[-1] < 1:
        raise UsageError(f"reward must have shape [S,A] or [H,S,A] with A ≥ 1, got {list(r.shape)}")
    actions = r.shape[-1]
    sizes = f"(S={states} from initial, A={actions} from reward, H={steps})"
    _require_shape("reward", r, (states, actions), steps, sizes)
    _require_shape("transition", p, (states, actions, states), steps, sizes)
    require_finite("reward", r)
    require_distribution("initial", rho)
    require_distribution("transition", p)
    for array in (p, r, rho):
        array.setflags(write=False)
    return Tables(p, r, rho, steps)


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


def _horizon(given: Any) -> int:
    try:
        steps = operator.index(given)
    except TypeError:
        raise UsageError(f"horizon must be an integer ≥ 1, got {given!r}") from None
    if steps < 1:
        raise UsageError(f"horizon must be an integer ≥ 1, got {steps}")
    return steps


def _require_shape(name: str, array: np.ndarray, shape: tuple[int, ...], horizon: int, sizes: str) -> None:
    if array.shape not in (shape, (horizon, *shape)):
        raise UsageError(
            f"{name} must have shape {list(shape)} or {[horizon, *shape]} {sizes}, got {list(array.shape)}"
        )
