"""The experiments by name. A module is imported when its experiment is asked for."""

from __future__ import annotations

import importlib

from steepest.names import unknown
from steepest.reproduce.experiment import Experiment

EXPERIMENTS = (  # in the order of the index page; the module has underscores in place of the hyphens
    "lecture-gradient-descent",
    "lecture-two-action",
    "lecture-kl",
    "lecture-trust-region",
    "lecture-stationary",
    "lecture-covariance",
    "kakade-lqr",
    "kakade-two-state",
    "kakade-tetris",
    "bagnell-covariant",
    "rates",
    "trpo-locomotion",
)


def experiment(name: str) -> Experiment:
    """The experiment of that name. Raises UsageError for an unknown one, naming the nearest."""
    if name not in EXPERIMENTS:
        raise unknown("experiment", name, [*EXPERIMENTS, "all"])
    return importlib.import_module(f"steepest.reproduce.{name.replace('-', '_')}").EXPERIMENT
