"""Operators and solvers on pytrees: (M + λI)x = b. No word of reinforcement learning."""

from steepest.linear.automatic import DIRECT_UP_TO, Automatic
from steepest.linear.blocks import Blocks
from steepest.linear.conjugate_gradient import ConjugateGradient
from steepest.linear.direct import Direct
from steepest.linear.operators import Dense, Gram, Identity, Operator
from steepest.linear.sample_space import SampleSpace
from steepest.linear.solution import Solution, Solver, Status

__all__ = [
    "DIRECT_UP_TO",
    "Automatic",
    "Blocks",
    "ConjugateGradient",
    "Dense",
    "Direct",
    "Gram",
    "Identity",
    "Operator",
    "SampleSpace",
    "Solution",
    "Solver",
    "Status",
]
