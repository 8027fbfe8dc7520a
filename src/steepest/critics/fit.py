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
from steepest.critics.value import Critic
from steepest.errors import UsageError
from steepest.parameters import merge, split
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
        """Fit V to `target` at obs [N,…].

        weight: [N] ≥ 0, 0 for a masked row.  value: [N], V(obs) now, for the report.  key: for the shuffles.

        Returns the critic, the optimiser's state and the report; the critic as it was where the fit is not finite.
        Raises UsageError if N is not a multiple of the minibatch.
        """
        count = target.shape[0]
        if count % self.minibatch:
            raise UsageError(f"a batch of {count} rows is not divisible into minibatches of {self.minibatch}")
        params, rest = split(critic)
        optimiser = self._optimiser()

        def loss(theta: Any, rows: Array) -> Array:
            predicted = jax.vmap(merge(theta, rest))(jax.tree.map(lambda x: x[rows], obs))
            w = weight[rows]
            return jnp.sum(w * (predicted - target[rows]) ** 2) / jnp.maximum(jnp.sum(w), jnp.finfo(w.dtype).tiny)

        def minibatch(carry: Any, rows: Array) -> tuple[Any, None]:
            theta, opt = carry
            updates, opt = optimiser.update(jax.grad(loss)(theta, rows), opt, theta)
            return (eqx.apply_updates(theta, updates), opt), None

        def epoch(carry: Any, key: PRNGKeyArray) -> tuple[Any, None]:
            return jax.lax.scan(minibatch, carry, shuffled(key, count, self.minibatch))

        (fitted, opt), _ = jax.lax.scan(epoch, (params, state), jax.random.split(key, self.epochs))
        finite = trees.all_finite(fitted)
        fitted, opt = trees.where(finite, (fitted, opt), (params, state))
        return merge(fitted, rest), opt, FitInfo(*quality(value, target, weight), kept=finite)

    def _optimiser(self) -> optax.GradientTransformation:
        return optax.adam(self.learning_rate, eps=1e-5)


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
