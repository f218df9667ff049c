"""Search without a gradient: separable CMA-ES on V, and an evolution strategy on real returns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from epvf_data.errors import extra
from epvf_data.improvement.ascent import Value, make_improver


def cma_es(
    value: Value,
    start: Float[np.ndarray, "P"],
    spread: Float[np.ndarray, "P"],
    sigma: float,
    looks: Sequence[int],
    count: int,
    seed: int = 0,
    population: int = 64,
) -> list[Float[np.ndarray, "n P"]]:
    """The `count` best of the population by V after so many generations of separable CMA-ES (Ros and Hansen 2008).

    θ is searched in units of its spread, with `sigma` at first. The covariance is diagonal: a full one of some
    thousand parameters would need more generations than V is worth. Raises MissingPackageError where evosax is missing.
    """
    strategy = evosax().Sep_CMA_ES(population_size=max(population, count), solution=jnp.zeros(len(start)))
    scale, found = jnp.asarray(spread), []
    judge = jax.jit(jax.vmap(lambda z: value(jnp.asarray(start) + z * scale)))
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        params = strategy.default_params.replace(std_init=sigma)
        state = strategy.init(jax.random.key(seed), jnp.zeros(len(start)), params)
        for number in range(1, max(looks) + 1):
            asked, told = jax.random.split(jax.random.fold_in(jax.random.key(seed), number))
            points, state = strategy.ask(asked, state, params)
            values = judge(points)
            state, _ = strategy.tell(told, points, -jnp.nan_to_num(values, nan=-1e30), state, params)  # it minimises
            if number in looks:
                best = np.asarray(points)[np.argsort(-np.asarray(values), kind="stable")[:count]]
                found.append((start + best * spread).astype(np.float32))
    return found


def evolve(
    returns: Callable[[Float[np.ndarray, "n P"], int], Float[np.ndarray, "n"]],
    start: Float[np.ndarray, "P"],
    spread: Float[np.ndarray, "P"],
    budget: int,
    *,
    sigma: float = 0.1,
    rate: float = 0.02,
    pairs: int = 32,
    seed: int = 0,
) -> list[Float[np.ndarray, "P"]]:
    """The mean after every generation of an evolution strategy (Salimans et al. 2017) that spends `budget` episodes.

    A generation plays `pairs` antithetic pairs θ ± σ s ε, ε ~ N(0, 1), s the parameters' spread, one episode each, and
    takes an Adam step of `rate` (in units of s) along Σ rank-weighted ε. `returns(policies, generation)` gives one
    return each. The start comes first.
    """
    improver = make_improver()
    generator, theta = np.random.default_rng(seed), jnp.zeros(len(start))
    moments, path = improver.init(theta), [np.asarray(start, np.float32)]
    for generation in range(budget // (2 * pairs)):
        noise = generator.normal(size=(pairs, len(start))).astype(np.float32)
        z = np.concatenate([np.asarray(theta) + sigma * noise, np.asarray(theta) - sigma * noise])
        got = returns((start + spread * z).astype(np.float32), generation)
        ranks = np.argsort(np.argsort(np.where(np.isfinite(got), got, -np.inf))) / (2 * pairs - 1) - 0.5
        slope: Array = jnp.asarray((ranks[:pairs] - ranks[pairs:]) @ noise / (pairs * sigma), jnp.float32)
        theta, moments = improver.step(theta, moments, slope, rate)
        path.append((start + spread * np.asarray(theta)).astype(np.float32))
    return path


def evosax() -> Any:
    """The library's algorithms. Raises MissingPackageError where it is missing."""
    with extra("baselines"):
        from evosax import algorithms
    return algorithms
