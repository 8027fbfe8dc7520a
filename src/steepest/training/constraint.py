"""A limit on what an episode costs: whether the algorithm keeps one, and whether the environment reports a cost.

Both are asked before a run begins: a limit that is silently ignored is worse than none.
"""

from __future__ import annotations

import numpy as np

from steepest.algorithms import Algorithm
from steepest.errors import UsageError
from steepest.geometry import needs_cost
from steepest.sampling.cost_meter import CostMeter
from steepest.training.config import TrainConfig
from steepest.worlds.settable import at_rest
from steepest.worlds.world import World


def check_constraint(algorithm: Algorithm, config: TrainConfig) -> None:
    """Raise UsageError where one of a limit and an algorithm that keeps it is there without the other."""
    limit = config.constraint.cost_limit
    wanted = needs_cost(algorithm)
    if wanted and limit is None:
        raise UsageError(
            f"{algorithm.name} keeps the cost of an episode within a limit, and none is given: set cost_limit "
            "(--cost-limit 25), or choose trpo"
        )
    if limit is not None and not wanted:
        raise UsageError(
            f"{algorithm.name} would ignore cost_limit: choose cpo or trpo-lagrangian, or leave cost_limit out"
        )


def build_meter(config: TrainConfig, world: World) -> CostMeter | None:
    """What measures the cost of a resolved configuration; None without a limit.

    Takes one step in the world, which must be reset afterwards. Raises UsageError where it reports no cost.
    """
    limit = config.constraint.cost_limit
    if limit is None:
        return None
    world.reset(config.seed)
    cost = world.step(at_rest(world)(world.obs)).cost
    if cost is None or not np.isfinite(cost).all():
        raise UsageError(
            f"{world.name} reports no cost, so that cost_limit says nothing: every step's info must have a finite "
            'info["cost"], as Safety-Gymnasium\'s environments have in their Gymnasium form; wrap yours to report it, '
            "or choose trpo without cost_limit"
        )
    return CostMeter.empty(limit, config.sampling.envs or world.envs)
