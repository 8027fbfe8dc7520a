"""Natural policy optimisation in JAX: steepest ascent, in the geometry of behaviour.

Names are imported when they are first used, so that the command line can print its help without loading JAX.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from steepest.agent import Agent
    from steepest.algorithms import (
        Algorithm,
        AlgorithmState,
        LevenbergMarquardt,
        RelativeDamping,
        covariant,
        improve,
        iterate,
        natural_actor_critic,
        npg,
        pg,
        policy_path,
        q_npg,
        trpo,
    )
    from steepest.batch import Batch, Rollout
    from steepest.critics.compatible import compatible_weights, path_weights, uncentred_weights
    from steepest.distributions import Categorical, DiagonalGaussian, Distribution
    from steepest.errors import RunError, UsageError
    from steepest.geometry import (
        Fixed,
        Normalised,
        Reason,
        StepInfo,
        Subsampled,
        TrustRegion,
        empirical_fisher,
        euclidean,
        expected_advantage,
        fisher,
        reparameterise,
        reparameterise_by,
        trajectory,
        uncentred,
    )
    from steepest.linear import Automatic, Blocks, ConjugateGradient, Direct, SampleSpace, Solution, Status
    from steepest.parameters import frozen
    from steepest.policies import (
        ExponentialGaussian,
        LinearGaussian,
        LogLinearSoftmax,
        MlpCategorical,
        MlpGaussian,
        TabularSoftmax,
    )
    from steepest.training.callbacks import IterationEvent, StopAtReturn
    from steepest.training.config import TrainConfig
    from steepest.training.evaluation import evaluate
    from steepest.training.persistence import load
    from steepest.training.train import Run, resume, train
    from steepest.worlds.finite import AverageMDP, DiscountedMDP, FiniteHorizonMDP, FinitePOMDP
    from steepest.worlds.finite.sparse import SparseMDP
    from steepest.worlds.lqr import LQR
    from steepest.worlds.tetris import Tetris

_ROOM_OF = {
    "Agent": "steepest.agent",
    "Algorithm": "steepest.algorithms",
    "AlgorithmState": "steepest.algorithms",
    "Automatic": "steepest.linear",
    "AverageMDP": "steepest.worlds.finite",
    "Batch": "steepest.batch",
    "Blocks": "steepest.linear",
    "Categorical": "steepest.distributions",
    "ConjugateGradient": "steepest.linear",
    "DiagonalGaussian": "steepest.distributions",
    "Direct": "steepest.linear",
    "DiscountedMDP": "steepest.worlds.finite",
    "Distribution": "steepest.distributions",
    "ExponentialGaussian": "steepest.policies",
    "FiniteHorizonMDP": "steepest.worlds.finite",
    "FinitePOMDP": "steepest.worlds.finite",
    "Fixed": "steepest.geometry",
    "IterationEvent": "steepest.training.callbacks",
    "LQR": "steepest.worlds.lqr",
    "LevenbergMarquardt": "steepest.algorithms",
    "LinearGaussian": "steepest.policies",
    "LogLinearSoftmax": "steepest.policies",
    "MlpCategorical": "steepest.policies",
    "MlpGaussian": "steepest.policies",
    "Normalised": "steepest.geometry",
    "Reason": "steepest.geometry",
    "RelativeDamping": "steepest.algorithms",
    "Rollout": "steepest.batch",
    "Run": "steepest.training.train",
    "RunError": "steepest.errors",
    "SampleSpace": "steepest.linear",
    "Solution": "steepest.linear",
    "SparseMDP": "steepest.worlds.finite.sparse",
    "Status": "steepest.linear",
    "StepInfo": "steepest.geometry",
    "StopAtReturn": "steepest.training.callbacks",
    "Subsampled": "steepest.geometry",
    "TabularSoftmax": "steepest.policies",
    "Tetris": "steepest.worlds.tetris",
    "TrainConfig": "steepest.training.config",
    "TrustRegion": "steepest.geometry",
    "UsageError": "steepest.errors",
    "compatible_weights": "steepest.critics.compatible",
    "covariant": "steepest.algorithms",
    "empirical_fisher": "steepest.geometry",
    "euclidean": "steepest.geometry",
    "evaluate": "steepest.training.evaluation",
    "expected_advantage": "steepest.geometry",
    "fisher": "steepest.geometry",
    "frozen": "steepest.parameters",
    "improve": "steepest.algorithms",
    "iterate": "steepest.algorithms",
    "load": "steepest.training.persistence",
    "natural_actor_critic": "steepest.algorithms",
    "npg": "steepest.algorithms",
    "path_weights": "steepest.critics.compatible",
    "pg": "steepest.algorithms",
    "policy_path": "steepest.algorithms",
    "q_npg": "steepest.algorithms",
    "reparameterise": "steepest.geometry",
    "reparameterise_by": "steepest.geometry",
    "resume": "steepest.training.train",
    "train": "steepest.training.train",
    "trajectory": "steepest.geometry",
    "trpo": "steepest.algorithms",
    "uncentred": "steepest.geometry",
    "uncentred_weights": "steepest.critics.compatible",
}

__all__ = [
    "LQR",
    "Agent",
    "Algorithm",
    "AlgorithmState",
    "Automatic",
    "AverageMDP",
    "Batch",
    "Blocks",
    "Categorical",
    "ConjugateGradient",
    "DiagonalGaussian",
    "Direct",
    "DiscountedMDP",
    "Distribution",
    "ExponentialGaussian",
    "FiniteHorizonMDP",
    "FinitePOMDP",
    "Fixed",
    "IterationEvent",
    "LevenbergMarquardt",
    "LinearGaussian",
    "LogLinearSoftmax",
    "MlpCategorical",
    "MlpGaussian",
    "Normalised",
    "Reason",
    "RelativeDamping",
    "Rollout",
    "Run",
    "RunError",
    "SampleSpace",
    "Solution",
    "SparseMDP",
    "Status",
    "StepInfo",
    "StopAtReturn",
    "Subsampled",
    "TabularSoftmax",
    "Tetris",
    "TrainConfig",
    "TrustRegion",
    "UsageError",
    "__version__",
    "compatible_weights",
    "covariant",
    "empirical_fisher",
    "euclidean",
    "evaluate",
    "expected_advantage",
    "fisher",
    "frozen",
    "improve",
    "iterate",
    "load",
    "natural_actor_critic",
    "npg",
    "path_weights",
    "pg",
    "policy_path",
    "q_npg",
    "reparameterise",
    "reparameterise_by",
    "resume",
    "train",
    "trajectory",
    "trpo",
    "uncentred",
    "uncentred_weights",
]


def __getattr__(name: str) -> Any:
    if name not in _ROOM_OF:
        raise AttributeError(f"module 'steepest' has no attribute {name!r}")
    value = getattr(importlib.import_module(_ROOM_OF[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_ROOM_OF])
