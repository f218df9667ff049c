"""Predicting the returns of held-out rows: critics by name, or a function of the user's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from epvf_data import code
from epvf_data.benchmark.tasks import Task
from epvf_data.critics.families import family_of
from epvf_data.errors import ConfigError
from epvf_data.policies.kinds import Spec
from epvf_data.store.reader import Dataset
from epvf_data.trainers import metrics, rundir
from epvf_data.trainers.offline.fitted import FittedSplit, held_out
from epvf_data.trainers.offline.inputs import tables_of
from epvf_data.trainers.offline.run import load_run, train_offline
from epvf_data.trainers.offline.settings import OfflineConfig
from epvf_data.trainers.offline.source import Source, open_source
from epvf_data.trainers.offline.splits import Split, make_splits

Fitting = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class Rows:
    """What a method that predicts is given: one entry an architecture, whose rows are numbered one after the other."""

    specs: tuple[Spec, ...]
    theta: tuple[Float[np.ndarray, "a P"], ...]
    actions: tuple[Float[np.ndarray, "a D"], ...]  # in the probing states, flat
    returns: Float[np.ndarray, "n"]  # NaN where they are to be predicted
    families: Int[np.ndarray, "n"]  # of related policies
    test: Int[np.ndarray, "t"]  # rows whose returns are to be predicted
    seed: int


class Predict:
    """One method on one task: `seed(number)` gives that seed's measures. The held-out rows are the same for all."""

    def __init__(
        self, task: Task, method: str, dataset: Dataset, work: Path, seeds: int, small: bool, fitting: Fitting | None
    ):
        self.task, self.method, self.dataset, self.seeds = task, method, dataset, seeds
        self.work, self.fitting = work, fitting
        quick: dict[str, Any] = {"steps": 20, "resamples": 10} if small else {}
        critic = "ridge-actions" if code.names_code(method) else method
        self.config = OfflineConfig(critic=critic, split=task.split, seeds=seeds, **quick)

    @cached_property
    def folds(self) -> list[FittedSplit]:
        """The critics of all seeds, side by side, of every fold; they lie in the folder of the benchmark."""
        run = self.work / "critics" / f"{self.task.name}-{self.method.replace('+', '-')}-{self.seeds}"
        if not (run / "report.json").is_file():
            resume = (run / rundir.CONFIG).is_file()
            train_offline(self.dataset, self.config, run, resume=resume, progress=self.fitting)
        found = load_run(run, self.dataset).folds[self.task.split]
        assert not isinstance(found, str)
        return found

    def seed(self, number: int) -> dict[str, float]:
        """The measures of one seed."""
        if code.names_code(self.method):
            predicted, true = self._own(number)
        else:
            rows, every = held_out(self.folds)
            predicted, true = every[min(number, len(every) - 1)], self.folds[0].source.labels[rows]
        return {
            "spearman": metrics.spearman(predicted, true),
            "kendall": metrics.kendall(predicted, true),
            "r2": metrics.r2(predicted, true),
            "top_tenth_error": metrics.top_tenth_error(predicted, true),
            "regret@5": metrics.regret(predicted, true, 5),
        }

    def _own(self, number: int) -> tuple[Float[np.ndarray, "t"], Float[np.ndarray, "t"]]:
        """What the user's function predicts, called once a fold, and what is stored."""
        config = self.config
        source = open_source(tables_of(self.dataset, config), config.device_bytes, family_of(config.critic).reads)
        fractions = config.test_fraction, config.validation_fraction
        splits = make_splits(source, self.task.split, *fractions, config.seed, folds=config.folds)
        found = [self._called(source, split, number) for split in splits]
        return np.concatenate(found), source.labels[np.concatenate([split.test for split in splits])]

    def _called(self, source: Source, split: Split, number: int) -> Float[np.ndarray, "t"]:
        """The function's predictions of one fold. Raises ConfigError for another number of numbers."""
        returns = source.labels.astype(np.float64).copy()
        returns[split.test] = np.nan
        tables, flat = source.tables, lambda one: one.reshape(len(one), -1)
        given = Rows(
            specs=source.specs,
            theta=tuple(table.column("params") for table in tables),
            actions=tuple(flat(table.column("probe_actions")) for table in tables),
            returns=returns,
            families=source.families,
            test=split.test,
            seed=number,
        )
        found = np.asarray(code.call(self.method, "predictions", given))
        if found.shape != split.test.shape or found.dtype.kind not in "fiu" or not np.isfinite(found).all():
            raise ConfigError(
                f"{self.method} gives predictions of the shape {list(found.shape)}; expected {len(split.test)} finite "
                "numbers, one for each row in `test`."
            )
        return found.astype(np.float64)
