"""Parts that are not the same in every update: they draw, decay, remember, or need the batch before they are used.

    carried = part.init(θ)          part', carried = part.begin(carried, moment)

A part is a value and stays one: what it carries from update to update is kept with the algorithm's state, and the part
of this update is another value, of the same protocol, which lives as long as the update does.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol, runtime_checkable

from jax import Array
from jaxtyping import Int, PRNGKeyArray

from steepest.batch import Batch
from steepest.geometry.local import Local


class Moment(NamedTuple):
    """What is known when an update begins.

    local: the policy at θ_old.  batch: what was collected under it.  key: to draw with; a part folds a number of its
    own into it.  updates: how many there were before this one.
    """

    local: Local
    batch: Batch
    key: PRNGKeyArray
    updates: Int[Array, ""]


@runtime_checkable
class Varying(Protocol):
    """An objective, a metric or a step that is another one in each update."""

    def init(self, params: Any) -> Any:
        """What is carried before the first update of θ: a pytree of arrays, whose shapes stay."""
        ...

    def begin(self, carried: Any, moment: Moment) -> tuple[Any, Any]:
        """(the part for this update, what is carried on)."""
        ...


def initial(part: Any, params: Any) -> Any:
    """What `part` carries before the first update: nothing, if it is the same in every one."""
    return part.init(params) if isinstance(part, Varying) else ()


def reported(part: Any) -> dict[str, Array]:
    """The `details` of an update that its part reports of itself: scalars by name; most have none."""
    return getattr(part, "details", None) or {}


def begun(part: Any, carried: Any, moment: Moment) -> tuple[Any, Any]:
    """(the part for this update, what it carries on); a part that is the same in every update is itself."""
    return part.begin(carried, moment) if isinstance(part, Varying) else (part, carried)
