"""brax, imported late and without noise, and what it needs of a jax that is newer than it."""

from __future__ import annotations

import contextlib
import importlib
import io
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from epvf_data.errors import extra


def load(module: str) -> Any:
    """brax's module of that name, such as "training.agents.ppo.train". Raises MissingPackageError without brax."""
    # Its imports warn of an unmaintained dependency and print that optional libraries are missing.
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore", DeprecationWarning)
        with extra("baselines"):
            return importlib.import_module(f"brax.{module}")


@contextlib.contextmanager
def ready() -> Iterator[None]:
    """Inside, brax's training runs on any jax: its code promotes ranks, and calls a function that jax 0.10 removed.

    The function is put back only where it is missing, and taken away at the end.
    """
    name = "device_put_replicated"
    missing = not hasattr(jax, name)
    if missing:
        setattr(jax, name, _replicate)
    try:
        with jax.numpy_rank_promotion("allow"):
            yield
    finally:
        if missing:
            delattr(jax, name)


def _replicate(tree: Any, devices: Sequence[Any]) -> Any:
    """The tree with a leading axis of devices, laid out as brax's training returns it: else that is compiled twice."""
    stacked = jax.tree.map(lambda leaf: jnp.stack([jnp.asarray(leaf)] * len(devices)), tree)
    return jax.pmap(lambda part: part, axis_name="i", devices=devices)(stacked)
