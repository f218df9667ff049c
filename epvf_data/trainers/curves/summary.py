"""The numbers of online runs: of each seed, the median over seeds, and how two experiments differ."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from epvf_data.trainers.curves.history import Group, read_groups
from epvf_data.trainers.curves.read import Curve
from epvf_data.trainers.curves.statistics import LEAST_SEEDS, Estimate, difference, estimate

# What is told of each seed. Returns are undiscounted; "θ" is the unperturbed policy, judged at every log entry.
MEASURES: dict[str, Callable[[Curve], float]] = {
    "final_return": lambda curve: _last(curve.return_unperturbed),
    "best_return": lambda curve: _most(curve.return_unperturbed),
    "perturbed_return": lambda curve: _last(curve.return_perturbed),
    "env_steps": lambda curve: float(curve.env_steps[-1]),
    "minutes": lambda curve: _last(curve.minutes),
}
COMPARED = ("final_return", "best_return")
ENV_SETTINGS = ("env", "horizon")


def median(values: Float[np.ndarray, "..."], axis: int = 0) -> Float[np.ndarray, "..."]:
    """The median along an axis; of an even number of values the mean of the two in the middle."""
    return np.asarray(np.median(values, axis=axis))


def summarise(group: Group) -> dict[str, Any]:
    """One experiment: its settings in short, how far it is, and each of `MEASURES` by seed and over seeds.

    `median` is over seeds, `interval` its 95 % percentile bootstrap interval, None with fewer than three seeds.
    """
    stated, curves = group.settings, group.curves
    return {
        "name": group.name,
        "runs": [str(run.directory) for run in group.runs],
        **{name: stated.get(name) for name in ("algorithm", *ENV_SETTINGS)},
        "budget": {name: stated[name] for name in ("iterations", "env_steps") if stated.get(name) is not None},
        "iterations": max(run.iteration for run in group.runs),
        "finished": group.finished,
        "seeds": [curve.seed for curve in curves],
        **{name: _over_seeds(np.array([one(curve) for curve in curves])) for name, one in MEASURES.items()},
    }


def compare_runs(runs: Sequence[str | Path]) -> dict[str, Any]:
    """Online runs side by side: `groups` as `summarise` has them, those of equal settings together, and
    `differences` of each to the first.

    A difference is of medians over seeds, with a 95 % interval from independent bootstrap resamples of both; `apart`
    tells whether that leaves zero out, None with fewer than three seeds on either side. Raises RunError for what is no
    run of online training or has logged nothing.
    """
    groups = read_groups(runs)
    first, *others = groups
    tasks = {tuple(str(group.settings.get(name)) for name in ENV_SETTINGS) for group in groups}
    return {
        "groups": [summarise(group) for group in groups],
        "same_task": len(tasks) == 1,
        "differences": [
            {"of": other.name, "from": first.name, **{name: _difference(other, first, name) for name in COMPARED}}
            for other in others
        ],
    }


def _difference(group: Group, reference: Group, name: str) -> dict[str, Any]:
    values = [np.array([MEASURES[name](curve) for curve in one.curves]) for one in (group, reference)]
    values = [one[np.isfinite(one)] for one in values]
    if not all(map(len, values)):
        return {"value": None, "interval": None, "apart": None}
    found = difference(values[0], values[1], median)
    few = min(map(len, values)) < LEAST_SEEDS
    return {
        "value": float(found.value),
        "interval": None if few else [float(found.low), float(found.high)],
        "apart": None if few else found.below(0.0) or found.above(0.0),
    }


def _over_seeds(values: Float[np.ndarray, "seeds"]) -> dict[str, Any]:
    known = values[np.isfinite(values)]
    found: Estimate | None = estimate(known, median) if len(known) else None
    return {
        "per_seed": [float(value) if np.isfinite(value) else None for value in values],
        "median": None if found is None else float(found.value),
        "interval": None if found is None or len(known) < LEAST_SEEDS else [float(found.low), float(found.high)],
    }


def _last(values: Float[np.ndarray, "n"]) -> float:
    known = values[np.isfinite(values)]
    return float(known[-1]) if len(known) else np.nan


def _most(values: Float[np.ndarray, "n"]) -> float:
    known = values[np.isfinite(values)]
    return float(known.max()) if len(known) else np.nan
