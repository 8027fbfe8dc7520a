"""A built-in policy as plain data: which class with which sizes. It is what a checkpoint says, and all it can say.

spec = PolicySpec.for_spaces(observation, action, hidden=(64, 64))
policy = spec.build(key)
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from typing import Any

import jax.numpy as jnp
from jaxtyping import PRNGKeyArray

from steepest.distributions import Policy
from steepest.errors import UsageError
from steepest.names import Registry
from steepest.policies.heads import Head, head_for
from steepest.policies.masked import MaskedPolicy
from steepest.policies.networks import (
    HEAD_GAIN,
    MlpBernoulli,
    MlpCategorical,
    MlpGaussian,
    MlpMultiCategorical,
    MlpPolicy,
)
from steepest.policies.tabular import TabularSoftmax
from steepest.spaces import Box, Discrete, Joint, Masked, MultiBinary, MultiDiscrete, Space


@dataclass(frozen=True)
class PolicySpec:
    """kind: a name in `kinds`.  inputs: entries of a (flattened) observation, or the number of states.  actions: how
    many, or the dimension of the action.  hidden: units of each hidden layer.  initial_log_std: ln σ at the start.
    head_gain, activation, initialisation: of the networks, as in `MlpGaussian`.  parts: of a MultiDiscrete action, how
    many values each, `actions` in all.  distribution, state_dependent_std: of boxes, as of
    `head_for`.  action: the space, of kind "mlp".  observation: one with a
    mask. A file has them beside this."""

    kind: str
    inputs: int
    actions: int
    hidden: tuple[int, ...] = (64, 64)
    initial_log_std: float = -0.5
    head_gain: float = HEAD_GAIN
    activation: str = "tanh"
    initialisation: str = "orthogonal"
    parts: tuple[int, ...] = ()
    distribution: str = "gaussian"
    state_dependent_std: bool = False
    action: Space | None = None
    observation: Masked | None = None

    @classmethod
    def for_spaces(
        cls,
        observation: Space,
        action: Space,
        hidden: tuple[int, ...] = (64, 64),
        initial_log_std: float = -0.5,
        **networks: Any,
    ) -> PolicySpec:
        """The policy that fits the spaces: a table on states, else an MLP; categorical or Gaussian.

        networks: head_gain, activation, initialisation, distribution, state_dependent_std.
        """
        if isinstance(observation, Masked):
            given = hidden, initial_log_std
            return replace(cls.for_spaces(observation.observation, action, *given, **networks), observation=observation)
        if isinstance(observation, Discrete):
            if not isinstance(action, Discrete):
                what = type(action).__name__
                raise UsageError(
                    f"a policy from Discrete observations to {what} actions is not built in: give your own"
                )
            return cls("tabular", observation.n, action.n, (), 0.0)
        inputs = math.prod(observation.shape)
        if isinstance(action, Discrete):
            return cls("mlp-categorical", inputs, action.n, tuple(hidden), 0.0, **networks)
        if isinstance(action, MultiDiscrete):
            sizes = action.sizes
            return cls("mlp-multi-categorical", inputs, sum(sizes), tuple(hidden), 0.0, parts=sizes, **networks)
        if isinstance(action, MultiBinary):
            return cls("mlp-bernoulli", inputs, action.n, tuple(hidden), 0.0, **networks)
        spread = networks.get("distribution", "gaussian"), networks.get("state_dependent_std", False)
        if isinstance(action, Joint) or (isinstance(action, Box) and spread != ("gaussian", False)):
            outputs = head_for(action, initial_log_std, *spread).outputs
            return cls("mlp", inputs, outputs, tuple(hidden), initial_log_std, action=action, **networks)
        return cls("mlp-gaussian", inputs, action.shape[0], tuple(hidden), initial_log_std, **networks)

    def build(self, key: PRNGKeyArray) -> Policy:
        """A fresh policy of this kind."""
        policy = kinds[self.kind](self, key)
        return policy if self.observation is None else MaskedPolicy(policy, self.observation.form)

    def to_record(self) -> dict[str, Any]:
        """JSON."""
        record = asdict(replace(self, action=None, observation=None))
        return {name: value for name, value in record.items() if name not in ("action", "observation")}

    @classmethod
    def from_record(
        cls, record: dict[str, Any], observation: Space | None = None, action: Space | None = None
    ) -> PolicySpec:
        """The specification in a JSON record; UsageError for an unknown kind or anything that is not one.

        observation, action: the spaces that the file has beside it.
        """
        try:
            spec = cls(
                kind=str(record["kind"]),
                inputs=int(record["inputs"]),
                actions=int(record["actions"]),
                hidden=tuple(int(n) for n in record["hidden"]),
                initial_log_std=float(record["initial_log_std"]),
                head_gain=float(record.get("head_gain", HEAD_GAIN)),
                activation=str(record.get("activation", "tanh")),  # older records have none
                initialisation=str(record.get("initialisation", "orthogonal")),
                parts=tuple(int(n) for n in record.get("parts", ())),
                distribution=str(record.get("distribution", "gaussian")),
                state_dependent_std=bool(record.get("state_dependent_std", False)),
                action=action if record["kind"] == "mlp" else None,
                observation=observation if isinstance(observation, Masked) else None,
            )
        except (KeyError, TypeError, ValueError) as error:
            raise UsageError(f"not the record of a policy: {record!r:.200} ({error})") from error
        kinds[spec.kind]
        return spec

    @property
    def networks(self) -> dict[str, Any]:
        """What the constructors of the networks take of it."""
        return {"head_gain": self.head_gain, "activation": self.activation, "initialisation": self.initialisation}

    @property
    def head(self) -> Head:
        """What makes distributions over the actions of the space."""
        assert self.action is not None
        return head_for(self.action, self.initial_log_std, self.distribution, self.state_dependent_std)


kinds: Registry = Registry("policy")
kinds.add("tabular", lambda s, key: TabularSoftmax(jnp.zeros((s.inputs, s.actions))))
kinds.add("mlp-categorical", lambda s, key: MlpCategorical(s.inputs, s.actions, s.hidden, **s.networks, key=key))
kinds.add(
    "mlp-multi-categorical", lambda s, key: MlpMultiCategorical(s.inputs, s.parts, s.hidden, **s.networks, key=key)
)
kinds.add("mlp-bernoulli", lambda s, key: MlpBernoulli(s.inputs, s.actions, s.hidden, **s.networks, key=key))
kinds.add(
    "mlp-gaussian",
    lambda s, key: MlpGaussian(s.inputs, s.actions, s.hidden, initial_log_std=s.initial_log_std, **s.networks, key=key),
)
kinds.add("mlp", lambda s, key: MlpPolicy(s.inputs, s.head, s.hidden, **s.networks, key=key))
