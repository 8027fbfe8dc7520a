"""The methods, each the one before it with a part exchanged.

pg      Euclidean    –                    normalised        "Revisit gradient descent"
npg     Fisher       direct or CG         normalised        Kakade 2001
trpo    Fisher       conjugate gradient   trust region      Schulman et al. 2015
"""

from __future__ import annotations

from dataclasses import replace

from steepest.algorithms.algorithm import Algorithm
from steepest.geometry import Metric, Normalised, Step, TrustRegion, euclidean, expected_advantage, fisher
from steepest.linear import Automatic, ConjugateGradient, Solver
from steepest.names import Registry


def pg(delta: float = 0.01, *, step: Step | None = None) -> Algorithm:
    """Gradient ascent with steps of ½‖Δ‖² = δ in parameter units.

    delta: δ.  step: another rule instead, such as `Fixed(learning_rate)`.
    """
    return Algorithm("pg", expected_advantage, metric=euclidean, solver=None, step=step or Normalised(delta))


def npg(
    delta: float = 0.01,
    *,
    metric: Metric = fisher,
    solver: Solver | None = None,
    damping: float | None = None,
    step: Step | None = None,
) -> Algorithm:
    """Natural policy gradient (Kakade 2001) with steps of ½ΔᵀFΔ = δ, nats per state.

    delta: δ.  metric, solver, damping, step: exchange a part; see `Algorithm`.
    """
    plain = pg(delta, step=step)
    return replace(plain, name="npg", metric=metric, solver=solver or Automatic(), damping=damping)


def trpo(
    delta: float = 0.01,
    *,
    metric: Metric = fisher,
    solver: Solver | None = None,
    damping: float | None = None,
    step: Step | None = None,
) -> Algorithm:
    """Trust-region policy optimisation (Schulman et al. 2015), single path: NPG by conjugate gradients with a line
    search on the true surrogate and the true KL ≤ δ, nats per state.

    delta: δ.  metric, solver, damping, step: exchange a part; see `Algorithm`.
    """
    natural = npg(delta, metric=metric, damping=damping)
    return replace(natural, name="trpo", solver=solver or ConjugateGradient(10), step=step or TrustRegion(delta))


methods: Registry = Registry("algorithm")
for _method in (pg, npg, trpo):
    methods.add(_method.__name__, _method)
