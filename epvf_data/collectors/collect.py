"""Roll out policies batch by batch and commit each batch: what `epvf-data collect` does."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np

from epvf_data.collectors.lot import Lot, lot_of
from epvf_data.collectors.setting import CollectConfig, existing
from epvf_data.collectors.shards import Shard
from epvf_data.config import MAX_POLICIES
from epvf_data.envs import Env
from epvf_data.errors import (
    ArchitectureMismatchError,
    ConfigError,
    CorruptDatasetError,
    DatasetError,
    RowsTakenError,
    StorageError,
)
from epvf_data.policies.kinds import Spec
from epvf_data.provenance import first_hand, now, provenance
from epvf_data.recording.rows import env_identity
from epvf_data.recording.rows import make_rows as rows_of
from epvf_data.recording.task import check_target, made_by
from epvf_data.rollout import rollout
from epvf_data.store import reader
from epvf_data.store.claims import gaps
from epvf_data.store.commit import MAX_RECORDS
from epvf_data.store.schema import Rows
from epvf_data.store.writer import Writer
from epvf_data.untrusted import shown


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
    shard: Shard | None = None,
    progress: Progress | None = None,
) -> CollectReport:
    """Makes the rows of the configuration that `out` does not hold yet and commits them, `config.envs` rows at a time.

    `resume` continues an interrupted run, or extends it to more policies; the rows are those that an uninterrupted run
    would have made, and each is there once, however many processes make them at once. `mixed` allows another
    architecture beside those already in the data set. `shard` makes only that shard of the rows, and begins or
    continues `out`, whichever is needed: shards may share one data set, or have one each for `finalize` to join.

    Raises DatasetError when `out` holds these rows already or another environment's, StorageError when the disk is
    full.
    What was committed before stays readable in every case.
    """
    return gather([lot_of(config)], out, resume=resume, mixed=mixed, shard=shard, progress=progress)


def gather(
    lots: Sequence[Lot],
    out: str | Path,
    *,
    resume: bool = False,
    mixed: bool = True,
    shard: Shard | None = None,
    progress: Progress | None = None,
) -> CollectReport:
    """`collect` for lots of one environment, a batch of each in turn."""
    began = time.perf_counter()
    out = Path(out)
    shards = [(shard or Shard(0, 1)).of(lot.rows) for lot in lots]
    missing = _missing_rows(lots, shards, out, resume or (None if shard else False), mixed)
    _check_commits(lots)
    counts = [(lot, sum(map(len, ranges))) for lot, ranges in zip(lots, missing, strict=True)]
    needed = sum(count * row_bytes(lot.spec, lot.probe_states) for lot, count in counts)
    check_space(out, sum(count for _, count in counts), needed)
    tally = _Tally(progress, sum(count * lot.episodes for lot, count in counts), began)
    commits = 0
    returns: list[np.ndarray] = []
    not_finite = 0
    with Writer.open(out, env_identity(lots[0].env)) as writer:
        batches = _batches(lots, shards, missing)
        while piece := next(batches, None):
            lot, rows = piece
            started = now()
            batch = make_rows(lot, rows, tally.advance)
            try:
                writer.commit(batch, _record(lot, rows, started))
            except RowsTakenError:  # another process makes the same rows: go on with what is missing now
                batches = _batches(lots, shards, _missing_rows(lots, shards, out, None, mixed))
                continue
            commits += 1
            returns.append(batch.returns.mean(axis=1))
            not_finite += int((~batch.finite.all(axis=1)).sum())
    seconds = time.perf_counter() - began
    every = np.concatenate(returns) if returns else np.zeros(0)
    return CollectReport(
        dataset=str(out),
        rows=len(every),
        rows_total=reader.open(out).rows,
        commits=commits,
        env_steps=tally.steps,
        physics_steps=tally.steps * lots[0].env.substeps,
        seconds=round(seconds, 3),
        env_steps_per_second=round(tally.steps / seconds, 1),
        return_mean=float(every.mean()) if every.size else None,
        return_max=float(every.max()) if every.size else None,
        rows_not_finite=not_finite,
        start_up_seconds=round(tally.first or 0.0, 3),
    )


def _check_commits(lots: Sequence[Lot]) -> None:
    """Raises ConfigError where a data set would need more commits than it can have."""
    commits = sum(-(-lot.rows // lot.batch) for lot in lots)
    if commits > MAX_RECORDS:
        raise ConfigError(
            f"{sum(lot.rows for lot in lots):,} policies in commits of {lots[0].batch:,} would be {commits:,} commits, "
            f"and a data set has at most {MAX_RECORDS:,}; ask for more --envs."
        )


def make_rows(lot: Lot, rows: np.ndarray, progress: Callable[[int, int], None] | None = None) -> Rows:
    """Draws, probes and rolls out the rows of these numbers."""
    drawn = lot.draw(rows)
    outcomes = rollout(
        lot.env,
        lot.spec,
        drawn.params,
        reset_seed=drawn.reset_seed,
        episodes=lot.episodes,
        backend=lot.backend,
        discount=lot.discount or 1.0,
        progress=progress,
    )
    return rows_of(
        lot.spec,
        drawn.params,
        outcomes,
        drawn.reset_seed,
        drawn.lineage,
        lot.probe_states,
        lot.simulation,
        lot.discount,
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


def target(out: Path, env: Env, resume: bool | None) -> reader.Dataset | None:
    """The data set that rows of this environment shall go to; None where there is none yet. See `existing`.

    Raises DatasetError where there is none to resume, EnvironmentMismatchError where it is of another environment.
    """
    dataset = existing(out, resume)
    if dataset is not None:
        check_target(dataset, env, "this collection is", "--out")
    return dataset


def _missing_rows(
    lots: Sequence[Lot], shards: Sequence[range], out: Path, resume: bool | None, mixed: bool
) -> list[list[range]]:
    """Numbers of the rows of each lot's shard that `out` does not hold yet; with `resume` None it may hold any."""
    dataset, runs = target(out, lots[0].env, resume), [lot.run for lot in lots]  # no set: records hold anything
    if dataset is None:
        return [[shard] for shard in shards]
    mine = [commit.provenance for commit in dataset.commits if commit.provenance.get("run") in runs]
    if not mine and any(
        made.get("run") in runs for commit in dataset.commits for made in first_hand(commit.provenance)
    ):
        raise DatasetError(
            f"{out} was made of other data sets, among them rows of exactly this collection, which cannot be told from "
            "new ones; give another --out."
        )
    if resume and not mine and dataset.commits:
        raise DatasetError(
            f"no row in {out} comes from these settings; leave --resume out to add such rows, or resume "
            "with the settings of the first call."
        )
    if resume is None and not mine and dataset.commits and not mixed:
        raise DatasetError(
            f"{out} holds rows, and none comes from these settings, which all shards of a collection share; give the "
            "settings of the others, another --out, or --mixed to keep both collections side by side."
        )
    if mine and resume is False:
        held = sum(end - begin for begin, end in map(_numbers, mine))
        raise DatasetError(
            f"{out} already holds {held} rows of exactly this collection; "
            "add --resume to finish or extend it, or give another --seed or --out."
        )
    ids, spec = {lot.spec.id for lot in lots}, lots[0].spec
    others = [architecture for architecture in dataset.architectures if architecture.id not in ids]
    if others and len(others) == len(dataset.architectures) and not mixed:
        raise ArchitectureMismatchError(
            f"{out} holds policies {others[0].spec} ({others[0].id[:8]}), this collection makes {spec} "
            f"({spec.id[:8]}); give another --out, or --mixed to keep both architectures side by side."
        )
    held = {run: sorted(_numbers(made) for made in mine if made["run"] == run) for run in runs}
    return [list(gaps(shard, held[lot.run])) for lot, shard in zip(lots, shards, strict=True)]


def _numbers(made: Mapping[str, Any]) -> tuple[int, int]:
    """The numbers of the rows that a commit says to hold: the first, and the one behind the last."""
    match made.get("rows"):
        case [int(begin), int(end)] if 0 <= begin < end <= MAX_POLICIES:
            return begin, end
    raise CorruptDatasetError(f"a commit says to hold the rows {shown(made.get('rows'))} of its collection.")


def _batches(
    lots: Sequence[Lot], shards: Sequence[range], missing: Sequence[Sequence[range]]
) -> Iterator[tuple[Lot, np.ndarray]]:
    """Runs of consecutive row numbers, at most a batch long and not across a multiple of it, counted from the first of
    the shard; the lots take turns."""
    for turn in zip_longest(*map(_pieces, lots, shards, missing)):
        yield from (piece for piece in turn if piece is not None)


def _pieces(lot: Lot, shard: range, ranges: Sequence[range]) -> Iterator[tuple[Lot, np.ndarray]]:
    for one in ranges:
        for begin in range(one.start - (one.start - shard.start) % lot.batch, one.stop, lot.batch):
            yield lot, np.arange(max(one.start, begin), min(one.stop, begin + lot.batch))


def row_bytes(spec: Spec, probe_states: np.ndarray) -> int:
    """About what a row takes on the disk before compression."""
    return 4 * (spec.size + len(probe_states) * spec.action_size) + 64


def check_space(out: Path, rows: int, needed: int) -> None:
    """Raises StorageError when so many bytes do not fit where the data set lies."""
    folder = next(parent for parent in (out, *out.absolute().parents) if parent.exists())
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise StorageError(
            f"{rows} rows need {needed / 1e9:.2f} GB and {folder} has "
            f"{free / 1e9:.2f} GB free; free some space or ask for fewer --policies."
        )


def _record(lot: Lot, rows: np.ndarray, started: str) -> dict:
    return provenance(
        run=lot.run,
        rows=[int(rows[0]), int(rows[-1]) + 1],
        rows_wanted=lot.rows,
        config=lot.config,
        **made_by(lot.env),
        simulation=lot.simulation,
        seed=lot.seed,
        started=started,
        ended=now(),
    )
