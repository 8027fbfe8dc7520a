"""Value functions and their fit."""

from steepest.critics.compatible import compatible_weights, path_weights, uncentred_weights
from steepest.critics.fit import AdamFit, FitInfo
from steepest.critics.value import Critic, MlpValue, StateValue

__all__ = [
    "AdamFit",
    "Critic",
    "FitInfo",
    "MlpValue",
    "StateValue",
    "compatible_weights",
    "path_weights",
    "uncentred_weights",
]
