"""A built-in policy as plain data: which class with which sizes. It is what a checkpoint says, and all it can say.

spec = PolicySpec.for_spaces(observation, action, hidden=(64, 64))
policy = spec.build(key)
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import jax.numpy as jnp
from jaxtyping import PRNGKeyArray

from steepest.cells import cells
from steepest.distributions import Policy
from steepest.errors import UsageError
from steepest.names import Registry
from steepest.policies.heads import BernoulliHead, CategoricalHead, GaussianHead, MultiCategoricalHead
from steepest.policies.networks import HEAD_GAIN, MlpBernoulli, MlpCategorical, MlpGaussian, MlpMultiCategorical
from steepest.policies.recurrent import recurrent_network
from steepest.policies.tabular import TabularSoftmax
from steepest.spaces import Discrete, MultiBinary, MultiDiscrete, Space


@dataclass(frozen=True)
class PolicySpec:
    """kind: a name in `kinds`.  inputs: entries of a (flattened) observation, or the number of states.  actions: how
    many, or the dimension of the action.  hidden: units of each hidden layer.  initial_log_std: ln σ at the start.
    head_gain, activation, initialisation: of the networks, as in `MlpGaussian`.  parts: of a MultiDiscrete action, how
    many values each, `actions` in all.  memory: "gru" or "lstm" behind the hidden layers, of memory_units; or
    "none"."""

    kind: str
    inputs: int
    actions: int
    hidden: tuple[int, ...] = (64, 64)
    initial_log_std: float = -0.5
    head_gain: float = HEAD_GAIN
    activation: str = "tanh"
    initialisation: str = "orthogonal"
    parts: tuple[int, ...] = ()
    memory: str = "none"
    memory_units: int = 64

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

        networks: head_gain, activation, initialisation, memory, memory_units. With a memory there is no table: a
        state's number is one-hot.
        """
        if isinstance(observation, Discrete) and networks.get("memory", "none") == "none":
            if not isinstance(action, Discrete):
                what = type(action).__name__
                raise UsageError(
                    f"a policy from Discrete observations to {what} actions is not built in: give your own"
                )
            return cls("tabular", observation.n, action.n, (), 0.0)
        inputs = observation.n if isinstance(observation, Discrete) else math.prod(observation.shape)
        if isinstance(action, Discrete):
            return cls("mlp-categorical", inputs, action.n, tuple(hidden), 0.0, **networks)
        if isinstance(action, MultiDiscrete):
            sizes = action.sizes
            return cls("mlp-multi-categorical", inputs, sum(sizes), tuple(hidden), 0.0, parts=sizes, **networks)
        if isinstance(action, MultiBinary):
            return cls("mlp-bernoulli", inputs, action.n, tuple(hidden), 0.0, **networks)
        return cls("mlp-gaussian", inputs, action.shape[0], tuple(hidden), initial_log_std, **networks)

    def build(self, key: PRNGKeyArray) -> Policy:
        """A fresh policy of this kind."""
        if self.memory == "none":
            return kinds[self.kind](self, key)
        remembers: Any = {"memory": self.memory, "units": self.memory_units, **self.networks}
        return recurrent_network(self.inputs, _heads[self.kind](self), self.hidden, **remembers, key=key)

    def to_record(self) -> dict[str, Any]:
        """JSON."""
        return asdict(self)

    @classmethod
    def from_record(cls, record: dict[str, Any]) -> PolicySpec:
        """The specification in a JSON record; UsageError for an unknown kind or anything that is not one."""
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
                memory=str(record.get("memory", "none")),
                memory_units=int(record.get("memory_units", 64)),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise UsageError(f"not the record of a policy: {record!r:.200} ({error})") from error
        kinds[spec.kind]
        if spec.memory != "none":
            cells[spec.memory]
            _heads[spec.kind]
        return spec

    @property
    def networks(self) -> dict[str, Any]:
        """What the constructors of the networks take of it."""
        return {"head_gain": self.head_gain, "activation": self.activation, "initialisation": self.initialisation}


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

_heads: Registry = Registry("policy with memory")
_heads.add("mlp-categorical", lambda s: CategoricalHead(s.actions))
_heads.add("mlp-multi-categorical", lambda s: MultiCategoricalHead(s.parts))
_heads.add("mlp-bernoulli", lambda s: BernoulliHead(s.actions))
_heads.add("mlp-gaussian", lambda s: GaussianHead(jnp.full(s.actions, s.initial_log_std, jnp.float32)))
