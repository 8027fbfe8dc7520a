"""Finite MDPs: small worlds in which every quantity of the theory is exact, and the same worlds as samplers."""

from steepest.worlds.finite.average import AverageMDP
from steepest.worlds.finite.constrained import ConstrainedMDP, ConstrainedOptimum
from steepest.worlds.finite.discounted import DiscountedMDP
from steepest.worlds.finite.finite_mdp import FiniteMDP
from steepest.worlds.finite.generators import MDPS, chain, grid, random, two_state
from steepest.worlds.finite.model import FiniteHorizonMDP
from steepest.worlds.finite.pomdp import FinitePOMDP
from steepest.worlds.finite.regularised import Regularised
from steepest.worlds.finite.sampled import MDPWorld, make_mdp, sample_paths

__all__ = [
    "MDPS",
    "AverageMDP",
    "ConstrainedMDP",
    "ConstrainedOptimum",
    "DiscountedMDP",
    "FiniteHorizonMDP",
    "FiniteMDP",
    "FinitePOMDP",
    "MDPWorld",
    "Regularised",
    "chain",
    "grid",
    "make_mdp",
    "random",
    "sample_paths",
    "two_state",
]
