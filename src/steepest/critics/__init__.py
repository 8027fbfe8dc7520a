"""Value functions and their fit."""

from steepest.critics.compatible import compatible_weights, path_weights, uncentred_weights
from steepest.critics.fit import AdamFit, CriticFit, FitInfo
from steepest.critics.natural_fit import NaturalFit, trust_region
from steepest.critics.shared import SharedValue, count_features, features, upon
from steepest.critics.value import Critic, MlpValue, NetworkValue, StateValue, Unmasked, recurrent_value, unmasked

__all__ = [
    "AdamFit",
    "Critic",
    "CriticFit",
    "FitInfo",
    "MlpValue",
    "NaturalFit",
    "NetworkValue",
    "SharedValue",
    "StateValue",
    "Unmasked",
    "compatible_weights",
    "count_features",
    "features",
    "path_weights",
    "recurrent_value",
    "trust_region",
    "uncentred_weights",
    "unmasked",
    "upon",
]
