"""Operators and solvers on pytrees: (M + λI)x = b. No word of reinforcement learning."""

from steepest.linear.automatic import DIRECT_UP_TO, Automatic
from steepest.linear.blocks import Blocks
from steepest.linear.conjugate_gradient import ConjugateGradient
from steepest.linear.direct import Direct
from steepest.linear.factored import Factored, invertible
from steepest.linear.kronecker import Block, Factor, KroneckerBlocks, factor
from steepest.linear.operators import (
    Dense,
    Diagonal,
    Gram,
    Identity,
    Invertible,
    Measured,
    Operator,
    Preconditioned,
)
from steepest.linear.sample_space import SampleSpace
from steepest.linear.solution import Remembering, Solution, Solver, Status

__all__ = [
    "DIRECT_UP_TO",
    "Automatic",
    "Block",
    "Blocks",
    "ConjugateGradient",
    "Dense",
    "Diagonal",
    "Direct",
    "Factor",
    "Factored",
    "Gram",
    "Identity",
    "Invertible",
    "KroneckerBlocks",
    "Measured",
    "Operator",
    "Preconditioned",
    "Remembering",
    "SampleSpace",
    "Solution",
    "Solver",
    "Status",
    "factor",
    "invertible",
]
