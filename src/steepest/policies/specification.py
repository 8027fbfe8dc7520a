"""A built-in policy as plain data: which class with which sizes. It is what a checkpoint says, and all it can say.

spec = PolicySpec.for_spaces(observation, action, hidden=(64, 64))
policy = spec.build(key)
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import PRNGKeyArray

from steepest.cells import cells
from steepest.distributions import Policy
from steepest.errors import UsageError
from steepest.names import Registry
from steepest.policies.heads import Head, head_for
from steepest.policies.images import is_image
from steepest.policies.masked import with_mask
from steepest.policies.network_policy import NetworkPolicy
from steepest.policies.networks import (
    HEAD_GAIN,
    MlpBernoulli,
    MlpCategorical,
    MlpGaussian,
    MlpMultiCategorical,
    MlpPolicy,
)
from steepest.policies.recurrent import RecurrentNetwork, recurrent_network
from steepest.policies.tabular import TabularSoftmax
from steepest.policies.trunks import Layers, is_simple, network_for
from steepest.spaces import Box, Discrete, Joint, Masked, MultiBinary, MultiDiscrete, Space, seen


@dataclass(frozen=True)
class PolicySpec:
    """kind: a name in `kinds`.  inputs: entries of a (flattened) observation, or the number of states.  actions: how
    many, or the dimension of the action.  hidden: units of each hidden layer.  initial_log_std: ln σ at the start.
    head_gain, activation, initialisation, norm: of the networks, as in `MlpGaussian`.  parts: of a MultiDiscrete
    action, how many values each, `actions` in all.  distribution, state_dependent_std: of boxes, as of `head_for`.
    memory: "gru" or "lstm" behind the network, of memory_units and with memory_span as of `cells`; or "none".
    action: the space, of kind "mlp", which has any head and may remember, and of kind "network", which may too.

    Of the kind "network", a `NetworkPolicy`: network, channels: as of `network_for`, what auto means settled.
    observation: the space; also of what remembers or has a mask. A file has the spaces beside this."""

    kind: str
    inputs: int
    actions: int
    hidden: tuple[int, ...] = (64, 64)
    initial_log_std: float = -0.5
    head_gain: float = HEAD_GAIN
    activation: str = "tanh"
    initialisation: str = "orthogonal"
    parts: tuple[int, ...] = ()
    norm: bool = False
    network: str = "mlp"
    channels: str = "auto"
    distribution: str = "gaussian"
    state_dependent_std: bool = False
    memory: str = "none"
    memory_units: int = 64
    memory_span: int | None = None
    action: Space | None = None
    observation: Space | None = None

    @classmethod
    def for_spaces(
        cls,
        observation: Space,
        action: Space,
        hidden: tuple[int, ...] = (64, 64),
        initial_log_std: float = -0.5,
        network: str = "auto",
        channels: str = "auto",
        **networks: Any,
    ) -> PolicySpec:
        """The policy that fits the spaces: a table from states to actions, else a network.

        network, channels: as of `network_for`.  networks: head_gain, activation (or auto), initialisation, norm,
        distribution, state_dependent_std, memory, memory_units, memory_span. With a memory there is no table: a
        state's number is one-hot.
        """
        remembers = networks.get("memory", "none") != "none"
        if isinstance(observation, Masked):
            given = hidden, initial_log_std, network, channels
            return replace(cls.for_spaces(observation.observation, action, *given, **networks), observation=observation)
        network = network_for(observation, network, channels)
        if isinstance(observation, Discrete) and isinstance(action, Discrete) and not remembers:
            return cls("tabular", observation.n, action.n, (), 0.0)
        if not is_simple(observation, network) or (isinstance(observation, Discrete) and not remembers):
            activation = networks.pop("activation", "auto")
            log_std = initial_log_std if isinstance(action, Box | Joint) else 0.0
            units = () if is_image(observation) and network != "mlp" else tuple(hidden)
            return cls(
                "network", 1, 1, units, log_std, activation=activation, network=network, channels=channels,
                observation=observation, action=action, **networks,
            )  # fmt: skip
        networks = {**networks, "activation": Layers(networks.get("activation", "auto")).settled("tanh").activation}
        inputs = observation.n if isinstance(observation, Discrete) else math.prod(observation.shape)
        spread = networks.get("distribution", "gaussian"), networks.get("state_dependent_std", False)
        bent = isinstance(action, Box) and spread != ("gaussian", False)
        if remembers or bent or isinstance(action, Joint):
            log_std = initial_log_std if isinstance(action, Box | Joint) else 0.0
            outputs = head_for(action, log_std, *spread).outputs
            own = observation if remembers else None
            return cls("mlp", inputs, outputs, tuple(hidden), log_std, action=action, observation=own, **networks)
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
        policy = _remembering(self, key) if self.memory != "none" else kinds[self.kind](self, key)
        return policy if self.observation is None else with_mask(policy, self.observation)

    def to_record(self) -> dict[str, Any]:
        """JSON."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("observation", "action")}

    @classmethod
    def from_record(
        cls, record: dict[str, Any], observation: Space | None = None, action: Space | None = None
    ) -> PolicySpec:
        """The specification in a JSON record; UsageError for an unknown kind or anything that is not one.

        observation, action: the spaces that the file has beside it.
        """
        try:
            memory = str(record.get("memory", "none"))
            seeing = record["kind"] == "network" or memory != "none" or isinstance(observation, Masked)
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
                norm=bool(record.get("norm", False)),
                network=str(record.get("network", "mlp")),
                channels=str(record.get("channels", "auto")),
                distribution=str(record.get("distribution", "gaussian")),
                state_dependent_std=bool(record.get("state_dependent_std", False)),
                memory=memory,
                memory_units=int(record.get("memory_units", 64)),
                memory_span=None if record.get("memory_span") is None else int(record["memory_span"]),
                observation=observation if seeing else None,
                action=action if record["kind"] in ("mlp", "network") else None,
            )
        except (KeyError, TypeError, ValueError) as error:
            raise UsageError(f"not the record of a policy: {record!r:.200} ({error})") from error
        kinds[spec.kind]
        if spec.memory != "none":
            cells[spec.memory]
        return spec

    @property
    def networks(self) -> dict[str, Any]:
        """What the constructors of the networks take of it."""
        names = ("head_gain", "activation", "initialisation", "norm")
        return {name: getattr(self, name) for name in names}

    @property
    def head(self) -> Head:
        """What makes distributions over the actions of the space."""
        assert self.action is not None
        return head_for(self.action, self.initial_log_std, self.distribution, self.state_dependent_std)

    def weights(self) -> int:
        """How many numbers the policy has; see `weights`."""
        return weights(lambda: self.build(jax.random.key(0)))


def weights(build: Callable[[], Any]) -> int:
    """How many numbers are in what `build` gives; it is traced, and nothing is allocated. Raises UsageError where it
    gives nothing."""
    try:
        shapes = jax.tree.leaves(eqx.filter_eval_shape(build))
    except UsageError:
        raise
    except (TypeError, ValueError, OverflowError) as error:
        raise UsageError(f"there is no network of this form: {error!s:.200}") from error
    return sum(math.prod(leaf.shape) for leaf in shapes if isinstance(leaf, jax.ShapeDtypeStruct))


def _network(spec: PolicySpec, key: PRNGKeyArray) -> NetworkPolicy:
    return NetworkPolicy.of(*_given(spec), **_made_as(spec), key=key)


def _remembering(spec: PolicySpec, key: PRNGKeyArray) -> RecurrentNetwork:
    return recurrent_network(*_given(spec), **_made_as(spec), **_memory(spec), key=key)


def _memory(spec: PolicySpec) -> dict[str, Any]:
    return {"memory": spec.memory, "units": spec.memory_units, "span": spec.memory_span}


def _given(spec: PolicySpec) -> tuple[Space, Head, tuple[int, ...]]:
    if spec.observation is None or spec.action is None:
        raise UsageError("a policy of the kind network, or with a memory, has spaces, this one has none")
    return seen(spec.observation), spec.head, spec.hidden


def _made_as(spec: PolicySpec) -> dict[str, Any]:
    how = Layers(spec.activation, spec.initialisation, spec.norm, spec.channels)
    return {"network": spec.network, "how": how, "gain": spec.head_gain}


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
kinds.add("network", _network)
kinds.add("mlp", lambda s, key: MlpPolicy(s.inputs, s.head, s.hidden, **s.networks, key=key))
