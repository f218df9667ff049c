"""What is settled before the first step of a split: its rows, the scale, the ridge that every critic has to beat."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from epvf_data.critics.base import Params, Scale
from epvf_data.critics.ridge import fit_ridge
from epvf_data.errors import RunError
from epvf_data.trainers import checkpoint
from epvf_data.trainers.checkpoint import Leaf
from epvf_data.trainers.offline.source import Rows, Source, measure_scales
from epvf_data.trainers.offline.splits import Split


class Ground(NamedTuple):
    """As stored. `scale` and `ridge` hold one entry for each architecture, by its number."""

    fit: Rows
    validation: Rows
    test: Rows
    scale: dict[str, dict[str, np.ndarray]]
    ridge: dict[str, dict[str, np.ndarray]]  # weights, bias, penalty (λ / P), and on how many rows it was fitted
    reach: Float[np.ndarray, "2"]  # lowest and highest training return, in standardised units
    seconds: Float[np.ndarray, ""]

    @property
    def split(self) -> Split:
        return Split(self.fit, self.validation, self.test)

    @property
    def scales(self) -> tuple[Scale, ...]:
        return tuple(Scale(**self.scale[str(place)]) for place in range(len(self.scale)))

    @property
    def planes(self) -> tuple[Params, ...]:
        """Parameters of each architecture's ridge, with a leading axis of one seed."""
        each = (self.ridge[str(place)] for place in range(len(self.ridge)))
        return tuple({"weights": one["weights"][None, None], "bias": one["bias"][None, None]} for one in each)

    @property
    def support(self) -> tuple[float, float]:
        """The range of a histogram of returns, in standardised units: half as much again above the best return."""
        low, high = (float(end) for end in self.reach)
        return low - 0.1 * (high - low), high + 0.5 * (high - low)


def lay_ground(source: Source, split: Split) -> Ground:
    """Scales and ridges from the training rows alone. An architecture without training rows gets the mean return.

    Stored probing actions mean the same for every architecture: one ridge on them is fitted to all.
    """
    started = time.perf_counter()
    train = split.train
    scales = measure_scales(source, train)
    targets = (source.labels - float(scales[0].return_mean)) / float(scales[0].return_std)
    places, every = source.places(train), range(len(scales))
    groups = [tuple(every)] if source.column == "probe_actions" else [(place,) for place in every]
    planes = {}
    for group in groups:
        rows = train[np.isin(places, group)]
        plane = _ridge(source, rows, source.sizes[group[0]], scales, targets[rows], np.isin(rows, split.validation))
        planes.update(dict.fromkeys(map(str, group), plane))
    return Ground(
        *split,
        scale={str(place): scale._asdict() for place, scale in enumerate(scales)},
        ridge=planes,
        reach=np.array([targets[train].min(), targets[train].max()]),
        seconds=np.array(time.perf_counter() - started),
    )


def restore_ground(folder: Path, source: Source) -> Ground:
    """The ground of a split as stored. Raises RunError unless it is one of these rows."""
    single, double, whole = Leaf((), np.float32), Leaf((), np.float64), Leaf((), np.int64)
    vectors = {str(place): Leaf((size,), np.float32) for place, size in enumerate(source.sizes)}
    shapes: dict[str, Any] = dict.fromkeys(Split._fields, Leaf((None,), np.int64, most=len(source.labels)))
    shapes["scale"] = {
        place: dict(zip(Scale._fields, (vector, vector, single, single), strict=True))
        for place, vector in vectors.items()
    }
    shapes["ridge"] = {
        place: {"weights": vector, "bias": single, "penalty": double, "rows": whole}
        for place, vector in vectors.items()
    }
    ground = Ground(**checkpoint.restore(folder, {**shapes, "reach": Leaf((2,), np.float64), "seconds": double}))
    ascending = all((np.diff(part) > 0).all() and part[0] >= 0 for part in ground.split)
    inside = ascending and all(part[-1] < len(source.labels) for part in ground.split)
    spreads = [spread for scale in ground.scales for spread in (scale.theta_std, scale.return_std)]
    if not inside or not checkpoint.finite(ground) or not all((spread > 0).all() for spread in spreads):
        raise RunError(f"{folder} holds rows or scales that no training leaves; train the run again.")
    return ground


def _ridge(
    source: Source, rows: Rows, size: int, scales: tuple[Scale, ...], targets: np.ndarray, held_out: np.ndarray
) -> dict[str, Any]:
    """The ridge on these rows, ascending; without rows to choose the penalty by, `held_out`, it is their mean."""
    if not 0 < held_out.sum() < len(rows):
        bias = targets.mean() if len(rows) else 0.0
        plain = {"weights": np.zeros(size, np.float32), "bias": np.array(bias, np.float32)}
        return {**plain, "penalty": np.array(0.0), "rows": np.array(0)}

    def read(start: int, stop: int) -> np.ndarray:
        mine = enumerate(zip(source.local(rows[start:stop]), scales, strict=True))
        return np.concatenate(
            [
                (source.read(place, local) - scale.theta_mean) / scale.theta_std
                for place, (local, scale) in mine
                if len(local)
            ]
        )

    plane = fit_ridge(read, targets, held_out, size)
    return {
        "weights": plane.weights,
        "bias": np.array(plane.bias, np.float32),
        "penalty": np.array(plane.penalty),
        "rows": np.array(plane.rows),
    }
