"""Roll out the policies of a recipe, batch by batch, and commit each batch: what `epvf-data collect` does."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from epvf_data import config as configuration
from epvf_data.collectors.recipe import INIT_LAW, Plan, parameters, plan
from epvf_data.collectors.setting import CollectConfig, Setting
from epvf_data.errors import ArchitectureMismatchError, DatasetError, StorageError
from epvf_data.provenance import first_hand, now, provenance
from epvf_data.recording.rows import env_identity
from epvf_data.recording.rows import make_rows as rows_of
from epvf_data.rollout import rollout
from epvf_data.store import reader
from epvf_data.store.creation import unmade
from epvf_data.store.schema import Lineage, Rows
from epvf_data.store.writer import Writer


@dataclass(frozen=True)
class CollectReport:
    """What one call of `collect` did. Steps and times are this call's; `rows_total` counts the whole data set."""

    dataset: str
    rows: int
    rows_total: int
    commits: int
    env_steps: int
    physics_steps: int
    seconds: float
    env_steps_per_second: float
    return_mean: float | None
    return_max: float | None
    rows_not_finite: int
    start_up_seconds: float  # until the first episode was finished


Progress = Callable[[int, int, int], None]  # (episodes finished, episodes in all, control steps), cumulative


def collect(
    config: CollectConfig,
    out: str | Path,
    *,
    resume: bool = False,
    mixed: bool = False,
    progress: Progress | None = None,
) -> CollectReport:
    """Makes the rows of the configuration that `out` does not hold yet and commits them, `config.envs` rows at a time.

    `resume` continues an interrupted run, or extends it to more policies; the rows are those that an uninterrupted run
    would have made. `mixed` allows another architecture beside those already in the data set.

    Raises DatasetError when `out` holds these rows already or another environment's, StorageError when the disk is
    full.
    What was committed before stays readable in every case.
    """
    began = time.perf_counter()
    setting = Setting(config)
    out = Path(out)
    missing = _missing_rows(setting, out, resume, mixed)
    _check_space(setting, out, missing.size)
    tally = _Tally(progress, missing.size * setting.episodes, began)
    commits = 0
    returns: list[np.ndarray] = []
    not_finite = 0
    with Writer.open(out, env_identity(setting.env)) as writer:
        for rows in _batches(missing, config.envs):
            started = now()
            batch = make_rows(setting, rows, tally.advance)
            writer.commit(batch, _record(setting, rows, started))
            commits += 1
            returns.append(batch.returns.mean(axis=1))
            not_finite += int((~batch.finite.all(axis=1)).sum())
    seconds = time.perf_counter() - began
    every = np.concatenate(returns) if returns else np.zeros(0)
    return CollectReport(
        dataset=str(out),
        rows=int(missing.size),
        rows_total=reader.open(out).rows,
        commits=commits,
        env_steps=tally.steps,
        physics_steps=tally.steps * setting.env.substeps,
        seconds=round(seconds, 3),
        env_steps_per_second=round(tally.steps / seconds, 1),
        return_mean=float(every.mean()) if every.size else None,
        return_max=float(every.max()) if every.size else None,
        rows_not_finite=not_finite,
        start_up_seconds=round(tally.first or 0.0, 3),
    )


def make_rows(setting: Setting, rows: np.ndarray, progress: Callable[[int, int], None] | None = None) -> Rows:
    """Draws, probes and rolls out the rows of these numbers."""
    planned = plan(setting.recipe, len(setting.bases), setting.config.seed, rows)
    params = parameters(setting.recipe, setting.spec, setting.bases, planned)
    discount = setting.config.discount
    outcomes = rollout(
        setting.env,
        setting.spec,
        params,
        reset_seed=planned.reset_seed,
        episodes=setting.episodes,
        backend=setting.backend,
        discount=discount or 1.0,
        progress=progress,
    )
    return rows_of(
        setting.spec,
        params,
        outcomes,
        planned.reset_seed,
        _lineage(setting, planned),
        setting.probe_states,
        setting.simulation,
        discount,
    )


class _Tally:
    """Adds up what the backends' threads report and passes it on."""

    def __init__(self, progress: Progress | None, total: int, began: float):
        self.progress, self.total, self.began = progress, total, began
        self.episodes = self.steps = 0
        self.first: float | None = None

    def advance(self, episodes: int, steps: int) -> None:
        self.first = self.first or time.perf_counter() - self.began
        self.episodes, self.steps = self.episodes + episodes, self.steps + steps
        if self.progress is not None:
            self.progress(self.episodes, self.total, self.steps)


def _missing_rows(setting: Setting, out: Path, resume: bool, mixed: bool) -> np.ndarray:
    """Numbers of the rows that `out` does not hold yet."""
    wanted = np.ones(setting.total, bool)
    if unmade(out):
        if resume:
            raise DatasetError(f"there is no data set {out} to resume; leave --resume out to start one.")
        return np.flatnonzero(wanted)
    dataset = reader.open(out)
    if dataset.env.digest != setting.env.digest:
        raise DatasetError(
            f"{out} holds rows of {dataset.env.name} (digest {dataset.env.digest[:12]}), this collection is of "
            f"{setting.env.name} (digest {setting.env.digest[:12]}); give another --out."
        )
    mine = [commit.provenance["rows"] for commit in dataset.commits if commit.provenance.get("run") == setting.run]
    if not mine and any(
        made.get("run") == setting.run for commit in dataset.commits for made in first_hand(commit.provenance)
    ):
        raise DatasetError(
            f"{out} was made of other data sets, among them rows of exactly this collection, which cannot be told from "
            "new ones; give another --out."
        )
    if resume and not mine and dataset.commits:
        raise DatasetError(f"no row in {out} comes from these settings; resume with the settings of the first call.")
    if mine and not resume:
        raise DatasetError(
            f"{out} already holds {sum(stop - start for start, stop in mine)} rows of exactly this collection; "
            "add --resume to finish or extend it, or give another --seed or --out."
        )
    others = [architecture for architecture in dataset.architectures if architecture.id != setting.spec.id]
    if others and len(others) == len(dataset.architectures) and not mixed:
        raise ArchitectureMismatchError(
            f"{out} holds policies {others[0].spec} ({others[0].id[:8]}), this collection makes {setting.spec} "
            f"({setting.spec.id[:8]}); give another --out, or --mixed to keep both architectures side by side."
        )
    for start, stop in mine:
        wanted[start:stop] = False
    return np.flatnonzero(wanted)


def _batches(rows: np.ndarray, size: int) -> Iterator[np.ndarray]:
    """Runs of consecutive row numbers, at most `size` long and not across a multiple of it."""
    if rows.size:
        breaks = np.flatnonzero((np.diff(rows) > 1) | (rows[1:] % size == 0)) + 1
        yield from np.split(rows, breaks)


def _check_space(setting: Setting, out: Path, rows: int) -> None:
    bytes_a_row = 4 * (setting.spec.size + setting.probe_states.shape[0] * setting.spec.action_size) + 64
    needed = rows * bytes_a_row
    folder = next(parent for parent in (out, *out.absolute().parents) if parent.exists())
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise StorageError(
            f"{rows} rows need {needed / 1e9:.2f} GB and {folder} has {free / 1e9:.2f} GB free; "
            "free some space or ask for fewer --policies."
        )


def _lineage(setting: Setting, planned: Plan) -> Lineage:
    source = setting.recipe.perturbed
    details = "".join(f" {name}={value:g}" for name, value in (("floor", source.floor), ("clip", source.clip)) if value)
    return Lineage.build(
        len(planned.base),
        source=["random" if fresh else "perturbed" for fresh in planned.fresh],
        base=[None if base < 0 else setting.base_ids[base] for base in planned.base],
        run=setting.run,
        law=[INIT_LAW if fresh else source.law + details for fresh in planned.fresh],
        scale=planned.scale,
        sign=planned.sign,
        noise_seed=planned.noise_seed,
    )


def _record(setting: Setting, rows: np.ndarray, started: str) -> dict:
    return provenance(
        run=setting.run,
        rows=[int(rows[0]), int(rows[-1]) + 1],
        config=configuration.to_dict(setting.config),
        simulation=setting.simulation,
        seed=setting.config.seed,
        started=started,
        ended=now(),
    )
