"""Whose rows a commit holds: compaction is looked through, and what a stranger claims takes no time."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

import epvf_data
from epvf_data.curation.history import history
from epvf_data.curation.merge import merge
from epvf_data.curation.select import filter_rows
from epvf_data.provenance import first_hand
from epvf_data.store.compact import compact
from epvf_data.store.origins import leaves
from epvf_data.store.writer import Writer


def made_of(path: Path) -> list[list[tuple[int, int]]]:
    dataset = epvf_data.open(path)
    return [[(record.number, rows) for record, rows in leaves(dataset, commit)] for commit in dataset.commits]


def test_compactions_of_compactions_are_looked_through(quick_path, env, make_rows):
    path = quick_path / "a"
    with Writer.open(path, env) as writer:
        for seed in range(6):
            writer.commit(make_rows(2 + seed, seed), {})
    size = 3 * (2 + 3 + 4) * 60
    compact(path, target_bytes=size)
    compact(path)
    assert len(epvf_data.open(path).parts) == 1
    assert made_of(path)[-1] == [(number, 2 + number) for number in range(6)]
    assert made_of(path)[:6] == [[(number, 2 + number)] for number in range(6)]


LIES = {
    "twice the same, and less of another": lambda k: [[k - 1, 16], [k - 1, 16], [0, -16]],
    "a doubling": lambda k: [[k - 1, 8], [k - 1, 8]],
    "nothing but itself": lambda k: [[k, 16]],
    "the next one": lambda k: [[k + 1, 16]],
    "no numbers": lambda k: [["a", None], {}, 5],
    "no list": lambda k: {"a": 5},
    "what is not there": lambda k: [[10**30, 16]],
}


@pytest.mark.parametrize("lie", LIES)
def test_a_stranger_may_claim_what_he_likes(quick_path, env, make_rows, lie):
    """26 commits that say they are made of each other; the records say otherwise."""
    path = quick_path / "a"
    with Writer.open(path, env) as writer:
        for k in range(26):
            writer.commit(make_rows(16, k), {"rows_of": LIES[lie](k)} if k else {})
    began = time.process_time()
    filter_rows(path, quick_path / "b", "length > 0")
    merge([path], quick_path / "c")
    assert time.process_time() - began < 5
    assert made_of(path) == [[(k, 16)] for k in range(26)]
    for name in "bc":
        origins = [one for record in epvf_data.open(quick_path / name).commits for one in record.provenance["origins"]]
        assert [(one["commit"], one["rows"]) for one in origins] == [(k, 16) for k in range(26)]


def test_parts_without_rows_do_not_unfold(quick_path, env, make_rows):
    """Forged records: each replaces both parts of the one before it, one of which has no rows."""
    from dataclasses import replace

    with Writer.open(quick_path / "a", env) as writer:
        writer.commit(make_rows(1), {})
    dataset = epvf_data.open(quick_path / "a")
    first = dataset.commits[0]
    records = [first]
    for k in range(1, 40):
        add = tuple(replace(first.add[0], id=f"{2 * k + half:032x}", rows=0) for half in range(2))
        gone = records[-1].add if k > 1 else ()
        claim = {"rows_of": [[k - 1, part.rows] for part in gone]}
        records.append(replace(first, number=k, add=add, remove=tuple(p.id for p in gone), provenance=claim))
    forged = epvf_data.store.reader.Dataset(dataset.path, dataset._root, tuple(records))  # pyright: ignore
    ((_, rows),) = leaves(forged, records[-1])  # one, and not 2^39
    assert rows == 0


def test_provenance_of_many_generations_is_read_without_recursion():
    value = {"seed": 0}
    for generation in range(20_000):
        value = {"origins": [{"provenance": value}], "seed": generation}
    assert [made["seed"] for made in first_hand(value)] == [0]


def test_a_history_without_end_is_cut(quick_path, env, make_rows):
    wide = {"origins": [{"provenance": {"seed": seed}} for seed in range(20_000)]}
    with Writer.open(quick_path / "a", env) as writer:
        writer.commit(make_rows(1), wide)
        writer.commit(make_rows(1), wide)
    events = history(epvf_data.open(quick_path / "a"))
    assert len(events) == 10_000
    assert [event["seed"] for event in events[:3]] == [None, "0", "1"]
