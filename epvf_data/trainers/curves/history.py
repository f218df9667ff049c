"""Runs of online training as they stand, and which of them are seeds of one experiment."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from epvf_data.config import MAX_SEED, flatten
from epvf_data.errors import RunError
from epvf_data.trainers import rundir
from epvf_data.trainers.curves.read import Curve, read_curves

# What two seeds of one experiment may differ in; their results are then drawn together.
_OWN = frozenset({"seed", "seeds", "backend", "checkpoint_seconds", "snapshots"})
_WHOLE = (int, None)
_SHAPE = {"env": str, "algorithm": str, "seed": int, "envs": int}
_MOST_SEEDS = 1000


class Run(NamedTuple):
    """One run directory."""

    directory: Path
    settings: dict[str, Any]  # with dotted keys
    curves: list[Curve]  # one a seed; empty before the first log entry
    finished: bool

    @property
    def iteration(self) -> int:
        return int(max((curve.iteration[-1] for curve in self.curves), default=0))


class Group(NamedTuple):
    """Runs of the same settings and of different seeds, which are one experiment."""

    name: str
    runs: list[Run]

    @property
    def curves(self) -> list[Curve]:
        return [curve for run in self.runs for curve in run.curves]

    @property
    def settings(self) -> dict[str, Any]:
        return self.runs[0].settings

    @property
    def finished(self) -> bool:
        return all(run.finished for run in self.runs)


def read_run(directory: str | Path, empty: bool = False) -> Run:
    """A run of `train-online`, or of PPO or SAC, as its files have it at this moment.

    Raises RunError for a data set, another kind of run, no run at all, and, unless `empty`, where nothing is logged.
    """
    directory = Path(directory)
    rundir.check_kind(directory, "online")
    settings = flatten(rundir.read_run(directory)["config"])
    budgets = {name: settings.get(name) for name in ("iterations", "env_steps", "horizon", "seeds")}
    fits = rundir.fits(settings, _SHAPE) and rundir.fits(budgets, {str: _WHOLE}) and 0 <= settings["seed"] <= MAX_SEED
    seeds = budgets["seeds"] or 1
    if not fits or not 1 <= seeds <= _MOST_SEEDS:
        raise RunError(f"{directory / rundir.CONFIG} holds no settings of online training; the run is damaged.")
    curves = read_curves(directory, range(settings["seed"], settings["seed"] + seeds))
    if not curves and not empty:
        path = directory / rundir.METRICS
        if os.path.lexists(path) and path.stat().st_size:
            raise RunError(f"{path} holds no line with seed, iteration and env_steps of this run; it is damaged.")
        if _finished(directory):
            raise RunError(f"{path} is empty or gone, and the run is finished; copy the whole run again.")
        raise RunError(f"{directory} has logged nothing yet; `epvf-data watch {directory}` waits for its first entry.")
    return Run(directory, settings, curves, _finished(directory))


def read_groups(runs: Sequence[str | Path]) -> list[Group]:
    """The runs in the order given, those together that differ in their seeds alone. Raises RunError as `read_run`."""
    return grouped([read_run(run) for run in runs])


def grouped(runs: Sequence[Run]) -> list[Group]:
    """The experiments that these runs are of."""
    found: dict[str, list[list[Run]]] = {}
    for run in runs:
        same = {name: value for name, value in run.settings.items() if name not in _OWN}
        groups = found.setdefault(json.dumps(same, sort_keys=True, default=str), [])
        own = {curve.seed for curve in run.curves}
        apart = (group for group in groups if not own & {curve.seed for one in group for curve in one.curves})
        group = next(apart, None)
        if group is None:
            groups.append([run])
        else:
            group.append(run)
    listed = [group for groups in found.values() for group in groups]
    names = [_name(group) for group in listed]
    twice = [names.count(name) > 1 for name in names]
    return [
        Group(str(group[0].directory) if again else name, group)
        for name, group, again in zip(names, listed, twice, strict=True)
    ]


def _name(group: list[Run]) -> str:
    first = group[0].directory.resolve().name
    return first if len(group) == 1 else f"{first} and {len(group) - 1} more"


def _finished(directory: Path) -> bool:
    path = directory / "report.json"
    return os.path.lexists(path) and rundir.read(path).get("finished") is True
