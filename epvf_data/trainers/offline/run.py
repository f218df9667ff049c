"""Fit a critic on stored rows, judge it on policies that it never saw, and keep all of it in a run directory."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from epvf_data import runtime
from epvf_data.code import Function
from epvf_data.config import build, to_dict
from epvf_data.critics.families import Family, family_of, resolve
from epvf_data.errors import DatasetError, RunError
from epvf_data.policies.loading import PolicyCode, origin_of
from epvf_data.recording.task import with_policy
from epvf_data.store import reader
from epvf_data.store.digest import content_hash
from epvf_data.store.reader import Dataset
from epvf_data.trainers import rundir, startedwith, trackers
from epvf_data.trainers.offline.fitted import FittedSplit, critic_of, fold_name, load_fitted
from epvf_data.trainers.offline.inputs import open_inputs, own_rows, stored_run, tables_of
from epvf_data.trainers.offline.publish import judge_split, publish, seconds_besides_fits
from epvf_data.trainers.offline.report import OfflineReport
from epvf_data.trainers.offline.settings import OfflineConfig, headline
from epvf_data.trainers.offline.source import Source, open_source
from epvf_data.trainers.offline.splits import Split, make_splits
from epvf_data.trainers.offline.train import fit_split
from epvf_data.untrusted import printable

Progress = Callable[[dict[str, Any]], None]
Own = str | Family | Callable[[Any], Any]  # a critic: its name, file.py:function, or make(made) itself
_THETA = "-ridge"  # after the name of a split, of the folder of its ridge on parameters
Told = Callable[[str, dict[str, Any]], None]  # (name of a split, what the report says of it)


def train_offline(
    dataset: str | Path | Dataset,
    config: OfflineConfig | None = None,
    run_dir: str | Path = "run",
    resume: bool = False,
    progress: Progress | None = None,
    told: Told | None = None,
    *,
    critic: Own | None = None,
    policy: PolicyCode | None = None,
    plot: Path | None = None,
    force: bool = False,
    track: Sequence[str] = (),
) -> OfflineReport:
    """Fits `config.critic` and its controls on the rows of `dataset` (a path or an opened data set).

    `critic` takes the place of the settings': a name, `FILE.py:FUNCTION`, a function that makes one, or a family;
    `policy` is the code of policies of your own, for critics that look at what they do.
    `run_dir` then holds config.json, versions.json, metrics.jsonl, checkpoints/, report.json and predicted_vs_true.png.
    With `resume`, a killed run goes on from its last checkpoint to the very result of an uninterrupted one.
    `progress` gets a dictionary after every epoch: split, epoch, epochs, train_loss, validation_loss; `told` the name
    and the result of every split, as in the report's `splits`, as soon as it is judged.
    `plot` gets the picture too, as PNG, PDF or SVG; `force` replaces it. `track` names trackers for mean losses.

    Raises DatasetError for rows that cannot be learned from, RunError for a run directory that exists already,
    holds no run to resume, or was started with other settings or other rows, and MissingPackageError for a tracker
    that is not installed.
    """
    runtime.check()
    began, fitting = time.perf_counter(), 0.0
    config = OfflineConfig() if config is None else config
    config = replace(config, critic=resolve(config.critic if critic is None else critic))
    directory, policy = Path(run_dir), None if policy is None else Function.of(policy)
    trackers.check(track)
    opened = with_policy(open_inputs(dataset, config, directory, resume), policy)
    settings = _settings(opened, config, policy)
    if resume:
        startedwith.check_same(directory, stored_run(directory), settings)
    source, plane = _source(opened, config), _parameters(opened, config)
    critic_of(source, config)  # what cannot be made is refused before anything is fitted
    splits = {name: _split(source, name, config) for name in config.splits}
    if not resume:
        own = None if policy is None else origin_of(policy)
        rundir.create_run(directory, settings, family_of(config.critic).origin, own)
    identity, judged = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest(), {}
    tracked = trackers.Tracked(directory, identity, settings["config"], 0)
    with rundir.lock(directory), trackers.epochs(track, tracked, progress) as progress:
        for name, split in splits.items():
            if isinstance(split, str):
                judged[name] = judge_split(name, opened, source, config, split)
            else:
                fitted, spent = _fit_folds(source, name, split, config, directory, progress)
                theta, more = _ridges_on_theta(plane, name, split, config, directory)
                fitting += spent + more
                judged[name] = judge_split(name, opened, source, config, fitted, theta)
            if told is not None:
                told(name, judged[name].result)
    before = seconds_besides_fits(directory)
    besides = lambda: before + time.perf_counter() - began - fitting  # noqa: E731
    return publish(directory, opened, source, config, judged, besides, plot, force)


def evaluate_run(
    run_dir: str | Path,
    dataset: str | Path | Dataset | None = None,
    critic: Own | None = None,
    policy: PolicyCode | None = None,
) -> OfflineReport:
    """The report of a run from its checkpoints, without training; report.json and the picture are written anew.

    `dataset` (a path or an opened data set) is needed only where the one that the run was started on has moved. Of an
    interrupted run, each split is judged by its best epoch so far and marked unfinished. `critic` names the critic
    again where it is one of the user's own, `policy` the code of such policies. Raises RunError when there is no
    checkpoint yet, or when the data set's content, or that critic's, differs.
    """
    return report_of(load_run(run_dir, dataset, critic, policy))


def report_of(loaded: LoadedRun) -> OfflineReport:
    """Judges every split of a run that is loaded; report.json and the picture are written anew."""
    directory, config, dataset, source, folds = loaded
    plane, judged = _parameters(dataset, config), {}
    for name, found in folds.items():
        theta = _stored_ridges(plane, name, config, directory) if plane is not None else []
        judged[name] = judge_split(name, dataset, source, config, found, theta if len(theta) == len(found) else [])
    return publish(directory, dataset, source, config, judged, lambda: seconds_besides_fits(directory))


class LoadedRun(NamedTuple):
    """A run's critics on the rows that it was started on; a sentence stands for a split that is not there.

    `folds` has the critics of every fold that is there, `fitted` of each split those of the first, which are its
    critics where one is wanted.
    """

    directory: Path
    config: OfflineConfig
    dataset: Dataset
    source: Source
    folds: dict[str, list[FittedSplit] | str]

    @property
    def fitted(self) -> dict[str, FittedSplit | str]:
        return {name: found if isinstance(found, str) else found[0] for name, found in self.folds.items()}

    def critics(self, split: str) -> list[FittedSplit]:
        """Those of every fold of a split that has some."""
        found = self.folds[split]
        assert not isinstance(found, str)
        return found


def load_run(
    run_dir: str | Path,
    dataset: str | Path | Dataset | None = None,
    critic: Own | None = None,
    policy: PolicyCode | None = None,
) -> LoadedRun:
    """The critics of a run, ready to predict. Raises RunError as `evaluate_run` does."""
    runtime.check()
    directory = Path(run_dir)
    stored = stored_run(directory)
    name = stored["config"]["critic"]
    startedwith.check_code(directory, stored, name, critic)
    config = build(
        OfflineConfig, stored["config"], {} if critic is None else {"critic": _again(directory, name, critic)}
    )
    opened = own_rows(directory, stored["dataset"]["path"]) if dataset is None else dataset
    opened = with_policy(reader.open(opened) if isinstance(opened, (str, Path)) else opened, policy)
    startedwith.check_same(directory, stored, _settings(opened, config))
    source = _source(opened, config)
    folds: dict[str, list[FittedSplit] | str] = {}
    for name in config.splits:
        split = _split(source, name, config)
        if isinstance(split, str):
            folds[name] = split
            continue
        each = [load_fitted(source, fold_name(name, fold), config, directory) for fold in range(len(split))]
        there = [one for one in each[: each.index(None) if None in each else None] if one is not None]
        folds[name] = there or "It is not trained yet; resume the run."
    if all(isinstance(found, str) for found in folds.values()):
        raise RunError(f"{directory} holds no checkpoint yet; resume the run to train it.")
    return LoadedRun(directory, config, opened, source, folds)


def choose_split(loaded: LoadedRun, wanted: str | None = None) -> tuple[str, FittedSplit]:
    """The split whose critics are meant: the one named, else the one that speaks for the run. Raises RunError."""
    there = {name: found for name, found in loaded.fitted.items() if isinstance(found, FittedSplit)}
    if wanted is not None and wanted not in there:
        raise RunError(f"{loaded.directory} has no critic of the split {wanted!r}; choose one of {', '.join(there)}.")
    name = wanted or headline(list(there))
    return name, there[name]


def _settings(opened: Dataset, config: OfflineConfig, policy: Function | None = None) -> dict[str, Any]:
    """What config.json holds: the resolved settings and which rows they were applied to."""
    where = str(opened.path.absolute()).encode(errors="backslashreplace").decode()  # a name need not be UTF-8
    origin = family_of(config.critic).origin
    return {
        "config": to_dict(config),
        "dataset": {"path": where, "content": content_hash(opened)},
        **({} if origin is None else {"critic_code": origin.record()}),
        **({} if policy is None else {"policy_code": origin_of(policy).record()}),
    }


def _again(directory: Path, name: str, critic: Own) -> Family:
    """The critic that the user names for a run, under the name that the run has for it."""
    family = resolve(critic)
    if isinstance(family, str):
        raise RunError(f"the critic of {directory} is code, {printable(name)}, and not {family}; name that code.")
    return replace(family, name=name)


def _source(opened: Dataset, config: OfflineConfig) -> Source:
    return open_source(tables_of(opened, config), config.device_bytes, family_of(config.critic).reads)


def _parameters(opened: Dataset, config: OfflineConfig) -> Source | None:
    """The parameters of the rows, where the critic is the ridge on their actions: the ridge on θ is its control."""
    if not config.closed or family_of(config.critic).reads == "params":
        return None
    tables = tables_of(opened, config)
    if any("params" not in table.names for table in tables):
        return None
    return open_source(tables, config.device_bytes, "params")


def _fit_folds(
    source: Source,
    name: str,
    split: list[Split],
    config: OfflineConfig,
    directory: Path,
    progress: Progress | None,
    after: str = "",
) -> tuple[list[FittedSplit], float]:
    """The critics of every fold, and the seconds that fitting them took; `after` ends the names of their folders."""
    found, seconds = [], 0.0
    for fold, rows in enumerate(split):
        one, spent = fit_split(source, fold_name(name, fold) + after, rows, config, directory, progress)
        found.append(one)
        seconds += spent
    return found, seconds


def _ridges_on_theta(
    source: Source | None, name: str, split: list[Split], config: OfflineConfig, directory: Path
) -> tuple[list[FittedSplit], float]:
    """The control's folds of a split, and the seconds that fitting them took; none where there is no such control."""
    if source is None:
        return [], 0.0
    return _fit_folds(source, name, split, replace(config, critic="ridge"), directory, None, _THETA)


def _stored_ridges(source: Source, name: str, config: OfflineConfig, directory: Path) -> list[FittedSplit]:
    """As many folds of the control as a run holds."""
    own, found = replace(config, critic="ridge"), []
    while (one := load_fitted(source, fold_name(name, len(found)) + _THETA, own, directory)) is not None:
        found.append(one)
    return found


def _split(source: Source, name: str, config: OfflineConfig) -> list[Split] | str:
    """The split's folds, or why it is not available; where no other was asked for, DatasetError says so instead."""
    try:
        fractions = config.test_fraction, config.validation_fraction
        return make_splits(source, name, *fractions, config.seed, config.held_out, config.folds)
    except DatasetError as error:
        if len(config.splits) == 1:
            raise
        return str(error)
