"""Improving offline: proposals without a rollout, then two scorings: the published one, and one of several episodes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Float

from epvf_data.benchmark.tasks import Task, split_method
from epvf_data.config import to_dict
from epvf_data.errors import RunError
from epvf_data.recording.task import task_of
from epvf_data.rollout import rollout
from epvf_data.scoring.inputs import best_rows
from epvf_data.scoring.world import World
from epvf_data.store.digest import content_hash
from epvf_data.store.reader import Dataset
from epvf_data.trainers import rundir
from epvf_data.trainers.evaluation.gradients import local_spread
from epvf_data.trainers.improving.propose import Critics, Pool, propose
from epvf_data.trainers.improving.settings import ImproveConfig
from epvf_data.trainers.improving.source import problem_of
from epvf_data.trainers.offline.fitted import FittedSplit
from epvf_data.trainers.offline.run import load_run, train_offline
from epvf_data.trainers.offline.settings import OfflineConfig

ROWS = 32  # of those that are stored as best, among which the best is looked for
MEMBERS = 6  # critics of one seed: three climb, three judge
_PUBLISHED, _TEN, _FRESH, _ROWS, _SPEND = 11, 12, 13, 14, 1000  # streams of start states
Fitting = Callable[[dict[str, Any]], None]


class Improve:
    """One method on one task: `seed(number)` gives that seed's measures.

    Critics of all seeds are fitted side by side, on the same batches from different initialisations. Their runs lie in
    the benchmark's folder, so that methods which need the same critics share them.
    """

    def __init__(
        self, task: Task, method: str, dataset: Dataset, work: Path, seeds: int, small: bool, fitting: Fitting | None
    ):
        self.task, self.dataset, self.work, self.seeds, self.fitting = task, dataset, work, seeds, fitting
        self.name, self.critic = split_method(task, method)
        self.quick: dict[str, Any] = {"steps": 20, "resamples": 10, "widths": (8,)} if small else {}
        several = dataset.architectures
        self.table = dataset.table(max(several, key=lambda item: item.rows).id)
        self.spread = local_spread(self.table)
        self.spec = self.table.spec
        best = best_rows(dataset, min(task.candidates, self.table.rows), self.spec.id)
        self.starts = self.table.take("params", np.array(best.rows))
        self.world = World(task_of(dataset, None))
        returns = self.table.mean_returns()
        self.content = content_hash(dataset)
        self.worst, self.best = float(np.nanmin(returns)), float(np.nanmax(returns))

    @cached_property
    def fitted(self) -> FittedSplit:
        """The critics of all seeds, fitted where no run of these settings lies in the folder."""
        settings = {**_plain(self.name), **self.quick}
        config = OfflineConfig(
            critic=self.critic, split="iid", architecture=self.spec.id, seeds=MEMBERS * self.seeds, **settings
        )
        stated = json.dumps([to_dict(config), self.content], sort_keys=True)
        run = self.work / "critics" / hashlib.sha256(stated.encode()).hexdigest()[:16]
        if not (run / "report.json").is_file():
            resume = (run / rundir.CONFIG).is_file()
            train_offline(self.dataset, config, run, resume=resume, progress=self.fitting)
        found = load_run(run, self.dataset).fitted["iid"]
        assert isinstance(found, FittedSplit)
        return found

    def seed(self, number: int) -> dict[str, float]:
        """The measures of one seed."""
        config = ImproveConfig(method=self.name, seed=number)
        critics = None
        if config.recipe.learns:
            closed = self.fitted.config.closed
            own = None if closed else (MEMBERS * number, MEMBERS * (number + 1))
            critics = Critics(self.fitted, 0, own)

        def returns(theta: Float[np.ndarray, "n P"], generation: int) -> Float[np.ndarray, "n"]:
            return self.world.outcomes(self.spec, theta, 1, _SPEND * (number + 1) + generation).returns[:, 0]

        def problem() -> Any:
            return problem_of(self.dataset, self.table, self.starts, self.task.candidates, number)

        pool = propose(
            config, self.starts, self.spread, self.task.candidates, critics, returns, self._episodes(), problem
        )
        return self._score(pool, replace(self.world, seed=number))

    def _episodes(self) -> int:
        return sum(piece.size for piece in self.table.pieces("returns"))

    def _score(self, pool: Pool, world: World) -> dict[str, float]:
        """Both scorings. What chooses among proposals and rows, and what judges the chosen, share no episode."""
        episodes, theta = self.task.episodes, pool.theta
        each = np.asarray(jax.random.key_data(jax.random.split(jax.random.key(world.seed + _PUBLISHED), len(theta))))
        single = rollout(world.task, self.spec, theta, reset_seed=each).returns[:, 0]
        ten = world.outcomes(self.spec, theta, episodes, _TEN).returns.mean(1)
        few = np.stack([theta[int(np.argmax(ten))], theta[0], self.starts[self._best_row(world)]])
        best, first, row = world.outcomes(self.spec, few, episodes, _FRESH).returns.astype(np.float64).mean(1)
        away = float(np.median(pool.distance)) / self.spread.size**0.5
        return {
            "best": best / row,
            "chosen": first / row,
            "median": float(np.median(ten)) / row,
            "published": (float(single.max()) - self.worst) / (self.best - self.worst),
            "return_best": float(best),
            "return_chosen": float(first),
            "return_median": float(np.median(ten)),
            "return_row": float(row),
            "stop": float("nan") if pool.stop is None else float(pool.stop),
            "distance": away,
            "proposals": float(len(theta)),
            "episodes_spent": float(pool.spent),
        }

    def _best_row(self, world: World) -> int:
        """The best start by episodes of its own; all methods share what was found, in the benchmark's folder."""
        path, episodes = self.work / "best-rows.json", self.task.episodes
        some = self.starts[:ROWS]
        stated = json.dumps([self.content, self.spec.id, len(some), episodes, world.seed, world.env.digest])
        key = hashlib.sha256(stated.encode()).hexdigest()
        known = rundir.read(path) if path.is_file() else {}
        if key not in known:
            means = world.outcomes(self.spec, some, episodes, _ROWS).returns.mean(1)
            known[key] = int(np.argmax(means))
            path.parent.mkdir(parents=True, exist_ok=True)
            rundir.write_json(path, known)
        found = known[key]
        if type(found) is not int or not 0 <= found < len(some):
            raise RunError(f"{path} names no row; delete it.")
        return found


def _plain(method: str) -> dict[str, Any]:
    return dict(ImproveConfig(method=method).recipe.critic)
