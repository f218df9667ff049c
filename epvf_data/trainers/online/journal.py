"""What a run tells while it goes on: metrics.jsonl, and the same numbers for TensorBoard."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from epvf_data.errors import StorageError, reason
from epvf_data.trainers import rundir

_AXES = {"iteration", "seed", "env_steps"}


class Journal:
    """Appends one line a seed to metrics.jsonl and, unless `tensorboard` is False, to event files."""

    def __init__(self, directory: Path, iteration: int, tensorboard: bool = True):
        """Lines after `iteration` belong to work that a kill undid, and go."""
        self.directory, self.tensorboard, self.resumed_at = directory, tensorboard, iteration
        self.writers: dict[int, Any] = {}
        rundir.rewind_metrics(
            directory, lambda line: rundir.fits(line, {"iteration": int}) and line["iteration"] <= iteration
        )

    def write(self, lines: Sequence[Mapping[str, Any]]) -> None:
        """One line for each seed; NaN and infinity become null. Raises StorageError."""
        for line in lines:
            clean = {name: None if _bad(value) else value for name, value in line.items()}
            rundir.append_metrics(self.directory, clean)
            if self.tensorboard:
                self._events(clean)

    def _events(self, line: Mapping[str, Any]) -> None:
        """One event with all numbers of the line, written at once: the library's own thread would die of a full disk
        and leave us waiting for it."""
        from tensorboardX.proto.event_pb2 import Event  # pyright: ignore[reportAttributeAccessIssue]
        from tensorboardX.proto.summary_pb2 import Summary  # pyright: ignore[reportAttributeAccessIssue]

        values = {name: value for name, value in line.items() if name not in _AXES and value is not None}
        values["env_steps"] = line["env_steps"]
        summary = Summary(value=[Summary.Value(tag=name, simple_value=value) for name, value in values.items()])
        try:
            writer = self.writers.get(line["seed"]) or self._open(line["seed"])
            writer.write_event(Event(wall_time=time.time(), step=line["iteration"], summary=summary))
            writer.flush()
        except OSError as error:
            raise StorageError(
                f"the TensorBoard files in {self.directory} could not be written ({reason(error)})."
            ) from error

    def _open(self, seed: int) -> Any:
        """The seed's event file; of a resumed run, a new one that takes back what a kill undid."""
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto.event_pb2 import Event, SessionLog  # pyright: ignore[reportAttributeAccessIssue]

        folder = self.directory / "tensorboard" / f"seed-{seed}"
        folder.mkdir(parents=True, exist_ok=True)
        writer = self.writers[seed] = EventsWriter(str(folder / "events"))
        if self.resumed_at:
            start = SessionLog(status=SessionLog.START)
            writer.write_event(Event(wall_time=time.time(), step=self.resumed_at + 1, session_log=start))
        return writer

    def close(self) -> None:
        for writer in self.writers.values():
            with contextlib.suppress(OSError):  # every event was flushed when it was written
                writer.close()


def _bad(value: Any) -> bool:
    return isinstance(value, float) and not math.isfinite(value)
