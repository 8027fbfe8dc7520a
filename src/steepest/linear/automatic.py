"""The stated rule for who has not chosen: direct up to 1 000 parameters, conjugate gradients beyond."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from jax import Array

from steepest import trees
from steepest.linear.conjugate_gradient import ConjugateGradient
from steepest.linear.direct import Direct
from steepest.linear.operators import Operator
from steepest.linear.solution import Solution

DIRECT_UP_TO = 1_000
"""Up to this many parameters a dense solve is exact and takes milliseconds to tenths of a second."""


@dataclass(frozen=True)
class Automatic:
    """`Direct` for P ≤ 1 000, else `ConjugateGradient(iterations)`."""

    iterations: int = 10

    def __call__(self, operator: Operator, rhs: Any, dual: Array | None = None) -> Solution:
        solver = Direct() if trees.size(rhs) <= DIRECT_UP_TO else ConjugateGradient(self.iterations)
        return solver(operator, rhs, dual)
