"""Named streams of randomness: a key has one use, and adding a stream never shifts another."""

from __future__ import annotations

import jax
from jaxtyping import Array, Int, PRNGKeyArray

_NAMES = ("init", "perturb", "reset", "probe", "base", "critic", "replay", "recipe", "scale", "action")
STREAMS = {name: number for number, name in enumerate(_NAMES)}


def stream(seed: int | Int[Array, ""], name: str) -> PRNGKeyArray:
    """The key of a named stream of a seed."""
    return jax.random.fold_in(jax.random.key(seed), STREAMS[name])
