"""New data sets of some rows of another: those that fulfil a condition, a sample, two halves, all but the policies."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64

from epvf_data.curation.rewrite import Rewriter
from epvf_data.curation.rowkeys import slab_rows
from epvf_data.curation.where import Expression, Words, parse
from epvf_data.errors import DatasetError
from epvf_data.store import reader
from epvf_data.store.extract import part_column
from epvf_data.store.lineage import VOCABULARIES
from epvf_data.store.part import Part
from epvf_data.store.reader import Dataset
from epvf_data.store.splits import split_by_lineage, split_iid
from epvf_data.store.writer import Writer

Progress = Callable[[int, int], None]
# What a condition can speak of. Returns, lengths and flags are over a row's episodes.
ROW_COLUMNS: Mapping[str, str] = {
    "return": "number",  # mean
    "return_min": "number",
    "return_max": "number",
    "length": "number",  # mean, control steps
    "episodes": "number",
    "finite": "flag",  # in all episodes
    "terminated": "flag",  # in all episodes
    "truncated": "flag",
    "source": "words",
    "law": "words",
    "base": "words",
    "run": "words",
    "scale": "number",
    "sign": "number",
    "iteration": "number",
    "norm": "number",  # Euclidean norm of the parameters
    "parameters": "number",  # how many
    "architecture": "words",  # the first eight digits of its id
}


@dataclass(frozen=True)
class SelectReport:
    """The data sets that were made, with their rows; `rows_source` is how many there were to choose from."""

    datasets: dict[str, int]
    rows_source: int


def filter_rows(
    path: str | os.PathLike[str], out: str | os.PathLike[str], where: str, *, progress: Progress | None = None
) -> SelectReport:
    """Makes `out` of the rows for which the condition holds; `ROW_COLUMNS` names what it can speak of.

    Raises ConfigError for a condition that makes no sense, DatasetError if no row fulfils it or `out` exists,
    CorruptDatasetError where a row is damaged, StorageError if the disk refuses.
    """
    expression = parse(where, ROW_COLUMNS)
    dataset = reader.open(path)
    chosen = {part.entry.id: _fulfilling(part, expression) for part in dataset.parts}
    if not any(len(rows) for rows in chosen.values()):
        raise DatasetError(f"no row of {path} fulfils {where[:80]!r}; `epvf-data info {path}` shows what there is.")
    return _make(dataset, {Path(out): chosen}, "filter", {"where": where}, progress)


def sample(
    path: str | os.PathLike[str],
    out: str | os.PathLike[str],
    rows: int,
    *,
    seed: int = 0,
    progress: Progress | None = None,
) -> SelectReport:
    """Makes `out` of `rows` rows drawn uniformly without replacement, in their order.

    Raises DatasetError if there are fewer or `out` exists, CorruptDatasetError where a row is damaged, StorageError.
    """
    dataset = reader.open(path)
    if not dataset.rows:
        raise DatasetError(f"{path} holds no rows yet; collect some first.")
    if not 0 < rows <= dataset.rows:
        raise DatasetError(f"{rows} rows were asked for; {path} has {dataset.rows}, ask for 1 to {dataset.rows}.")
    _check_seed(seed)
    chosen = np.sort(np.random.default_rng(seed).choice(dataset.rows, rows, replace=False))
    return _make(dataset, {Path(out): _by_part(dataset, chosen)}, "sample", {"rows": rows, "seed": seed}, progress)


def split(
    path: str | os.PathLike[str],
    train: str | os.PathLike[str],
    test: str | os.PathLike[str],
    *,
    test_fraction: float = 0.1,
    by: str = "lineage",
    seed: int = 0,
    progress: Progress | None = None,
) -> SelectReport:
    """Makes a train and a test data set. `by` is `lineage`, which keeps relatives together, or `rows`, at random.

    Both appear when both are complete. Raises DatasetError if one exists or no such split is possible,
    CorruptDatasetError where a row is damaged, StorageError if the disk refuses.
    """
    if by not in ("lineage", "rows"):
        raise DatasetError(f"split by {by!r} is unknown; choose 'lineage' or 'rows'.")
    if Path(train).absolute() == Path(test).absolute():
        raise DatasetError(f"train and test set would both be {train}; name two paths.")
    _check_seed(seed)
    dataset = reader.open(path)
    if by == "lineage":
        halves = split_by_lineage(_families(dataset), test_fraction, seed)
    else:
        halves = split_iid(dataset.rows, test_fraction, seed)
    targets = {Path(out): _by_part(dataset, rows) for out, rows in zip((train, test), halves, strict=True)}
    return _make(dataset, targets, "split", {"test_fraction": test_fraction, "by": by, "seed": seed}, progress)


def withhold(
    path: str | os.PathLike[str], out: str | os.PathLike[str], *, progress: Progress | None = None
) -> SelectReport:
    """Makes `out` of all rows without their parameters: actions in probing states, outcomes and lineage stay.

    Seeds and provenance stay too: whoever has the base policies can make the parameters again. Raises DatasetError
    where rows have no probing actions or `out` exists, CorruptDatasetError where a row is damaged, StorageError if the
    disk refuses.
    """
    dataset = reader.open(path)
    bare = sum(part.entry.rows for part in dataset.parts if "probe_actions" not in part.names)
    if bare:
        raise DatasetError(
            f"{bare} rows of {path} have no probing actions: without parameters nothing would say what they do. "
            "Only rows with `probe_actions` can be handed on so."
        )
    every = {part.entry.id: np.arange(part.entry.rows) for part in dataset.parts}
    return _make(dataset, {Path(out): every}, "withhold", {}, progress, without=("params",))


def _check_seed(seed: int) -> None:
    if seed < 0:
        raise DatasetError(f"the seed is {seed}; seeds start at 0.")


Chosen = Mapping[str, Int64[np.ndarray, " chosen"]]  # part id → row numbers inside the part, sorted


def _make(
    dataset: Dataset,
    targets: Mapping[Path, Chosen],
    verb: str,
    arguments: Mapping[str, Any],
    progress: Progress | None,
    without: tuple[str, ...] = (),
) -> SelectReport:
    """Copies each target's rows in one pass over the source, but for the columns `without`."""
    total = sum(len(rows) for chosen in targets.values() for rows in chosen.values())
    done = 0
    with contextlib.ExitStack() as stack:
        writers = {out: stack.enter_context(Writer.create(out, dataset.env)) for out in targets}
        rewriters = {out: Rewriter(writer, verb, arguments, without) for out, writer in writers.items()}
        for part in dataset.parts:
            for out, chosen in targets.items():
                rewriters[out].add(dataset, part, chosen[part.entry.id])
                done += len(chosen[part.entry.id])
            if progress is not None:
                progress(done, total)
        for rewriter in rewriters.values():
            rewriter.flush()
    made = {str(out): sum(map(len, chosen.values())) for out, chosen in targets.items()}
    return SelectReport(made, dataset.rows)


def _by_part(dataset: Dataset, rows: Int64[np.ndarray, " chosen"]) -> Chosen:
    """Row numbers of the whole data set (sorted, in the order of its parts) → those inside each part."""
    starts = np.cumsum([0, *(part.entry.rows for part in dataset.parts)]).tolist()
    return {
        part.entry.id: rows[np.searchsorted(rows, first) : np.searchsorted(rows, end)] - first
        for part, first, end in zip(dataset.parts, starts[:-1], starts[1:], strict=True)
    }


def _families(dataset: Dataset) -> Int64[np.ndarray, " rows"]:
    """A number for each row: equal for rows with the same base policy, over all architectures."""
    place: dict[str, int] = {}
    labels: list[np.ndarray] = []
    alone = -1
    for part in dataset.parts:
        words = np.array([place.setdefault(word, len(place)) for word in part.vocabularies["base"]], np.int64)
        base = part_column(part, "base").astype(np.int64)
        orphans = base < 0
        found = words[base] if len(words) else np.zeros(len(base), np.int64)
        found[orphans] = np.arange(alone, alone - int(orphans.sum()), -1)
        alone -= int(orphans.sum())
        labels.append(found)
    return np.concatenate(labels) if labels else np.zeros(0, np.int64)


def _fulfilling(part: Part, expression: Expression) -> Int64[np.ndarray, " chosen"]:
    return np.flatnonzero(expression.mask(dict(_row_columns(part, expression.names))))


def _row_columns(part: Part, names: Sequence[str] | frozenset[str]) -> Iterator[tuple[str, np.ndarray | Words]]:
    """What `ROW_COLUMNS` says, one value a row."""
    rows = part.entry.rows
    for name in names:
        if name in VOCABULARIES:
            yield name, Words(part_column(part, name).astype(np.int32), part.vocabularies[name])
        elif name == "architecture":
            yield name, Words(np.zeros(rows, np.int32), (part.entry.architecture[:8],))
        elif name in ("return", "return_min", "return_max"):
            returns = part_column(part, "returns").astype(np.float64)
            yield name, {"return": returns.mean, "return_min": returns.min, "return_max": returns.max}[name](axis=1)
        elif name == "length":
            yield name, part_column(part, "lengths").mean(axis=1)
        elif name in ("episodes", "parameters"):
            size = part.layout("returns").shape[1] if name == "episodes" else part.spec.size
            yield name, np.full(rows, size)
        elif name in ("finite", "terminated", "truncated"):
            yield name, np.asarray(part_column(part, name).all(axis=1))
        elif name == "norm" and "params" not in part.names:
            raise DatasetError(
                "the parameters of some policies were withheld, so that 'norm' is not known; leave it out."
            )
        elif name == "norm":
            step = slab_rows(part)
            slabs = (part_column(part, "params", slice(start, start + step)) for start in range(0, rows, step))
            yield name, np.concatenate([np.linalg.norm(slab.astype(np.float64), axis=1) for slab in slabs])
        else:
            yield name, part_column(part, name)
