"""Says what is wrong with a data set, file by file, instead of stopping at the first problem."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from epvf_data.errors import CorruptDatasetError, DatasetError, UnsafeDatasetError
from epvf_data.store import guard
from epvf_data.store.commit import COMMITS, PARTS, PROBES, ROOT, CommitRecord, Files, live_parts, read_chain
from epvf_data.store.lineage import VOCABULARIES, index_problem
from epvf_data.store.part import Part, read_probe
from epvf_data.store.root import Root, read_root

_PIECE = 1 << 20


def validate(
    path: str | os.PathLike[str], deep: bool = False, progress: Callable[[int, int], None] | None = None
) -> list[str]:
    """The problems of a data set, each naming a file and what is wrong with it; an empty list means that it is fine.

    Always checked: the chain of commit records, that every file is there with its size and nothing else is, and that
    all metadata agrees. `deep` reads every byte: SHA-256 of each file, CRC-32C of each chunk, and the values (NaN and
    infinite numbers, actions out of range, flags and lengths that contradict each other). `progress(done, all)` is
    called part by part. Raises DatasetError only where there is no data set at all or one of a newer format.
    """
    root = Path(path)
    try:
        info = read_root(root)
        records = list(read_chain(root))
        parts = live_parts(records)
    except (CorruptDatasetError, UnsafeDatasetError) as error:
        return [str(error)]
    problems = [*_strangers(root, records), *_probes(root, records, deep)]
    for number, entry in enumerate(parts):
        try:
            problems += _part(Part(root, info.env, entry), info, deep)
        except (DatasetError, OSError) as error:
            problems.append(str(error))
        if progress is not None:
            progress(number + 1, len(parts))
    return problems


def _strangers(root: Path, records: list[CommitRecord]) -> Iterator[str]:
    """What lies in the data set and is in no commit. Work in progress under `staging` is nobody's business."""
    known = {
        PARTS: {part.id for record in records for part in record.add},
        PROBES: {probe for record in records for probe in record.probes},
    }
    for folder, names in known.items():
        for entry in sorted(os.scandir(root / folder), key=lambda entry: entry.name):
            if entry.name not in {*names, ROOT}:
                yield (
                    f"{entry.path} is in no commit record: an interrupted write left it there, or its record is lost; "
                    "its rows are not part of the data set."
                )
    for entry in sorted(os.scandir(root), key=lambda entry: entry.name):
        if entry.name not in {ROOT, PARTS, PROBES, COMMITS, "staging"}:
            yield f"{entry.path} does not belong into a data set."


def _probes(root: Path, records: list[CommitRecord], deep: bool) -> Iterator[str]:
    files: dict[str, Files] = {}
    for record in records:
        for probe, listed in record.probes.items():
            if dict(files.setdefault(probe, listed)) != dict(listed):
                yield f"commit {record.number} names other files for the probing states {probe} than an earlier one."
    for probe, listed in files.items():
        try:
            states = read_probe(root, probe, listed)
            if deep:
                yield from _hashes(root / PROBES / probe, listed)
            if not np.isfinite(states).all():
                yield f"{root / PROBES / probe} holds probing states that are not finite."
        except (DatasetError, OSError) as error:
            yield str(error)


def _hashes(folder: Path, files: Files) -> Iterator[str]:
    for name, (size, digest) in sorted(files.items()):
        found = hashlib.sha256()
        count = 0
        with guard.open_regular(folder / name) as descriptor:
            while piece := os.read(descriptor, _PIECE):
                found.update(piece)
                count += len(piece)
        if count != size or found.hexdigest() != digest:
            yield f"{folder / name} does not match the SHA-256 of its commit; fetch this file again."


def _part(part: Part, info: Root, deep: bool) -> Iterator[str]:
    path = part.group.path
    spec, _ = part.spec, part.vocabularies
    if (spec.observation_size, spec.action_size) != (info.env.observation_size, info.env.action_size):
        yield f"{path / ROOT}: the policy does not fit the environment's observation and action sizes."
    if not deep:
        return
    yield from _hashes(path, part.entry.files)
    columns: dict[str, np.ndarray] = {}
    for name in part.names:
        shard = part.open(name)
        small = name not in ("params", "probe_actions")
        chunks = []
        for chunk in range(shard.layout.chunks):
            try:
                rows = shard.chunk(chunk)
            except CorruptDatasetError as error:
                yield str(error)
                return
            if small:
                chunks.append(np.array(rows))
            else:
                yield from _big(path / name, chunk * shard.layout.chunk_rows, rows, spec.to_dict()["layers"][-1])
        if small:
            columns[name] = np.concatenate(chunks)
    yield from (f"{path}: {problem}." for problem in _values(part, columns, info.env.horizon))


def _big(path: Path, first: int, rows: np.ndarray, last_layer: dict) -> Iterator[str]:
    """Counts what is not finite, and actions beyond ±1 where the policy squashes its output."""
    bad = int((~np.isfinite(rows)).sum())
    if bad:
        yield f"{path}: {bad} numbers that are not finite in the rows from {first}."
    if path.name == "probe_actions" and last_layer["activation"] in ("tanh", "clip"):
        beyond = int((np.abs(rows) > 1).sum())
        if beyond:
            yield f"{path}: {beyond} actions beyond −1 to 1 in the rows from {first}."


def _values(part: Part, columns: dict[str, np.ndarray], horizon: int) -> Iterator[str]:
    """Contradictions between the small columns of one part."""
    for name in VOCABULARIES:
        problem = index_problem(name, columns[name], part.vocabularies[name])
        if problem:
            yield problem
    lengths, finite = columns["lengths"], columns["finite"]
    for name in ("returns", "discounted_returns"):
        values = columns.get(name, np.zeros((1, 1), np.float32))
        bad = int((~np.isfinite(values)).sum())
        if bad:
            yield f"{bad} {name} are not finite, also of episodes that are flagged they must be"
    if lengths.min() < 0 or lengths.max() > horizon:
        yield f"lengths go from {lengths.min()} to {lengths.max()}; the horizon is {horizon}"
    open_ended = int((finite & ~columns["terminated"] & ~columns["truncated"]).sum())
    if open_ended:
        yield f"{open_ended} finite episodes are neither terminated nor truncated"
    early = int((columns["truncated"] & finite & (lengths != horizon)).sum())
    if early:
        yield f"{early} episodes are truncated before the horizon of {horizon} steps"
    if np.abs(columns["sign"].astype(np.int16)).max() > 1:
        yield "sign holds other values than −1, 0 and +1"
