"""The methods, each the one before it with a part exchanged.

                       metric              solver               step
pg                     Euclidean           –                    normalised        "Revisit gradient descent"
npg                    Fisher              direct or CG         normalised        Kakade 2001
covariant              Fisher, by paths    as npg               normalised        Bagnell & Schneider 2003
natural_actor_critic   Fisher, by samples  as npg               normalised        Peters & Schaal 2008
q_npg                  Fisher, uncentred   as npg               normalised        Agarwal et al. 2021
trpo                   Fisher              conjugate gradient   trust region      Schulman et al. 2015

On the exact batch of a finite MDP covariant and natural_actor_critic are npg, as is q_npg on a table of logits.
"""

from __future__ import annotations

from dataclasses import replace

from steepest.algorithms.algorithm import Algorithm
from steepest.geometry import (
    Metric,
    Normalised,
    Step,
    TrustRegion,
    empirical_fisher,
    euclidean,
    expected_advantage,
    fisher,
    trajectory,
    uncentred,
)
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


def covariant(
    delta: float = 0.01, *, solver: Solver | None = None, damping: float | None = None, step: Step | None = None
) -> Algorithm:
    """Covariant policy search (Bagnell & Schneider 2003): NPG in the metric on paths, per state.

    delta: δ, nats per state.  solver, damping, step: exchange a part; see `Algorithm`.
    """
    natural = npg(delta, metric=trajectory, solver=solver, damping=damping, step=step)
    return replace(natural, name="covariant")


def natural_actor_critic(
    delta: float = 0.01, *, solver: Solver | None = None, damping: float | None = None, step: Step | None = None
) -> Algorithm:
    """Natural actor–critic (Peters & Schaal 2008): step along the weights of the compatible critic.

    The critic ω·∇ln π(a|o) is fitted to the advantages of the batch by least squares, ridge λ; its normal equations are
    F̂ω = g, with F̂ the Fisher matrix of the sampled actions (Kakade 2001, theorem 1).

    delta: δ, nats per state.  solver, damping, step: exchange a part; see `Algorithm`.
    """
    natural = npg(delta, metric=empirical_fisher, solver=solver, damping=damping, step=step)
    return replace(natural, name="natural-actor-critic")


def q_npg(
    delta: float = 0.01, *, solver: Solver | None = None, damping: float | None = None, step: Step | None = None
) -> Algorithm:
    """Q-NPG (Agarwal et al. 2021): step along the weights that fit the advantages by the gradients of the logits.

    For Categorical policies alone: an update of another raises UsageError.

    delta: δ; the KL of the step is at most that to leading order, less where the fit depends on the state alone.
    solver, damping, step: exchange a part; see `Algorithm`.
    """
    natural = npg(delta, metric=uncentred, solver=solver, damping=damping, step=step)
    return replace(natural, name="q-npg")


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
for _method in (pg, npg, covariant, natural_actor_critic, q_npg, trpo):
    methods.add(_method.__name__.replace("_", "-"), _method)
