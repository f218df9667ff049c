"""What the command line asks of JAX before its first computation. Libraries that import us keep their own settings."""

from __future__ import annotations

import os
from pathlib import Path

import jax


def cache_folder() -> Path:
    """The user's cache folder for compiled functions: $XDG_CACHE_HOME/epvf-data, or ~/.cache/epvf-data."""
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "epvf-data"


def prepare() -> None:
    """Keeps compiled functions between runs, and runs CPU computations on the thread that asks for them."""
    jax.config.update("jax_cpu_enable_async_dispatch", False)
    jax.config.update("jax_compilation_cache_dir", str(cache_folder() / "xla"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
