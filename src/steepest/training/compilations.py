"""Compiled programs on disk, so that a second start is fast."""

from __future__ import annotations

import os
from pathlib import Path


def cache_compilations() -> None:
    """Keep what is compiled from now on, and find what was. JAX's own variable for the folder goes first."""
    import jax

    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        jax.config.update("jax_compilation_cache_dir", str(base / "steepest" / "jax"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)  # a threshold would make it depend on the load
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
