"""The shapes in the annotations are checked while the tests run (jaxtyping + beartype)."""

from __future__ import annotations

from jaxtyping import install_import_hook

CHECKED = ("layers", "batch", "trees", "linear", "distributions", "policies", "geometry", "critics")

install_import_hook([f"steepest.{room}" for room in (*CHECKED, "sampling.advantages")], "beartype.beartype")
