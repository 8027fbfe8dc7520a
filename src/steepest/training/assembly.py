"""From a configuration to the parts of a run: an algorithm, an agent, a critic, a learner."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PRNGKeyArray

from steepest.agent import Agent
from steepest.algorithms import Algorithm
from steepest.algorithms.algorithm import update
from steepest.batch import Batch, Cost
from steepest.chunks import each
from steepest.critics import (
    AdamFit,
    Critic,
    CriticFit,
    MlpValue,
    NaturalFit,
    NetworkValue,
    SharedValue,
    StateValue,
    count_features,
    recurrent_value,
    trust_region,
    unmasked,
)
from steepest.distributions import Product
from steepest.errors import UsageError
from steepest.geometry import (
    EntropyRegularised,
    Subsampled,
    Trajectory,
    empirical_fisher,
    euclidean,
    expected_advantage,
    fisher,
    self_normalised,
    trajectory,
)
from steepest.linear import ConjugateGradient
from steepest.normaliser import Normaliser
from steepest.policies.encoder import left_alone
from steepest.policies.images import is_image
from steepest.policies.masked import with_mask
from steepest.policies.specification import PolicySpec
from steepest.policies.trunks import Layers, is_simple, network_for
from steepest.sampling.rows import memories
from steepest.sequences import Sequences, is_recurrent
from steepest.spaces import Box, Discrete, Joint, Masked, MultiDiscrete, Space, seen, seen_shape
from steepest.training.config import CriticConfig, TrainConfig
from steepest.training.learner import Learner

_ANY_POLICY = (euclidean, fisher, empirical_fisher, trajectory)
"""Metrics that every policy has."""


def build_agent(config: TrainConfig, observation: Space, action: Space, policy: Any, key: PRNGKeyArray) -> Agent:
    """A fresh agent for the spaces.  policy: the user's own module, or None for the built-in one."""
    spec = None
    if policy is None:
        given = config.policy
        log_std = 0.0 if given.initial_log_std is None else given.initial_log_std
        networks = {
            "head_gain": given.head_gain,
            "activation": given.activation,
            "initialisation": given.initialisation,
            "norm": given.layer_norm,
            "distribution": given.distribution,
            "state_dependent_std": given.state_dependent_std,
            "memory": given.memory,
            "memory_units": given.memory_units,
            "memory_span": given.memory_span,
        }
        spec = PolicySpec.for_spaces(
            observation, action, given.hidden, log_std, given.network, given.channels, **networks
        )
        policy = spec.build(key)
    policy = with_mask(policy, observation)
    check_policy(policy, observation, action)
    statistics = _statistics(observation, spec) if config.sampling.normalise_observations else None
    return Agent(policy, observation, action, statistics, spec)


def _statistics(observation: Space, spec: PolicySpec | None) -> Normaliser | None:
    """None yet, of observations that running statistics make sense of: not of states, nor of pixels that a network of
    images takes."""
    own = seen(observation)
    if isinstance(own, Joint):
        alone = left_alone(own)
        return None if alone.all() else Normaliser.empty(own.shape, alone)
    pixels = own.inside is np.uint8 or (is_image(own) and spec is not None and spec.network != "mlp")
    return Normaliser.empty(seen_shape(observation)) if isinstance(own, Box) and not pixels else None


def check_policy(policy: Any, observation: Space, action: Space) -> None:
    """Raise UsageError unless the policy maps an observation to a distribution over the actions."""
    obs = example(observation)
    try:
        says = _check_memory if is_recurrent(policy) else lambda policy, x: jax.eval_shape(lambda x: policy(x), x)
        distribution = says(policy, obs)
        sample = jax.eval_shape(lambda d, k: d.sample(k), distribution, jax.random.key(0))
    except (TypeError, ValueError, AttributeError) as error:
        raise UsageError(
            f"the policy does not map an observation of shape {observation.shape} to a distribution: {error}"
        ) from error
    if sample.shape != action.shape:
        raise UsageError(f"the policy's actions have shape {sample.shape}, the environment takes {action.shape}")
    _check_parts(distribution, action)


def _check_parts(distribution: Any, action: Space) -> None:
    sizes = getattr(distribution, "sizes", None)
    if isinstance(action, MultiDiscrete) and sizes is not None and sizes != action.sizes:
        raise UsageError(f"the policy's parts have {sizes} actions, the environment's {action.sizes}")
    logits = getattr(distribution, "logits", None)
    if isinstance(action, Discrete) and logits is not None and logits.shape[-1] != action.n:
        raise UsageError(f"the policy has {logits.shape[-1]} actions, the environment {action.n}")
    if isinstance(action, Joint) and isinstance(distribution, Product):
        shapes, theirs = (
            distribution.shapes,
            tuple((math.prod(part.shape),) * (part.shape != ()) for part in action.parts),
        )
        if shapes != theirs:
            raise UsageError(f"the policy's parts have actions of shapes {shapes}, the environment's {theirs}")
        for part, own in zip(distribution.parts, action.parts, strict=True):
            _check_parts(part, own)


def _check_memory(policy: Any, obs: Any) -> Any:
    """The shape of what a policy that remembers says. Raises UsageError for a memory that changes its form."""
    before = jax.eval_shape(policy.initial)
    after, distribution = jax.eval_shape(policy.step, before, obs)
    forms = [jax.tree.map(lambda x: (x.shape, x.dtype.name), memory) for memory in (before, after)]
    if forms[0] != forms[1]:
        raise UsageError(f"step must return a memory of the form of initial(), {forms[0]}, got {forms[1]}")
    return distribution


def check_update(algorithm: Algorithm, policy: Any, config: TrainConfig, observation: Space) -> None:
    """Raise UsageError where the algorithm has no update of this policy: too many rows, a layer that it does not know.

    Traced, not run; where any policy will do there is nothing to look at.
    """
    metric = algorithm.metric.metric if isinstance(algorithm.metric, Subsampled) else algorithm.metric
    if isinstance(algorithm.solver, ConjugateGradient | None) and metric in _ANY_POLICY:
        return
    rows, obs = config.batch, example(observation)
    compared = config.vine.actions if config.sampling.scheme == "vine" else 1
    assert compared is not None

    def first(policy: Any) -> Any:
        seen: Any = jnp.zeros((rows, *obs.shape), obs.dtype)
        if is_recurrent(policy):
            steps, envs = config.sampling.rollout or 1, config.sampling.envs or 1
            fresh = jnp.zeros((steps, envs), bool)
            seen = Sequences(seen.reshape(steps, envs, *obs.shape), fresh, memories(policy, envs))
        action = each(policy, seen).mode()
        actions = jnp.stack([action] * compared, axis=1)
        per_row, per_sample = jnp.zeros(rows), jnp.zeros((rows, compared))
        cost = Cost(per_sample, jnp.zeros(()))
        batch = Batch(seen, per_row, actions, per_sample, per_sample, jnp.zeros(rows, jnp.int32), cost)
        return update(algorithm, policy, algorithm.init(policy), batch, jax.random.key(0))

    eqx.filter_eval_shape(first, policy)


def example(observation: Space) -> np.ndarray:
    """An observation of the right shape and dtype."""
    return np.zeros(observation.shape, observation.inside)


def build_critic(config: TrainConfig, observation: Space, policy: Any, key: PRNGKeyArray) -> Critic:
    """A fresh value function for the observations.  policy: upon whose network a shared one stands.

    Raises UsageError where that one has nothing to share.
    """
    given = config.critic
    if given.network == "shared":
        how = Layers(given.activation, given.initialisation, given.layer_norm).settled("tanh")
        layers: Any = {"activation": how.activation, "initialisation": how.initialisation, "norm": how.norm}
        return SharedValue(count_features(policy, example(observation)), given.hidden, **layers, key=key)
    remembers = given.memory not in (None, "none")
    if isinstance(observation, Masked):
        return unmasked(build_critic(config, observation.observation, policy, key), observation.form)
    network = config.policy.network if given.network == "auto" else given.network
    how = Layers(given.activation, given.initialisation, given.layer_norm, config.policy.channels)
    if remembers:
        units = 64 if given.memory_units is None else given.memory_units
        own: Any = {"network": network, "how": how, "memory": given.memory, "units": units}
        own["span"] = config.policy.memory_span
        return recurrent_value(observation, given.hidden, **own, key=key)
    if not is_simple(observation, network_for(observation, network, how.channels)):
        return NetworkValue.for_space(observation, given.hidden, network=network, how=how, key=key)
    activation = how.settled("tanh").activation
    layers = {"activation": activation, "initialisation": how.initialisation, "norm": how.norm}
    if isinstance(observation, Discrete):
        return StateValue(observation.n, given.hidden, **layers, key=key)
    return MlpValue(math.prod(observation.shape), given.hidden, **layers, key=key)


def build_fit(config: CriticConfig) -> CriticFit:
    """How the critic of a resolved configuration is fitted."""
    if config.fit == "gauss-newton":
        solver, step = ConjugateGradient(config.newton_products), trust_region(config.newton_delta)
        return NaturalFit(config.newton_steps, solver=solver, step=step, damping=config.newton_damping)
    assert config.epochs is not None
    return AdamFit(config.learning_rate, config.epochs, config.minibatch)


def build_learner(config: TrainConfig, algorithm: Algorithm) -> Learner:
    """The learner of a resolved configuration."""
    gamma, gae_lambda = config.sampling.gamma, config.sampling.gae_lambda
    assert gamma is not None
    assert gae_lambda is not None
    fit = build_fit(config.critic)
    if config.sampling.scheme == "vine":
        algorithm = _for_vine(algorithm)
    sampling, limit = config.sampling, config.constraint
    learner = Learner(algorithm, fit, gamma, gae_lambda, sampling.centre_advantages, sampling.segment)
    if limit.cost_limit is None:
        return learner
    assert limit.cost_gamma is not None
    assert limit.cost_gae_lambda is not None
    return dataclasses.replace(learner, cost_gamma=limit.cost_gamma, cost_gae_lambda=limit.cost_gae_lambda)


def _for_vine(algorithm: Algorithm) -> Algorithm:
    """The algorithm with the objective that compares the actions of a state, where it had the plain surrogate.

    Raises UsageError for a metric on paths, as a vine's rows are states, each with several actions, and for an
    objective with entropy.
    """
    if _holds(algorithm.metric, Trajectory):
        raise UsageError(f"{algorithm.name} measures whole paths, and a vine has none: use trpo, or a single path")
    if _holds(algorithm.objective, EntropyRegularised):
        raise UsageError("a vine's branches have no entropy in their rewards: use a single path, or leave entropy out")
    plain = algorithm.objective == expected_advantage
    return dataclasses.replace(algorithm, objective=self_normalised) if plain else algorithm


def _holds(part: Any, kind: type) -> bool:
    """Whether a part of an algorithm is of a kind, or one within it."""
    within = [getattr(part, f.name) for f in dataclasses.fields(part)] if dataclasses.is_dataclass(part) else []
    return isinstance(part, kind) or any(_holds(inner, kind) for inner in within)
