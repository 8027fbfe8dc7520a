"""Iterations of one run on two processors: its parts as programs, the critic's fit beside the rest.

    prepare ─┬→ change the policy → collect ─┬→ prepare …
             └→ fit the critics ─────────────┘

XLA runs the parts of one program one after the other, and such small ones on one processor (`native_program`): here the
fit and all else take one each. Nothing is off-policy, as the critic is not needed to act. The functions are the same.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import numpy as np
from jax import Array

from steepest.training.beside import beside
from steepest.training.iteration import IterationInfo
from steepest.training.learner import OF_CRITICS, Learner, change, fit_critics, prepare
from steepest.training.native_program import Carry, Packed, Report, collected, packed
from steepest.worlds.functional.copies import Copies


def compile_paired(
    learner: Learner, rest: Any, copies: Copies, *, steps: int, most_failures: int
) -> Callable[..., tuple[Carry, Report, int, Array]]:
    """As `compile_iterations`, of a single run whose critics are not upon the policy's network."""

    def prepared(arrays: Any, given: Any) -> Any:
        return prepare(learner, eqx.combine(arrays, rest), given)

    def changed(arrays: Any, given: Any, made: Any) -> Any:
        state, step = change(learner, eqx.combine(arrays, rest), given, made)
        return eqx.filter(state, eqx.is_array), step

    def fitted(arrays: Any, lesson: Any) -> Any:
        state, fit, cost_fit = fit_critics(learner, eqx.combine(arrays, rest), lesson)
        critics = {name: getattr(state, name) for name in OF_CRITICS}
        return eqx.filter(critics, eqx.is_array), fit, cost_fit

    collecting = jax.jit(lambda *these: collected(learner, rest, copies, steps, *these))
    preparing, changing, fitting, reporting = map(jax.jit, (prepared, changed, fitted, packed))

    def run(tables: Any, carry: Carry, seed: Any, live: Any, first: Any, count: Any) -> Any:
        reports: list[Report] = []
        unreported, stopped, broken = None, False, None
        ahead, done = collecting(tables, carry, seed, first), 0
        while done < count and not stopped:
            done += 1
            (underway, given, ends, seen, rewards), broken = ahead
            made, lesson = preparing(carry.learner, given)
            finish = beside(fitting, carry.learner, lesson)
            arrays, step = changing(carry.learner, given, made)
            carry = Carry(arrays, underway, seen, rewards)
            if done < count:  # with the critics of before, which do not act; forgotten where the stretch stops
                ahead = collecting(tables, carry, seed, np.int32(first + done))
            if unreported is not None:  # while both processors are busy
                reports.append(reporting(*unreported))
            stopped = live and (int(arrays.algorithm.failures) >= most_failures or np.any(np.asarray(broken)))
            critics, fit, cost_fit = finish()
            carry = carry._replace(learner=arrays._replace(**critics))
            info = IterationInfo(step, fit, made.spread, cost_fit)
            unreported = info, given.reward_scale, ends, given.rollout.terminated
        assert unreported is not None
        reports.append(reporting(*unreported))
        return carry, _stacked(reports), done, broken

    return run


def _stacked(reports: list[Report]) -> Report:
    """One report with a leading axis of iterations, on the host."""
    return Report(*(
        Packed(np.stack([np.asarray(part.values) for part in parts]), parts[0].structure, parts[0].dtypes)
        for parts in zip(*reports, strict=True)
    ))  # fmt: skip
