"""Reports: what a run looks like, from its folder alone."""

from steepest.reports.learning_curve import compare_curves, draw_curves, learning_curve

__all__ = ["compare_curves", "draw_curves", "learning_curve"]
