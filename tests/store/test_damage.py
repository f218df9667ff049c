"""Damage is detected: flipped bits, lost and foreign files, and values that contradict each other, counted exactly."""

from __future__ import annotations

import shutil
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from store import forge

import epvf_data
from epvf_data.errors import CorruptDatasetError, DatasetError
from epvf_data.store import commit, guard
from epvf_data.store.commit import live_parts, publish_record, read_chain
from epvf_data.store.folders import CARD, ROWS, open_folders
from epvf_data.store.schema import COLUMNS
from epvf_data.store.shard import Layout, array_metadata, encode
from epvf_data.store.validate import leftovers, validate
from epvf_data.store.writer import Writer


@pytest.fixture
def tiny(quick_path, make_rows, env) -> Path:
    with Writer.open(quick_path / "tiny", env) as writer:
        writer.commit(make_rows(3, 0, probes=2), {})
        writer.commit(make_rows(2, 1, probes=2), {})
    return quick_path / "tiny"


def noticed(path: Path) -> bool:
    """A lost newest record looks like an interrupted write: only `leftovers` tells."""
    try:
        return bool(validate(path, deep=True) or leftovers(path))
    except DatasetError:
        return True


def files(path: Path) -> list[Path]:
    return sorted(item for item in path.rglob("*") if item.is_file() and "staging" not in item.parts)


def test_swaps_and_strangers_are_noticed(tiny):
    first, second = sorted((tiny / "parts").glob("[0-9a-f]*"))
    for name in ("returns/c/0/0", "finite/c/0/0"):
        a, b = (first / name).read_bytes(), (second / name).read_bytes()
        (first / name).write_bytes(b)
        (second / name).write_bytes(a)
        assert noticed(tiny)
        (first / name).write_bytes(a)
        (second / name).write_bytes(b)
    for stranger in (
        first / "extra.txt",
        tiny / "parts" / "x",
        tiny / "note",
        tiny / "commits" / "x.json",
        first / "d" / "x",
    ):
        stranger.parent.mkdir(exist_ok=True)
        stranger.write_text("x")
        assert validate(tiny), stranger
        stranger.unlink()
    (first / "d").rmdir()
    records = [tiny / "commits" / f"0000000{i}.json" for i in range(2)]
    records[0].rename(tiny / "commits" / "00000005.json")
    assert noticed(tiny)


def test_reading_damaged_rows_raises_and_gives_no_fill_values(tiny):
    part = next(iter(epvf_data.open(tiny).commits[0].add)).id
    shard = tiny / "parts" / part / "params" / "c" / "0" / "0"
    data = bytearray(shard.read_bytes())
    data[40] ^= 4
    shard.write_bytes(data)
    table = epvf_data.open(tiny).table()
    with pytest.raises(CorruptDatasetError, match="checksum"):
        table.column("params")
    with pytest.raises(CorruptDatasetError, match="checksum"):
        table.take("params", np.array([0]))
    assert table.take("params", np.array([4])).shape == (1, 23)
    shard.unlink()
    with pytest.raises(CorruptDatasetError, match="is missing"):
        epvf_data.open(tiny).table().column("returns")


def test_the_guard_accepts_what_we_write():
    for name, column in COLUMNS.items():
        layout = Layout((70, *[3] * (len(column.dims) - 1)), column.dtype, 64, 3)
        assert guard.array_layout(array_metadata(layout, column.dims), column, name) == layout


def test_removed_parts_leave_and_their_successors_take_their_place(tiny, make_rows, env):
    """What compaction will write: readers honour it already."""
    dataset = epvf_data.open(tiny)
    table = dataset.table()
    both = [record.add[0].id for record in dataset.commits]
    with Writer.open(tiny, env) as writer:
        writer.commit(make_rows(4, 2, probes=2), {})
        records = list(read_chain(tiny))
        with open_folders(tiny) as folders:
            publish_record(folders, records, {"add": [], "remove": [both[1]], "probes": {}, "provenance": {}})
    after = epvf_data.open(tiny)
    assert after.rows == 7
    expected = np.concatenate([table.column("params")[:3], make_rows(4, 2).params])
    assert after.table().column("params").tobytes() == expected.tobytes()
    assert validate(tiny, deep=True) == []
    # One record that replaces the first part: the order of rows stays.
    last = after.commits[2]
    merged = replace(last, number=4, add=(replace(last.add[0], id="a" * 32),), remove=(both[0],))
    assert [part.id for part in live_parts([*after.commits, merged])] == ["a" * 32, last.add[0].id]
    again = replace(merged, number=5, add=())
    with pytest.raises(CorruptDatasetError, match="commit 5"):
        live_parts([*after.commits, merged, again])


def chain(tiny, changes):
    """Records that each remove and add parts of these names."""
    first = epvf_data.open(tiny).commits[0]
    for number, (gone, new) in enumerate(changes):
        add = tuple(replace(first.add[0], id=name) for name in new)
        yield replace(first, number=number, add=add, remove=tuple(gone))


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_parts_stand_where_the_first_of_the_removed_ones_stood(tiny, monkeypatch, data):
    monkeypatch.setattr(commit, "_DEEPEST", 2)
    order, changes = [], []
    for number in range(data.draw(st.integers(1, 12))):
        gone = data.draw(st.lists(st.sampled_from(order), unique=True, max_size=3)) if order else []
        new = [f"{number}-{place}" for place in range(data.draw(st.integers(0, 3)))]
        place = min(map(order.index, gone), default=len(order))
        kept = [[name for name in half if name not in gone] for half in (order[:place], order[place:])]
        order = [*kept[0], *new, *kept[1]]
        changes.append((gone, new))
    assert [part.id for part in live_parts(list(chain(tiny, changes)))] == order


@pytest.mark.parametrize("kept", [0, 1])
def test_thousands_of_compactions_take_no_time(tiny, kept):
    """Each replaces the part before, by one or by two."""
    many = 10_000
    changes = [([], [f"old {number}" for number in range(many)]), ([], ["0"])]
    changes += [([f"{number}"], [f"{number + 1}", f"more {number}"][: 1 + kept]) for number in range(many)]
    began = time.process_time()
    parts = live_parts(list(chain(tiny, changes)))
    assert time.process_time() - began < 5
    assert len(parts) == many + 1 + kept * many


def test_the_card_is_welcome_and_leftovers_are_no_problem(tiny):
    for name in (*CARD, ROWS):
        (tiny / name).write_text("card")
    assert validate(tiny, deep=True) == []
    assert leftovers(tiny) == []
    part = tiny / "parts" / epvf_data.open(tiny).commits[0].add[0].id
    shutil.copytree(part, tiny / "parts" / ("0" * 32))
    (tiny / "probes" / ("0" * 64)).mkdir()
    (tiny / "staging" / ("0" * 32)).mkdir()
    assert validate(tiny, deep=True) == []
    notes = leftovers(tiny)
    assert [str(tiny / "parts" / ("0" * 32)) in notes[0], str(tiny / "probes") in notes[1], "1 draft" in notes[2]] == [
        True
    ] * 3
    (tiny / "commits" / "00000001.json").unlink()
    assert validate(tiny, deep=True) == []
    assert sum("the newest record is lost" in note for note in leftovers(tiny)) == 3
    (tiny / "staging" / ("0" * 32)).rmdir()
    (tiny / "README.md").unlink()
    (tiny / "README.md").symlink_to("/etc/hostname")
    (tiny / "parts" / ("1" * 32)).symlink_to(part)
    problems = validate(tiny)
    assert [("README" in problem, "1" * 32 in problem) for problem in problems] == [(True, False), (False, True)]


def test_progress_counts_bytes_and_an_interrupt_ends_at_once(small):
    seen = []
    assert validate(small, deep=True, progress=lambda done, total: seen.append((done, total))) == []
    size = sum(
        size for record in epvf_data.open(small).commits for part in record.add for size, _ in part.files.values()
    )
    assert seen[-1] == (size, size)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)

    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        validate(small, deep=True, progress=interrupt)


# What can be wrong with one value: column, bad value, and the sentence that must count it.
FLAWS = {
    "params": ((np.nan, np.inf, -np.inf), "not finite"),
    "returns": ((np.nan, np.inf), "not finite"),
    "discounted_returns": ((-np.inf,), "not finite"),
    "scale": ((np.nan,), "not finite"),
    "probe_actions": ((1.25, -2.0, np.inf), "beyond −1 to 1"),
    "lengths": ((-1, 11, 2**31 - 1), "outside 0 to the horizon of 10"),
    "terminated": ((2, 255), "neither false nor true"),
    "sign": ((2, -128), "neither −1, 0 nor +1"),
    "iteration": ((-2,), "below −1"),
    "source": ((2, 65535), "outside the vocabulary of 2 words"),
    "base": ((-2, 99), "outside the vocabulary of 2 words"),
}


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), count=st.integers(1, 200), compression=st.sampled_from([None, 1]))
def test_planted_values_are_counted_exactly(quick_path, make_rows, env, data, count, compression):
    """Any number of bad values anywhere: the sentences give their exact numbers and the first row of each kind."""
    rows = make_rows(count, probes=2, discount=0.5)
    rows.lineage.iteration[:], rows.lineage.source[:], rows.lineage.base[:] = 3, 1, 0
    rows.terminated[:], rows.truncated[:], rows.lengths[:] = True, False, 5
    words = {**rows.lineage.vocabularies, "source": ("a", "b"), "base": ("c", "d")}
    path = Path(tempfile.mkdtemp(dir=quick_path)) / "a"
    with Writer.open(path, env, compression) as writer:
        writer.commit(replace(rows, lineage=replace(rows.lineage, vocabularies=words)), {})
    store, part = forge.Forge(path), epvf_data.open(path).parts[0]
    expected = {}
    for name in sorted(data.draw(st.sets(st.sampled_from(sorted(FLAWS)), min_size=1), "columns")):
        bad, what = FLAWS[name]
        values = rows.columns()[name]
        flat = values.view(np.uint8).reshape(-1) if name == "terminated" else values.reshape(-1)
        places = data.draw(st.sets(st.integers(0, flat.size - 1), min_size=1, max_size=20), name)
        for place in places:
            flat[place] = data.draw(st.sampled_from(bad), "value")
        layout = part.layout(name)
        (store.part() / name / layout.file).write_bytes(b"".join(encode(values, layout)))
        expected[name] = (len(places), what, min(places) // (flat.size // count))
    store.seal()
    problems = validate(path, deep=True)
    for name, (number, what, row) in expected.items():
        sentence = f"/{name}: {number} {'value is' if number == 1 else 'values are'} {what}, the first in row {row}."
        assert sum(problem.endswith(sentence) for problem in problems) == 1, (sentence, problems)
    assert {problem.split(":")[0].split("/")[-1] for problem in problems} == set(expected), problems
    assert validate(path) == []
