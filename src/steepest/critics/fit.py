"""Least squares for a value function by minibatches of Adam: min Σ w (V(obs) − target)² / Σ w."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, TypeVar, runtime_checkable

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jax import Array
from jaxtyping import Float, PRNGKeyArray

from steepest import trees
from steepest.chunks import each
from steepest.critics.value import Critic
from steepest.errors import UsageError
from steepest.parameters import merge, split
from steepest.sequences import Sequences
from steepest.shuffle import shuffled

C = TypeVar("C", bound=Critic)


class FitInfo(NamedTuple):
    """loss: mean squared error on the whole batch before the fit, squared reward units.  explained: 1 − Var(target −
    V)/Var(target) before the fit; 0 where the targets do not vary.  kept: False if the fit was not finite and the
    critic stays as it was."""

    loss: Float[Array, ""]
    explained: Float[Array, ""]
    kept: Array


@runtime_checkable
class CriticFit(Protocol):
    """How a critic is fitted to targets."""

    def init(self, critic: Critic) -> Any:
        """What the fit carries from batch to batch, before the first: a pytree of arrays."""
        ...

    def __call__(
        self,
        critic: C,
        state: Any,
        obs: Any,
        target: Float[Array, " N"],
        weight: Float[Array, " N"],
        value: Float[Array, " N"],
        key: PRNGKeyArray,
    ) -> tuple[C, Any, FitInfo]:
        """The critic fitted to `target` at obs [N,…], the state and the report; pure, to be inlined in a program.

        weight: [N] ≥ 0, 0 for a masked row.  value: [N], V(obs) now.  key: for what the fit draws.
        """
        ...


@dataclass(frozen=True)
class AdamFit:
    """`epochs` passes of Adam over shuffled minibatches. The optimiser's state is carried from fit to fit.

    minibatch: rows. Of a critic that remembers, whole environments: as many as have no more rows, and at least one.

    Raises UsageError for settings that are not positive.
    """

    learning_rate: float = 1e-3
    epochs: int = 10
    minibatch: int = 128

    def __post_init__(self) -> None:
        if not (self.learning_rate > 0 and math.isfinite(self.learning_rate)):
            raise UsageError(f"the critic's learning_rate must be > 0, got {self.learning_rate}")
        if self.epochs < 1 or self.minibatch < 1:
            raise UsageError(f"the critic needs epochs, minibatch ≥ 1, got {self.epochs}, {self.minibatch}")

    def init(self, critic: Critic) -> Any:
        """The optimiser's first state."""
        return self._optimiser().init(split(critic)[0])

    def __call__(
        self,
        critic: C,
        state: Any,
        obs: Any,
        target: Float[Array, " N"],
        weight: Float[Array, " N"],
        value: Float[Array, " N"],
        key: PRNGKeyArray,
    ) -> tuple[C, Any, FitInfo]:
        """Fit V to `target` at obs [N,…], or along `Sequences` of N rows.

        weight: [N] ≥ 0, 0 for a masked row.  value: [N], V(obs) now, for the report.  key: for the shuffles.

        Returns the critic, the optimiser's state and the report; the critic as it was where the fit is not finite.
        Raises UsageError if N is not a multiple of the minibatch.
        """
        parts = _Sequences(obs, self.minibatch) if isinstance(obs, Sequences) else _Rows(obs, self.minibatch)
        params, rest = split(critic)
        optimiser = self._optimiser()

        def loss(theta: Any, part: Array) -> Array:
            seen, rows = parts.of(part)
            predicted, w = each(merge(theta, rest), seen), weight[rows]
            return jnp.sum(w * (predicted - target[rows]) ** 2) / jnp.maximum(jnp.sum(w), jnp.finfo(w.dtype).tiny)

        def minibatch(carry: Any, part: Array) -> tuple[Any, None]:
            theta, opt = carry
            updates, opt = optimiser.update(jax.grad(loss)(theta, part), opt, theta)
            return (eqx.apply_updates(theta, updates), opt), None

        def epoch(carry: Any, key: PRNGKeyArray) -> tuple[Any, None]:
            return jax.lax.scan(minibatch, carry, parts.shuffled(key))

        (fitted, opt), _ = jax.lax.scan(epoch, (params, state), jax.random.split(key, self.epochs))
        finite = trees.all_finite(fitted)
        fitted, opt = trees.where(finite, (fitted, opt), (params, state))
        return merge(fitted, rest), opt, FitInfo(*quality(value, target, weight), kept=finite)

    def _optimiser(self) -> optax.GradientTransformation:
        return optax.adam(self.learning_rate, eps=1e-5)


class _Rows:
    """Minibatches of rows that stand alone."""

    def __init__(self, obs: Any, size: int):
        self._obs, self._size = obs, size
        self._count = jax.tree.leaves(obs)[0].shape[0]
        if self._count % size:
            raise UsageError(f"a batch of {self._count} rows is not divisible into minibatches of {size}")

    def shuffled(self, key: PRNGKeyArray) -> Array:
        """Which rows, [minibatches, size]."""
        return shuffled(key, self._count, self._size)

    def of(self, part: Array) -> tuple[Any, Array]:
        """(the observations of a minibatch, the numbers of its rows)."""
        return jax.tree.map(lambda x: x[part], self._obs), part


class _Sequences:
    """Minibatches of whole environments."""

    def __init__(self, sequences: Sequences, size: int):
        self._sequences = sequences
        self._steps, self._envs = sequences.fresh.shape
        most = max(1, size // self._steps)
        self._size = next(n for n in range(min(most, self._envs), 0, -1) if self._envs % n == 0)

    def shuffled(self, key: PRNGKeyArray) -> Array:
        """Which environments, [minibatches, size]."""
        return jax.random.permutation(key, self._envs).reshape(-1, self._size)

    def of(self, part: Array) -> tuple[Sequences, Array]:
        """(their sequences, the numbers of their rows in the order of these)."""
        rows = jnp.arange(self._steps)[:, None] * self._envs + part
        return self._sequences.of(part), rows.ravel()


def quality(
    value: Float[Array, " N"], target: Float[Array, " N"], weight: Float[Array, " N"]
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """(loss, explained) of a `FitInfo`."""
    w = weight / jnp.sum(weight)
    value, target = (jnp.where(weight > 0, x, 0.0) for x in (value, target))

    def variance(x: Array) -> Array:
        return jnp.sum(w * (x - jnp.sum(w * x)) ** 2)

    spread = variance(target)
    explained = jnp.where(spread > 0, 1.0 - variance(target - value) / jnp.where(spread > 0, spread, 1.0), 0.0)
    return jnp.sum(w * (value - target) ** 2), explained
