"""What a run tells while it goes on: metrics.jsonl, and the same numbers for trackers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from epvf_data.trainers import rundir
from epvf_data.trainers.trackers import Tracker

_AXES = {"iteration", "seed"}


class Journal:
    """Appends one line a seed to metrics.jsonl, and hands it to the trackers."""

    def __init__(self, directory: Path, iteration: int, trackers: Sequence[Tracker] = ()):
        """Lines after `iteration` belong to work that a kill undid, and go."""
        self.directory, self.trackers = directory, trackers
        rundir.rewind_metrics(
            directory, lambda line: rundir.fits(line, {"iteration": int}) and line["iteration"] <= iteration
        )

    def write(self, lines: Sequence[Mapping[str, Any]]) -> None:
        """One line for each seed; NaN and infinity become null. Raises StorageError."""
        for line in lines:
            clean = {name: None if _bad(value) else value for name, value in line.items()}
            rundir.append_metrics(self.directory, clean)
            values = {name: value for name, value in clean.items() if name not in _AXES and value is not None}
            for tracker in self.trackers:
                tracker.write(seed_series(line["seed"]), line["iteration"], values)

    def close(self) -> None:
        for tracker in self.trackers:
            tracker.close()


def seed_series(seed: int) -> str:
    """What trackers call the curves of a seed."""
    return f"seed-{seed}"


def _bad(value: Any) -> bool:
    return isinstance(value, float) and not math.isfinite(value)
