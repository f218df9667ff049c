"""Does gradient ascent on V give better policies? From the best training rows, rolled out for real along the way."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from epvf_data.improvement.ascent import ascend
from epvf_data.improvement.controls import random_steps
from epvf_data.improvement.judging import sure
from epvf_data.scoring.world import World
from epvf_data.trainers.evaluation.gradients import pick, spread_of
from epvf_data.trainers.evaluation.settings import EvaluationConfig
from epvf_data.trainers.offline.fitted import FittedSplit


def improve(fitted: FittedSplit, place: int, world: World, config: EvaluationConfig) -> dict[str, Any]:
    """Policies after some steps of fixed length up each seed's V, against random steps of that length.

    `best_in_data`, `start_mean` and `start_median` are those of the starting policies, rolled out again. The step to
    stop at is chosen without rollouts: where the other seeds together are surest that the steps helped (mean less
    deviation of their V); one seed alone has to take its last step. `gain` is against random steps, for the best rows
    owe some of their return to luck, which any step loses; the gain over the start is `mean` less `start_mean`.
    """
    theta, _ = pick(fitted, place, config.starts, config.starts)
    spec, spread = fitted.source.tables[place].spec, spread_of(fitted, place)
    length = config.step * np.sqrt(spec.size)
    values = jax.jit(jax.vmap(lambda one: fitted.value(place, one)))
    seeds = values(jnp.asarray(theta[:1])).shape[1]
    start = world.returns(spec, theta)
    generator = np.random.default_rng(config.seed)
    away = random_steps(np.zeros_like(theta), spread, np.full(len(theta), length), generator)
    paths = [
        ascend(lambda row, seed=seed: fitted.value(place, row, seed)[0], theta, spread, length, config.steps)
        for seed in range(seeds)
    ]
    climb, control, judged = [], [], []
    for number, steps in enumerate(config.steps):
        policies = [np.asarray(path[number]) for path in paths]
        true = np.stack([world.returns(spec, one) for one in policies])
        every = np.stack([np.asarray(values(jnp.asarray(one)), np.float64).T for one in policies])  # [seed, V of, n]
        own = every[np.arange(seeds), np.arange(seeds)]
        judged.append(_sure(every))
        climb.append({"steps": steps, **_describe(true, start), "predicted": float(own.mean())})
        climb[-1]["over_estimation"] = climb[-1]["predicted"] - climb[-1]["mean"]
        control.append({"steps": steps, **_describe(world.returns(spec, theta + steps * away)[None], start)})
    stop = int(np.argmax(judged)) if seeds > 1 else len(config.steps) - 1
    return {
        "starts": len(theta),
        "step_length": float(length),
        "best_in_data": float(start.max()),
        "start_mean": float(start.mean()),
        "start_median": float(np.median(start)),
        "climb": climb,
        "random": control,
        "average_of_starts": float(world.returns(spec, theta.mean(0, keepdims=True))[0]),
        "stopped": {**climb[stop], "gain": climb[stop]["mean"] - control[stop]["mean"]},
    }


def _sure(every: Float[np.ndarray, "S V n"]) -> float:
    """What the other seeds say of a seed's policies, averaged."""
    others = [np.delete(every[seed], seed, axis=0) for seed in range(len(every))]
    return float(np.mean([sure(one).mean() for one in others])) if len(every) > 1 else 0.0


def _describe(true: Float[np.ndarray, "S n"], start: Float[np.ndarray, "n"]) -> dict[str, float]:
    """Percentiles of true returns, averaged over seeds, and how many are better than where they started."""
    return {
        "mean": float(true.mean()),
        "best": float(true.max(1).mean()),
        "median": float(np.median(true, axis=1).mean()),
        "improved": float((true > start[None]).mean()),
    }
