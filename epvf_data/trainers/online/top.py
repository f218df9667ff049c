"""The best perturbed policy that each seed of a run has met: a perturbation is often better than θ itself."""

from __future__ import annotations

import math
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from epvf_data.envs import Env
from epvf_data.policies.files import load_policy, read_notes, save_policy
from epvf_data.policies.kinds import Spec

NAME, NOTE = "best-perturbed-{}.safetensors", "return"


class Top(NamedTuple):
    """A policy of each seed and its mean return over the iteration's episodes; −∞ where there is none."""

    returns: Float[Array, "S"]
    params: Float[Array, "S P"]


@jax.jit
def top_of(
    params: Float[Array, "S M P"],
    returns: Float[Array, "S M"],
    finite: Bool[Array, "S M"],
    active: Bool[Array, "S"],
) -> Top:
    """The best of an iteration's policies, of the seeds that took part."""
    worth = jnp.where(finite & jnp.isfinite(returns) & active[:, None], returns, -jnp.inf)
    return Top(worth.max(axis=1), params[jnp.arange(len(params)), worth.argmax(axis=1)])


@jax.jit
def top_over(tops: Top) -> Top:
    """The best over iterations, which are the first axis."""
    best = tops.returns.argmax(axis=0)
    return Top(tops.returns.max(axis=0), tops.params[best, jnp.arange(len(best))])


class BestPerturbed:
    """Keeps the best so far as policies/best-perturbed-SEED.safetensors.

    The files stand for themselves and are in no checkpoint: what a kill undid is done again to the same bits, so that
    the best of all iterations stays the best.
    """

    def __init__(self, folder: Path, seeds: np.ndarray, env: Env, spec: Spec):
        self.folder, self.seeds, self.env, self.spec = folder, seeds, env, spec
        self.returns = np.full(len(seeds), -np.inf)
        self.params: dict[int, np.ndarray] = {}  # by seed's position: those that are not in their file yet
        for place, path in self._paths():
            if path.is_file() and load_policy(path)[0].id == spec.id:
                self.returns[place] = _return(read_notes(path).get(NOTE, ""))

    def see(self, top: Top) -> None:
        """Takes over what is better."""
        for place, value in enumerate(np.asarray(top.returns, np.float64)):
            if value > self.returns[place]:
                self.returns[place], self.params[place] = value, np.asarray(top.params[place])

    def save(self) -> None:
        """Writes what is new."""
        for place, path in self._paths():
            if place in self.params:
                notes = {"env": self.env.name, "horizon": str(self.env.horizon), NOTE: repr(float(self.returns[place]))}
                save_policy(path, self.spec, self.params.pop(place), **notes)

    def mean(self) -> float | None:
        """The mean over seeds, None before every seed has met one."""
        return float(self.returns.mean()) if np.isfinite(self.returns).all() else None

    def _paths(self) -> list[tuple[int, Path]]:
        return [(place, self.folder / NAME.format(seed)) for place, seed in enumerate(self.seeds)]


def _return(text: str) -> float:
    """The return that a file notes; −∞ where it notes none, so that the next policy replaces it."""
    try:
        found = float(text[:40])
    except ValueError:
        return -math.inf
    return found if math.isfinite(found) else -math.inf
