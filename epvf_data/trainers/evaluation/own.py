"""Measures of the user's own: `metric(predicted, true)` over the held-out policies of a split gives one number."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from epvf_data import code
from epvf_data.code import Function
from epvf_data.errors import ConfigError
from epvf_data.trainers.offline.fitted import FittedSplit, held_out
from epvf_data.untrusted import printable

Metric = str | Function | Callable[[Float[np.ndarray, "n"], Float[np.ndarray, "n"]], float]


def named(metrics: Sequence[Metric]) -> dict[str, Function]:
    """The functions by the short names that columns have; `FILE.py:FUNCTION` is loaded.

    Raises ConfigError for what is no function and for two of one name, FileError where there is no such file.
    """
    found: dict[str, Function] = {}
    for one in metrics:
        if isinstance(one, str) and not code.names_code(one):
            raise ConfigError(f"the metric {printable(repr(one))} is no code; name it as in my_metric.py:top_two.")
        metric = Function.of(one)
        name = code.title(metric.name)
        if name in found:
            raise ConfigError(f"two metrics are called {name}; rename one.")
        found[name] = metric
    return found


def measure_own(metrics: Mapping[str, Function], folds: Sequence[FittedSplit]) -> dict[str, dict[str, Any]]:
    """Each metric of every seed's predictions for the rows that its fold held out, in units of the return, and the mean
    over seeds. Raises ConfigError where one fails or gives anything but a finite number."""
    if not metrics:
        return {}
    rows, predicted = held_out(folds)
    true = folds[0].source.labels[rows]
    found = {}
    for name, metric in metrics.items():
        each = [_number(metric, own, true) for own in predicted]
        found[name] = {"value": float(np.mean(each)), "per_seed": each}
    return found


def _number(metric: Function, predicted: Float[np.ndarray, "n"], true: Float[np.ndarray, "n"]) -> float:
    with code.blamed(metric.name, "number"):
        found = float(metric.call(predicted.copy(), true.copy()))
    if not math.isfinite(found):
        raise ConfigError(f"{metric.name} gives {found}; expected a finite number.")
    return found
