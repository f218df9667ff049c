"""What online training is given, checked before anything heavy is imported."""

from __future__ import annotations

from pathlib import Path

from epvf_data.errors import RunError
from epvf_data.store import reader
from epvf_data.store.creation import unmade
from epvf_data.trainers import rundir
from epvf_data.trainers.online.settings import OnlineConfig


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


def check_apart(
    config: OnlineConfig, directory: Path, resume: bool, record: Path | None, warm_start: Path | None
) -> None:
    """The same where each seed is a run by itself, `directory`/seed-K; to resume, one of them has to be there."""
    begun = [path for path in seed_folders(config, directory) if (path / rundir.CONFIG).is_file()]
    if resume and not begun:
        raise RunError(f"{directory} holds no run of a seed; start without --resume.")
    if not resume:
        rundir.check_free(directory)
    for path in begun:
        rundir.read_run(path)
    if record is not None and not unmade(record):
        reader.open(record)
    if warm_start is not None:
        reader.open(warm_start)


def seed_folders(config: OnlineConfig, directory: Path) -> list[Path]:
    """Where the runs of the seeds lie, of which each is a run by itself."""
    return [directory / f"seed-{seed}" for seed in range(config.seed, config.seed + config.seeds)]
