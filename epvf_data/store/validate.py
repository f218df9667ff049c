"""Says what is wrong with a data set, file by file, instead of stopping at the first problem."""

from __future__ import annotations

import hashlib
import itertools
import os
import stat
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from epvf_data import untrusted
from epvf_data.errors import CorruptDatasetError, DatasetError, UnsafeDatasetError
from epvf_data.places.address import is_url
from epvf_data.store import guard
from epvf_data.store.afar import far_of, open_url
from epvf_data.store.claims import claim
from epvf_data.store.commit import CommitRecord, PartEntry, live_parts, read_chain
from epvf_data.store.folders import (
    CARD,
    COMMITS,
    FOLDERS,
    PARTS,
    PROBES,
    ROOT,
    ROWS,
    SIGNATURES,
    STAGING,
    Files,
    has_our_form,
)
from epvf_data.store.identity import mixed
from epvf_data.store.meter import Meter, Progress
from epvf_data.store.part import Part, read_probe
from epvf_data.store.root import Root, read_root
from epvf_data.store.shard import Shard
from epvf_data.store.values import Tally, doubts

MAX_ENTRIES = 200_000  # in a folder of parts or probing states
_MAX_FOREIGN = 20  # foreign entries of one folder that are named one by one
_SPAN = 4 << 20  # bytes of rows that are looked at together
_THREADS = 2


def validate(path: str | os.PathLike[str], deep: bool = False, progress: Progress | None = None) -> list[str]:
    """The problems of a data set, each naming a file and what is wrong with it; an empty list means that it is fine.

    Always checked: the chain of commit records, that every file is there with its size and nothing foreign is, and
    that all metadata agrees. `deep` reads every byte once: SHA-256 of each file, CRC-32C of each chunk, and the values
    (NaN and infinite numbers, actions out of range, flags and lengths that contradict each other). `progress(done,
    all)` counts bytes if `deep`, else parts. Leftovers of interrupted writes are no problem: see `leftovers`. Raises
    DatasetError only where there is no data set at all or one of a newer format.
    """
    root = open_url(str(path)) if is_url(path) else Path(path)
    try:
        info = read_root(root)
        records = list(read_chain(root))
        parts = live_parts(records)
    except (CorruptDatasetError, UnsafeDatasetError) as error:
        return [str(error)]
    problems = [*_foreign(root), *_records(root, records), *_twice(root, records)]
    probes, found = _probes(root, info, records, parts, deep)
    sizes = [sum(size for size, _ in entry.files.values()) if deep else 1 for entry in parts]
    meter = Meter(sum(sizes), progress)

    def check(entry: PartEntry, size: int) -> list[str]:
        part = Part(root, info.env, entry, far=far_of(root))
        try:
            return [*_part(part, info, probes), *(_deep(part, info, meter) if deep else ())]
        except (DatasetError, OSError) as error:
            return [str(error)]
        except MemoryError:
            return [f"{root / PARTS / entry.id} needs more memory than is free; its rows were not checked."]
        finally:
            meter.add(0 if deep else size)

    with ThreadPoolExecutor(_THREADS if deep else 1) as pool:
        tasks = [pool.submit(check, entry, size) for entry, size in zip(parts, sizes, strict=True)]
        try:
            meter.await_all(tasks)
        except BaseException:
            meter.stopped = True
            pool.shutdown(cancel_futures=True)
            raise
    meter.finish()
    return [*problems, *found, *(problem for task in tasks for problem in task.result())]


def leftovers(path: str | os.PathLike[str]) -> list[str]:
    """What interrupted writes left behind: harmless, and no part of the data set; `epvf-data gc` removes it.

    A part in no commit record looks the same when the newest record is lost, which nothing else can show: each note
    says so. Raises DatasetError where the records cannot be read.
    """
    root = Path(path)
    read_root(root)
    known = _known(list(read_chain(root)))
    notes = []
    for folder, what in ((PARTS, "rows"), (PROBES, "probing states")):
        for name, status in _entries(root / folder):
            if name not in {*known[folder], ROOT} and has_our_form(folder, name, status.st_mode):
                notes.append(
                    f"{root / folder / name} holds {what} in no commit record: a write was interrupted or is under "
                    "way, or the newest record is lost."
                )
    found = list(_entries(root / STAGING)) if (root / STAGING).exists() else []
    found = [(name, status) for name, status in found if not untrusted.is_litter(name)]
    drafts = sum(has_our_form(STAGING, name, status.st_mode) for name, status in found if name != ROOT)
    others = [untrusted.printable(name) for name, status in found if not has_our_form(STAGING, name, status.st_mode)]
    if drafts:
        notes.append(f"{root / STAGING} holds {drafts} drafts: writes were interrupted or are under way.")
    if others:
        more = f" and {len(others) - 1} more" if len(others) > 1 else ""
        notes.append(
            f"{root / STAGING} holds '{others[0]}'{more}, which no writer makes and `epvf-data gc` leaves alone."
        )
    return notes


def _known(records: list[CommitRecord]) -> dict[str, set[str]]:
    return {
        PARTS: {part.id for record in records for part in record.add},
        PROBES: {probe for record in records for probe in record.probes},
    }


def _entries(folder: Path) -> Iterator[tuple[str, os.stat_result]]:
    """Name and status of what lies in a folder, in order. Raises UnsafeDatasetError where it is too much."""
    names = []
    with os.scandir(folder) as listing:
        for entry in listing:
            names.append(entry.name)
            if len(names) > MAX_ENTRIES:
                raise UnsafeDatasetError(f"{folder} holds more than {MAX_ENTRIES} entries; compact the data set.")
    for name in sorted(names):
        try:
            yield name, (folder / name).lstat()
        except FileNotFoundError:
            continue  # a writer's draft that has moved on


def _foreign(root: Path) -> Iterator[str]:
    """What has no business in a data set: links, special files, other names than a writer gives."""
    signed = os.path.lexists(root / SIGNATURES) and stat.S_ISDIR((root / SIGNATURES).lstat().st_mode)
    for folder in (None, COMMITS, PARTS, PROBES, *([SIGNATURES] if signed else [])):
        count = 0
        where = root / folder if folder else root
        for name, status in _entries(where):
            if untrusted.is_litter(name):
                continue
            if folder is None:
                fine = name in (*FOLDERS, ROOT) or (name == SIGNATURES and signed)
                fine = fine or (name in (*CARD, ROWS) and stat.S_ISREG(status.st_mode))
            else:
                fine = folder == COMMITS or has_our_form(folder, name, status.st_mode)
            count += not fine
            if not fine and count <= _MAX_FOREIGN:
                yield f"{where}/{untrusted.printable(name)} does not belong into a data set: remove it."
        if count > _MAX_FOREIGN:
            yield f"{where} holds {count - _MAX_FOREIGN} more entries that do not belong into a data set."


def _records(root: Path, records: list[CommitRecord]) -> Iterator[str]:
    files: dict[str, Files] = {}
    for record in records:
        where = f"{root / COMMITS}/{record.number:08d}.json"
        unused = set(record.probes) - {part.probe for part in record.add}
        if unused:
            yield f"{where} names {len(unused)} sets of probing states that none of its parts uses."
        for probe, listed in record.probes.items():
            if dict(files.setdefault(probe, listed)) != dict(listed):
                yield f"{where} names other files for the probing states {probe} than an earlier record."


def _twice(root: Path, records: list[CommitRecord]) -> Iterator[str]:
    """Commits that hold the same rows of a run, as two processes at once could make them before they were refused."""
    claims = sorted((held, record.number) for record in records if (held := claim(record.provenance)))
    for (held, number), (other, later) in itertools.pairwise(claims):
        if held[:2] == other[:2] and other.first < held.end:
            yield (
                f"{root / COMMITS}: commits {number} and {later} both hold {other.unit} from {other.first} on of one "
                "run, so rows are there twice; `epvf-data merge` into another data set keeps each once."
            )


def _probes(
    root: Path, info: Root, records: list[CommitRecord], parts: list[PartEntry], deep: bool
) -> tuple[dict[str, int], list[str]]:
    """How many states each set of probing states has that a part uses, and what is wrong with them."""
    used = {part.probe for part in parts}
    files = {probe: listed for record in records for probe, listed in record.probes.items() if probe in used}
    sizes: dict[str, int] = {}
    problems, far = [], far_of(root)
    for probe, listed in files.items():
        folder = root / PROBES / probe
        find = far.find(f"{PROBES}/{probe}", listed) if far else folder.__truediv__
        try:
            states = read_probe(root, probe, listed, far)
            sizes[probe] = len(states)
            if deep:
                for name, (size, digest) in listed.items():
                    if not name.endswith(ROOT) and _file_digest(find(name)) != (size, digest):
                        problems.append(_mismatch(folder / name))
            if states.shape[1] != info.env.observation_size:
                problems.append(
                    f"{folder} has states of {states.shape[1]} numbers; {info.env.observation_size} are expected."
                )
            if not np.isfinite(states).all():
                problems.append(f"{folder} holds probing states that are not finite.")
        except (DatasetError, OSError) as error:
            problems.append(str(error))
    return sizes, problems


def _file_digest(path: Path) -> tuple[int, str]:
    with untrusted.open_regular(path) as descriptor, open(descriptor, "rb", closefd=False) as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return file.tell(), digest


def _mismatch(path: Path) -> str:
    return f"{path} does not match the SHA-256 of its commit; fetch this file again."


def _part(part: Part, info: Root, probes: dict[str, int]) -> Iterator[str]:
    """Contradictions between the metadata of a part, of its record and of the root."""
    where = part.group.path / ROOT
    spec = part.spec
    guard.expect(part.group.attributes["policy"], spec.to_dict(), where)
    if (spec.observation_size, spec.action_size) != (info.env.observation_size, info.env.action_size):
        yield f"{where}: the policy does not fit the environment's observation and action sizes."
    for name, words in part.vocabularies.items():
        if len(set(words)) < len(words):
            yield f"{where}: the vocabulary {name} repeats words."
    if "probe_actions" in part.names and part.entry.probe in probes:
        states, actions = probes[part.entry.probe], part.layout("probe_actions").shape[1]
        if states != actions:
            yield f"{part.group.path} has actions in {actions} probing states; its probe has {states}."


def _deep(part: Part, info: Root, meter: Meter) -> Iterator[str]:
    """Reads all arrays side by side, some rows at a time: hashes, checksums and values in one pass over each file."""
    path = part.group.path
    shards: dict[str, Shard] = {}
    for name in part.names:
        try:
            shards[name] = part.open(name)
        except DatasetError as error:
            yield str(error)
    hashes = {name: hashlib.sha256() for name in shards}
    words = {name: len(value) for name, value in part.vocabularies.items()}
    squashed = part.spec.bounded
    tally, horizons = Tally(), [one.horizon for one in mixed(info.env)]
    row_bytes = sum(part.layout(name).row_bytes for name in part.names)
    chunks, size = part.layout("returns").chunks, part.layout("returns").chunk_rows
    step = max(1, _SPAN // (size * row_bytes))
    for first in range(0, chunks, step):
        last = min(first + step, chunks)
        columns: dict[str, np.ndarray] = {}
        for name, shard in list(shards.items()):
            if meter.stopped:
                return
            stored = shard.stored(first, last)
            hashes[name].update(stored.data)
            try:
                columns[name] = shard.span(first, last)
            except CorruptDatasetError as error:
                yield str(error)
                del shards[name]
            meter.add(stored.nbytes)
        if len(columns) == len(part.names):  # values are compared where all columns are whole
            for column, what, bad in doubts(columns, words, squashed, horizons):
                tally.add(column, what, bad, first * size)
    for name, shard in shards.items():
        hashes[name].update(shard.tail.data)
        file = f"{name}/{shard.layout.file}"
        if hashes[name].hexdigest() != part.entry.files[file][1]:
            yield _mismatch(path / file)
    yield from (f"{path / column}: {sentence}." for column, sentence in tally.sentences())
