"""The methods: compositions of an objective, a metric, a solver and a step."""

from steepest.algorithms.algorithm import Algorithm, AlgorithmState, default_damping
from steepest.algorithms.exact import improve, iterate
from steepest.algorithms.methods import methods, npg, pg, trpo

__all__ = ["Algorithm", "AlgorithmState", "default_damping", "improve", "iterate", "methods", "npg", "pg", "trpo"]
