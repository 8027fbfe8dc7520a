"""The linear-quadratic regulator: a continuous world in which every quantity of the theory is exact."""

from steepest.worlds.lqr.affine import Affine
from steepest.worlds.lqr.model import LQR

__all__ = ["LQR", "Affine"]
