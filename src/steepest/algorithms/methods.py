"""The methods, each the one before it with a part exchanged.

                       metric              solver               step
pg                     Euclidean           –                    normalised        "Revisit gradient descent"
npg                    Fisher              direct or CG         normalised        Kakade 2001
covariant              Fisher, by paths    as npg               normalised        Bagnell & Schneider 2003
natural_actor_critic   Fisher, by samples  as npg               normalised        Peters & Schaal 2008
q_npg                  Fisher, uncentred   as npg               normalised        Agarwal et al. 2021
acktr                  Kronecker factors   their own inverse    normalised        Wu et al. 2017
trpo                   Fisher              conjugate gradient   trust region      Schulman et al. 2015
mirror_descent         Fisher               conjugate gradient   mirror descent    Tomar et al. 2020
cpo                    Fisher              conjugate gradient   constrained       Achiam et al. 2017
trpo_lagrangian        as trpo, on the reward less the price of a cost            Ray et al. 2019

On the exact batch of a finite MDP covariant and natural_actor_critic are npg, as is q_npg on a table of logits.
"""

from __future__ import annotations

import math
from dataclasses import replace

from steepest.algorithms.algorithm import Algorithm
from steepest.algorithms.damping import Damping
from steepest.geometry import (
    Constrained,
    Lagrangian,
    Metric,
    MirrorDescent,
    Normalised,
    Step,
    TrustRegion,
    empirical_fisher,
    euclidean,
    expected_advantage,
    fisher,
    kronecker,
    trajectory,
    uncentred,
)
from steepest.linear import Automatic, ConjugateGradient, Factored, Solver
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
    damping: float | Damping | None = None,
    step: Step | None = None,
) -> Algorithm:
    """Natural policy gradient (Kakade 2001) with steps of ½ΔᵀFΔ = δ, nats per state.

    delta: δ.  metric, solver, damping, step: exchange a part; see `Algorithm`.
    """
    plain = pg(delta, step=step)
    return replace(plain, name="npg", metric=metric, solver=solver or Automatic(), damping=damping)


def covariant(
    delta: float = 0.01,
    *,
    solver: Solver | None = None,
    damping: float | Damping | None = None,
    step: Step | None = None,
) -> Algorithm:
    """Covariant policy search (Bagnell & Schneider 2003): NPG in the metric on paths, per state.

    delta: δ, nats per state.  solver, damping, step: exchange a part; see `Algorithm`.
    """
    natural = npg(delta, metric=trajectory, solver=solver, damping=damping, step=step)
    return replace(natural, name="covariant")


def natural_actor_critic(
    delta: float = 0.01,
    *,
    solver: Solver | None = None,
    damping: float | Damping | None = None,
    step: Step | None = None,
) -> Algorithm:
    """Natural actor–critic (Peters & Schaal 2008): step along the weights of the compatible critic.

    The critic ω·∇ln π(a|o) is fitted to the advantages of the batch by least squares, ridge λ; its normal equations are
    F̂ω = g, with F̂ the Fisher matrix of the sampled actions (Kakade 2001, theorem 1).

    delta: δ, nats per state.  solver, damping, step: exchange a part; see `Algorithm`.
    """
    natural = npg(delta, metric=empirical_fisher, solver=solver, damping=damping, step=step)
    return replace(natural, name="natural-actor-critic")


def q_npg(
    delta: float = 0.01,
    *,
    solver: Solver | None = None,
    damping: float | Damping | None = None,
    step: Step | None = None,
) -> Algorithm:
    """Q-NPG (Agarwal et al. 2021): step along the weights that fit the advantages by the gradients of the logits.

    For Categorical policies alone: an update of another raises UsageError.

    delta: δ; the KL of the step is at most that to leading order, less where the fit depends on the state alone.
    solver, damping, step: exchange a part; see `Algorithm`.
    """
    natural = npg(delta, metric=uncentred, solver=solver, damping=damping, step=step)
    return replace(natural, name="q-npg")


def acktr(
    delta: float = 0.01,
    *,
    longest: float = math.inf,
    metric: Metric = kronecker,
    solver: Solver | None = None,
    damping: float | Damping | None = None,
    step: Step | None = None,
) -> Algorithm:
    """ACKTR (Wu et al. 2017): NPG by Kronecker factors, with steps of Δ = min(η, √(2δ/xᵀFx))·x.

    F in the length is the Fisher matrix itself, so that δ is the KL, to second order, however rough the factors are.

    delta: δ, nats per state.  longest: η.  metric: `Kronecker(decay=…, every=…)` averages the factors and decomposes
    them less often.  solver, damping, step: exchange a part; see `Algorithm`.

    Raises UsageError in an update of a policy with parameters that belong to no layer.
    """
    step = step or Normalised(delta, longest=longest)
    natural = npg(delta, metric=metric, solver=solver or Factored(), step=step)
    return replace(natural, name="acktr", damping=damping)


def trpo(
    delta: float = 0.01,
    *,
    metric: Metric = fisher,
    solver: Solver | None = None,
    damping: float | Damping | None = None,
    step: Step | None = None,
) -> Algorithm:
    """Trust-region policy optimisation (Schulman et al. 2015), single path: NPG by conjugate gradients with a line
    search on the true surrogate and the true KL ≤ δ, nats per state.

    delta: δ.  metric, solver, damping, step: exchange a part; see `Algorithm`.
    """
    natural = npg(delta, metric=metric, damping=damping)
    return replace(natural, name="trpo", solver=solver or ConjugateGradient(10), step=step or TrustRegion(delta))


def cpo(
    delta: float = 0.01,
    *,
    metric: Metric = fisher,
    solver: Solver | None = None,
    damping: float | Damping | None = None,
    step: Step | None = None,
) -> Algorithm:
    """Constrained policy optimisation (Achiam et al. 2017): TRPO whose step keeps a cost within its limit, or recovers
    it. The limit comes with the batch.

    delta: δ, nats per state.  metric, solver, damping, step: exchange a part; see `Algorithm`.

    Raises UsageError in an update on a batch without costs.
    """
    natural = trpo(delta, metric=metric, solver=solver, damping=damping, step=step or Constrained(delta))
    return replace(natural, name="cpo")


def trpo_lagrangian(
    delta: float = 0.01,
    *,
    price: Lagrangian | None = None,
    metric: Metric = fisher,
    solver: Solver | None = None,
    damping: float | Damping | None = None,
    step: Step | None = None,
) -> Algorithm:
    """TRPO on the reward less the price of a cost, which rises while the limit is exceeded (Ray et al. 2019; Stooke et
    al. 2020). The limit comes with the batch.

    delta: δ, nats per state.  price: how the multiplier follows the excess.  metric, solver, damping, step: exchange a
    part; see `Algorithm`.

    Raises UsageError in an update on a batch without costs.
    """
    natural = trpo(delta, metric=metric, solver=solver, damping=damping, step=step)
    return replace(natural, name="trpo-lagrangian", objective=price or Lagrangian())


def mirror_descent(
    delta: float = 0.01,
    *,
    learning_rate: float | None = None,
    iterations: int = 5,
    limit: float | None = None,
    solver: Solver | None = None,
    damping: float | Damping | None = None,
) -> Algorithm:
    """Mirror descent policy optimisation (Tomar et al. 2020): NPG that goes on, from where its step has ended, to the
    maximum of L − KL(π_θ‖π_old)/η.

    delta: δ, nats per state: η is that of the natural gradient step of this length.  learning_rate: η itself instead.
    iterations: natural gradient steps on one batch.  limit: of the KL that is realised, nats per state; 10·δ, or none
    for a learning rate, if not said.  solver: of each of the steps.  damping: see `Algorithm`.
    """
    solver = solver or ConjugateGradient(10)
    if learning_rate is None:
        step = MirrorDescent(
            delta=delta, iterations=iterations, solver=solver, limit=10 * delta if limit is None else limit
        )
    else:
        step = MirrorDescent(
            learning_rate, iterations=iterations, solver=solver, limit=math.inf if limit is None else limit
        )
    return replace(npg(delta, solver=solver, damping=damping, step=step), name="mirror-descent")


methods: Registry = Registry("algorithm", "steepest.algorithms")
for _method in (pg, npg, covariant, natural_actor_critic, q_npg, acktr, trpo, mirror_descent, cpo, trpo_lagrangian):
    methods.add(_method.__name__.replace("_", "-"), _method)
