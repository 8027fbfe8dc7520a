"""From observations to actions: by compiled programs, for every θ of one policy's structure.

obs → normalise → policy → distribution → sample or mode
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PRNGKeyArray
from numpy.typing import NDArray

from steepest.distributions import Policy
from steepest.errors import UsageError
from steepest.layers import Dense, Mlp
from steepest.normaliser import Scaling
from steepest.parameters import merge, split
from steepest.policies.networks import MlpBernoulli, MlpCategorical, MlpGaussian, MlpMultiCategorical
from steepest.sampling.actor import Actor, NoMemory, finite
from steepest.sampling.mlp_actor import BERNOULLI, CATEGORICAL, GAUSSIAN, LARGEST, Head, MlpActor, multi_categorical
from steepest.sequences import advance, initial_memory, is_recurrent


def normalise(scaling: Scaling | None, obs: Any) -> Any:
    """Observations as the policy and the critic take them."""
    return obs if scaling is None else scaling(obs)


def actions(policy: Any, scaling: Scaling | None, obs: Any, key: PRNGKeyArray, draw: Any, deterministic: bool) -> Any:
    """The policy's own actions, before any clipping, for observations [B,…]; row b draws from (key, draw, b)."""
    if is_recurrent(policy):
        raise UsageError(f"{type(policy).__name__} remembers: it does not act on observations alone")
    distribution = jax.vmap(policy)(normalise(scaling, obs))
    return _chosen(distribution, obs.shape[0], key, draw, deterministic)


def actions_remembering(
    policy: Policy, scaling: Scaling | None, obs: Any, key: PRNGKeyArray, draw: Any, deterministic: bool,
    memory: Any, fresh: Any,
) -> tuple[Any, Any]:  # fmt: skip
    """(`actions`, the memory [B,M] after them) of a policy that remembers.

    memory: [B,M] before them.  fresh: [B], where new episodes begin.
    """
    before = jnp.where(jnp.asarray(fresh)[:, None], initial_memory(policy), memory)
    after, distribution = advance(policy, before, normalise(scaling, obs))
    return _chosen(distribution, len(fresh), key, draw, deterministic), after


def _chosen(distribution: Any, envs: int, key: PRNGKeyArray, draw: Any, deterministic: bool) -> Any:
    if deterministic:
        return distribution.mode()
    keys = jax.random.split(jax.random.fold_in(key, draw), envs)
    return jax.vmap(lambda d, k: d.sample(k))(distribution, keys)


def compile_actor(policy: Policy) -> Callable[..., NDArray[Any]]:
    """(θ, scaling, obs, key, draw, deterministic) ↦ actions: `actions` for every θ of one policy's structure.

    It is what a rollout calls at every step; the structure is looked at once, not at every call.
    """
    _, rest = split(policy)

    def act(params: Any, scaling: Any, obs: Any, key: Any, draw: Any, deterministic: bool) -> Any:
        return actions(merge(params, rest), scaling, obs, key, draw, deterministic)

    compiled = jax.jit(act, static_argnums=5)

    def call(
        params: Any, scaling: Scaling | None, obs: Any, key: Any, draw: int, deterministic: bool = False
    ) -> NDArray[Any]:
        return finite(np.asarray(compiled(params, scaling, obs, key, np.int32(draw), deterministic)))

    return call


class CompiledActor(NoMemory):
    """`Actor` of any policy: `actions`, compiled for a CPU.  policy: of whose structure every θ is."""

    def __init__(self, policy: Policy):
        self._policy, self._act = policy, compile_actor(policy)
        self._structure = jax.tree.structure(split(policy)[0])

    def __reduce__(self) -> tuple[Any, ...]:
        return CompiledActor, (self._policy,)

    def export(self, params: Any, scaling: Scaling | None) -> Any:
        """See `Actor`."""
        return exported(params, scaling)

    def begin(self, weights: Any, entropy: Sequence[int], steps: int, envs: int) -> None:
        """See `Actor`."""
        self._params, self._scaling, self._key = imported(weights, self._structure, entropy)

    def __call__(self, obs: NDArray[Any], t: int) -> NDArray[Any]:
        """See `Actor`."""
        return self._act(self._params, self._scaling, obs, self._key, t)


class RememberingActor:
    """`Actor` of a policy that remembers: `actions_remembering`, compiled for a CPU."""

    def __init__(self, policy: Policy):
        params, rest = split(policy)
        self._policy, self._structure = policy, jax.tree.structure(params)

        def act(params: Any, scaling: Any, obs: Any, key: Any, t: Any, memory: Any, fresh: Any) -> Any:
            return actions_remembering(merge(params, rest), scaling, obs, key, t, False, memory, fresh)

        def before(params: Any, memory: Any, fresh: Any) -> Any:
            return jnp.where(fresh[:, None], initial_memory(merge(params, rest)), memory)

        self._act, self._before = jax.jit(act), jax.jit(before)

    def __reduce__(self) -> tuple[Any, ...]:
        return RememberingActor, (self._policy,)

    def export(self, params: Any, scaling: Scaling | None) -> Any:
        """See `Actor`."""
        return exported(params, scaling)

    def begin(self, weights: Any, entropy: Sequence[int], steps: int, envs: int) -> None:
        """See `Actor`."""
        self._given, self._envs = imported(weights, self._structure, entropy), envs
        self.recall(None)

    def recall(self, memory: NDArray[np.float32] | None) -> None:
        """See `Actor`."""
        self._fresh = np.full(self._envs, memory is None)
        width = initial_memory(self._policy).size
        self._memory = np.zeros((self._envs, width), np.float32) if memory is None else memory

    def forget(self, ended: NDArray[np.bool_]) -> None:
        """See `Actor`."""
        self._fresh = ended

    @property
    def memory(self) -> NDArray[np.float32]:
        """See `Actor`."""
        return np.asarray(self._before(self._given[0], self._memory, self._fresh), np.float32)

    def __call__(self, obs: NDArray[Any], t: int) -> NDArray[Any]:
        """See `Actor`."""
        params, scaling, key = self._given
        action, self._memory = self._act(params, scaling, obs, key, np.int32(t), self._memory, self._fresh)
        self._fresh = np.zeros(self._envs, bool)
        return finite(np.asarray(action))


def exported(params: Any, scaling: Scaling | None) -> Any:
    """`Actor.export` of one that computes with JAX."""
    return [np.asarray(leaf) for leaf in jax.tree.leaves(params)], None if scaling is None else tuple(scaling)


def imported(weights: Any, structure: Any, entropy: Sequence[int]) -> Any:
    """(θ, scaling, key) on a CPU, of what was exported.  structure: of θ."""
    leaves, scaling = weights
    words = np.random.SeedSequence(entropy).generate_state(2)
    key = jax.random.wrap_key_data(jnp.asarray(words), impl="threefry2x32")
    given = jax.tree.unflatten(structure, leaves), None if scaling is None else Scaling(*scaling), key
    return jax.device_put(given, _cpu())


def _cpu() -> Any:
    """The host's own device, quicker to reach than an accelerator; None where JAX was told not to use it."""
    try:
        return jax.devices("cpu")[0]
    except RuntimeError:
        return None


def host_actor(policy: Policy, envs: int) -> Actor:
    """What acts for a policy on the host.  policy: of whose structure every θ will be.  envs: rows of its batches.

    The built-in networks are computed in NumPy, which takes a tenth of the time of a call of a compiled program; wide
    ones are not, as a BLAS of several threads would round them otherwise than one of a single thread.
    """
    if is_recurrent(policy):
        return RememberingActor(policy)
    head_of, net = _HEADS.get(type(policy)), getattr(policy, "net", None)
    if head_of is None or type(net) is not Mlp or any(type(layer) is not Dense for layer in net.layers):
        return CompiledActor(policy)
    matrices = [layer.weight for layer in net.layers]
    if any(w.dtype != np.float32 or envs * w.size > LARGEST for w in matrices):
        return CompiledActor(policy)
    return MlpActor(head_of(policy))


_HEADS: dict[Any, Callable[[Any], Head]] = {
    MlpGaussian: lambda policy: GAUSSIAN,
    MlpCategorical: lambda policy: CATEGORICAL,
    MlpMultiCategorical: lambda policy: multi_categorical(policy.sizes),
    MlpBernoulli: lambda policy: BERNOULLI,
}
