"""Vine against single path on finite MDPs: the variance of the gradient for the same number of simulator steps.

    python benchmarks/vine.py            # a table, and benchmarks/results/vine-variance.csv; two minutes

The exact gradient is known, so bias and variance are. γ = 1, and branches run to the end of the horizon or for one step
with the exact V; the same two for a single path, with V as its baseline. Trunk and branches are counted.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from steepest import trees
from steepest.batch import Batch
from steepest.geometry import expected_advantage, linearise, self_normalised
from steepest.policies import TabularSoftmax
from steepest.sampling.rollout import Collector
from steepest.sampling.vine import Branches, Trunk, Vine, action_values, batch_from_branches
from steepest.worlds.finite import FiniteHorizonMDP, MDPWorld, chain, grid, random, sample_paths
from steepest.worlds.finite.streams import Streams

HERE = Path(__file__).parent


class Spread(NamedTuple):
    """Of one estimator, over many repeats.

    steps: simulator steps of an estimate, the mean.  bias: ‖mean − g‖/‖g‖, and its standard error.
    variance: E‖ĝ − Eĝ‖²/‖g‖².  per_step: variance × steps: what is left when both spend the same.
    per_state: variance × states of the batch: what is left when both have as many rows.
    """

    mdp: str
    estimator: str
    steps: float
    bias: float
    bias_error: float
    variance: float
    per_step: float
    per_state: float


class Problem:
    """A finite MDP with a policy on it, and what is exact: g = ∇V/H, Q_h, V_h."""

    def __init__(self, name: str, mdp: FiniteHorizonMDP, seed: int = 0):
        self.name, self.mdp = name, mdp
        self.policy = TabularSoftmax(np.random.default_rng(seed).normal(size=(mdp.states, mdp.actions)))
        self.table = mdp.probabilities(self.policy)
        self.q = mdp.action_values(self.policy)
        self.v = np.sum(self.table * self.q, axis=-1)
        self.gradient = np.asarray(mdp.gradient(self.policy).logits).ravel() / mdp.horizon


def choose(table: np.ndarray, obs: np.ndarray, uniforms: np.ndarray) -> np.ndarray:
    """Actions by inversion: equal uniforms in equal states give equal actions."""
    return np.minimum(np.sum(uniforms[:, None] >= np.cumsum(table[obs], axis=1), axis=1), table.shape[1] - 1)


def grow(
    problem: Problem, vine: Vine, paths: int, rng: np.random.Generator, *, exhaustive: bool, common: bool = True
) -> tuple[Trunk, Branches, int]:
    """A trunk of whole paths and its branches; and the steps of both. common: common random numbers."""
    world, table = MDPWorld(problem.mdp, paths), problem.table
    collector = Collector(world)
    collector.reset(int(rng.integers(2**31)))

    def act(obs: np.ndarray, t: int) -> np.ndarray:
        return choose(table, obs, rng.random(len(obs)))

    def branch(obs: np.ndarray, seeds: np.ndarray, t: int) -> np.ndarray:
        return choose(table, obs, Streams((seeds.astype(np.uint64) << np.uint64(20)) + np.uint64(t)).random())

    trunk = vine.trunk(world, collector, act, problem.mdp.horizon, rng)
    obs = trunk.rollout.obs.ravel()[trunk.row]
    first = np.tile(np.arange(vine.actions), (vine.states, 1))
    if not exhaustive:
        first = np.stack([choose(table, obs, rng.random(vine.states)) for _ in range(vine.actions)], axis=1)
    seeds = rng.integers(2**32, size=vine.states if common else (vine.states, vine.actions))
    branches, steps = vine.branches(world, trunk, first, branch, seeds, exhaustive=exhaustive)
    return trunk, branches, steps + trunk.rollout.valid.size


def vine_batch(problem: Problem, trunk: Trunk, branches: Branches, length: int) -> Batch:
    """The batch of a vine, with the exact V where branches were cut."""
    late = np.minimum(trunk.row // trunk.rollout.reward.shape[1] + length, problem.mdp.horizon - 1)
    q = action_values(branches, problem.v[late[:, None], branches.last_obs])
    n, k = branches.action.shape
    weight = np.take_along_axis(problem.table[branches.obs], branches.action, 1)
    weight = weight if branches.exhaustive else np.full((n, k), 1.0 / k)
    return batch_from_branches(branches.obs, branches.action, weight, q, branches.valid, exhaustive=branches.exhaustive)


def path_batch(
    problem: Problem, paths: int, rng: np.random.Generator, *, whole: bool, baseline: bool = True
) -> tuple[Batch, int]:
    """The batch of a single path: returns to go (whole) or one reward and the exact V; less V."""
    states, actions, rewards = sample_paths(problem.mdp, problem.policy, paths, rng)
    steps = np.arange(problem.mdp.horizon)
    value = problem.v[steps, states]
    later = np.concatenate([value[:, 1:], np.zeros((paths, 1))], axis=1)
    q = np.cumsum(rewards[:, ::-1], axis=1)[:, ::-1] if whole else rewards + later
    rows = states.size
    one = np.ones((rows, 1))
    batch = Batch(
        states.ravel(), np.full(rows, 1 / rows), actions.reshape(rows, 1), one, (q - value * baseline).reshape(rows, 1),
        np.arange(rows),
    )  # fmt: skip
    return batch, rows


@jax.jit
def path_gradient(logits: Any, batch: Batch) -> Any:
    """ĝ of a single path's batch."""
    return trees.ravel(expected_advantage.gradient(linearise(TabularSoftmax(logits), batch.obs), batch).vector)[0]


@jax.jit
def vine_gradient(logits: Any, batch: Batch) -> Any:
    """ĝ of a vine's batch, by the objective that training uses."""
    return trees.ravel(self_normalised.gradient(linearise(TabularSoftmax(logits), batch.obs), batch).vector)[0]


def spread(problem: Problem, estimator: str, draw: Callable[[np.random.Generator], Any], repeats: int) -> Spread:
    """What `draw` (rng ↦ (gradient function, batch, steps)) estimates."""
    found, steps, states = np.empty((repeats, problem.gradient.size)), np.empty(repeats), 0
    with jax.enable_x64(True):
        logits = jnp.asarray(problem.policy.logits)
        for i in range(repeats):
            gradient, batch, steps[i] = draw(np.random.default_rng([7, i]))
            found[i] = gradient(logits, jax.tree.map(jnp.asarray, batch))
            states = len(batch.weight)
    size = np.linalg.norm(problem.gradient)
    variance = float(found.var(axis=0, ddof=1).sum() / size**2)
    bias = float(np.linalg.norm(found.mean(axis=0) - problem.gradient) / size)
    error, spent = float(np.sqrt(variance / repeats)), float(steps.mean())
    return Spread(problem.name, estimator, spent, bias, error, variance, variance * spent, variance * states)


def spreads(problem: Problem, *, budget: int, repeats: int, only: Sequence[str] = ()) -> list[Spread]:
    """Single path and vine on one problem with about `budget` simulator steps each, a quarter of them in the trunk.

    only: these estimators; all, if none is named.
    """
    mdp = problem.mdp

    def path(whole: bool, baseline: bool) -> Callable[[np.random.Generator], Any]:
        paths = budget // mdp.horizon
        return lambda rng: (path_gradient, *path_batch(problem, paths, rng, whole=whole, baseline=baseline))

    def vine(actions: int, length: int, exhaustive: bool, common: bool) -> Callable[[np.random.Generator], Any]:
        paths = max(1, budget // 4 // mdp.horizon)
        left = np.minimum(np.arange(1, mdp.horizon + 1), length).mean()  # steps of a branch
        states = min(int((budget - paths * mdp.horizon) / (actions * left)), paths * mdp.horizon)
        size = Vine(states, actions, length, 1.0)

        def draw(rng: np.random.Generator) -> Any:
            trunk, branches, steps = grow(problem, size, paths, rng, exhaustive=exhaustive, common=common)
            return vine_gradient, vine_batch(problem, trunk, branches, length), steps

        return draw

    every = mdp.actions
    estimators = {
        "single path, to the end": path(True, False),
        "single path, to the end, less V": path(True, True),
        "vine, every action, to the end": vine(every, mdp.horizon, True, True),
        "vine, every action, independent numbers": vine(every, mdp.horizon, True, False),
        "vine, 2 drawn actions, to the end": vine(2, mdp.horizon, False, True),
        "vine, 4 drawn actions, to the end": vine(4, mdp.horizon, False, True),
        "single path, 1 step and V, less V": path(False, True),
        "vine, every action, 1 step and V": vine(every, 1, True, True),
    }
    return [spread(problem, name, estimators[name], repeats) for name in only or estimators]


def problems() -> list[Problem]:
    """A noisy world, and two in which all noise is the policy's."""
    return [
        Problem("random", random(5, 3, 20, 0)),
        Problem("chain", chain(5, 20)),
        Problem("grid", grid()),
    ]


def main() -> None:
    rows = [row for problem in problems() for row in spreads(problem, budget=4_000, repeats=400)]
    table = HERE / "results" / "vine-variance.csv"
    with table.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(Spread._fields)
        for row in rows:
            writer.writerow([*row[:2], *(f"{x:.5g}" for x in row[2:])])
    print(markdown(rows), table, sep="\n")


def markdown(rows: list[Spread]) -> str:
    """The table."""
    lines = [
        "| MDP | estimator | steps | bias | variance × steps | variance × states |",
        "|---|---|---|---|---|---|",
    ]
    for r in rows:
        bias = f"{r.bias:.3f} ± {r.bias_error:.3f}"
        lines.append(f"| {r.mdp} | {r.estimator} | {r.steps:,.0f} | {bias} | {r.per_step:,.0f} | {r.per_state:,.0f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
