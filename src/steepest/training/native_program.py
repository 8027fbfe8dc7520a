"""Iterations of a run as one program: collect → statistics → prepare → change → fit, again and again, not on the host.

    run(tables, carry, seeds, live, first, count) → (carry, reports, done, broken)

The arithmetic is the learner's own; the number of iterations is an argument, so that one program serves every stretch
between two moments at which the host has something to do. With several seeds each iteration is theirs at once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from steepest.batch import Rollout
from steepest.distributions import FromNoise
from steepest.sampling.acting import normalise
from steepest.sampling.moments import Moments, discounted_sums
from steepest.sampling.unroll import unroll
from steepest.sequences import advance, initial_memory, is_recurrent
from steepest.spaces import Box, Masked, choices, forbids_all
from steepest.training.engine import ACT, FIT, key_of
from steepest.training.iteration import Given, IterationInfo, LearnerState
from steepest.training.learner import Learner, change, fit_critics, prepare
from steepest.worlds.functional.copies import Copies


class RewardMoments(NamedTuple):
    """moments: of the discounted sums of rewards.  running: [B], those of the episodes under way."""

    moments: Moments
    running: Array


class Carry(NamedTuple):
    """A run between two iterations, on the device.

    learner: the arrays of a `LearnerState`.  underway: an `Underway`, the copies and their episodes.  seen: of the
    observations, and rewards: of the rewards; None where they are not kept.
    """

    learner: Any
    underway: Any
    seen: Moments | None
    rewards: RewardMoments | None


class Packed(eqx.Module):
    """Arrays of one shape as one array, since each array that a program keeps is a piece of code to be compiled.

    values: float32, the arrays on a last axis; whole numbers below 2²⁴ and flags are kept.
    """

    values: Any
    structure: Any = eqx.field(static=True)
    dtypes: tuple[Any, ...] = eqx.field(static=True)

    @classmethod
    def of(cls, tree: Any) -> Packed:
        """The leaves of a pytree."""
        leaves, structure = jax.tree.flatten(tree)
        values = jnp.stack([jnp.asarray(leaf, jnp.float32) for leaf in leaves], axis=-1)
        return cls(values, structure, tuple(leaf.dtype for leaf in leaves))

    def unpacked(self, whole: int) -> Any:
        """The pytree of the first `whole` iterations, on the host."""
        values = np.asarray(self.values)[:whole]
        leaves = [values[..., i].astype(dtype) for i, dtype in enumerate(self.dtypes)]
        return jax.tree.unflatten(self.structure, leaves)


class Report(NamedTuple):
    """One iteration.  numbers: packed (info as the learner gives it, the scale of the rewards that was used).
    episodes: packed (ends, whether they terminated), [T,B] of the rollout."""

    numbers: Packed
    episodes: Packed


def compile_iterations(
    learner: Learner, rest: Any, copies: Copies, *, steps: int, capacity: int, most_failures: int, many: bool
) -> Callable[..., tuple[Carry, Report, Array, Array]]:
    """(tables, carry, seeds, live, first, count) ↦ (the carry after, the reports of `done` iterations, done, broken).

    rest: what of the learner's state is no array.  steps: T.  capacity: count at most, the length of the reports.
    most_failures: updates in a row that kept the policy, at which to stop.  many: carry, seeds and live have a leading
    axis of runs, and so have the reports, after that of the iterations.

    seeds: uint32.  live: bool, whether the run may stop the others.  first: the number of the first iteration.
    It stops early after an iteration in which a live run failed too often, or broke; broken: [3,B] in the last
    iteration, whose action, observation or reward was not finite.
    """

    def iteration(tables: Any, carry: Carry, seed: Array, number: Array) -> tuple[Carry, Report, Array]:
        return _iterate(learner, rest, copies, steps, tables, carry, seed, number)

    # compiled by itself only so that it is traced once
    each = jax.jit(jax.vmap(iteration, (None, 0, 0, None)) if many else iteration)

    def run(tables: Any, carry: Carry, seeds: Array, live: Array, first: Array, count: Array) -> Any:
        _, one, fine = jax.eval_shape(each, tables, carry, seeds, first)
        reports = jax.tree.map(lambda like: jnp.zeros((capacity, *like.shape), like.dtype), one)

        def goes_on(loop: Any) -> Array:
            done, stopped, *_ = loop
            return (done < count) & ~stopped

        def go_on(loop: Any) -> Any:
            done, _, _, carry, reports = loop
            carry, report, broken = each(tables, carry, seeds, first + done)
            reports = jax.tree.map(
                lambda all, one: jax.lax.dynamic_update_index_in_dim(all, one, done, 0), reports, report
            )
            failing = carry.learner.algorithm.failures >= most_failures
            return done + 1, jnp.any(live & (failing | jnp.any(broken, axis=(-2, -1)))), broken, carry, reports

        start = jnp.zeros((), jnp.int32), jnp.zeros((), bool), jnp.zeros(fine.shape, bool), carry, reports
        done, _, broken, carry, reports = jax.lax.while_loop(goes_on, go_on, start)
        return carry, reports, done, broken

    return jax.jit(run)


def _iterate(
    learner: Learner, rest: Any, copies: Copies, steps: int, tables: Any, carry: Carry, seed: Array, number: Array
) -> tuple[Carry, Report, Array]:
    state: LearnerState = eqx.combine(carry.learner, rest)
    (underway, given, ends, seen, rewards), broken = collected(
        learner, rest, copies, steps, tables, carry, seed, number
    )
    prepared, lesson = prepare(learner, state, given)
    state, step = change(learner, state, given, prepared)
    state, fit, cost_fit = fit_critics(learner, state, lesson)
    after = Carry(eqx.filter(state, eqx.is_array), underway, seen, rewards)
    info = IterationInfo(step, fit, prepared.spread, cost_fit)
    return after, packed(info, given.reward_scale, ends, given.rollout.terminated), broken


def packed(info: IterationInfo, reward_scale: Array, ends: Any, terminated: Array) -> Report:
    """The report of an iteration."""
    return Report(Packed.of((info, reward_scale)), Packed.of((ends, terminated)))


def collected(
    learner: Learner, rest: Any, copies: Copies, steps: int, tables: Any, carry: Carry, seed: Array, number: Array
) -> tuple[Any, Array]:
    """(what `collect` gives, [3,B] of each copy, whether an action, an observation or a reward was not what it must
    be)."""
    found = collect(learner, rest, copies, steps, tables, carry, seed, number)
    return found, _broken(copies, found[1].rollout)


def collect(
    learner: Learner, rest: Any, copies: Copies, steps: int, tables: Any, carry: Carry, seed: Array, number: Array
) -> tuple[Any, Given, Any, Moments | None, RewardMoments | None]:
    """(the copies after it, what the update is given, the episodes that ended, and both kinds of moments after it)."""
    state: LearnerState = eqx.combine(carry.learner, rest)
    acted = None if carry.seen is None else carry.seen.scaling()
    acting, fitting = jax.vmap(key_of, (None, 0, None))(seed, jnp.array([ACT, FIT]), number)

    policy: Any = state.policy

    def said(obs: Any, memory: Any = None) -> Any:
        seen = normalise(acted, obs)
        return (jax.vmap(policy)(seen), None) if memory is None else advance(policy, memory, seen)[::-1]

    like, _ = jax.eval_shape(said, carry.underway.stand.obs, carry.underway.memory)
    noise = isinstance(like, FromNoise)

    def act(obs: Any, drawn: Any, memory: Any = None) -> Any:
        distribution, after = said(obs, memory)
        action = distribution.from_noise(drawn) if noise else distribution.sample(drawn)
        return action if memory is None else (action, after)

    draw = like.noise if isinstance(like, FromNoise) else lambda key: key
    first = initial_memory(policy) if is_recurrent(policy) else None
    underway, rollout, ends = unroll(copies, tables, act, carry.underway, acting, steps, draw, first)
    rollout = rollout._replace(cost=None)  # where a cost is limited, another engine is at work
    seen = None if carry.seen is None else carry.seen.updated(rollout.obs.reshape(-1, *rollout.obs.shape[2:]))
    refreshed = None if seen is None else seen.scaling()
    rewards = None if carry.rewards is None else _with_rewards(carry.rewards, rollout, learner.gamma)
    reward_scale = jnp.ones(()) if rewards is None else rewards.moments.deviation()
    return underway, Given(rollout, acted, refreshed, reward_scale, fitting), ends, seen, rewards


def _with_rewards(kept: RewardMoments, rollout: Rollout, gamma: float) -> RewardMoments:
    done = rollout.terminated | rollout.truncated
    running, sums = discounted_sums(kept.running, rollout.reward, done, gamma)
    return RewardMoments(kept.moments.updated(sums.ravel()), running)


def _broken(copies: Copies, rollout: Rollout) -> Array:
    """As of `collected`."""
    obs, form = rollout.next_obs, copies.observation
    wrong = ~jnp.isfinite(obs)
    if not isinstance(form, Box):
        wrong |= np.isfinite(form.counts) & ((obs < 0) | (obs >= form.counts))
    if isinstance(form, Masked):  # what was acted on must allow something
        mask = form.form.split(rollout.obs)[1]
        wrong = wrong | forbids_all(mask, choices(copies.action))[..., None]
    flags = ~jnp.isfinite(rollout.action), wrong, ~jnp.isfinite(rollout.reward)
    return jnp.stack([jnp.any(flag, axis=tuple(a for a in range(flag.ndim) if a != 1)) for flag in flags])
