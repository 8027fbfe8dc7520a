"""What acts, is saved and loaded: observation statistics + policy + the spaces of its environment.

obs → normalise → policy → distribution → sample or mode → clip to the bounds → environment
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PRNGKeyArray
from numpy.typing import NDArray

from steepest.distributions import Policy
from steepest.errors import UsageError
from steepest.layers import Dense, Mlp
from steepest.normaliser import Normaliser, Scaling
from steepest.parameters import merge, split
from steepest.policies.networks import MlpBernoulli, MlpCategorical, MlpGaussian, MlpMultiCategorical
from steepest.policies.specification import PolicySpec
from steepest.sampling.actor import Actor, finite
from steepest.sampling.mlp_actor import BERNOULLI, CATEGORICAL, GAUSSIAN, LARGEST, Head, MlpActor, multi_categorical
from steepest.spaces import Box, Masked, Space, brief, choices, flat_mask, forbids_all, seen


@dataclass(eq=False)
class Agent:
    """A policy that can be put into its environment.

    policy: maps one normalised observation to a distribution.
    observation, action: the spaces, as plain data.
    normaliser: observation statistics, or None to take observations as they are.
    spec: what `policy` is, if it is built in; None for a module of the user's, which `st.load` needs as a template.
    key, drawn: of the stochastic actions of `predict`: the next draw uses (key, drawn); no key is that of seed 0.
    """

    policy: Policy
    observation: Space
    action: Space
    normaliser: Normaliser | None = None
    spec: PolicySpec | None = None
    key: PRNGKeyArray | None = None
    drawn: int = 0

    def seed(self, seed: int) -> None:
        """Start the stochastic actions of `predict` anew from `seed`."""
        self.key, self.drawn = jax.random.key(seed), 0

    def predict(
        self,
        observation: Any,
        state: Any = None,
        episode_start: Any = None,
        deterministic: bool = False,
        action_mask: Any = None,
    ) -> tuple[NDArray[Any], Any]:
        """The action for one observation or a batch of them, as the environment takes it.

        observation: [...] as the environment gives it, or [B,...].
        state, episode_start: for recurrent policies; passed through.
        deterministic: the distribution's mode instead of a sample.
        action_mask: [mask] or [B,mask], 1 for what is allowed; for an agent that was trained with masks, and only then.

        Returns (action, state): the action [...] or [B,...] clipped to the bounds and in the environment's dtype, of a
        Dict or Tuple space a dict or tuple of such. Raises UsageError for an observation of another shape, RunError for
        an action that is not finite.
        """
        own = seen(self.observation)
        try:
            given, shape = own.from_environment(observation), own.shape
        except (KeyError, TypeError, ValueError, IndexError) as error:
            what = f"{type(error).__name__}: {error!s:.200}"
            raise UsageError(f"the observation is none of {brief(own)} ({what})") from error
        single = given.shape == shape
        if not single and given.shape[1:] != shape:
            raise UsageError(f"expected an observation of shape {shape}, or a batch of them, got {given.shape}")
        counts = np.inf if isinstance(own, Box) else own.counts
        if not np.isfinite(given).all() or (np.isfinite(counts) & ((given < 0) | (given >= counts))).any():
            raise UsageError(f"the observation is not in the space that the agent was trained on: {observation!r:.200}")
        key = jax.random.key(0) if self.key is None else self.key
        scaling = None if self.normaliser is None else self.normaliser.scaling()
        batch = self._with_mask(given[None] if single else given, action_mask)
        chosen = np.asarray(_actions(self.policy, scaling, batch, key, np.int32(self.drawn), deterministic))
        self.drawn += 1
        return self.action.to_environment(finite(chosen)[0] if single else finite(chosen)), state

    def _with_mask(self, batch: NDArray[Any], mask: Any) -> NDArray[Any]:
        if not isinstance(self.observation, Masked):
            if mask is not None:
                raise UsageError("this agent was trained without masks, and takes no action_mask")
            return batch
        if mask is None:
            raise UsageError(f"this agent was trained with masks: give action_mask, {self.observation.mask} of 0 and 1")
        sizes = choices(self.action)
        rows = mask if np.ndim(mask) > 1 else [mask] * len(batch)
        if len(rows) != len(batch):
            raise UsageError(f"expected {len(batch)} action masks, one for each observation, got {len(rows)}")
        flat = np.stack([flat_mask(row, sizes) for row in rows])
        if forbids_all(flat, sizes).any():
            raise UsageError("the action mask forbids everything")
        return np.concatenate([batch.reshape((len(batch), -1)), flat], axis=1, dtype=np.float32)


def normalise(scaling: Scaling | None, obs: Any) -> Any:
    """Observations as the policy and the critic take them."""
    return obs if scaling is None else scaling(obs)


def actions(
    policy: Policy, scaling: Scaling | None, obs: Any, key: PRNGKeyArray, draw: Any, deterministic: bool
) -> Any:
    """The policy's own actions, before any clipping, for observations [B,…]; row b draws from (key, draw, b)."""
    distribution = jax.vmap(policy)(normalise(scaling, obs))
    if deterministic:
        return distribution.mode()
    keys = jax.random.split(jax.random.fold_in(key, draw), obs.shape[0])
    return jax.vmap(lambda d, k: d.sample(k))(distribution, keys)


_actions = eqx.filter_jit(actions)


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


class CompiledActor:
    """`Actor` of any policy: `actions`, compiled for a CPU.  policy: of whose structure every θ is."""

    def __init__(self, policy: Policy):
        self._policy, self._act = policy, compile_actor(policy)
        self._structure = jax.tree.structure(split(policy)[0])

    def __reduce__(self) -> tuple[Any, ...]:
        return CompiledActor, (self._policy,)

    def export(self, params: Any, scaling: Scaling | None) -> Any:
        """See `Actor`."""
        return [np.asarray(leaf) for leaf in jax.tree.leaves(params)], None if scaling is None else tuple(scaling)

    def begin(self, weights: Any, entropy: Sequence[int], steps: int, envs: int) -> None:
        """See `Actor`."""
        leaves, scaling = weights
        params = jax.tree.unflatten(self._structure, leaves)
        words = np.random.SeedSequence(entropy).generate_state(2)
        key = jax.random.wrap_key_data(jnp.asarray(words), impl="threefry2x32")
        given = params, None if scaling is None else Scaling(*scaling), key
        self._params, self._scaling, self._key = jax.device_put(given, _cpu())

    def __call__(self, obs: NDArray[Any], t: int) -> NDArray[Any]:
        """See `Actor`."""
        return self._act(self._params, self._scaling, obs, self._key, t)


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
