"""Markov chains P [S,S]: recurrent classes, and the stationary distribution without cancellation.

Grassmann, Taksar and Heyman's elimination (1985) removes the states one by one, the last first: a path that visits k
is replaced by the step that it makes in the end,

    P_ij ← P_ij + P_ik P_kj / Σ_{l<k} P_kl,   i, j < k

and nothing is ever subtracted, so that every entry of ρ has a small relative error, however rare its state is.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Bool, Float

from steepest.errors import UsageError


def stationary(chain: Float[Array, "S S"]) -> Float[Array, " S"]:
    """ρ with ρᵀP = ρᵀ and Σρ = 1, of a chain with one recurrent class. Traceable and differentiable."""
    count = len(chain)
    index, first = jnp.arange(count), _most_visited(chain)

    def eliminate(chain: Array, k: Array) -> tuple[Array, Array]:
        out = jnp.where(index < k, chain[k], 0.0)
        into = jnp.where(index < k, chain[:, k], 0.0) / jnp.sum(out)
        return chain + jnp.outer(into, out), into

    def substitute(rho: Array, step: tuple[Array, Array]) -> tuple[Array, None]:
        k, into = step
        return rho.at[k].set(rho @ into), None

    later = index[1:]
    _, columns = jax.lax.scan(eliminate, jnp.roll(jnp.roll(chain, -first, 0), -first, 1), later[::-1])
    rho, _ = jax.lax.scan(substitute, jnp.eye(count)[0], (later, columns[::-1]))
    return jnp.roll(rho / jnp.sum(rho), first)


def bias(chain: Float[Array, "S S"], above: Float[Array, " S"]) -> Float[Array, " S"]:
    """h with (I − P)h = b for a b with ρᵀb = 0, of a chain with one recurrent class; h = 0 in one state of that class.

    By the same elimination, so that the differences of h keep their digits where the chain hardly ever changes class.
    """
    count = len(chain)
    index, first = jnp.arange(count), _most_visited(chain)

    def eliminate(carry: tuple[Array, Array], k: Array) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
        chain, b = carry
        out = jnp.where(index < k, chain[k], 0.0)
        left = jnp.sum(out)
        into = jnp.where(index < k, chain[:, k], 0.0) / left
        return (chain + jnp.outer(into, out), b + into * b[k]), (out / left, b[k] / left)

    def substitute(h: Array, step: tuple[Array, Array, Array]) -> tuple[Array, None]:
        k, out, b = step
        return h.at[k].set(b + out @ h), None

    later = index[1:]
    start = jnp.roll(jnp.roll(chain, -first, 0), -first, 1), jnp.roll(above, -first)
    _, (rows, b) = jax.lax.scan(eliminate, start, later[::-1])
    h, _ = jax.lax.scan(substitute, jnp.zeros(count), (later, rows[::-1], b[::-1]))
    return jnp.roll(h, first)


def _most_visited(chain: Float[Array, "S S"]) -> Array:
    """A state that is certainly recurrent, which the state that stays to the end must be: a plain solve finds it."""
    count = len(chain)
    rough = jnp.linalg.solve((jnp.eye(count) - chain + 1.0).T, jnp.ones(count))
    return jnp.argmax(jax.lax.stop_gradient(rough))


def recurrent_classes(chain: Float[np.ndarray, "S S"]) -> list[np.ndarray]:
    """The sets of states that a path never leaves and visits for ever, each as ascending indices."""
    reach = reachable(chain)
    returns = np.all(~reach | reach.T, axis=1)  # whatever s reaches, reaches s
    classes = []
    for s in np.flatnonzero(returns):
        members = np.flatnonzero(reach[s])
        if members[0] == s:
            classes.append(members)
    return classes


def reachable(chain: Float[np.ndarray, "S S"]) -> Bool[np.ndarray, "S S"]:
    """Whether j can be reached from i in any number of steps, none included."""
    reach = (chain > 0) | np.eye(len(chain), dtype=bool)
    for _ in range(int(np.ceil(np.log2(len(chain)))) if len(chain) > 1 else 0):
        reach = reach.astype(np.float64) @ reach > 0
    return reach


def require_unichain(chain: Float[np.ndarray, "S S"]) -> None:
    """UsageError if the chain has more than one recurrent class."""
    classes = recurrent_classes(chain)
    if len(classes) > 1:
        some = " and ".join(str(set(members.tolist())) for members in classes[:2])
        raise UsageError(
            f"the policy's chain has {len(classes)} recurrent classes, among them the states {some}: its average "
            "reward depends on where it starts; a policy with one recurrent class was expected"
        )


def limit(chain: Float[np.ndarray, "S S"]) -> Float[np.ndarray, "S S"]:
    """P* = lim (1/T) Σ_{t<T} Pᵗ of any chain: the stationary distribution of each recurrent class, as often as it is
    entered."""
    count = len(chain)
    classes = recurrent_classes(chain)
    transient = np.setdiff1d(np.arange(count), np.concatenate(classes))
    out = np.zeros((count, count))
    left = np.eye(transient.size) - chain[np.ix_(transient, transient)]
    for members in classes:
        inside = np.eye(members.size) - chain[np.ix_(members, members)] + 1.0
        rho = np.linalg.solve(inside.T, np.ones(members.size))
        out[np.ix_(members, members)] = rho
        if transient.size:
            entered = np.linalg.solve(left, chain[np.ix_(transient, members)].sum(axis=1))
            out[np.ix_(transient, members)] = np.outer(entered, rho)
    return out
