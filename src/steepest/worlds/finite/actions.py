"""A policy on a finite world is a table π(a|s): how a policy, an array of probabilities or a plan becomes one."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float

from steepest.distributions import Categorical
from steepest.errors import UsageError
from steepest.parameters import Frozen
from steepest.sequences import is_recurrent
from steepest.worlds.finite import tables
from steepest.worlds.finite.precision import inwards


def distributions(policy: Any, states: int, actions: int) -> Categorical:
    """The policy's distributions in all states at once, logits [S,A]. Traceable; the policy is cast already.

    Raises UsageError (while tracing: it costs nothing later) if the policy gives no Categorical over A actions.
    """
    said = jax.vmap(policy)(jnp.arange(states, dtype=jnp.int32))
    if not isinstance(said, Categorical):
        raise UsageError(f"a policy of a finite MDP maps a state index to st.Categorical, got {type(said).__name__}")
    if said.logits.shape != (states, actions):
        raise UsageError(
            f"the policy gives logits of shape {list(said.logits.shape[1:])} in each state; this MDP has A={actions} "
            f"actions, so [{actions}] was expected"
        )
    return said


def fitting(policy: Any, states: int, actions: int) -> Any:
    """The policy in float64, ready for the jitted functions; call it inside `exact`.

    Raises UsageError for what is no policy, and for a table that has not a row for each state.
    """
    require_policy(policy, states, actions, f"S={states} states")
    return inwards(policy)


def require_policy(policy: Any, rows: int, actions: int, said: str) -> None:
    """UsageError for what cannot be called, and for a table that has not a row for each of what it is asked about,
    which is `said` in words.

    JAX clamps an index that is out of range, so a table with too few rows would answer for the states that it lacks.
    """
    _without_memory(policy)
    if not callable(policy):
        raise UsageError(f"expected a policy, callable with a state index, got {type(policy).__name__}")
    made_for = getattr(policy, "states_of_world", rows)
    if made_for != rows:
        raise UsageError(f"this {type(policy).__name__} was made for {made_for} states; this MDP has {said}")
    for name, axes in (("logits", 2), ("features", 3)):
        table = getattr(policy, name, None)
        table = table.value if isinstance(table, Frozen) else table
        if table is not None and eqx.is_array(table) and table.ndim == axes and table.shape[:2] != (rows, actions):
            raise UsageError(
                f"{type(policy).__name__}.{name} has shape {list(table.shape)}; this MDP has {said} and "
                f"A={actions} actions, so {[rows, actions, *table.shape[2:]]} was expected"
            )


def _without_memory(policy: Any) -> None:
    if is_recurrent(policy):
        raise UsageError(
            f"{type(policy).__name__} remembers, and a policy of a finite MDP maps one state to what it does"
        )


def probabilities(policy: Any, states: int, actions: int, *horizon: int) -> np.ndarray:
    """π as NumPy float64: [S,A] of a policy; an array of probabilities [S,A] as it is; an array of action indices [S]
    (any integer type) as the deterministic policy that it stands for; where a horizon H is given, also arrays [H,S,A]
    and [H,S], which depend on time. Call it inside `exact`.

    Raises UsageError for a shape that does not fit, an action that does not exist, and rows that are no distribution.
    """
    _without_memory(policy)
    if callable(policy):
        table = np.asarray(_probabilities(fitting(policy, states, actions), states, actions))
        if np.any(np.isnan(table)):
            state = tables.first(np.isnan(table))[0]
            raise UsageError(
                f"the policy's probabilities in state {state} are {table[state]}: its logits are not finite"
            )
        return table
    table = np.asarray(policy)
    if table.dtype.kind in "iu":
        return _one_hot(table, states, actions, horizon)
    allowed = [(states, actions), *((steps, states, actions) for steps in horizon)]
    if table.shape not in allowed:
        raise UsageError(f"a table of probabilities must have shape {_either(allowed)}, got {list(table.shape)}")
    table = tables.numbers("policy", table)
    tables.require_distribution("policy", table)
    return table


@eqx.filter_jit
def _probabilities(policy: Any, states: int, actions: int) -> Float[Array, "S A"]:
    return distributions(policy, states, actions).probs


def _one_hot(plan: np.ndarray, states: int, actions: int, horizon: tuple[int, ...]) -> np.ndarray:
    allowed = [(states,), *((steps, states) for steps in horizon)]
    if plan.shape not in allowed:
        raise UsageError(
            f"a table of action indices (integers) must have shape {_either(allowed)}, "
            f"got {list(plan.shape)}; probabilities must be floats"
        )
    wrong = (plan < 0) | (plan >= actions)
    if np.any(wrong):
        index = tables.first(wrong)
        raise UsageError(f"policy{list(index)} is action {plan[index]}; the actions are 0 … {actions - 1}")
    return np.eye(actions)[plan]


def _either(shapes: list[tuple[int, ...]]) -> str:
    return " or ".join(str(list(shape)) for shape in shapes)
