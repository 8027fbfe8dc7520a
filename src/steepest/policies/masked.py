"""A policy that is told which actions are allowed: ln π = −∞ of all others.

Their rows in the Fisher factor are 0, so that no product, step or KL knows of them (`distributions/categorical.py`). A
policy with memory is told of the actions of each step, and remembers what was allowed no longer than that:

    (m, mask)_t = (advance(m_{t−1}, encode(o_t)), mask_t)        π(·|o_0 … o_t) = decode(m_t), masked by mask_t
"""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax.numpy as jnp

from steepest.distributions import Categorical, Distribution, MultiCategorical, Product
from steepest.errors import UsageError
from steepest.sequences import is_recurrent, is_staged
from steepest.spaces import Masked, MaskedForm, Space
from steepest.trees import AnyArray


class MaskedPolicy(eqx.Module):
    """[obs, mask] ↦ policy(obs), masked.

    policy: obs ↦ a distribution of `Categorical` or several, also as parts of a `Product`.  form: of [obs, mask].
    """

    policy: Any
    form: MaskedForm = eqx.field(static=True)

    def features(self, obs: Any) -> Any:
        """Of the policy within; see `Featured`."""
        return self.policy.features(self.form.split(obs)[0])

    def __call__(self, obs: Any) -> Distribution:
        own, mask = self.form.split(obs)
        return masked(self.policy(own), jnp.asarray(mask) > 0.5)


class MaskedRecurrent(eqx.Module):
    """(memory, [obs, mask]) ↦ (memory', the distribution of policy.step(memory, obs), masked).

    policy: one that remembers.  form: of [obs, mask]. Where the mask is all 0, as in a row that is no step, nothing is
    forbidden.
    """

    policy: Any
    form: MaskedForm = eqx.field(static=True)

    def initial(self) -> Any:
        """See `Recurrent`."""
        return self.policy.initial()

    def step(self, memory: Any, obs: Any) -> tuple[Any, Any]:
        """See `Recurrent`."""
        own, mask = self.form.split(obs)
        memory, distribution = self.policy.step(memory, own)
        return memory, masked(distribution, _allowed(mask))


class MaskedStages(eqx.Module):
    """The same of a `Staged` policy: its memory is (the policy's, the mask of the last step)."""

    policy: Any
    form: MaskedForm = eqx.field(static=True)

    def initial(self) -> tuple[Any, Any]:
        """See `Recurrent`."""
        return self.policy.initial(), jnp.ones(self.form.mask, jnp.float32)

    def step(self, memory: Any, obs: Any) -> tuple[Any, Any]:
        """See `Recurrent`."""
        memory = self.advance(memory, self.encode(obs))
        return memory, self.decode(memory)

    def encode(self, obs: Any) -> tuple[Any, Any]:
        """See `Staged`."""
        own, mask = self.form.split(obs)
        return self.policy.encode(own), _allowed(mask).astype(jnp.float32)

    def advance(self, memory: Any, encoded: Any) -> tuple[Any, Any]:
        """See `Staged`."""
        return self.policy.advance(memory[0], encoded[0]), encoded[1]

    def decode(self, memory: Any) -> Any:
        """See `Staged`."""
        return masked(self.policy.decode(memory[0]), memory[1] > 0.5)


def _allowed(mask: Any) -> Any:
    allowed = jnp.asarray(mask) > 0.5
    return allowed | ~jnp.any(allowed)


def masked(distribution: Any, allowed: AnyArray) -> Any:
    """The distribution with nothing on what is not allowed.

    allowed: bool, an entry for each logit of its categoricals, in their order; what else it has is as it was.
    Raises UsageError for another number of entries.
    """
    if entries(distribution) != allowed.shape[-1]:
        raise UsageError(f"a mask of {allowed.shape[-1]} entries does not fit {entries(distribution)} logits")
    if isinstance(distribution, Categorical | MultiCategorical):
        logits = jnp.where(allowed, distribution.logits, -jnp.inf)
        return eqx.tree_at(lambda d: d.logits, distribution, logits)
    if not isinstance(distribution, Product):
        return distribution
    parts, begin = [], 0
    for part in distribution.parts:
        end = begin + entries(part)
        parts.append(masked(part, allowed[..., begin:end]))
        begin = end
    return eqx.tree_at(lambda d: d.parts, distribution, tuple(parts))


def entries(distribution: Any) -> int:
    """How many a mask of it has."""
    if isinstance(distribution, Categorical | MultiCategorical):
        return distribution.logits.shape[-1]
    return sum(map(entries, distribution.parts)) if isinstance(distribution, Product) else 0


def with_mask(policy: Any, observation: Space) -> Any:
    """The policy for observations with a mask, where they have one."""
    if not isinstance(observation, Masked) or isinstance(policy, MaskedPolicy | MaskedRecurrent | MaskedStages):
        return policy
    if not is_recurrent(policy):
        return MaskedPolicy(policy, observation.form)
    return (MaskedStages if is_staged(policy) else MaskedRecurrent)(policy, observation.form)
