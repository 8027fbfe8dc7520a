"""A policy that is told which actions are allowed: ln π = −∞ of all others.

Their rows in the Fisher factor are 0, so that no product, step or KL knows of them (`distributions/categorical.py`).
"""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax.numpy as jnp

from steepest.distributions import Categorical, Distribution, MultiCategorical, Product
from steepest.errors import UsageError
from steepest.spaces import Masked, MaskedForm, Space
from steepest.trees import AnyArray


class MaskedPolicy(eqx.Module):
    """[obs, mask] ↦ policy(obs), masked.

    policy: obs ↦ a distribution of `Categorical` or several, also as parts of a `Product`.  form: of [obs, mask].
    """

    policy: Any
    form: MaskedForm = eqx.field(static=True)

    def __call__(self, obs: Any) -> Distribution:
        own, mask = self.form.split(obs)
        return masked(self.policy(own), jnp.asarray(mask) > 0.5)


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
    if not isinstance(observation, Masked) or isinstance(policy, MaskedPolicy):
        return policy
    return MaskedPolicy(policy, observation.form)
