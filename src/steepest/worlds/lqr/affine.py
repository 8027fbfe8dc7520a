"""A policy of a linear-quadratic world is a law u ~ N(Kx + c, diag(σ²)): how a module becomes one, or is refused."""

from __future__ import annotations

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float

from steepest.distributions import DiagonalGaussian
from steepest.errors import UsageError
from steepest.sequences import is_recurrent
from steepest.worlds.finite.precision import inwards

TOLERANCE = 1e-9  # how far a policy may be from affine, relative to its mean: rounding


class Affine(NamedTuple):
    """u ~ N(Kx + c, diag(σ²)): gain K [m,n], offset c [m], log_std ln σ [m]."""

    gain: Float[Array, "m n"]
    offset: Float[Array, " m"]
    log_std: Float[Array, " m"]

    @property
    def covariance(self) -> Float[Array, "m m"]:
        """Σ."""
        return jnp.diag(jnp.exp(2 * self.log_std))


def law(policy: Any, dimension: int) -> Affine:
    """K, c and ln σ of a policy that is affine, by its value and derivative at x = 0; differentiable in θ."""
    origin = jnp.zeros(dimension)
    said = policy(origin)
    return Affine(jax.jacfwd(lambda x: policy(x).mean)(origin), said.mean, said.log_std)


def checked(policy: Any, states: int, actions: int) -> Any:
    """The policy in float64, if it is affine, its σ constant, and both fit; call it inside `exact`.

    Raises UsageError for all others, naming the state where it saw so.
    """
    if not callable(policy):
        raise UsageError(f"expected a policy, callable with a state [n], got {type(policy).__name__}")
    cast = inwards(policy)
    try:
        said, mean, log_std = _probe(cast, jnp.asarray(_probes(states)), actions)
    except (TypeError, ValueError) as error:
        reason = str(error).split("\n")[0]
        raise UsageError(f"the policy does not take a state of shape [{states}]: {reason}") from error
    if not all(np.all(np.isfinite(part)) for part in said):
        raise UsageError(f"the policy's mean or log_std at x = 0 is not finite: {said.offset}, {said.log_std}")
    probes = _probes(states)
    line = probes @ np.asarray(said.gain).T + np.asarray(said.offset)
    scale = 1.0 + np.abs(line).max()
    for what, gap in (
        ("mean is not affine in x", np.abs(mean - line).max(axis=-1) / scale),
        ("σ depends on x", np.abs(log_std - said.log_std).max(axis=-1)),
    ):
        if not np.all(gap <= TOLERANCE):
            row = int(np.argmax(~(gap <= TOLERANCE)))
            raise UsageError(
                f"an exact LQR takes policies N(Kx + c, diag(σ²)) with constant σ; this one's {what}: at "
                f"x = {np.round(probes[row], 3).tolist()} it is off by {gap[row]:.1e}"
            )
    return cast


@eqx.filter_jit
def _probe(policy: Any, probes: Array, actions: int) -> tuple[Affine, Any, Any]:
    if is_recurrent(policy):
        raise UsageError(f"{type(policy).__name__} remembers, and an LQR's state is seen: give a policy that does not")
    said = jax.vmap(policy)(probes)
    if not isinstance(said, DiagonalGaussian):
        raise UsageError(f"a policy of an LQR maps a state to st.DiagonalGaussian, got {type(said).__name__}")
    if said.mean.shape[1:] != (actions,) or said.log_std.shape[1:] != (actions,):
        raise UsageError(
            f"the policy's mean and log_std have shapes {list(said.mean.shape[1:])} and "
            f"{list(said.log_std.shape[1:])}; this LQR has m={actions} actions, so [{actions}] was expected"
        )
    return law(policy, probes.shape[1]), said.mean, said.log_std


def _probes(dimension: int) -> Float[np.ndarray, "k n"]:
    """States of many sizes in general directions: what is affine at all of them is affine for every practical end."""
    directions = np.random.default_rng(0).normal(size=(6, dimension))
    return directions * np.array([0.1, 1.0, -1.0, 3.0, -10.0, 30.0])[:, None]
