"""Policies: equinox modules  obs ↦ distribution. Any module of that form is one."""

from steepest.policies.linear_gaussian import ExponentialGaussian, LinearGaussian
from steepest.policies.network_policy import NetworkPolicy
from steepest.policies.networks import MlpBernoulli, MlpCategorical, MlpGaussian, MlpMultiCategorical, MlpPolicy
from steepest.policies.tabular import LogLinearSoftmax, TabularSoftmax

__all__ = [
    "ExponentialGaussian",
    "LinearGaussian",
    "LogLinearSoftmax",
    "MlpBernoulli",
    "MlpCategorical",
    "MlpGaussian",
    "MlpMultiCategorical",
    "MlpPolicy",
    "NetworkPolicy",
    "TabularSoftmax",
]
