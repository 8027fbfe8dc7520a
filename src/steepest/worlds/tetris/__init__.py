"""Tetris: placements as actions, features of the board after a placement, whole games in one compiled program."""

from steepest.worlds.tetris.afterstates import AfterstateGreedy, AfterstateSoftmax
from steepest.worlds.tetris.game import Tetris, rollout

__all__ = ["AfterstateGreedy", "AfterstateSoftmax", "Tetris", "rollout"]
