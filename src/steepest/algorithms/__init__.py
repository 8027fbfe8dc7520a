"""The methods: compositions of an objective, a metric, a solver and a step."""

from steepest.algorithms.algorithm import Algorithm, AlgorithmState, default_damping
from steepest.algorithms.damping import Damping, LevenbergMarquardt, RelativeDamping
from steepest.algorithms.exact import improve, iterate, policy_path
from steepest.algorithms.methods import (
    acktr,
    covariant,
    cpo,
    methods,
    natural_actor_critic,
    npg,
    pg,
    q_npg,
    trpo,
    trpo_lagrangian,
)

__all__ = [
    "Algorithm",
    "AlgorithmState",
    "Damping",
    "LevenbergMarquardt",
    "RelativeDamping",
    "acktr",
    "covariant",
    "cpo",
    "default_damping",
    "improve",
    "iterate",
    "methods",
    "natural_actor_critic",
    "npg",
    "pg",
    "policy_path",
    "q_npg",
    "trpo",
    "trpo_lagrangian",
]
