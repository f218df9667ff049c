"""What a run tells while it goes on: metrics.jsonl, and the same numbers for TensorBoard."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from epvf_data.errors import StorageError
from epvf_data.trainers import rundir

_AXES = {"iteration", "seed", "env_steps"}


class Journal:
    """Appends one line a seed to metrics.jsonl and, unless `tensorboard` is False, to event files."""

    def __init__(self, directory: Path, iteration: int, tensorboard: bool = True):
        """Lines after `iteration` belong to work that a kill undid, and go."""
        self.directory, self.tensorboard, self.resumed_at = directory, tensorboard, iteration
        self.writers: dict[int, Any] = {}
        rundir.rewind_metrics(directory, lambda line: line["iteration"] <= iteration)

    def write(self, lines: Sequence[Mapping[str, Any]]) -> None:
        """One line for each seed; NaN and infinity become null. Raises StorageError."""
        for line in lines:
            clean = {name: None if _bad(value) else value for name, value in line.items()}
            rundir.append_metrics(self.directory, clean)
            if self.tensorboard:
                self._events(clean)

    def _events(self, line: Mapping[str, Any]) -> None:
        seed = line["seed"]
        try:
            if seed not in self.writers:
                from tensorboardX import SummaryWriter  # a third of a second, and only runs need it

                folder = str(self.directory / "tensorboard" / f"seed-{seed}")
                purge = self.resumed_at + 1 if self.resumed_at else None
                self.writers[seed] = SummaryWriter(folder, purge_step=purge)
            for name, value in line.items():
                if name not in _AXES and value is not None:
                    self.writers[seed].add_scalar(name, value, line["iteration"])
            self.writers[seed].add_scalar("env_steps", line["env_steps"], line["iteration"])
        except OSError as error:
            raise StorageError(f"the TensorBoard files in {self.directory} could not be written ({error}).") from error

    def close(self) -> None:
        for writer in self.writers.values():
            writer.close()


def _bad(value: Any) -> bool:
    return isinstance(value, float) and not math.isfinite(value)
