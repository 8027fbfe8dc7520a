"""B copies of a functional environment, stepped together, cut at the time limit, reset where they ended.

    copy b has a key, split(key, B)_b, and its n-th reset or step draws from fold_in(key_b, n), n = 0, 1, …

The random numbers of a copy depend on its key and on how often it has drawn: not on the other copies, and not on how
many steps are in a program. Whoever draws nothing pays nothing for keys.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import PRNGKeyArray

from steepest.errors import UsageError
from steepest.spaces import Box, Joint, Masked, Space, describe
from steepest.worlds.functional.protocol import FunctionalEnvironment, name_of


class Stand(NamedTuple):
    """Where B copies stand.

    obs: [B,…] to act upon next.  state: [B,…] the environment's own.  clock: [B] int32, steps taken in the episode.
    key: [B], of the random numbers.  drawn: [B] uint32, how often each was drawn from.
    """

    obs: Any
    state: Any
    clock: Array
    key: PRNGKeyArray
    drawn: Array


class Outcome(NamedTuple):
    """What a step answered, as in a `Transition`; cost is None where the environment reports none."""

    reward: Array
    next_obs: Any
    terminated: Array
    truncated: Array
    cost: Array | None


class Copies:
    """How any number of copies begin and step, as pure functions to be traced into a program.

    environment: of the functional form.  params: as it takes them; its default_params, if not given.
    time_limit: steps of an episode at most; the environment's own, if not given, and None for none.

    The array leaves of params are `tables`, arguments of every program; all else is part of the program.
    reports_cost: whether info holds a "cost".

    Raises UsageError where reset or step cannot be traced and vectorised, or say other than their spaces.
    """

    def __init__(self, environment: FunctionalEnvironment, *, params: Any = None, time_limit: int | None = None):
        self.name = name_of(environment)
        given = getattr(environment, "default_params", None) if params is None else params
        limit = getattr(environment, "time_limit", None) if time_limit is None else time_limit
        if limit is not None and limit < 1:
            raise UsageError(f"{self.name}: time_limit must be at least 1, got {limit}")
        self.environment, self.time_limit = environment, limit
        self.observation = describe(environment.observation_space, "observation")
        self.action = describe(environment.action_space, "action")
        leaves, self._structure = jax.tree.flatten(given)
        array = [isinstance(leaf, jax.Array | np.ndarray) for leaf in leaves]
        self.tables = tuple(
            jnp.asarray(leaf) if is_array else None for leaf, is_array in zip(leaves, array, strict=True)
        )
        self._constants = tuple(None if is_array else leaf for leaf, is_array in zip(leaves, array, strict=True))
        self.reports_cost = False
        self._state_types: Any = None
        self._check()

    def begin(self, tables: Any, key: PRNGKeyArray, drawn: Array) -> Stand:
        """New episodes.  key, drawn: [B], as in a `Stand`."""
        obs, state = jax.vmap(lambda key: self._reset(tables, key))(_draw(key, drawn))
        return Stand(obs, state, jnp.zeros(drawn.shape, jnp.int32), key, drawn + 1)

    def step(self, tables: Any, stand: Stand, action: Any) -> tuple[Stand, Outcome]:
        """One step of all copies; those whose episode ended stand at the beginning of the next.

        action: [B,…] as the policy chose: clipped to the bounds here, and nowhere else.
        """
        stepped, outcome = self.follow(tables, stand, action)
        done = outcome.terminated | outcome.truncated

        def reset(stepped: Stand) -> Stand:
            return where(done, self.begin(tables, stepped.key, stepped.drawn), stepped)

        # resets are rare, and drawing first states would cost as much as the step
        return jax.lax.cond(jnp.any(done), reset, lambda stepped: stepped, stepped), outcome

    def follow(self, tables: Any, stand: Stand, action: Any) -> tuple[Stand, Outcome]:
        """One step of all copies, none of which resets itself."""
        given, action = self._params(tables), self._actuate(action)
        successors = jax.vmap(lambda key, state, act: self._step(key, state, act, given))
        obs, state, reward, terminated, truncated, cost = successors(_draw(stand.key, stand.drawn), stand.state, action)
        clock = stand.clock + 1
        if self.time_limit is not None:
            truncated = truncated | (clock >= self.time_limit)
        outcome = Outcome(reward, obs, terminated, truncated & ~terminated, cost)
        return Stand(obs, state, clock, stand.key, stand.drawn + 1), outcome

    def _reset(self, tables: Any, key: PRNGKeyArray) -> tuple[Array, Any]:
        obs, state = self.environment.reset(key, self._params(tables))
        # a reset may say 0 where a step says an array: a program's state has one type
        return self._observe(obs), jax.tree.map(lambda x, t: jnp.asarray(x, t.dtype), state, self._state_types)

    def _step(self, key: PRNGKeyArray, state: Any, action: Any, params: Any) -> tuple[Any, ...]:
        obs, state, reward, terminated, truncated, info = self.environment.step(key, state, action, params)
        cost = info.get("cost") if isinstance(info, dict) else None
        flags = (jnp.asarray(flag).astype(bool) for flag in (terminated, truncated))
        cost = None if cost is None else jnp.asarray(cost, jnp.float32)
        return self._observe(obs), state, jnp.asarray(reward, jnp.float32), *flags, cost

    def _params(self, tables: Any) -> Any:
        leaves = [c if t is None else t for t, c in zip(tables, self._constants, strict=True)]
        return jax.tree.unflatten(self._structure, leaves)

    def _observe(self, obs: Any) -> Array:
        return observed(self.observation, obs)

    def _actuate(self, action: Any) -> Any:
        return _actuated(self.action, action)

    def _check(self) -> None:
        """Trace a reset and a step of one environment, which settles the types of a state, and of two."""
        key = jax.ShapeDtypeStruct((), jax.random.key(0).dtype)
        action = jax.ShapeDtypeStruct(self.action.shape, self.action.inside)
        env, params = self.environment, self._params(self.tables)
        obs, first = self._traced("reset", lambda k: _seen(self.observation, env.reset(k, params)), key)
        _same(f"{self.name}'s reset", "observation", obs, self.observation)

        def step(key: Any, state: Any, action: Any) -> Any:
            return self._step(key, state, self._actuate(action), params)

        stepped = self._traced("step", step, key, first, action)
        _same(f"{self.name}'s step", "observation", stepped[0], self.observation)
        for what, value in zip(("reward", "terminated", "truncated"), stepped[2:5], strict=True):
            if value.shape != ():
                raise UsageError(f"{self.name}'s step must return a scalar {what}, got shape {list(value.shape)}")
        self._agree(first, stepped[1])
        self.reports_cost = stepped[5] is not None
        again = self._traced("step", step, key, stepped[1], action)
        self._agree(stepped[1], again[1], types=True)
        self._state_types = stepped[1]
        two, drawn = jax.ShapeDtypeStruct((2,), key.dtype), jax.ShapeDtypeStruct((2,), jnp.uint32)
        acts = jax.ShapeDtypeStruct((2, *action.shape), action.dtype)
        self._traced("step", lambda k, n, a: self.step(self.tables, self.begin(self.tables, k, n), a), two, drawn, acts)

    def _traced(self, what: str, function: Any, *arguments: Any) -> Any:
        try:
            return jax.eval_shape(function, *arguments)
        except UsageError:
            raise
        except Exception as error:
            reason = str(error).strip().split("\n")[0]
            raise UsageError(
                f"{self.name}: JAX cannot trace and vectorise its {what} ({type(error).__name__}: {reason:.200}); a "
                "functional world is made of jax.numpy alone, without `if` on its arrays. A Gymnasium environment can "
                "be given as it is"
            ) from error

    def _agree(self, first: Any, second: Any, *, types: bool = False) -> None:
        if jax.tree.structure(first) != jax.tree.structure(second):
            raise UsageError(
                f"{self.name}: the state that step returns, {jax.tree.structure(second)}, has another structure than "
                f"the one it was given, {jax.tree.structure(first)}"
            )
        for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True):
            if a.shape != b.shape or (types and a.dtype != b.dtype):
                raise UsageError(f"{self.name}: step changes a part of its state from {_say(a)} to {_say(b)}")


def first_stand(copies: Copies, tables: Any, key: PRNGKeyArray, count: int) -> Stand:
    """`count` copies at the beginning of their first episodes."""
    return copies.begin(tables, jax.random.split(key, count), jnp.zeros(count, jnp.uint32))


def _seen(space: Space, answer: Any) -> Any:
    """The answer of a reset, its observation as one array where its space has parts."""
    obs, state = answer
    return (observed(space, obs) if isinstance(space, Joint) else obs), state


def observed(space: Space, obs: Any) -> Array:
    """`from_environment` in JAX, of one observation."""
    if isinstance(space, Joint):
        pairs = zip(space.parts, space.pieces(obs), strict=True)
        return jnp.concatenate([jnp.ravel(observed(part, piece)).astype(jnp.float32) for part, piece in pairs])
    if isinstance(space, Box):
        return jnp.asarray(obs, space.inside)
    if isinstance(space, Masked):  # put together already
        return jnp.asarray(obs, jnp.float32)
    return jnp.asarray(obs, jnp.int32) - space.offset.astype(np.int32)


def _actuated(space: Space, action: Any) -> Any:
    """`to_environment` in JAX."""
    if isinstance(space, Joint):
        pairs = zip(space.parts, space.split(jnp.asarray(action)), strict=True)
        return space.structured(_actuated(part, piece) for part, piece in pairs)
    if isinstance(space, Box):
        low, high = (np.asarray(bound, np.float32) for bound in (space.low, space.high))
        action = jnp.asarray(action, jnp.float32)
        action = low + (high - low) * (0.5 + 0.5 * jnp.tanh(action)) if space.squashed else action
        return jnp.clip(action, low, high)
    assert not isinstance(space, Masked)
    return jnp.asarray(action, jnp.int32) + space.offset.astype(np.int32)


def _draw(key: PRNGKeyArray, drawn: Array) -> PRNGKeyArray:
    return jax.vmap(jax.random.fold_in)(key, drawn)


def where(chosen: Array, there: Any, here: Any) -> Any:
    """Copy by copy: leaves of `there` where chosen [B], of `here` elsewhere."""
    return jax.tree.map(lambda a, b: jnp.where(chosen.reshape(-1, *[1] * (a.ndim - chosen.ndim)), a, b), there, here)


def _same(whose: str, what: str, value: Any, space: Space) -> None:
    if jnp.shape(value) != space.shape:
        raise UsageError(
            f"{whose} returns an {what} of shape {list(jnp.shape(value))}, its space has {list(space.shape)}"
        )


def _say(leaf: Any) -> str:
    return f"{leaf.dtype}{list(leaf.shape)}"
