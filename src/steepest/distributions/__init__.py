"""Distributions over actions: what a policy says in one state, with its Fisher factor."""

from steepest.distributions.bernoulli import Bernoulli
from steepest.distributions.beta import Beta
from steepest.distributions.categorical import Categorical
from steepest.distributions.distribution import Distribution, FromNoise, Policy
from steepest.distributions.gaussian import DiagonalGaussian
from steepest.distributions.multi_categorical import MultiCategorical
from steepest.distributions.product import Product
from steepest.distributions.squashed import SquashedGaussian
from steepest.distributions.unit_gaussian import UnitGaussian

__all__ = [
    "Bernoulli",
    "Beta",
    "Categorical",
    "DiagonalGaussian",
    "Distribution",
    "FromNoise",
    "MultiCategorical",
    "Policy",
    "Product",
    "SquashedGaussian",
    "UnitGaussian",
]
