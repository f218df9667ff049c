"""What no critic can know: how far stored returns are from the mean returns of their policies."""

from __future__ import annotations

from typing import Any

import numpy as np

from epvf_data.scoring.world import World
from epvf_data.trainers.evaluation.settings import EvaluationConfig
from epvf_data.trainers.metrics import interval, resample, spearman
from epvf_data.trainers.offline.fitted import FittedSplit
from epvf_data.trainers.offline.source import Rows


def labels_of(fitted: FittedSplit, place: int, config: EvaluationConfig) -> Rows:
    """Numbers of the rows that `ceiling_of_labels` rolls out again, ascending."""
    source, test = fitted.source, fitted.ground.test
    mine = test[source.places(test) == place]
    order = mine[np.argsort(source.labels[mine], kind="stable")]
    chosen = np.unique(np.linspace(0, len(order) - 1, min(config.labels, len(order))).astype(int))
    return np.sort(order[chosen])


def ceiling_of_labels(fitted: FittedSplit, place: int, world: World, config: EvaluationConfig) -> dict[str, Any]:
    """Rank correlation of stored returns with the mean of `label_episodes` new ones: a critic that knew every policy's
    mean return would reach it, and by more than luck none can exceed it.

    Over `labels` held-out policies of one architecture, spread evenly over their returns. Where nothing else is random,
    starts differ by a hair (`scoring.world.disturbed`): what is left then is chaos, in which rounding decides.
    """
    source, rows = fitted.source, labels_of(fitted, place, config)
    table, stored = source.tables[place], source.labels[rows]
    theta = table.take("params", rows - source.starts[place])
    episodes = config.label_episodes if world.varies(table.spec) else 1
    found = world.outcomes(table.spec, theta, episodes, 1, world.progress)
    again = np.asarray(found.returns, np.float64).mean(1)
    samples = resample(len(rows), None, 400, config.seed)
    return {
        "policies": len(rows),
        "episodes": episodes,
        "start_noise": world.noise,
        "spearman": spearman(again, stored),
        "interval": interval(np.array([spearman(again[one], stored[one]) for one in samples])),
        "median_difference": float(np.median(np.abs(again - stored))),
        "largest_difference": float(np.abs(again - stored).max()),
    }
