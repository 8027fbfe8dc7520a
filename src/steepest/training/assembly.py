"""From a configuration to the parts of a run: an algorithm, an agent, a critic, a learner."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import jax
import numpy as np
from jaxtyping import PRNGKeyArray

from steepest.agent import Agent
from steepest.algorithms import Algorithm, methods
from steepest.critics import AdamFit, Critic, CriticFit, MlpValue, NaturalFit, StateValue, trust_region
from steepest.errors import UsageError
from steepest.geometry import (
    Normalised,
    TrustRegion,
    empirical_fisher,
    expected_advantage,
    fisher,
    self_normalised,
    trajectory,
)
from steepest.linear import Automatic, ConjugateGradient, Direct, SampleSpace, Solver
from steepest.normaliser import Normaliser
from steepest.policies.specification import PolicySpec
from steepest.spaces import Box, Discrete, Space
from steepest.training.config import CriticConfig, TrainConfig, UpdateConfig
from steepest.training.learner import Learner


def build_algorithm(name: str, config: UpdateConfig) -> Algorithm:
    """The algorithm that a name and settings mean. Raises UsageError for an unknown name."""
    method = methods[name]
    algorithm: Algorithm = method() if config.delta is None else method(config.delta)
    step = algorithm.step
    if isinstance(step, Normalised):
        step = dataclasses.replace(step, damped_form=config.damped_form)
    elif isinstance(step, TrustRegion):
        step = dataclasses.replace(
            step, damped_form=config.damped_form, backtracks=config.backtracks, shrink=config.shrink
        )
    if algorithm.solver is None:
        if config.solver != "auto" or config.metric not in ("auto", "fisher"):  # "fisher" was the default once
            raise UsageError(f"{name} has no solver and no Fisher metric: leave solver and metric at their defaults")
        return dataclasses.replace(algorithm, step=step)
    if config.metric != "auto" and algorithm.metric != fisher:
        raise UsageError(f"{name} is npg in a metric of its own: leave metric at auto, or choose npg")
    metrics = {
        "auto": algorithm.metric,
        "fisher": fisher,
        "empirical-fisher": empirical_fisher,
        "trajectory": trajectory,
    }
    solvers: dict[str, Solver] = {
        "auto": _with_iterations(algorithm.solver, config.cg_iterations),
        "cg": ConjugateGradient(config.cg_iterations),
        "direct": Direct(),
        "sample-space": SampleSpace(),
    }
    return dataclasses.replace(
        algorithm,
        metric=metrics[config.metric],
        solver=solvers[config.solver],
        damping=config.damping,
        step=step,
    )


def _with_iterations(solver: Solver, iterations: int) -> Solver:
    if isinstance(solver, Automatic | ConjugateGradient):
        return dataclasses.replace(solver, iterations=iterations)
    return solver


def build_agent(config: TrainConfig, observation: Space, action: Space, policy: Any, key: PRNGKeyArray) -> Agent:
    """A fresh agent for the spaces.  policy: the user's own module, or None for the built-in one."""
    spec = None
    if policy is None:
        log_std = config.policy.initial_log_std
        spec = PolicySpec.for_spaces(observation, action, config.policy.hidden, 0.0 if log_std is None else log_std)
        policy = spec.build(key)
    check_policy(policy, observation, action)
    statistics = config.sampling.normalise_observations and isinstance(observation, Box)
    return Agent(policy, observation, action, Normaliser.empty(observation.shape) if statistics else None, spec)


def check_policy(policy: Any, observation: Space, action: Space) -> None:
    """Raise UsageError unless the policy maps an observation to a distribution over the actions."""
    obs = example(observation)
    try:
        distribution = jax.eval_shape(lambda x: policy(x), obs)
        sample = jax.eval_shape(lambda d, k: d.sample(k), distribution, jax.random.key(0))
    except (TypeError, ValueError, AttributeError) as error:
        raise UsageError(
            f"the policy does not map an observation of shape {observation.shape} to a distribution: {error}"
        ) from error
    if sample.shape != action.shape:
        raise UsageError(f"the policy's actions have shape {sample.shape}, the environment takes {action.shape}")
    logits = getattr(distribution, "logits", None)
    if isinstance(action, Discrete) and logits is not None and logits.shape[-1] != action.n:
        raise UsageError(f"the policy has {logits.shape[-1]} actions, the environment {action.n}")


def example(observation: Space) -> np.ndarray:
    """An observation of the right shape and dtype."""
    return np.zeros((), np.int32) if isinstance(observation, Discrete) else np.zeros(observation.shape, np.float32)


def build_critic(config: TrainConfig, observation: Space, key: PRNGKeyArray) -> Critic:
    """A fresh value function for the observations."""
    if isinstance(observation, Discrete):
        return StateValue(observation.n, config.critic.hidden, key=key)
    return MlpValue(math.prod(observation.shape), config.critic.hidden, key=key)


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
    if config.sampling.scheme == "vine" and algorithm.objective == expected_advantage:
        algorithm = dataclasses.replace(algorithm, objective=self_normalised)
    return Learner(algorithm, fit, gamma, gae_lambda, config.sampling.centre_advantages, config.sampling.segment)
