"""Learning curves of a run directory, and how curves of several seeds meet on one axis."""

from __future__ import annotations

from collections.abc import Container
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from epvf_data.trainers import rundir

RETURNS = ("return_perturbed", "return_unperturbed")
RANK = "q_rank_perturbed"  # Spearman of Q and realised discounted returns over the perturbed policies
AXES = ("env_steps", "iteration")  # of figures of the paper
_LINE = {"seed": int, "iteration": float, "env_steps": float}
CELLS = 120  # of a common axis


class Curve(NamedTuple):
    """What one seed logged, in the order of its iterations; what was not logged or is not finite is NaN."""

    seed: int
    iteration: Float[np.ndarray, "n"]
    env_steps: Float[np.ndarray, "n"]  # of this seed since its start
    return_perturbed: Float[np.ndarray, "n"]
    return_unperturbed: Float[np.ndarray, "n"]
    q_rank_perturbed: Float[np.ndarray, "n"]  # of critics that use time
    minutes: Float[np.ndarray, "n"]  # of the run, which trains its seeds side by side

    def points(self, key: str, axis: str) -> tuple[Float[np.ndarray, "m"], Float[np.ndarray, "m"]]:
        """Places on the axis and values of one of RETURNS, or RANK, where both are finite."""
        x, y = getattr(self, axis), getattr(self, key)
        there = np.isfinite(x) & np.isfinite(y)
        return x[there], y[there]


def read_curves(directory: Path, expected: Container[int] | None = None) -> list[Curve]:
    """The curves in metrics.jsonl, one a seed (of those `expected`); empty where nothing was logged.

    A line torn by a kill, or without numbers where they belong, is left out; of two lines of one iteration and seed the
    later one counts.
    """
    seeds: dict[int, dict[float, tuple[float, ...]]] = {}
    for line in rundir.read_lines(directory):
        if rundir.fits(line, _LINE) and (expected is None or line["seed"] in expected):
            names = (*RETURNS, RANK, "seconds")
            numbers = (line[name] if rundir.fits(line.get(name), float) else np.nan for name in names)
            seeds.setdefault(line["seed"], {})[float(line["iteration"])] = (line["env_steps"], *numbers)
    return [_curve(seed, sorted(found.items())) for seed, found in sorted(seeds.items())]


def _curve(seed: int, points: list[tuple[float, tuple[float, ...]]]) -> Curve:
    *columns, seconds = np.array([(iteration, *numbers) for iteration, numbers in points], np.float64).T
    return Curve(seed, *columns, minutes=np.fmax.accumulate(seconds) / 60)


def shared_range(curves: list[Curve], key: str, axis: str = "env_steps") -> tuple[float, float] | None:
    """Where all seeds have values: from the last of their starts to the first of their ends. None: nowhere."""
    places = [curve.points(key, axis)[0] for curve in curves]
    if not places or any(not len(found) for found in places):
        return None
    low, high = max(found[0] for found in places), min(found[-1] for found in places)
    return (float(low), float(high)) if low <= high else None


def align(
    curves: list[Curve], key: str, axis: str = "env_steps", cells: int = CELLS
) -> tuple[Float[np.ndarray, "cells"], Float[np.ndarray, "seeds cells"]]:
    """All seeds on one axis: the middles of equal cells, and each seed's mean in each cell; empty without curves.

    Seeds log at different environment steps, because episodes end early. Each curve is interpolated linearly between
    its points and averaged over a cell, which keeps single noisy points from standing for many; it is never extended.
    """
    common = shared_range(curves, key, axis)
    if common is None:
        return np.zeros(0), np.zeros((len(curves), 0))
    low, high = common
    edges = np.linspace(low, high, (cells if high > low else 0) + 1)
    middles = (edges[1:] + edges[:-1]) / 2 if high > low else edges
    return middles, np.stack([cell_means(*curve.points(key, axis), edges) for curve in curves])


def mean_between(curves: list[Curve], key: str, low: float, high: float) -> Float[np.ndarray, "seeds"]:
    """Each seed's mean return between two numbers of environment steps, both inside `shared_range`."""
    return np.array([cell_means(*curve.points(key, "env_steps"), np.array([low, high]))[0] for curve in curves])


def cell_means(
    x: Float[np.ndarray, "n"], y: Float[np.ndarray, "n"], edges: Float[np.ndarray, "k"]
) -> Float[np.ndarray, "cells"]:
    """Mean over each cell of the curve that joins the points; a cell without width (or a single edge) is its point."""
    at_edges = np.interp(edges, x, y)
    if len(edges) == 1:
        return at_edges
    areas = np.concatenate([[0.0], np.cumsum(np.diff(x) * (y[1:] + y[:-1]) / 2)])
    place = np.clip(np.searchsorted(x, edges, side="right") - 1, 0, len(x) - 1)
    area = areas[place] + (edges - x[place]) * (y[place] + at_edges) / 2
    widths = np.diff(edges)
    return np.where(widths > 0, np.diff(area) / np.where(widths > 0, widths, 1.0), at_edges[1:])


def first_pass(curve: Curve, key: str, level: float, window: int) -> tuple[float, float]:
    """The first iteration, and its environment steps, at which the return passes `level`; infinities for never.

    What must pass is the mean over the last `window` iterations, of which all must have been run.
    """
    iteration, values = curve.points(key, "iteration")
    env_steps = curve.points(key, "env_steps")[0]
    sums = np.concatenate([[0.0], np.cumsum(values)])
    begins = np.searchsorted(iteration, iteration - window, side="right")
    smooth = (sums[1:] - sums[begins]) / (np.arange(len(values)) + 1 - begins)
    passed = np.flatnonzero((smooth >= level) & (iteration >= window))
    if not len(passed):
        return np.inf, np.inf
    return float(iteration[passed[0]]), float(env_steps[passed[0]])
