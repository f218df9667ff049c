"""Fit a critic on stored rows, judge it on policies that it never saw, and keep all of it in a run directory."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from epvf_data.config import build, to_dict
from epvf_data.envs import ENVS, make
from epvf_data.errors import DatasetError, RunError
from epvf_data.store import reader
from epvf_data.store.digest import content_hash
from epvf_data.store.reader import Dataset
from epvf_data.store.schema import EnvIdentity
from epvf_data.trainers import plot, rundir
from epvf_data.trainers.report import OfflineReport, judge, make_report
from epvf_data.trainers.settings import SPLITS, OfflineConfig
from epvf_data.trainers.source import Source, make_split, open_source
from epvf_data.trainers.train import FittedSplit, fit_split, load_fitted, predict_rows

Progress = Callable[[dict[str, Any]], None]
PICTURE = "predicted_vs_true.png"


def train_offline(
    dataset: str | Path | Dataset,
    config: OfflineConfig | None = None,
    run_dir: str | Path = "run",
    resume: bool = False,
    progress: Progress | None = None,
) -> OfflineReport:
    """Fits `config.critic` and its controls on the rows of `dataset` (a path or an opened data set).

    `run_dir` then holds config.json, versions.json, metrics.jsonl, checkpoints/, report.json and predicted_vs_true.png.
    With `resume`, a killed run goes on from its last checkpoint to the very result of an uninterrupted one.
    `progress` gets a dictionary after every epoch: split, epoch, epochs, train_loss, validation_loss.

    Raises DatasetError for rows that cannot be learned from and RunError for a run directory that exists already,
    holds no run to resume, or was started with other settings or other rows.
    """
    config = OfflineConfig() if config is None else config
    directory = Path(run_dir)
    if not resume:
        rundir.check_free(directory)
    opened = reader.open(dataset) if isinstance(dataset, (str, Path)) else dataset
    settings = _settings(opened, config)
    if resume:
        rundir.check_same(directory, rundir.read_run(directory), settings)
    source = open_source(opened.table(architecture=config.architecture), config.device_bytes)
    splits = {name: _split(source, name, config) for name in SPLITS[config.split]}
    if not resume:
        rundir.create_run(directory, settings)
    fitted = {
        name: split if isinstance(split, str) else fit_split(source, name, split, config, directory, progress)
        for name, split in splits.items()
    }
    return _publish(directory, opened, source, config, fitted)


def evaluate_run(run_dir: str | Path, dataset: str | Path | Dataset | None = None) -> OfflineReport:
    """The report of a run from its checkpoints, without training; report.json and the picture are written anew.

    `dataset` (a path or an opened data set) is needed only where the one that the run was started on has moved. Of an
    interrupted run, each split is judged by its best epoch so far and marked unfinished. Raises RunError when
    there is no checkpoint yet, or when the data set's content differs.
    """
    directory = Path(run_dir)
    stored = rundir.read_run(directory)
    config = build(OfflineConfig, stored["config"])
    where = stored["dataset"]["path"] if dataset is None else dataset
    opened = reader.open(where) if isinstance(where, (str, Path)) else where
    rundir.check_same(directory, stored, _settings(opened, config))
    source = open_source(opened.table(architecture=config.architecture), config.device_bytes)
    fitted: dict[str, FittedSplit | str] = {}
    for name in SPLITS[config.split]:
        split = _split(source, name, config)
        found = split if isinstance(split, str) else load_fitted(source, name, config, directory)
        fitted[name] = found or "It is not trained yet; resume the run."
    if not any(isinstance(found, FittedSplit) for found in fitted.values()):
        raise RunError(f"{directory} holds no checkpoint yet; resume the run to train it.")
    return _publish(directory, opened, source, config, fitted)


def _settings(opened: Dataset, config: OfflineConfig) -> dict[str, Any]:
    """What config.json holds: the resolved settings and which rows they were applied to."""
    return {
        "config": to_dict(config),
        "dataset": {"path": str(opened.path.absolute()), "content": content_hash(opened)},
    }


def _split(source: Source, name: str, config: OfflineConfig) -> Any:
    """The split, or why it is not available; when it is the only one asked for, DatasetError says so instead."""
    try:
        return make_split(source, name, config.test_fraction, config.validation_fraction, config.seed)
    except DatasetError as error:
        if len(SPLITS[config.split]) == 1:
            raise
        return str(error)


def _publish(
    directory: Path, opened: Dataset, source: Source, config: OfflineConfig, fitted: dict[str, FittedSplit | str]
) -> OfflineReport:
    """Judges every split, writes report.json and the picture."""
    splits: dict[str, Any] = {}
    panels = []
    for name, found in fitted.items():
        if isinstance(found, str):
            splits[name] = {"available": False, "reason": found}
            continue
        splits[name], panel = _judge(name, opened, source, config, found)
        panels.append(panel)
    dataset = {
        "env": opened.env.name,
        "architecture": source.table.spec.id,
        "policies": str(source.table.spec),
        "rows": len(source.labels),
        "rows_not_finite": source.rows_not_finite,
        "return_mean": float(source.labels.mean()),
        "return_std": float(source.labels.std()),
    }
    report = make_report(str(directory), config.critic, dataset, splits)
    rundir.write_json(directory / "report.json", report.to_dict())
    heading = f"{dataset['env']}, policies {dataset['policies']}: {config.critic} on raw parameters"
    rundir.publish(directory / PICTURE, lambda path: plot.draw(panels, config.critic, heading, path))
    return report


def _random_start(identity: EnvIdentity) -> bool | None:
    """Whether episodes start at random, or None for an environment that this version does not know."""
    if identity.name not in ENVS:
        return None
    env = make(identity.name).with_horizon(identity.horizon)
    return env.random_start if env.digest == identity.digest else None


def _judge(
    name: str, opened: Dataset, source: Source, config: OfflineConfig, found: FittedSplit
) -> tuple[dict, plot.Panel]:
    """The report of one split and its panel of the picture."""
    test = found.split.test
    predictions = predict_rows(source, test, found)
    judged = judge(
        name,
        predictions,
        source.labels[test],
        source.variances[test],
        source.families[test],
        _random_start(opened.env),
        config.resamples,
        config.seed,
    )
    result = {
        "available": True,
        "finished": found.finished,
        "rows_train": len(found.split.train),
        "rows_validation": len(found.split.validation),
        "rows_test": len(test),
        "families_train": len(np.unique(source.families[found.split.train])),
        "families_test": len(np.unique(source.families[test])),
        "epochs": found.epochs,
        "best_epochs": found.best_epochs,
        "ridge_penalty": found.penalty,
        "ridge_rows": found.ridge_rows,
        "seconds": found.seconds,
        **judged,
    }
    each = judged["critic"]["per_seed"]["spearman"]
    median = int(np.argsort(each, kind="stable")[(len(each) - 1) // 2])
    vocabulary = list(source.table.vocabulary("source"))
    panel = plot.Panel(
        split=name,
        true=source.labels[test],
        predicted=predictions["critic"][median],
        sources=[vocabulary[index] for index in np.asarray(source.table.column("source"))[test]],
        spearman=judged["critic"]["spearman"],
        r2=judged["critic"]["r2"],
        families=result["families_test"],
        seeds=len(each),
        ridge_spearman=judged["controls"]["ridge"]["spearman"],
    )
    return result, panel
