"""Provenance of rows that went from one data set into another: whose they were, and what was done with them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from epvf_data.provenance import provenance
from epvf_data.store.commit import CommitRecord, PartEntry
from epvf_data.store.reader import Dataset
from epvf_data.store.schema import to_json

MAX_BYTES = 2 << 20  # of one origin's provenance; longer ones are shortened
MAX_LEVELS = 22  # of nesting in it: some six generations of data sets made of data sets; metadata has a limit

Seen = dict[str, dict[str, list[PartEntry]]]  # SHA-256 of a record → what each of its parts was made of


def leaves(dataset: Dataset, record: CommitRecord) -> list[tuple[CommitRecord, int]]:
    """The commits whose rows a commit holds, with the number of rows, in order: compaction is looked through."""
    seen: Seen = {}
    return _joined(leaf for part in record.add for leaf in leaves_of(dataset, part, seen))


def leaves_of(dataset: Dataset, part: PartEntry, seen: Seen | None = None) -> list[tuple[CommitRecord, int]]:
    """The same for the rows of one part. `seen` remembers what was looked up for others.

    Every part is removed once at most, so that this takes no longer than reading the records, whatever they say.
    """
    found: list[tuple[CommitRecord, int]] = []
    seen, waiting = {} if seen is None else seen, [part]
    while waiting:
        one = waiting.pop()
        record = dataset.record_of(one)
        if record.sha256 not in seen:
            seen[record.sha256] = _made_of(dataset, record)
        made_of = seen[record.sha256].get(one.id, ())
        waiting += reversed(made_of)
        if not made_of:
            found.append((record, one.rows))
    return _joined(found)


def _joined(found: Iterable[tuple[CommitRecord, int]]) -> list[tuple[CommitRecord, int]]:
    """Neighbours of one commit become one."""
    joined: list[tuple[CommitRecord, int]] = []
    for record, rows in found:
        if joined and joined[-1][0] is record:
            joined[-1] = (record, joined[-1][1] + rows)
        else:
            joined.append((record, rows))
    return joined


def _made_of(dataset: Dataset, record: CommitRecord) -> dict[str, list[PartEntry]]:
    """Of what parts a commit made each of its own: a compaction one of all, `finalize` each of one; others of none."""
    old = [dataset.removed(name) for name in record.remove]
    if not old or record.provenance.get("rows_of") != [[dataset.record_of(part).number, part.rows] for part in old]:
        return {}
    new = record.add
    if len(new) == 1 and new[0].rows == sum(part.rows for part in old):
        return {new[0].id: old}
    if [part.rows for part in new] == [part.rows for part in old]:
        return {part.id: [before] for part, before in zip(new, old, strict=True)}
    return {}


def origin(record: CommitRecord, rows: int) -> dict[str, Any]:
    """What a derived commit says about one commit that gave it rows."""
    kept: Mapping[str, Any] = record.provenance
    if _levels(kept) > MAX_LEVELS or len(to_json(kept)) > MAX_BYTES:
        kept = {**{key: kept[key] for key in ("who", "verb", "command", "versions") if key in kept}, "shortened": True}
    return {"record": record.sha256, "commit": record.number, "rows": rows, "provenance": dict(kept)}


def derived(
    verb: str, arguments: Mapping[str, Any], records: Sequence[tuple[CommitRecord, int]], licences: Sequence[str]
) -> dict[str, Any]:
    """Provenance of rows that `verb` took from these commits, each with the number of rows that came from it.

    `licences` are those of the data set that they lay in.
    """
    origins = [origin(record, rows) for record, rows in records]
    found = {"licences": list(licences)} if licences else {}
    return provenance(verb=verb, arguments=dict(arguments), origins=origins, **found)


def _levels(value: Any) -> int:
    """How deep a JSON value is nested."""
    if isinstance(value, Mapping):
        return 1 + max(map(_levels, value.values()), default=0)
    return 1 + max(map(_levels, value), default=0) if isinstance(value, (list, tuple)) else 0
