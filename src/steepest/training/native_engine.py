"""The engine for functional worlds: a stretch of iterations, and the host sees what came of each.

It is one program; of a single run, on a CPU of two processors or more, with a critic that takes its time, it is the
same functions in two threads.

A stretch ends where the loop has something to do: at an evaluation, a checkpoint, the end; after about `SECONDS`, so
that progress is seen and a signal heard. How long it is changes no number. Runs that differ by their seed alone can
share the program, each with the numbers of its own.
"""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PRNGKeyArray

from steepest import trees
from steepest.errors import RunError
from steepest.geometry import Reason
from steepest.parameters import split
from steepest.runs.checkpoint import flatten, restore
from steepest.sampling.moments import Moments
from steepest.sampling.reward_scale import RewardScale
from steepest.sampling.rollout import Episode
from steepest.sampling.unroll import Ends, Underway, begin
from steepest.sequences import initial_memory, is_recurrent
from steepest.spaces import Masked
from steepest.training.beside import two_processors
from steepest.training.config import TrainConfig
from steepest.training.engine import RESET, Advanced, Before, Row, key_of
from steepest.training.iteration import Given, IterationInfo, LearnerState
from steepest.training.learner import Learner, is_shared
from steepest.training.metrics import of_iteration
from steepest.training.native_pair import compile_paired
from steepest.training.native_program import Carry, RewardMoments, collect, compile_iterations
from steepest.training.persistence import Progress, Snapshot
from steepest.training.standing import PREFIX, Stands, Stored
from steepest.worlds.functional.world import FunctionalWorld

SECONDS = 0.5
BESIDE = 10**7
"""Rows of all epochs times parameters from which on a fit is made beside the rest. On two cores an iteration takes
7 ms instead of 10 for gymnax's CartPole-v1, of 4.6·10⁷, and 5.9 ms instead of 5.1 for mdp:two-state, of 2·10⁴."""
_ROWS = 2**20
"""Rows of which the episodes are held on the device."""


class NativeRuns:
    """Runs that are advanced together.

    config: resolved, that of one of them.  seeds: of each.  learner: what improves.  world: whose copies are taken; it
    is not stepped.  stepwise: one iteration at a time, for callbacks that look at the agent after each.
    """

    def __init__(
        self,
        config: TrainConfig,
        seeds: Sequence[int],
        learner: Learner,
        world: FunctionalWorld,
        *,
        stepwise: bool = False,
    ):
        self._config, self._learner, self._world = config, learner, world
        self._seeds, self._many = np.array(seeds, np.uint32), len(seeds) > 1
        self._capacity = 1 if stepwise else max(1, min(256, _ROWS // (config.batch * len(seeds))))
        self._pace: float | None = None
        self._carry: Carry | None = None
        self._rest: Any = None
        self._run: Any = None
        self._fault: RunError | None = None

    def reset(self, snapshots: Sequence[Snapshot]) -> None:
        """Take the runs up where the snapshots stand; all episodes afresh, but for a run that says where they stood."""
        copies, envs = self._world.copies, self._world.envs

        def first(key: PRNGKeyArray, memory: Any) -> Underway:
            return begin(copies, copies.tables, key, envs, memory)

        iterations = [snapshot.progress.iteration for snapshot in snapshots]
        keys = self._joined([key_of(s, RESET, i) for s, i in zip(self._seeds, iterations, strict=True)])
        policies = [snapshot.learner.policy for snapshot in snapshots]
        memory = self._joined([initial_memory(p) if is_recurrent(p) else None for p in policies])
        underway = jax.jit(jax.vmap(first) if self._many else first)(keys, memory)
        if not self._many:  # several begin together, and are resumed one by one
            underway = _taken_up(snapshots[0].standing, underway)
        parts = [on_device(snapshot) for snapshot in snapshots]
        self._rest = parts[0][1]
        self._carry = self._joined([carry for carry, _ in parts])._replace(underway=underway)

    def advance(self, snapshots: Sequence[Snapshot], live: Sequence[bool]) -> list[Advanced]:
        """A stretch of iterations of all.  snapshots: where the runs stand.  live: those that may stop the others.

        Raises RunError where a live run broke: after the iterations before were given.
        """
        if self._fault is not None:
            raise self._fault
        start = time.perf_counter()
        progress = next(s.progress for s, lives in zip(snapshots, live, strict=True) if lives)
        before, count = self._carry, self._count(progress)
        carry, reports, done, broken = self._stretch(before, live, progress, count)
        whole, broken = int(done), np.asarray(broken).reshape(len(snapshots), 3, -1)
        at_fault = [wrong for wrong, lives in zip(broken, live, strict=True) if lives and wrong.any()]
        if at_fault:
            self._fault, whole = _fault(self._world, at_fault[0]), whole - 1
            if not whole:
                raise self._fault
            carry, reports, *_ = self._stretch(before, live, progress, whole)
        unpacked = tuple(packed.unpacked(whole) for packed in reports)
        seconds = time.perf_counter() - start
        # the first one compiled the program, which says nothing of the others
        self._pace = SECONDS / 8 if self._pace is None else seconds / whole
        self._carry = carry
        share = seconds / whole / len(snapshots)

        def then(snapshot: Snapshot, run: int, i: int) -> Before:
            """Of row i of that run; to make it again takes time, which is for whoever wants to know."""
            assert before is not None
            return Before(_snapshot(snapshot, self._split(before)[run], self._rest, snapshot.progress), None, i)

        return [
            self._advanced(snapshot, mine, self._of_run(unpacked, i), share, functools.partial(then, snapshot, i))
            for i, (snapshot, mine) in enumerate(zip(snapshots, self._split(carry), strict=True))
        ]

    def given(self, snapshot: Snapshot, ahead: int) -> tuple[Any, Given]:
        """What is learnt (a `LearnerState`) so many iterations after a snapshot of the only run, and what the update of
        the next one is given."""
        self.reset([snapshot])
        if ahead:
            self._carry = self._stretch(self._carry, [True], snapshot.progress, ahead)[0]
        copies, steps = self._world.copies, self._config.sampling.rollout or 1
        collected = jax.jit(lambda *these: collect(self._learner, self._rest, copies, steps, *these)[1])
        iteration = np.int32(snapshot.progress.iteration + ahead)
        given: Given = collected(copies.tables, self._carry, self._seeds[0], iteration)
        assert self._carry is not None
        return eqx.combine(self._carry.learner, self._rest), given

    def _advanced(
        self, snapshot: Snapshot, carry: Carry, unpacked: Any, seconds: float, before: Callable[[int], Before]
    ) -> Advanced:
        (infos, scales), ended = unpacked
        rows = _rows(infos, scales, ended, snapshot.progress, self._config.batch, seconds)
        after = _snapshot(snapshot, carry, self._rest, rows[-1].progress)
        return Advanced(after, rows, jax.tree.map(lambda x: x[-1], infos), before)

    def _count(self, progress: Progress) -> int:
        """Iterations until the loop has something to do, or as many as there is time for."""
        config, batch = self._config, self._config.batch
        counts = [self._capacity, -(-(config.steps - progress.steps) // batch)]
        assert config.checkpoint_every is not None
        counts.append(config.checkpoint_every - progress.iteration % config.checkpoint_every)
        if config.evaluation.every:
            counts.append(-(-(config.evaluation.every - progress.steps % config.evaluation.every) // batch))
        counts.append(1 if self._pace is None else int(SECONDS / self._pace))
        return max(1, min(counts))

    def _stretch(self, carry: Carry | None, live: Sequence[bool], progress: Progress, count: int) -> Any:
        if self._run is None:
            assert carry is not None
            parts, most = (self._learner, self._rest, self._world.copies), self._config.max_failures
            steps = self._config.sampling.rollout or 1
            if not self._many and self._pays(eqx.combine(carry.learner, self._rest)):
                self._run = compile_paired(*parts, steps=steps, most_failures=most)
            else:
                many = {"many": self._many, "capacity": self._capacity}
                self._run = compile_iterations(*parts, steps=steps, most_failures=most, **many)
        seeds, alive = (x if self._many else x[0] for x in (self._seeds, np.array(live)))
        tables, first = self._world.copies.tables, np.int32(progress.iteration)
        return self._run(tables, carry, seeds, alive, first, np.int32(count))

    def _pays(self, state: LearnerState) -> bool:
        """Whether a fit beside the rest saves more than several programs cost."""
        work = self._config.batch * (self._config.critic.epochs or 1) * trees.size(split(state.critic)[0])
        return two_processors() and not is_shared(state) and work >= BESIDE

    def _joined(self, trees: Sequence[Any]) -> Any:
        """One tree with a leading axis of runs, where there are several."""
        return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees) if self._many else trees[0]

    def _split(self, carry: Any) -> list[Any]:
        return _pieces(carry, len(self._seeds)) if self._many else [carry]

    def _of_run(self, unpacked: Any, i: int) -> Any:
        return jax.tree.map(lambda x: x[:, i], unpacked) if self._many else unpacked


class NativeStands(NamedTuple):
    """`Stands` of copies on the device."""

    underway: Underway

    def stored(self) -> Stored:
        """See `Stands`."""
        return Stored(None, flatten(self.underway, PREFIX))


def _taken_up(standing: Stands | None, new: Underway) -> Underway:
    """The copies as they stood, or new ones. Raises RunError for what does not fit them."""
    stored = None if standing is None else standing.stored()
    return new if stored is None else restore(new, stored.arrays, PREFIX)


class NativeEngine:
    """`Engine` of one run; parameters as of `NativeRuns`."""

    def __init__(self, config: TrainConfig, learner: Learner, world: FunctionalWorld, *, stepwise: bool = False):
        self._runs = NativeRuns(config, [config.seed], learner, world, stepwise=stepwise)

    def reset(self, snapshot: Snapshot) -> None:
        """See `Engine`."""
        self._runs.reset([snapshot])

    def advance(self, snapshot: Snapshot) -> Advanced:
        """See `Engine`; a stretch of iterations."""
        return self._runs.advance([snapshot], [True])[0]

    def close(self) -> None:
        """See `Engine`."""


def on_device(snapshot: Snapshot) -> tuple[Carry, Any]:
    """A run as it is on the device, but for its copies, and what of the learner's state is no array."""
    state = jax.tree.map(lambda x: jnp.asarray(x) if isinstance(x, np.ndarray) else x, snapshot.learner)
    arrays, rest = eqx.partition(state, eqx.is_array)
    normaliser, scale = snapshot.agent.normaliser, snapshot.reward_scale
    rewards = None
    if scale is not None:
        rewards = RewardMoments(Moments.of(scale.statistics), jnp.asarray(scale.running, jnp.float32))
    return Carry(arrays, None, None if normaliser is None else Moments.of(normaliser), rewards), rest


def _snapshot(before: Snapshot, carry: Carry, rest: Any, progress: Progress) -> Snapshot:
    """Where the run stands after a stretch."""
    learner = eqx.combine(carry.learner, rest)
    normaliser = None if carry.seen is None else carry.seen.on_host()
    scale = None
    if carry.rewards is not None:
        scale = RewardScale(carry.rewards.moments.on_host(), np.asarray(carry.rewards.running, np.float64))
    agent = dataclasses.replace(before.agent, policy=learner.policy, normaliser=normaliser)
    standing = NativeStands(carry.underway)
    return before._replace(agent=agent, learner=learner, reward_scale=scale, progress=progress, standing=standing)


@eqx.filter_jit
def _pieces(carry: Any, count: int) -> list[Any]:
    """What belongs to each run: one program, since to take every array apart by itself would take longer."""
    return [jax.tree.map(lambda x, i=i: x[i], carry) for i in range(count)]


def _rows(
    infos: IterationInfo, scales: np.ndarray, ended: Any, progress: Progress, batch: int, seconds: float
) -> list[Row]:
    """A row for each iteration.  seconds: of one."""
    rows = []
    for i, scale in enumerate(scales):
        info: IterationInfo = jax.tree.map(lambda x, i=i: x[i], infos)
        episodes = _episodes(*jax.tree.map(lambda x, i=i: x[i], ended))
        progress = progress._replace(
            iteration=progress.iteration + 1,
            steps=progress.steps + batch,
            episodes=progress.episodes + len(episodes),
            failures=progress.failures + int(Reason(int(info.step.reason)).failed),
            seconds=progress.seconds + seconds,
        )
        metrics = {
            **of_iteration(info, episodes),
            "reward_scale": float(scale),
            "branch_steps": 0,
            "time/iteration": seconds,
        }
        rows.append(Row(progress, metrics, episodes))
    return rows


def _episodes(ends: Ends, terminated: np.ndarray) -> list[Episode]:
    """Those that ended in a rollout, in order of time and then of environment."""
    t, b = np.nonzero(ends.ended)
    returns, lengths, how = (x[t, b].tolist() for x in (ends.returns, ends.lengths, terminated))
    costs: Sequence[Any] = [None] * len(t) if ends.costs is None else ends.costs[t, b].tolist()
    return list(map(Episode, returns, lengths, b.tolist(), how, costs))


_OUTSIDE = "an observation that is not in its space"


def _fault(world: FunctionalWorld, broken: np.ndarray) -> RunError:
    """broken: [3,B]."""
    kind, env = (int(x) for x in np.argwhere(broken)[0])
    if kind == 0:
        return RunError("the policy chose an action that is not finite")
    masked = isinstance(world.copies.observation, Masked)
    seen = "an observation that is not finite, or a mask that forbids everything" if masked else _OUTSIDE
    what = (seen, "a reward that is not finite")[kind - 1]
    return RunError(f"{world.name}: environment {env} of {world.envs} returned {what}")
