"""Compaction, garbage collection, and data sets that appear whole: what is live stays, byte for byte."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import numpy as np
import pytest

import epvf_data
from epvf_data.errors import CorruptDatasetError, DatasetError, EpvfError, StorageError
from epvf_data.policies.spec import PolicySpec
from epvf_data.store.compact import compact
from epvf_data.store.digest import content_hash
from epvf_data.store.durable import lock, open_folder
from epvf_data.store.extract import row_bytes
from epvf_data.store.garbage import collect_garbage
from epvf_data.store.validate import validate
from epvf_data.store.writer import Writer

WIDE = PolicySpec(4, 2, (5,))
LEFT = "5" * 32  # the name of a draft


@pytest.fixture
def many(quick_path, env, make_rows) -> Path:
    """Ten commits of two architectures and three kinds."""
    with Writer.open(quick_path / "many", env) as writer:
        for seed in range(10):
            kind = {"probes": 2} if seed < 6 else {"episodes": 3}
            writer.commit([make_rows(3 + seed, seed, **kind), make_rows(2, seed, spec=WIDE)], {"step": seed})
    return quick_path / "many"


def age(folder: Path, seconds: float) -> None:
    then = time.time() - seconds
    for path in [folder, *folder.rglob("*")]:
        os.utime(path, (then, then), follow_symlinks=False)


def test_compaction_joins_parts_and_changes_no_row(many):
    before = content_hash(epvf_data.open(many))
    reader = epvf_data.open(many)
    report = compact(many)
    after = epvf_data.open(many)
    assert (report.parts_before, report.parts_after, report.rows_rewritten, len(after.parts)) == (20, 3, 95, 3)
    assert content_hash(after) == before == content_hash(reader)  # also for those who had it open
    assert validate(many, deep=True) == []
    assert [record.provenance["rows_of"] for record in after.commits[10:]] == [
        [[n, 3 + n] for n in range(6)],
        [[n, 3 + n] for n in range(6, 10)],
        [[n, 2] for n in range(10)],
    ]
    assert compact(many).rows_rewritten == 0


def test_parts_have_at_most_the_size_that_was_asked_for(many):
    small = compact(many, target_bytes=3000)
    assert 3 < small.parts_after < 20
    assert content_hash(epvf_data.open(many)) == content_hash(epvf_data.open(many).refresh())
    assert max(row_bytes(part) * part.entry.rows for part in epvf_data.open(many).parts) <= 3000


def test_two_compactions_at_once_lose_nothing(many, monkeypatch):
    """The second one finds the parts of the first gone when it comes to publish."""
    before = content_hash(epvf_data.open(many))
    real = os.link

    def link(*args, **words):
        monkeypatch.setattr(os, "link", real)
        compact(many)
        real(*args, **words)

    monkeypatch.setattr(os, "link", link)
    with pytest.raises(DatasetError, match="another process compacts"):
        compact(many)
    assert content_hash(epvf_data.open(many)) == before
    assert validate(many, deep=True) == []
    assert len(epvf_data.open(many).parts) == 3


def test_commits_during_a_compaction_stay(many, env, make_rows, monkeypatch):
    real = os.link

    def link(*args, **words):
        monkeypatch.setattr(os, "link", real)
        with Writer.open(many, env) as writer:
            writer.commit(make_rows(4, 77), {"step": 77})
        real(*args, **words)

    rows = epvf_data.open(many).rows
    monkeypatch.setattr(os, "link", link)
    compact(many)
    assert epvf_data.open(many).rows == rows + 4
    assert validate(many, deep=True) == []


def test_garbage_is_what_nobody_needs_and_old_enough(many, env, make_rows):
    compact(many)
    before = content_hash(epvf_data.open(many))
    shutil.copytree(next((many / "parts").glob("[0-9a-f]*")), many / "parts" / ("0" * 32))
    (many / "staging" / LEFT).mkdir()
    (many / "staging" / LEFT / "x").write_bytes(b"12345")
    (many / "staging" / f"{LEFT}.json").write_bytes(b"{}")
    assert collect_garbage(many).waiting == 23
    planned = collect_garbage(many, grace=0, dry_run=True)
    assert (planned.parts, planned.staging, planned.waiting, planned.foreign) == (21, 2, 0, 0)
    assert len(list((many / "parts").iterdir())) == 25
    done = collect_garbage(many, grace=0)
    assert (done.parts, done.staging, done.bytes) == (planned.parts, planned.staging, planned.bytes)
    assert len(list((many / "parts").iterdir())) == 4
    assert [item.name for item in (many / "staging").iterdir()] == ["zarr.json"]
    assert content_hash(epvf_data.open(many)) == before
    assert validate(many, deep=True) == []
    with Writer.open(many, env) as writer:
        writer.commit(make_rows(3, 5, probes=2), {})


def test_the_grace_period_begins_when_a_part_was_replaced(many):
    for part in (many / "parts").iterdir():
        age(part, 10_000)
    compact(many)
    assert collect_garbage(many, grace=3600).parts == 0
    for record in sorted((many / "commits").glob("[0-9]*.json"))[-3:]:
        age(record, 7200)
    assert collect_garbage(many, grace=3600).parts == 20
    assert validate(many, deep=True) == []


def test_a_new_file_inside_an_old_draft_counts(many):
    (many / "staging" / LEFT / "inner").mkdir(parents=True)
    age(many / "staging" / LEFT, 10_000)
    (many / "staging" / LEFT / "inner" / "new").write_bytes(b"")
    assert collect_garbage(many, grace=3600).staging == 0
    age(many / "staging" / LEFT, 10_000)
    assert collect_garbage(many, grace=3600).staging == 1


def test_no_garbage_is_collected_while_a_writer_is_at_work(many, env, make_rows, monkeypatch):
    real = os.rename
    refused = []

    def rename(old, new, **words):
        with pytest.raises(StorageError, match="a writer is at work"):
            collect_garbage(many, grace=0)
        refused.append(new)
        real(old, new, **words)

    monkeypatch.setattr(os, "rename", rename)
    with Writer.open(many, env) as writer:
        writer.commit(make_rows(4, 50), {})
    assert refused
    monkeypatch.setattr(os, "rename", real)
    assert collect_garbage(many, grace=0).parts == 0
    assert validate(many, deep=True) == []


def test_a_broken_data_set_is_not_cleaned(many):
    (many / "commits" / "00000003.json").unlink()
    with pytest.raises(CorruptDatasetError, match="00000003"):
        collect_garbage(many, grace=0)
    assert len(list((many / "parts").iterdir())) == 21


def test_an_interrupted_collection_goes_on(many, monkeypatch):
    compact(many)
    before = content_hash(epvf_data.open(many))
    real = shutil.rmtree
    count = 0

    def rmtree(*args, **kwargs):
        nonlocal count
        count += 1
        if count == 4:
            raise KeyboardInterrupt
        real(*args, **kwargs)

    monkeypatch.setattr(shutil, "rmtree", rmtree)
    with pytest.raises(KeyboardInterrupt):
        collect_garbage(many, grace=0)
    monkeypatch.setattr(shutil, "rmtree", real)
    assert content_hash(epvf_data.open(many)) == before
    assert validate(many, deep=True) == []
    again = collect_garbage(many, grace=0)
    assert (again.parts, again.staging) == (16, 1)
    assert content_hash(epvf_data.open(many)) == before


def test_a_new_data_set_appears_whole_or_not_at_all(quick_path, env, make_rows):
    out = quick_path / "deep" / "er" / "new"
    with pytest.raises(RuntimeError, match="^no$"), Writer.create(out, env) as writer:  # noqa: PT012
        writer.commit(make_rows(3), {})
        with pytest.raises(DatasetError, match="unfinished"):
            epvf_data.open(out)
        with pytest.raises(DatasetError, match="unfinished"):
            Writer.open(out, env)
        with pytest.raises(DatasetError, match="another process is making"), Writer.create(out, env):
            pass
        raise RuntimeError("no")
    assert not (quick_path / "deep").exists()
    with Writer.create(out, env) as writer:
        writer.commit(make_rows(3), {})
        writer.commit(make_rows(4, 1), {})
    assert epvf_data.open(out).rows == 7
    assert validate(out, deep=True) == []
    with pytest.raises(DatasetError, match="already is a data set"), Writer.create(out, env):
        pass
    with Writer.open(out, env) as writer:  # from now on it is like any other
        writer.commit(make_rows(2, 2), {})


def test_what_a_killed_maker_left_is_replaced(quick_path, env, make_rows):
    with Writer.create(quick_path / "a", env) as writer:
        writer.commit(make_rows(3), {})
        shutil.copytree(quick_path / "a", quick_path / "left")  # as it lies there at this moment
    with pytest.raises(DatasetError, match="unfinished"):
        epvf_data.open(quick_path / "left")
    with Writer.create(quick_path / "left", env) as writer:
        writer.commit(make_rows(5, 1), {})
    assert epvf_data.open(quick_path / "left").rows == 5
    assert validate(quick_path / "left", deep=True) == []
    assert len(list((quick_path / "left" / "parts").iterdir())) == 2


def test_nothing_of_others_is_replaced(quick_path, env):
    (quick_path / "x").mkdir()
    (quick_path / "x" / "thesis.tex").write_text("years")
    with pytest.raises(DatasetError, match="not a data set"), Writer.create(quick_path / "x", env):
        pass
    (quick_path / "y").symlink_to(quick_path / "x")
    with pytest.raises(DatasetError, match="not a data set"), Writer.create(quick_path / "y", env):
        pass
    assert (quick_path / "x" / "thesis.tex").read_text() == "years"


def test_a_lock_goes_with_its_holder(tmp_path):
    with open_folder(tmp_path) as folder:
        with lock(folder, exclusive=False) as one, lock(folder, exclusive=False) as two:
            assert one
            assert two
            with lock(folder, exclusive=True) as three:
                assert not three
        with lock(folder, exclusive=True) as four:
            assert four


def test_the_reader_gives_arrays_batches_and_lineage(many):
    dataset = epvf_data.open(many)
    wide = WIDE.id
    arrays = dataset.to_numpy(wide, ["params", "lengths"])
    assert {name: value.shape for name, value in arrays.items()} == {"params": (20, WIDE.size), "lengths": (20, 2)}
    ordered = list(dataset.iter_batches(8, architecture=wide, shuffle=False))
    assert [len(batch["params"]) for batch in ordered] == [8, 8, 4]
    assert np.concatenate([batch["params"] for batch in ordered]).tobytes() == arrays["params"].tobytes()
    mixed = np.concatenate([batch["params"] for batch in dataset.iter_batches(8, architecture=wide, seed=3, epochs=2)])
    assert mixed.shape == (40, WIDE.size)
    assert sorted(mixed[:20].tolist()) == sorted(mixed[20:].tolist()) == sorted(arrays["params"].tolist())
    assert mixed[:20].tobytes() != arrays["params"].tobytes()
    lineage = dataset.lineage(wide)
    assert lineage.words("source") == ["random", "perturbed"] * 10
    assert len(lineage) == 20
    with pytest.raises(EpvfError, match="name exactly one"):
        dataset.to_numpy()
