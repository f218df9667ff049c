"""What online training is given, checked before anything heavy is imported."""

from __future__ import annotations

from pathlib import Path

from epvf_data.store import reader
from epvf_data.store.creation import unmade
from epvf_data.trainers import rundir


def check_inputs(directory: Path, resume: bool, record: Path | None, warm_start: Path | None) -> None:
    """Raises RunError for a directory that is taken, or where there is no run to resume, and DatasetError for data sets
    that are not there, or whose place something else has taken."""
    if resume:
        rundir.read_run(directory)
    else:
        rundir.check_free(directory)
    if record is not None and not unmade(record):
        reader.open(record)
    if warm_start is not None:
        reader.open(warm_start)
