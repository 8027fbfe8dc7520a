"""The geometry of behaviour: objectives, metrics, divergences and steps, on `predict` and a `Batch` alone."""

from steepest.geometry.constrained import Constrained, Constraining, needs_cost
from steepest.geometry.decay import Decaying
from steepest.geometry.diagonal import FisherDiagonal, diagonal
from steepest.geometry.divergences import max_kl, mean_kl
from steepest.geometry.entropy import EntropyRegularised
from steepest.geometry.every_state import MaxKL
from steepest.geometry.kronecker import Kronecker, kronecker
from steepest.geometry.lagrangian import Lagrangian
from steepest.geometry.least_squares import LeastSquares, least_squares
from steepest.geometry.local import Local, Tapped, linearise
from steepest.geometry.metrics import (
    EmpiricalFisher,
    Euclidean,
    Fisher,
    Metric,
    empirical_fisher,
    euclidean,
    fisher,
)
from steepest.geometry.mirror import MirrorDescent
from steepest.geometry.moment import Moment, Varying, begun, initial, reported
from steepest.geometry.objectives import ExpectedAdvantage, Gradient, Objective, expected_advantage, log_probs
from steepest.geometry.output_rows import Probes, every_row, taken_actions
from steepest.geometry.penalty import Penalised, TheoreticalPenalty
from steepest.geometry.preconditioned import Preconditioned
from steepest.geometry.reparameterise import Affine, Reparameterised, reparameterise, reparameterise_by
from steepest.geometry.report import Reason, StepInfo
from steepest.geometry.self_normalised import SelfNormalised, self_normalised
from steepest.geometry.steps import Fixed, Normalised, Step, Taken, Trial, TrustRegion
from steepest.geometry.subsample import Subsampled
from steepest.geometry.trajectory import Trajectory, trajectory
from steepest.geometry.uncentred import Uncentred, uncentred

__all__ = [
    "Affine",
    "Constrained",
    "Constraining",
    "Decaying",
    "EmpiricalFisher",
    "EntropyRegularised",
    "Euclidean",
    "ExpectedAdvantage",
    "Fisher",
    "FisherDiagonal",
    "Fixed",
    "Gradient",
    "Kronecker",
    "Lagrangian",
    "LeastSquares",
    "Local",
    "MaxKL",
    "Metric",
    "MirrorDescent",
    "Moment",
    "Normalised",
    "Objective",
    "Penalised",
    "Preconditioned",
    "Probes",
    "Reason",
    "Reparameterised",
    "SelfNormalised",
    "Step",
    "StepInfo",
    "Subsampled",
    "Taken",
    "Tapped",
    "TheoreticalPenalty",
    "Trajectory",
    "Trial",
    "TrustRegion",
    "Uncentred",
    "Varying",
    "begun",
    "diagonal",
    "empirical_fisher",
    "euclidean",
    "every_row",
    "expected_advantage",
    "fisher",
    "initial",
    "kronecker",
    "least_squares",
    "linearise",
    "log_probs",
    "max_kl",
    "mean_kl",
    "needs_cost",
    "reparameterise",
    "reparameterise_by",
    "reported",
    "self_normalised",
    "taken_actions",
    "trajectory",
    "uncentred",
]
