"""Value functions and their fit."""

from steepest.critics.fit import AdamFit, FitInfo
from steepest.critics.value import Critic, MlpValue, StateValue

__all__ = ["AdamFit", "Critic", "FitInfo", "MlpValue", "StateValue"]
