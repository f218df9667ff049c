"""Is ∇V the direction in which the return grows? Against an antithetic ES gradient of the same policies."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from epvf_data.scoring.world import World
from epvf_data.store.table import Table
from epvf_data.trainers.evaluation.settings import EvaluationConfig
from epvf_data.trainers.metrics import interval
from epvf_data.trainers.offline.fitted import FittedSplit

_SPREAD_ROWS = 4096


def compare_gradients(fitted: FittedSplit, place: int, world: World, config: EvaluationConfig) -> dict[str, Any]:
    """Cosine of ∇V with the ES gradient at some training policies, over seeds and policies.

    The cosine of two ES gradients, from half of the pairs each, tells how much of a true gradient is in one: by it,
    `ceiling` estimates the cosine that the true gradient itself would reach (the root of the reliability of all pairs,
    Spearman 1910); None where the halves do not agree at all, so that more pairs are needed. `chance`, 1/√P, is what
    a random direction reaches in size.
    """
    chosen, _ = pick(fitted, place, config.policies)
    spec, spread = fitted.source.tables[place].spec, spread_of(fitted, place)
    generator = np.random.default_rng(config.seed)
    slopes = jax.jit(jax.vmap(jax.jacrev(lambda theta: fitted.value(place, theta))))(jnp.asarray(chosen))
    cosines, halves = [], []
    for theta, slope in zip(chosen, np.asarray(slopes), strict=True):
        noise = generator.normal(size=(config.pairs, spec.size)).astype(np.float32)
        moves = config.sigma * spread * noise
        returns = world.returns(spec, np.concatenate([theta + moves, theta - moves]))
        weights = returns[: config.pairs] - returns[config.pairs :]
        each = weights[:, None] * noise
        halves.append(_cosine(each[::2].mean(0), each[1::2].mean(0)))
        cosines.append([_cosine(one * spread, each.mean(0)) for one in slope])
    per_policy = np.array(cosines)  # [policies, seeds]
    half = float(np.mean(halves))
    draws = generator.integers(0, len(per_policy), (400, len(per_policy)))
    return {
        "policies": len(chosen),
        "pairs": config.pairs,
        "sigma": config.sigma,
        "cosine": float(per_policy.mean()),
        "interval": interval(per_policy.mean(1)[draws].mean(1)),
        "per_policy": per_policy.mean(1).tolist(),
        "per_seed": per_policy.mean(0).tolist(),
        "split_half": half,
        "ceiling": float(np.sqrt(2 * half / (1 + half))) if half > 0 else None,
        "chance": spec.size**-0.5,
    }


def pick(
    fitted: FittedSplit, place: int, count: int, best: int | None = None
) -> tuple[Float[np.ndarray, "n P"], Float[np.ndarray, "n"]]:
    """Parameters and returns of training rows of one architecture: `best` of the highest, the rest evenly spaced."""
    source, train = fitted.source, fitted.ground.split.train
    rows = train[source.places(train) == place]
    rows = rows[np.argsort(-source.labels[rows], kind="stable")]
    count = min(count, len(rows))
    top = min(count, (count + 1) // 2 if best is None else best)
    rest = rows[top:][np.linspace(0, len(rows) - top - 1, count - top).astype(int)] if count > top else rows[:0]
    chosen = np.concatenate([rows[:top], rest])
    table = source.tables[place]
    return table.take("params", chosen - source.starts[place]), source.labels[chosen]


def spread_of(fitted: FittedSplit, place: int) -> Float[np.ndarray, "P"]:
    """Deviation of each parameter over the training rows of one architecture, also for critics that read none."""
    if fitted.source.column == "params":
        return np.asarray(fitted.ground.scales[place].theta_std)
    return spread_of_rows(fitted.source.tables[place], fitted.source.local(fitted.ground.split.train)[place])


def spread_of_rows(table: Table, rows: Int[np.ndarray, "k"]) -> Float[np.ndarray, "P"]:
    """Deviation of each parameter over some of these rows; 1 where it never varies."""
    some = rows[np.linspace(0, len(rows) - 1, min(_SPREAD_ROWS, len(rows))).astype(int)]
    spread = table.take("params", some).std(0)
    return np.where(spread > 0, spread, 1.0)


def local_spread(table: Table, least: int = 10) -> Float[np.ndarray, "P"]:
    """Deviation of each parameter inside a family of rows, pooled over families of at least `least` rows.

    How far a policy may be moved tell the policies around it, not how far apart those of other trainings lie. Where
    such families hold less than half of the rows it is the deviation over all rows;
    so is that of a parameter which varies in no family.
    """
    every = np.arange(table.rows)
    _, place, counts = np.unique(table.groups(), return_inverse=True, return_counts=True)
    mine = np.flatnonzero(counts[place] >= least)
    overall = spread_of_rows(table, every)
    if 2 * len(mine) < table.rows:
        return overall
    some = mine[np.linspace(0, len(mine) - 1, min(_SPREAD_ROWS, len(mine))).astype(int)]
    theta, family = table.take("params", some).astype(np.float64), place[some]
    squares, freedom = np.zeros(theta.shape[1]), 0
    for name in np.unique(family):
        own = theta[family == name]
        squares += np.square(own - own.mean(0)).sum(0)
        freedom += len(own) - 1
    inside = np.sqrt(squares / max(freedom, 1))
    return np.where(inside > 0, inside, overall).astype(np.float32)


def _cosine(first: np.ndarray, second: np.ndarray) -> float:
    norm = np.linalg.norm(first) * np.linalg.norm(second)
    return float(first @ second / norm) if norm > 0 else 0.0
