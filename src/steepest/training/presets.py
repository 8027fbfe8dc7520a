"""The rule that fills the settings nobody chose: one setting for discrete actions, one for continuous ones.

Settings of single environments are in `tuned.py`, and only taken where they are asked for.

Discrete: after settings for classic control that are common elsewhere. Continuous: tuned on Hopper-v5 at 300 000 steps
by the seeds 30 to 54, among some twenty settings of batch, δ, λ, critic and first σ; and then the first σ on Hopper,
HalfCheetah, Walker2d and Ant at a million steps (`benchmarks/tuning.py`). What mattered most is that σ: one
rule for all, and no setting for one environment alone.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np

from steepest.errors import UsageError
from steepest.spaces import Box, Discrete, Joint, Space, seen
from steepest.training.checks import check, check_memory
from steepest.training.config import TrainConfig, UpdateConfig
from steepest.training.tuned import tuned_settings

DISCRETE: dict[str, Any] = {
    "rows": 1024,
    "update.delta": 0.01,
    "update.damping": 0.1,
    "sampling.envs": 8,
    "sampling.gamma": 0.99,
    "sampling.gae_lambda": 0.98,
    "sampling.normalise_observations": False,
    "sampling.scale_rewards": False,
    "policy.initial_log_std": 0.0,
    "critic.epochs": 20,
}

CONTINUOUS: dict[str, Any] = {
    "rows": 2048,
    "update.delta": 0.03,
    "update.damping": 0.1,
    "sampling.envs": 16,
    "sampling.gamma": 0.99,
    "sampling.gae_lambda": 0.95,
    "sampling.normalise_observations": True,
    "sampling.scale_rewards": True,
    "critic.epochs": 20,
}


def first_log_std(dimension: int) -> float:
    """ln σ at the start, for so many dimensions d of the action: σ = 18/d², at most 1.

    Read off the seeds 200 and 201, δ = 0.03: with σ = 1 HalfCheetah-v5 (d = 6) returned 1756 and Ant-v5 (8) 112; with
    0.6 Hopper-v5 (3) 1567; with 1/3 Walker2d-v5 (6) 2714 and 1731. With this rule the first had 6044 in the mean, the
    last 4525; Ant was not tried with it.
    """
    return math.log(min(1.0, 18 / dimension**2))


FUNCTIONAL: dict[bool, dict[str, Any]] = {
    True: {"rows": 2048, "sampling.envs": 16, "critic.epochs": 5},
    False: {"rows": 2048, "sampling.envs": 16, "critic.epochs": 10},
}
"""In worlds that are programs, where the update takes nearly all of the time; True for discrete actions. Of eleven
settings on gymnax's CartPole-v1, by the seeds 100 to 105 for 150 000 steps: with these all six end at a mean of 500,
and were at 475 after 76 000 at most. With rollouts of 32 steps, or a critic that learns faster, some fall back."""

FISHER_ROWS = 512
"""Rows for the Fisher products that are enough: with a quarter of 2048 the six ended as with all of them."""

GROUP = 8
"""Environments of a group: a larger one spends less on each action, a smaller one can serve more workers."""

PG_DELTA = 0.03
"""δ of pg, whose unit is not the nat: the best of 1e-4, 3e-4, … 0.1 on Hopper-v5, by two seeds that the README does not
show. Shorter steps are slow, longer ones leave the policy that the gradient is that of."""

SEGMENT = 64
"""Steps of a path of the covariant metric: on Hopper-v5, seeds 30 and 31, better than 16, with λ = 1."""

PATH_DAMPING = 1.0
"""λ of covariant for continuous actions: 32 paths say little of thousands of parameters. On Hopper-v5, seeds 30 and 31,
returns of 3202 and 3089, against 1572 and 2508 with 0.1."""


VINE: dict[str, Any] = {"rows": 512, "vine.states": 64, "vine.actions": 4, "vine.length": 5}
"""A short trunk and short branches, since every simulated step counts: of seven settings tried on Hopper-v5 for 150 000
steps with seeds 40 and 41 these gave the highest returns, branches of 50 steps the lowest."""

FEW = 8
"""Actions that are few enough for a branch each."""


PIXELS = 2**24
"""Entries of observations whose derivatives are worked out at a time, 512 images of 84×84×4: ten Fisher products of
Nature's network on so many took 1.2 GiB, and in chunks of 128 0.9 GiB and 1.7 times the time."""

PIXELS_AT_ONCE = 2**26
"""Of a batch of images that a memory is behind, whose sequences are not worked out in chunks: some 5 GiB."""


def resolve(
    config: TrainConfig,
    action: Space,
    envs: int | None = None,
    functional: bool = False,
    observation: Space | None = None,
    *,
    remembers: bool = False,
    agents: int = 1,
) -> TrainConfig:
    """The configuration with every rule applied, and checked.

    action: the space of the environment.  envs: how many environments there are, where the user gave them ready made.
    functional: the world is one.  observation: its space, where that is known.  remembers: the policy is the user's
    own, and does.  agents: rows of each environment, where that is of several agents. Actions of which any entry is a
    real number are continuous.
    """
    check(config)
    memory = config.policy.memory
    if remembers:
        check_memory(config)
        memory = "gru"
    real = math.prod(action.shape) if isinstance(action, Box) else int(np.isinf(action.counts).sum())
    preset = dict(CONTINUOUS if real else DISCRETE)
    if real:
        preset["policy.initial_log_std"] = first_log_std(real)
    native = functional and config.sampling.scheme == "single-path"
    if native:
        preset |= FUNCTIONAL[not real]
    if config.tuned:
        preset |= tuned_settings(config.env)
    if config.algorithm == "pg":
        preset["update.delta"] = PG_DELTA
    if config.algorithm == "covariant" and real:
        preset["update.damping"] = PATH_DAMPING
    if config.sampling.scheme == "vine":
        preset |= VINE
        if isinstance(action, Discrete) and action.n <= FEW:
            preset["vine.actions"] = max(2, action.n)
    preset["sampling.envs"] = math.ceil(preset["sampling.envs"] / agents) * agents if envs is None else envs
    count = config.sampling.envs or preset["sampling.envs"]
    whole = config.critic.minibatch // math.gcd(config.critic.minibatch, count)  # so that minibatches divide the batch
    # the rollout is as long as the number of environments asks for, so that a batch has about so many rows
    preset["sampling.rollout"] = math.ceil(preset.pop("rows") / count / whole) * whole
    rows = count * (config.sampling.rollout or preset["sampling.rollout"])
    preset["sampling.segment"] = max(1, min(SEGMENT, rows // 32))  # 32 paths at least
    if (
        memory == "none"
        and observation is not None
        and (images := PIXELS // max(1, math.prod(observation.shape))) < rows
    ):
        preset["update.chunk"] = max(1, 2 ** int(math.log2(max(1, images))))
    preset["update.subsample"] = 1.0
    preset["critic.memory"] = memory
    preset["critic.memory_units"] = config.policy.memory_units
    if native and memory == "none" and config.algorithm in ("npg", "trpo") and _by_products(config.update):
        preset["update.subsample"] = min(1.0, max(0.25, FISHER_ROWS / rows))
    if config.checkpoint_every is None:
        config = dataclasses.replace(config, checkpoint_every=100 if native else 10)
    for path, value in preset.items():
        part, name = path.split(".")
        if getattr(getattr(config, part), name) is None:
            changed = dataclasses.replace(getattr(config, part), **{name: value})
            config = dataclasses.replace(config, **{part: changed})
    at_once = config.critic.memory not in (None, "none") or (memory != "none" and config.update.chunk is None)
    if observation is not None and at_once:
        _check_images(config.batch, observation)
    if config.constraint.cost_limit is not None:
        given, sampling = config.constraint, config.sampling
        gamma = sampling.gamma if given.cost_gamma is None else given.cost_gamma
        decay = sampling.gae_lambda if given.cost_gae_lambda is None else given.cost_gae_lambda
        constraint = dataclasses.replace(given, cost_gamma=gamma, cost_gae_lambda=decay)
        config = dataclasses.replace(config, constraint=constraint)
    if config.evaluation.every is None:
        evaluation = dataclasses.replace(config.evaluation, every=max(1, config.steps // 10))
        config = dataclasses.replace(config, evaluation=evaluation)
    check(config)
    return config


def _by_products(update: UpdateConfig) -> bool:
    """Whether the natural gradient comes of Fisher products alone."""
    return update.metric == "auto" and update.solver in ("auto", "cg") and update.preconditioner == "none"


def _check_images(rows: int, observation: Space) -> None:
    """Raise UsageError for a batch of images that is too large for a network with memory."""
    pixels = _pixels(observation)
    if rows * pixels > PIXELS_AT_ONCE:
        raise UsageError(
            f"a memory takes all {rows} images of a batch at once, {rows * pixels / PIXELS_AT_ONCE:.1f} times as many "
            f"numbers as fit into some 5 GiB: have at most {PIXELS_AT_ONCE // pixels} rows, by fewer envs or a shorter "
            "rollout; or a critic without memory and a chunk; or leave memory out"
        )


def _pixels(observation: Space) -> int:
    """Numbers of an observation that are of images."""
    own = seen(observation)
    if isinstance(own, Joint):
        return sum(map(_pixels, own.parts))
    return math.prod(own.shape) if isinstance(own, Box) and len(own.shape) > 2 else 0
