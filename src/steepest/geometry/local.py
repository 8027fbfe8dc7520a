"""The policy around θ: distributions at N states, and the Jacobian J = ∂z/∂θ, linearised once and multiplied often.

    z = predict(θ)      push: θ̇ ↦ Jθ̇      pull: c ↦ Jᵀc

One `jax.linearize` and its transpose serve the gradient, every Fisher product and every dense solve of an update:
no double backpropagation through the KL. Whoever needs the layers of a network one by one asks for `taps`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.interpreters import partial_eval

from steepest import chunks
from steepest.distributions import Distribution, Policy
from steepest.errors import UsageError
from steepest.layers import is_narrow
from steepest.parameters import merge, split
from steepest.sequences import Sequences, part
from steepest.taps import Listener, Tap, listening


@dataclass(frozen=True)
class Local:
    """A policy linearised at θ over the N observations of a batch.

    params: θ, a pytree.  rest: what of the policy is not θ.  obs: [N,…].
    distribution: predict(θ), leaves [N,…].
    push: θ̇ ↦ J·θ̇, a tangent on z: a distribution with the tangents as leaves.
    pull: c ↦ Jᵀ·c, the exact transpose of push.
    chunk: rows worked out at a time, as in `chunks.each`.
    """

    params: Any
    rest: Any
    obs: Any
    distribution: Distribution
    push: Callable[[Any], Distribution]
    pull: Callable[[Distribution], Any]
    chunk: int | None = None

    def predict(self, theta: Any) -> Any:
        """θ' ↦ distributions at the N states."""
        return chunks.each(merge(theta, self.rest), self.obs, self.chunk)

    def subset(self, which: Any) -> Local:
        """The same policy linearised over some rows, or for one with memory over some sequences, whole ones."""
        return _linearise(self.params, self.rest, part(self.obs, which), self.chunk)

    def taps(self) -> Tapped:
        """The layers of the policy, with their inputs at the N states. Raises UsageError for one with memory."""
        if isinstance(self.obs, Sequences):
            raise UsageError(
                "the layers of a policy with memory take part in every step, and cannot be followed one by one: leave "
                "metric and preconditioner at their defaults, with conjugate gradients or solver=direct"
            )
        return _listen(self, _heard_layers(self))


@dataclass(frozen=True)
class Tapped:
    """The layers of a policy over N observations.

    taps: each a layer's equation and its leaves of θ.  inputs: of each, [N,…], None for a constant.
    pull: c ↦ the cotangents b = ∂(cᵀz)/∂s of each layer's output, [N,…].
    rest: the numbers of θ's leaves that belong to no layer, or to more than one.
    """

    taps: tuple[Tap, ...]
    inputs: tuple[Any, ...]
    pull: Callable[[Distribution], tuple[Array, ...]]
    rest: tuple[int, ...]


def linearise(policy: Policy, obs: Any, chunk: int | None = None) -> Local:
    """Linearise `policy`, a map from one observation to a distribution, at its own θ over obs [N,…].

    chunk: rows worked out at a time, as in `chunks.each`.
    """
    return _linearise(*split(policy), obs, chunk)


def _linearise(params: Any, rest: Any, obs: Any, chunk: int | None) -> Local:
    def predict(theta: Any) -> Any:
        return chunks.each(merge(theta, rest), obs, chunk)

    distribution, push = jax.linearize(predict, params)
    transpose = jax.linear_transpose(push, params)

    def pull(cotangent: Any) -> Any:
        return transpose(cotangent)[0]

    local = Local(params, rest, obs, distribution, push, pull, chunk)
    whole = not chunks.divided(obs, chunk) and not isinstance(obs, Sequences)
    return replace(local, pull=_pull_by_layers(local) or pull) if whole else local


def _pull_by_layers(local: Local) -> Callable[[Any], Any] | None:
    """The same c ↦ Jᵀ·c where θ is dense layers and constants alone, else None.

    The inputs of every layer are laid out once, not in every product xᵀb: a fifth of the time of a Fisher product.
    """
    leaves, structure = jax.tree.flatten(local.params)
    try:
        taps = _heard_layers(local)
    except UsageError:
        return None  # layers that cannot be followed
    owned = sorted(n for tap in taps for n in (tap.weight, tap.bias) if n is not None)
    plain = all(tap.kind == "constant" or (tap.kind == "dense" and len(tap.shape) == 1) for tap in taps)
    if not plain or owned != list(range(len(leaves))):
        return None
    found = _listen(local, taps)
    if found.rest:
        return None
    products = [None if x is None else _outer(x, tap.shape[0]) for x, tap in zip(found.inputs, found.taps, strict=True)]

    def pull(cotangent: Any) -> Any:
        gradient = list(leaves)
        for tap, product, b in zip(found.taps, products, found.pull(cotangent), strict=True):
            if tap.weight is not None and product is not None:
                gradient[tap.weight] = product(b)
            if tap.bias is not None:
                gradient[tap.bias] = jnp.sum(b, axis=0)
        return jax.tree.unflatten(structure, gradient)

    return pull


def _outer(x: Array, outputs: int) -> Callable[[Array], Array]:
    """b [N,out] ↦ xᵀb for x [N,in], in the order that is quick for so many outputs."""
    if is_narrow(x.shape[1], outputs):
        return lambda b: jax.lax.optimization_barrier(b.T @ x).T  # which the compiler would undo
    columns = jnp.swapaxes(x, 0, 1)
    return lambda b: columns @ b


def _listen(local: Local, found: list[Tap]) -> Tapped:
    """found: of `_heard_layers`."""
    leaves = jax.tree.leaves(local.params)
    policy = merge(local.params, local.rest)
    count = len(jax.tree.leaves(local.obs)[0])

    def heard(obs: Any, perturbations: Any = None) -> tuple[Any, list[Any], list[Tap]]:
        with listening(Listener(leaves, perturbations)) as listener:
            return policy(obs), listener.inputs, listener.taps

    one = jax.tree.map(lambda x: x[0], local.obs)
    dtype = leaves[0].dtype if leaves else jnp.float32
    zeros = [jnp.zeros((count, *tap.shape), dtype) for tap in found]

    def predict(perturbations: Any) -> tuple[Any, Any]:
        return jax.vmap(lambda o, p: heard(o, p)[:2])(local.obs, perturbations)

    _, pull, inputs = jax.vjp(predict, zeros, has_aux=True)
    owners = [n for tap in found for n in (tap.weight, tap.bias) if n is not None]
    owners += _beside(local, one, [z[0] for z in zeros])
    own = [all(owners.count(n) == 1 for n in (tap.weight, tap.bias) if n is not None) for tap in found]
    known = {n for tap, alone in zip(found, own, strict=True) if alone for n in (tap.weight, tap.bias)}

    def mine(values: Any) -> tuple[Any, ...]:
        return tuple(value for value, alone in zip(values, own, strict=True) if alone)

    return Tapped(
        mine(found),
        mine(inputs),
        lambda cotangent: mine(pull(cotangent)[0]),
        tuple(n for n in range(len(leaves)) if n not in known),
    )


def _heard_layers(local: Local) -> list[Tap]:
    """The layers of the policy, in the order of their calls; traced, not run. Raises UsageError as `Listener` does."""
    policy, found = merge(local.params, local.rest), list[Tap]()

    def look(obs: Any) -> Any:
        with listening(Listener(jax.tree.leaves(local.params))) as listener:
            z = policy(obs)
        found.extend(listener.taps)
        return z

    jax.eval_shape(look, jax.tree.map(lambda x: x[0], local.obs))
    return found


def _beside(local: Local, obs: Any, outputs: list[Array]) -> list[int]:
    """The leaves that z depends on otherwise than through the layers' outputs, by number, as with tied weights."""
    leaves, structure = jax.tree.flatten(local.params)

    def predict(leaves: list[Array], outputs: list[Array]) -> Any:
        with listening(Listener(leaves, outputs, alone=True)):
            return merge(jax.tree.unflatten(structure, leaves), local.rest)(obs)

    program = jax.make_jaxpr(predict)(leaves, outputs).jaxpr
    _, used = partial_eval.dce_jaxpr(program, [True] * len(program.outvars))
    return [n for n in range(len(leaves)) if used[n]]
