"""Compiled programs on disk, so that a second start is fast."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """Where they are kept. JAX's own variable goes first."""
    if "JAX_COMPILATION_CACHE_DIR" in os.environ:
        return Path(os.environ["JAX_COMPILATION_CACHE_DIR"])
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "steepest" / "jax"


def cache_compilations() -> None:
    """Keep what is compiled from now on, and find what was."""
    import jax

    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        jax.config.update("jax_compilation_cache_dir", str(cache_folder()))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)  # a threshold would make it depend on the load
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
