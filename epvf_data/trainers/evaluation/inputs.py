"""What an evaluation is given, checked before anything heavy is imported."""

from __future__ import annotations

from pathlib import Path

from epvf_data.errors import RunError
from epvf_data.store import reader
from epvf_data.trainers import startedwith
from epvf_data.trainers.evaluation.settings import EvaluationConfig
from epvf_data.trainers.offline.inputs import own_rows, stored_run
from epvf_data.trainers.offline.settings import parse_splits


def check_inputs(
    run_dir: str | Path,
    dataset: str | Path | None,
    config: EvaluationConfig,
    trained_on: str | Path | None,
    critic: object = None,
) -> None:
    """Raises RunError where there is no offline run, it has not the split, or its critic is code that is not named, and
    DatasetError for data sets that are not there."""
    directory = Path(run_dir)
    stored = stored_run(directory)
    startedwith.check_code(directory, stored, stored["config"]["critic"], critic)
    splits = parse_splits(stored["config"]["split"])
    if config.split is not None and config.split not in splits:
        raise RunError(f"{directory} has no critic of the split {config.split}; choose one of {', '.join(splits)}.")
    if trained_on is None:
        own_rows(directory, stored["dataset"]["path"])
    else:
        reader.open(trained_on)
    if dataset is not None:
        reader.open(dataset)
