"""Everything that an evaluation of a run says, in one dictionary and one picture."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from epvf_data import pictures
from epvf_data.critics.families import family_of, name_of
from epvf_data.errors import EpvfError, RunError
from epvf_data.policies.loading import PolicyCode
from epvf_data.scoring.world import World, open_world
from epvf_data.store import reader
from epvf_data.store.reader import Dataset
from epvf_data.trainers import rundir
from epvf_data.trainers.evaluation import picture
from epvf_data.trainers.evaluation.calibration import calibrate
from epvf_data.trainers.evaluation.ceiling import ceiling_of_labels, labels_of
from epvf_data.trainers.evaluation.gradients import compare_gradients
from epvf_data.trainers.evaluation.improvement import improve
from epvf_data.trainers.evaluation.inputs import check_inputs
from epvf_data.trainers.evaluation.own import Metric, measure_own, named
from epvf_data.trainers.evaluation.settings import PICTURE, RESULT, ROLLED_OUT, EvaluationConfig, measured
from epvf_data.trainers.metrics import measure
from epvf_data.trainers.offline.fitted import FittedSplit
from epvf_data.trainers.offline.run import LoadedRun, Own, choose_split, load_run, report_of
from epvf_data.trainers.offline.source import open_source

Progress = Callable[[int, int, int], None]  # (episodes finished, episodes in all, control steps), cumulative


def evaluate(
    run_dir: str | Path,
    dataset: str | Path | None = None,
    config: EvaluationConfig | None = None,
    trained_on: str | Path | None = None,
    rollouts: bool = True,
    progress: Progress | None = None,
    *,
    critic: Own | None = None,
    policy: PolicyCode | None = None,
    metrics: Sequence[Metric] = (),
    plot: Path | None = None,
    force: bool = False,
) -> dict[str, Any]:
    """Judges the critics of a run; evaluation.json and evaluation-SPLIT.png appear in its directory.

    Prediction on held-out rows of every split; for one split calibration, what no critic can know, the direction of
    ∇V against evolution strategies, and gradient ascent on V from the best training rows with real rollouts (the last
    three left out without `rollouts`). With `dataset`, all of its rows are predicted. `trained_on` is the run's data
    set, if it has moved; `critic` and `policy` are for `load_critic`; `metrics` are functions of (predicted, true).
    `progress` is called while policies are rolled out. `plot` gets the picture, too.

    `by_split` holds what was measured of each split, in this call and in earlier ones, as long as its critics are the
    same; `kept` names what is told here and was measured earlier.

    Raises RunError where there is nothing to judge, EnvironmentMismatchError for a task that is not here.
    """
    config, measures = EvaluationConfig() if config is None else config, named(metrics)
    check_inputs(run_dir, dataset, config, trained_on, critic)
    loaded = load_run(run_dir, trained_on, critic, policy)
    world = _world(loaded, config) if rollouts else None
    name, fitted = choose_split(loaded, config.split)
    report, earlier, test = report_of(loaded), _earlier(loaded), fitted.ground.test
    members, before = fitted.members(test).reshape(-1, len(test)), earlier.get(name, {})
    new = {} if world is None else _roll_out(fitted, world, config, progress)
    elsewhere = None if dataset is None else _elsewhere(dataset, fitted)
    others = {} if elsewhere is None else {elsewhere["dataset"]: elsewhere["architectures"]}
    found = {
        "epochs": _epochs(fitted),
        "calibration": calibrate(members, loaded.source.labels[test]),
        **{part: new.get(part, before.get(part)) for part in ROLLED_OUT},
        "elsewhere": {**before.get("elsewhere", {}), **others},
        "metrics": {**before.get("metrics", {}), **measure_own(measures, loaded.critics(name))},
    }
    result: dict[str, Any] = {
        "run": str(loaded.directory),
        "critic": name_of(loaded.config.critic),
        "loss": loaded.config.loss,
        "ensemble": loaded.config.ensemble,
        "split": name,
        "splits": report.splits,
        **{part: found[part] for part in ("calibration", *ROLLED_OUT, "metrics")},
        "elsewhere": elsewhere,
        "kept": [part for part in ROLLED_OUT if part not in new and found[part] is not None],
        "by_split": {**earlier, name: found},
    }
    rundir.write_json(loaded.directory / RESULT, result)
    true, spread, path = loaded.source.labels[test], members.std(0), loaded.directory / PICTURE.format(name)
    _save(picture.draw(result, true, members.mean(0), spread), path, plot, force)
    return result


def _save(figure: Any, path: Path, plot: Path | None, force: bool) -> None:
    """The picture in the run, and where the user wants it."""
    pictures.save(figure, path, force=True)
    if plot is not None:
        pictures.save(figure, plot, force=force)


def _check_parameters(loaded: LoadedRun) -> None:
    """Raises RunError where policies cannot be rolled out, for want of their parameters."""
    bare = next((table for table in loaded.source.tables if "params" not in table.names), None)
    if bare is not None:
        raise RunError(
            f"the parameters of policies {bare.spec} were withheld, so that none can be rolled out; "
            "judge the critic's predictions alone with --no-rollouts."
        )


def _roll_out(fitted: FittedSplit, world: World, config: EvaluationConfig, progress: Progress | None) -> dict[str, Any]:
    """The parts of `ROLLED_OUT` that are asked for, on the architecture with most training rows."""
    sizes, found = [len(rows) for rows in fitted.source.local(fitted.ground.split.train)], {}
    place = int(np.argmax(sizes))
    if progress is not None:
        looks = 1 + (fitted.config.seeds + 1) * len(config.steps)  # at the start, and of each seed and the random steps
        policies = min(config.policies, sizes[place]) * 2 * config.pairs
        policies += min(config.starts, sizes[place]) * looks + 1 if config.starts else 0
        spec = fitted.source.tables[place].spec
        total = policies * world.episodes_of(spec)
        total += labels_of(fitted, place, config).size * (config.label_episodes if world.varies(spec) else 1)
        world = replace(world, progress=_counter(progress, total))
    if config.labels:
        found["labels"] = ceiling_of_labels(fitted, place, world, config)
    if config.policies:
        found["gradient"] = compare_gradients(fitted, place, world, config)
    if config.starts:
        found["improvement"] = improve(fitted, place, world, config)
    return found


def _counter(progress: Progress, total: int) -> Callable[[int, int], None]:
    """Adds up what rollouts report, one after the other."""
    done = [0, 0]

    def advance(episodes: int, steps: int) -> None:
        done[0], done[1] = done[0] + episodes, done[1] + steps
        progress(done[0], total, done[1])

    return advance


def _epochs(fitted: FittedSplit) -> list[int]:
    """What tells a split's critics from those of the same run at another time: epochs so far, and each one's best."""
    return [fitted.epochs, *fitted.best_epochs]


def _earlier(loaded: LoadedRun) -> dict[str, Any]:
    """What earlier calls have measured of critics that are still the run's."""
    path = loaded.directory / RESULT
    if not os.path.lexists(path):
        return {}
    try:
        found = measured(rundir.read(path)) or {}
    except RunError:  # it is written anew
        return {}
    now = {name: _epochs(one) for name, one in loaded.fitted.items() if isinstance(one, FittedSplit)}
    return {name: one for name, one in found.items() if now.get(name) == one.get("epochs")}


def _world(loaded: LoadedRun, config: EvaluationConfig) -> World:
    _check_parameters(loaded)
    return open_world(loaded.dataset, config.env, config.episodes, config.backend, config.seed, config.start_noise)


def _elsewhere(dataset: str | Path, fitted: FittedSplit) -> dict[str, Any]:
    """How well the rows of another data set are predicted, architecture by architecture that the critic can read."""
    opened: Dataset = reader.open(dataset)
    known = {spec.id: place for place, spec in enumerate(fitted.source.specs)}
    found: dict[str, Any] = {}
    for item in opened.architectures:
        if item.id not in known and not family_of(fitted.config.critic).mixed:
            found[item.id] = {
                "policies": str(item.spec),
                "rows": item.rows,
                "reason": "The critic never saw such policies.",
            }
            continue
        try:
            other = open_source([opened.table(item.id)], fitted.config.device_bytes, fitted.source.column)
        except EpvfError as error:
            found[item.id] = {"policies": str(item.spec), "rows": item.rows, "reason": str(error)}
            continue
        predicted = fitted.predict_elsewhere(other, known.get(item.id, 0))
        found[item.id] = {"policies": str(item.spec), "rows": item.rows, **measure(predicted, other.labels)}
    return {"dataset": str(opened.path), "architectures": found}
