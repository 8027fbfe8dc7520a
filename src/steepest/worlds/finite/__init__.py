"""Finite MDPs: small worlds in which every quantity of the theory is exact, and the same worlds as samplers."""

from steepest.worlds.finite.generators import MDPS, chain, random, two_state
from steepest.worlds.finite.model import FiniteHorizonMDP
from steepest.worlds.finite.sampled import MDPWorld, make_mdp, sample_paths

__all__ = ["MDPS", "FiniteHorizonMDP", "MDPWorld", "chain", "make_mdp", "random", "sample_paths", "two_state"]
