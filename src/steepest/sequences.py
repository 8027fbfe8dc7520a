"""What a policy or a critic with memory is given in place of N observations: B sequences of T steps, row t·B + b.

    m ← initial() where fresh_t        m, z_t = step(m, obs_t)        t = 0 … T − 1

The memory before the first step is a constant, and so is `initial()`: no derivative goes through either. Memories are
kept flat, [M] numbers in the order of `ravel_pytree`, whatever a step makes of them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float

from steepest.errors import UsageError
from steepest.trees import AnyArray, ravel


@runtime_checkable
class Recurrent(Protocol):
    """A policy or a critic that remembers: an equinox module with these two methods, of one observation each."""

    def initial(self) -> Any:
        """The memory before an episode: a pytree of arrays, constants."""
        ...

    def step(self, memory: Any, obs: Any) -> tuple[Any, Any]:
        """(the memory after this observation, of the same shapes; the distribution or value here)."""
        ...


@runtime_checkable
class Staged(Recurrent, Protocol):
    """One whose step is decode(advance(memory, encode(obs))): only the middle has to be done one step at a time."""

    def encode(self, obs: Any) -> Any:
        """All that can be said without the memory."""
        ...

    def advance(self, memory: Any, encoded: Any) -> Any:
        """The memory after it."""
        ...

    def decode(self, memory: Any) -> Any:
        """The distribution or value."""
        ...


class Sequences(NamedTuple):
    """obs: [T,B,…] as the policy takes it.  fresh: [T,B], a new episode begins here; where fresh[0] is False the memory
    before it is `memory`.  memory: [B,M], before the first step."""

    obs: Any
    fresh: Bool[Any, "T B"]
    memory: Float[Any, "B M"]

    @property
    def rows(self) -> int:
        """N = T·B."""
        return self.fresh.shape[0] * self.fresh.shape[1]

    def of(self, envs: Any) -> Sequences:
        """Those of some environments, all steps of each."""
        return Sequences(
            jax.tree.map(lambda x: jnp.asarray(x)[:, envs], self.obs),
            jnp.asarray(self.fresh)[:, envs],
            jnp.asarray(self.memory)[envs],
        )


def units(obs: Any) -> int:
    """Of how many parts that know nothing of each other observations are: N rows, or B sequences."""
    return obs.fresh.shape[1] if isinstance(obs, Sequences) else jax.tree.leaves(obs)[0].shape[0]


def part(obs: Any, which: Any) -> Any:
    """Those of `units`, by number: rows, or whole sequences."""
    if isinstance(obs, Sequences):
        return obs.of(which)
    return jax.tree.map(lambda x: jnp.asarray(x)[which], obs)


def rows_of_part(obs: Any, which: Any) -> Array:
    """The numbers of the rows that `part` takes, in its order."""
    if not isinstance(obs, Sequences):
        return jnp.asarray(which)
    steps, envs = obs.fresh.shape
    return (jnp.arange(steps)[:, None] * envs + jnp.asarray(which)).reshape(-1)


def is_recurrent(model: Any) -> bool:
    """Whether it remembers."""
    return _has(model, "initial", "step")


def is_staged(model: Any) -> bool:
    """Whether its step is in stages, see `Staged`."""
    return is_recurrent(model) and _has(model, "encode", "advance", "decode")


def initial_memory(model: Any) -> Float[Array, " M"]:
    """`initial()`, flat, without derivatives."""
    return _start(model)[0]


def fresh_rows(done: Bool[Any, "T B"], valid: Bool[Any, "T B"]) -> Bool[Array, "T B"]:
    """Where a new episode begins: after the end of one, and after a row that was none. The first row goes on."""
    ended = jnp.asarray(done) | ~jnp.asarray(valid)
    return jnp.concatenate([jnp.zeros_like(ended[:1]), ended[:-1]])


def advance(model: Any, memory: Float[AnyArray, "B M"], obs: Any) -> tuple[Float[Array, "B M"], Any]:
    """One step of B episodes: (memory [B,M] after it, outputs [B,…]).  obs: [B,…]."""
    start, unravel = _start(model)

    def one(memory: Array, obs: Any) -> tuple[Array, Any]:
        after, output = model.step(unravel(memory), obs)
        return ravel(after)[0].astype(start.dtype), output

    return jax.vmap(one)(jnp.asarray(memory, start.dtype), obs)


def along(model: Any, sequences: Sequences) -> tuple[Any, Float[Array, "T B M"]]:
    """(outputs [N,…], memories [T,B,M] after each step).

    Raises UsageError for a model that does not remember.
    """
    if not is_recurrent(model):
        raise UsageError(f"{type(model).__name__} has no memory, and was given sequences: it takes observations [N,…]")
    obs, fresh, memory = sequences
    start, unravel = _start(model)
    initial = unravel(start)
    before = jax.vmap(unravel)(jax.lax.stop_gradient(jnp.asarray(memory, start.dtype)))

    def begun(memory: Any, fresh: Array) -> Any:
        return jax.tree.map(lambda m, i: jnp.where(fresh.reshape(-1, *[1] * i.ndim), i, m), memory, initial)

    if is_staged(model):
        encoded = _rowwise(model.encode, obs)

        def onward(memory: Any, row: Any) -> tuple[Any, Any]:
            memory = jax.vmap(model.advance)(begun(memory, row[1]), row[0])
            return memory, memory

        _, memories = jax.lax.scan(onward, before, (encoded, jnp.asarray(fresh)))
        outputs = _rowwise(model.decode, memories)
    else:

        def step(memory: Any, row: Any) -> tuple[Any, Any]:
            memory, output = jax.vmap(model.step)(begun(memory, row[1]), row[0])
            return memory, (memory, output)

        _, (memories, outputs) = jax.lax.scan(step, before, (obs, jnp.asarray(fresh)))
    flat = jax.vmap(jax.vmap(lambda memory: ravel(memory)[0]))(memories)
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), outputs), flat


def _has(model: Any, *methods: str) -> bool:
    """Also where a module has them of another that it holds, as a reparameterised policy does."""
    return all(callable(getattr(model, name, None)) for name in methods)


def _rowwise(function: Callable[[Any], Any], rows: Any) -> Any:
    """Of rows [T,B,…], all at once."""
    steps, envs = jax.tree.leaves(rows)[0].shape[:2]
    flat = jax.tree.map(lambda x: jnp.asarray(x).reshape(-1, *x.shape[2:]), rows)
    return jax.tree.map(lambda x: x.reshape(steps, envs, *x.shape[1:]), jax.vmap(function)(flat))


def _start(model: Any) -> tuple[Array, Callable[[Array], Any]]:
    """(the first memory [M], [M] ↦ memory)."""
    flat, unravel = ravel(jax.tree.map(jnp.asarray, model.initial()))
    return jax.lax.stop_gradient(flat), unravel
