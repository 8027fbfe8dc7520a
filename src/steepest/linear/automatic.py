"""The stated rule for who has not chosen.

    P ≤ 1 000                                            direct
    P ≥ 100 000, R·k ≤ 3√P, λ > 0, a dual, SSᵀ in parts  sample space        R rows, k of them for each state
    otherwise                                            conjugate gradients

Ten products of conjugate gradients cost 80NP operations on N = R/k states of a dense network; the solve in sample space
22NP + 2RP for the passes, 4R²√(2P) for SSᵀ of two equal layers, and R³/3, which runs at a lower rate. With R·k ≤ 3√P
all of it is about half of what ten products cost, and the solution is exact. Measured on one core, for a Gaussian with
two equal layers and a row for each action taken: 0.51 s against 1.00 s for 10⁶ parameters and 2 048 samples (R = 2√P),
equal for 10⁵ and 1 024 (R = 3.2√P). Few batches are so small: 2 048 samples of a network of 470 000 parameters or more.
Below 100 000 parameters a step takes little either way, and conjugate gradients remain.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import jax
from jax import Array

from steepest import trees
from steepest.linear.conjugate_gradient import ConjugateGradient
from steepest.linear.direct import Direct, undamped
from steepest.linear.operators import Gram, Operator
from steepest.linear.sample_space import SampleSpace
from steepest.linear.solution import Solution, Solver

DIRECT_UP_TO = 1_000
"""Up to this many parameters a dense solve is exact and takes milliseconds to tenths of a second."""

SAMPLE_SPACE_FROM = 100_000
"""From this many parameters on a solve in sample space is considered."""


@dataclass(frozen=True)
class Automatic:
    """`Direct` for P ≤ 1 000; `SampleSpace` for P ≥ 100 000 where the rows R, k for each state, are so few that
    R·k ≤ 3√P, R ≤ 8 192, λ > 0 and there are a dual and layers to follow; else `ConjugateGradient(iterations)`.
    """

    iterations: int = 10

    def __call__(self, operator: Operator, rhs: Any, dual: Array | None = None) -> Solution:
        return self.choice(operator, rhs, dual)(operator, rhs, dual)

    def choice(self, operator: Operator, rhs: Any, dual: Array | None = None) -> Solver:
        """The solver for (M + λI)x = b."""
        if trees.size(rhs) <= DIRECT_UP_TO:
            return Direct()
        return SampleSpace() if _few_rows(operator, rhs, dual) else ConjugateGradient(self.iterations)


def _few_rows(operator: Operator, rhs: Any, dual: Array | None) -> bool:
    parameters = trees.size(rhs)
    if not isinstance(operator, Gram) or dual is None or undamped(operator) or parameters < SAMPLE_SPACE_FROM:
        return False
    per_state = dual.size // max(1, dual.shape[0])
    if dual.size * per_state > 3 * math.sqrt(parameters) or dual.size > SampleSpace().rows:
        return False
    return operator.products is not None and jax.eval_shape(operator.products) is not None
