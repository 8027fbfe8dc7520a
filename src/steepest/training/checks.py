"""What of a configuration cannot be meant: said before anything is made or written."""

from __future__ import annotations

import dataclasses
import math

from steepest.errors import UsageError
from steepest.training.config import LONGEST, TrainConfig


def check(config: TrainConfig) -> None:
    """Raise UsageError for a value that cannot be meant. `None` passes: a rule will fill it."""
    _at_least("steps", config.steps, 1)
    check_seed(config.seed)
    _at_least("checkpoint_every", config.checkpoint_every, 1)
    _at_least("keep_checkpoints", config.keep_checkpoints, 1)
    _at_least("max_failures", config.max_failures, 1)
    if config.update.delta is not None:
        _positive("delta", config.update.delta)
    _at_least("cg_iterations", config.update.cg_iterations, 1)
    if config.update.delta_final is not None:
        _positive("delta_final", config.update.delta_final)
    if not 0 <= config.update.momentum < 1:
        raise UsageError(f"momentum must be in [0, 1), got {config.update.momentum}")
    if config.update.subsample is not None and not 0 < config.update.subsample <= 1:
        raise UsageError(f"subsample must be in (0, 1], got {config.update.subsample}")
    if not 0 <= config.update.entropy < math.inf:
        raise UsageError(f"entropy must be a finite number ≥ 0, got {config.update.entropy}")
    if config.update.damping == 0 and config.update.damping_rule != "fixed":
        raise UsageError(f"damping_rule={config.update.damping_rule} needs a damping > 0 to start from, got 0")
    _at_least("backtracks", config.update.backtracks, 0)
    _at_least("chunk", config.update.chunk, 1)
    if config.update.damping is not None and not 0 <= config.update.damping < math.inf:
        raise UsageError(f"damping must be a finite number ≥ 0, got {config.update.damping}")
    if not 0 < config.update.shrink < 1:
        raise UsageError(f"shrink must be between 0 and 1, got {config.update.shrink}")
    for name in ("gamma", "gae_lambda"):
        value = getattr(config.sampling, name)
        if value is not None and not 0 <= value <= 1:
            raise UsageError(f"{name} must be in [0, 1], got {value}")
    for name in ("envs", "rollout", "group", "segment"):
        _at_least(name, getattr(config.sampling, name), 1)
    _at_least("workers", config.sampling.workers, 0)
    _at_least("faults", config.sampling.faults, 0)
    _positive("timeout", config.sampling.timeout)
    _check_vine(config)
    _check_constraint(config)
    if config.update.entropy and config.sampling.scheme == "vine":
        raise UsageError("entropy is added to the rewards of a single path: leave --scheme at single-path")
    if config.policy.initial_log_std is not None and not math.isfinite(config.policy.initial_log_std):
        raise UsageError(f"initial_log_std must be finite, got {config.policy.initial_log_std}")
    if config.policy.distribution == "beta" and config.policy.state_dependent_std:
        raise UsageError("state_dependent_std is of Gaussians; a Beta depends on the state anyway: leave it out")
    _positive("head_gain", config.policy.head_gain)
    for part, hidden in (("policy", config.policy.hidden), ("critic", config.critic.hidden)):
        if any(n < 1 for n in hidden):
            raise UsageError(f"{part}.hidden needs layers of at least 1 unit, got {hidden}")
    _at_least("policy.memory_units", config.policy.memory_units, 1)
    _at_least("policy.memory_span", config.policy.memory_span, 2)
    if config.policy.memory_span is not None and config.policy.memory_span > LONGEST:
        raise UsageError(f"policy.memory_span must be at most {LONGEST}, got {config.policy.memory_span:.6g}")
    if config.policy.memory_span is not None and {config.policy.memory, config.critic.memory} <= {"none", None}:
        raise UsageError("policy.memory_span says nothing without a memory: add --policy.memory gru, or leave it out")
    _at_least("critic.memory_units", config.critic.memory_units, 1)
    critic_in_vine = config.sampling.scheme == "vine" and config.critic.memory in ("gru", "lstm")
    if config.policy.memory != "none" or critic_in_vine:
        check_memory(config)
    if config.critic.network == "shared" and {config.policy.memory, config.critic.memory} & {"gru", "lstm"}:
        raise UsageError(
            "a shared critic stands on a network without memory: leave critic.network at auto, with memory of its own"
        )
    _positive("critic.learning_rate", config.critic.learning_rate)
    _at_least("critic.epochs", config.critic.epochs, 1)
    _at_least("critic.minibatch", config.critic.minibatch, 1)
    _at_least("critic.newton_steps", config.critic.newton_steps, 1)
    _at_least("critic.newton_products", config.critic.newton_products, 1)
    _positive("critic.newton_delta", config.critic.newton_delta)
    _positive("critic.newton_damping", config.critic.newton_damping)
    _at_least("evaluation.every", config.evaluation.every, 0)
    _at_least("evaluation.episodes", config.evaluation.episodes, 1)
    _at_least("evaluation.final_episodes", config.evaluation.final_episodes, 1)
    minibatch = config.critic.minibatch if config.critic.fit == "adam" else 1
    if config.sampling.envs and config.sampling.rollout and config.batch % minibatch:
        raise UsageError(
            f"a batch of {config.sampling.envs} environments × {config.sampling.rollout} steps = {config.batch} rows "
            f"is not divisible into minibatches of {config.critic.minibatch}; try critic.minibatch="
            f"{math.gcd(config.batch, config.critic.minibatch)}"
        )


def check_memory(config: TrainConfig) -> None:
    """Raise UsageError for what takes rows of a batch one by one, and so cannot be had with a policy that remembers."""
    update = config.update
    refused: dict[str, tuple[bool, str]] = {
        "scheme=vine": (config.sampling.scheme == "vine", "scheme at single-path"),
        "metric=kronecker": (update.metric == "kronecker", "metric at fisher"),
        "solver=kronecker": (update.solver == "kronecker", "solver at auto"),
        "acktr": (config.algorithm == "acktr", "the Kronecker metric to policies without memory: trpo or npg"),
        f"preconditioner={update.preconditioner}": (update.preconditioner != "none", "preconditioner at none"),
    }
    for name, (given, instead) in refused.items():
        if given:
            raise UsageError(
                f"{name} takes rows one by one, and those of a policy with memory are a path: leave {instead}"
            )


def _check_vine(config: TrainConfig) -> None:
    vine = config.vine
    given = [name for name, value in dataclasses.asdict(vine).items() if value is not None]
    if given and config.sampling.scheme != "vine":
        raise UsageError(f"vine.{given[0]} says nothing of a single path: add --scheme vine, or leave it out")
    _at_least("vine.states", vine.states, 1)
    _at_least("vine.actions", vine.actions, 2)
    _at_least("vine.length", vine.length, 1)
    if vine.states is not None and config.batch and vine.states > config.batch:
        raise UsageError(
            f"vine.states must be at most the {config.sampling.envs} environments × {config.sampling.rollout} steps = "
            f"{config.batch} rows of the rollout, got {vine.states}"
        )


def _check_constraint(config: TrainConfig) -> None:
    limit = config.constraint.cost_limit
    for name in ("cost_gamma", "cost_gae_lambda"):
        value = getattr(config.constraint, name)
        if value is not None and limit is None:
            raise UsageError(f"{name} says nothing without a limit: set cost_limit too, or leave it out")
        if value is not None and not 0 <= value <= 1:
            raise UsageError(f"{name} must be in [0, 1], got {value}")
    if limit is not None and not math.isfinite(limit):
        raise UsageError(f"cost_limit must be a finite number, got {limit}")
    if limit is not None and config.sampling.scheme == "vine":
        raise UsageError("a vine's branches report no costs: leave --scheme at single-path, or cost_limit out")


def check_seed(seed: int) -> None:
    """Raise UsageError for a seed that JAX's random keys would fold onto another."""
    if not 0 <= seed < 2**32:
        raise UsageError(f"seed must be at least 0 and less than 2³², got {seed}")


def _at_least(name: str, value: int | None, least: int) -> None:
    if value is not None and value < least:
        raise UsageError(f"{name} must be at least {least}, got {value}")


def _positive(name: str, value: float) -> None:
    if not (value > 0 and math.isfinite(value)):
        raise UsageError(f"{name} must be a finite number > 0, got {value}")
