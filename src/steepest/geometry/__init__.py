"""The geometry of behaviour: objectives, metrics, divergences and steps, on `predict` and a `Batch` alone."""

from steepest.geometry.divergences import mean_kl
from steepest.geometry.local import Local, linearise
from steepest.geometry.metrics import (
    EmpiricalFisher,
    Euclidean,
    Fisher,
    Metric,
    empirical_fisher,
    euclidean,
    fisher,
)
from steepest.geometry.objectives import ExpectedAdvantage, Gradient, Objective, expected_advantage, log_probs
from steepest.geometry.reparameterise import Affine, Reparameterised, reparameterise, reparameterise_by
from steepest.geometry.report import Reason, StepInfo
from steepest.geometry.steps import Fixed, Normalised, Step, Taken, Trial, TrustRegion
from steepest.geometry.trajectory import Trajectory, trajectory
from steepest.geometry.uncentred import Uncentred, uncentred

__all__ = [
    "Affine",
    "EmpiricalFisher",
    "Euclidean",
    "ExpectedAdvantage",
    "Fisher",
    "Fixed",
    "Gradient",
    "Local",
    "Metric",
    "Normalised",
    "Objective",
    "Reason",
    "Reparameterised",
    "Step",
    "StepInfo",
    "Taken",
    "Trajectory",
    "Trial",
    "TrustRegion",
    "Uncentred",
    "empirical_fisher",
    "euclidean",
    "expected_advantage",
    "fisher",
    "linearise",
    "log_probs",
    "mean_kl",
    "reparameterise",
    "reparameterise_by",
    "trajectory",
    "uncentred",
]
