"""What a policy says in one state, and the Fisher factor that every metric is made of.

For a distribution with parameters z (its own array leaves) and Fisher matrix I(z) there are R and u with

    RᵀR = I(z)        Rᵀu(a) = ∇_z ln π(a)        u ⟂ null(Rᵀ)

so that with J = ∂z/∂θ the expected Fisher in θ is E[(RJ)ᵀ(RJ)], a sample's score is (RJ)ᵀu, and a cotangent c on z
has the whitened form y = R⁺ᵀc, Rᵀy = c. A tangent or cotangent on z is a distribution of the same class with the
tangents as its leaves: what `jax.jvp` and `jax.vjp` give.

All methods act on the last axis and broadcast over leading ones, so one class serves a state and N states.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

from jax import Array
from jaxtyping import Float, PRNGKeyArray

from steepest.sequences import Recurrent


@runtime_checkable
class Distribution(Protocol):
    """A distribution over actions whose array leaves are its parameters z; `…` are leading axes."""

    def sample(self, key: PRNGKeyArray) -> Array:
        """One action for each leading index."""
        ...

    def mode(self) -> Array:
        """The most probable action."""
        ...

    def log_prob(self, action: Array) -> Float[Array, "..."]:
        """ln π(a) in nats, summed over the dimensions of the action."""
        ...

    def entropy(self) -> Float[Array, "..."]:
        """−E ln π in nats, summed over the dimensions of the action."""
        ...

    def kl(self, other: Any) -> Float[Array, "..."]:
        """KL(self‖other) in nats, summed over the dimensions of the action; exactly 0 for equal parameters."""
        ...

    def whiten(self, tangent: Any) -> Float[Array, "... k"]:
        """R·ż for a tangent ż on z."""
        ...

    def whiten_transpose(self, y: Float[Array, "... k"]) -> Any:
        """Rᵀ·y, a cotangent on z."""
        ...

    def whiten_cotangent(self, cotangent: Any) -> Float[Array, "... k"]:
        """R⁺ᵀ·c: the y ⟂ null(Rᵀ) with Rᵀy = c, for a c in the range of Rᵀ."""
        ...

    def whitened_score(self, action: Array) -> Float[Array, "... k"]:
        """u(a) with Rᵀu = ∇_z ln π(a)."""
        ...


@runtime_checkable
class FromNoise(Protocol):
    """A distribution whose sample is a function of noise that does not depend on z: `sample(key)` is
    `from_noise(noise(key))`, and whoever samples often can draw the noise of many samples at once."""

    def noise(self, key: PRNGKeyArray) -> Array:
        """Of one sample. It looks at the shapes of the leaves alone."""
        ...

    def from_noise(self, noise: Array) -> Array:
        """The sample."""
        ...


Policy = Callable[[Any], Distribution] | Recurrent
"""Any callable pytree (an equinox module) that maps one observation to a distribution over actions; or one that
remembers those before it."""
