"""Shards become one data set: nothing missing, nothing double, the order and the hash of one run in one process."""

from __future__ import annotations

import errno
import itertools
import json
import os

import hypothesis
import pytest
from hypothesis import strategies as st
from store.scenarios import ENV
from store.scenarios import rows as build_rows

import epvf_data
from epvf_data.curation import order
from epvf_data.curation.finalize import finalize
from epvf_data.errors import CorruptDatasetError, DatasetError, EnvironmentMismatchError
from epvf_data.store.compact import compact
from epvf_data.store.digest import content_hash
from epvf_data.store.garbage import collect_garbage
from epvf_data.store.origins import leaves
from epvf_data.store.schema import Rows
from epvf_data.store.validate import leftovers, validate
from epvf_data.store.writer import Writer

TOTAL = 24
MADE = {
    "run": "r",
    "rows_wanted": TOTAL,
    "config": {"seed": 0},
    "versions": {"jax": "1"},
    "simulation": {"device": "a"},
}


@pytest.fixture(scope="module")
def every():
    """The rows of a collection, in order: row i is the same whoever makes it."""
    return Rows.concatenate([build_rows(4, seed) for seed in range(TOTAL // 4)])


def put(path, every, *ranges, **made):
    """Commits these ranges of the collection's rows."""
    with Writer.open(path, ENV) as writer:
        for first, end in ranges:
            writer.commit(every.select(slice(first, end)), {**MADE, "rows": [first, end], **made})
    return path


@pytest.fixture(scope="module")
def whole(every, tmp_path_factory):
    """The hash of one run in one process."""
    return content_hash(epvf_data.open(put(tmp_path_factory.mktemp("whole") / "w", every, (0, 8), (8, 16), (16, 24))))


def check_whole(path, whole):
    assert content_hash(epvf_data.open(path)) == whole
    assert validate(path, deep=True) == []
    collect_garbage(path, grace=0)
    assert leftovers(path) == []
    assert content_hash(epvf_data.open(path)) == whole


def test_a_shared_data_set_is_put_in_order(quick_path, every, whole, monkeypatch):
    monkeypatch.setattr(order, "GROUP_PARTS", 2)  # several commits, each of which leaves the data set whole
    path = put(quick_path / "a", every, (16, 20), (4, 8), (0, 4), (20, 24), (12, 16), (8, 12))
    before = epvf_data.open(path)
    seen = []
    report = finalize(path, progress=lambda done, total: seen.append(len(epvf_data.open(path))))
    assert (report.missing, report.rows, report.rows_wanted, report.bytes_copied) == ([], TOTAL, TOTAL, 0)
    assert set(seen) == {TOTAL}
    assert len(seen) > 1
    assert len(before.table().column("returns")) == TOTAL, "who reads the old state goes on"
    dataset = epvf_data.open(path)
    found = [
        [leaf.provenance["rows"] for leaf, _ in leaves(dataset, record)] for record in dataset.commits if record.remove
    ]
    assert found[0][:2] == [[0, 4], [4, 8]], "a moved part is still of the commit that made it"
    check_whole(path, whole)
    assert finalize(path).parts_moved == 0


def test_shards_are_linked_and_go_on(quick_path, every, whole):
    shards = [put(quick_path / "1", every, (8, 12), (12, 16)), put(quick_path / "0", every, (0, 8))]
    report = finalize(quick_path / "out", shards)
    assert [(gap.first, gap.end) for gap in report.missing] == [(16, 24)]
    assert (report.rows_adopted, report.bytes_copied) == (16, 0)
    for file in (quick_path / "out" / "parts").rglob("*"):
        assert not file.is_file() or file.name == "zarr.json" or file.stat().st_nlink > 1
    assert [record.provenance["rows"] for record in epvf_data.open(quick_path / "out").commits] == [
        [0, 8],
        [8, 12],
        [12, 16],
    ]
    shards.append(put(quick_path / "2", every, (16, 24)))
    report = finalize(quick_path / "out", shards)
    assert (report.missing, report.rows_adopted, report.rows_doubled) == ([], 8, 0)
    check_whole(quick_path / "out", whole)


def test_rows_of_several_shards_are_taken_once(quick_path, every, whole):
    shards = [put(quick_path / "a", every, (0, 8), (8, 16)), put(quick_path / "b", every, (6, 10), (16, 24), (0, 6))]
    report = finalize(quick_path / "out", shards)
    assert (report.missing, report.rows, report.rows_doubled) == ([], TOTAL, 10)
    check_whole(quick_path / "out", whole)


@hypothesis.settings(max_examples=8)
@hypothesis.given(data=st.data())
def test_whatever_the_shards(tmp_path_factory, every, whole, data):
    """Any ranges, in any order, in the data set and two shards: what is missing is told, and the rest is in order."""
    folder = tmp_path_factory.mktemp("any")
    cuts = sorted(data.draw(st.sets(st.integers(1, TOTAL - 1), max_size=5)))
    pieces = list(itertools.pairwise([0, *cuts, TOTAL]))
    lost = data.draw(st.sets(st.sampled_from(pieces), max_size=1)) if len(pieces) > 1 else set()
    kept = [piece for piece in data.draw(st.permutations(pieces)) if piece not in lost]
    where = [data.draw(st.integers(0, 2)) for _ in kept]
    for place in range(3):
        put(folder / str(place), every, *(piece for piece, at in zip(kept, where, strict=True) if at == place))
    report = finalize(folder / "0", [folder / "1", folder / "2"])
    assert [(gap.first, gap.end) for gap in report.missing] == sorted(lost)
    put(folder / "0", every, *lost)
    assert finalize(folder / "0").missing == []
    check_whole(folder / "0", whole)


@pytest.mark.parametrize("number", [errno.EPERM, errno.EXDEV, errno.EMLINK, 524])
def test_what_cannot_be_linked_is_copied_and_told(quick_path, every, whole, monkeypatch, number):
    shard, real = put(quick_path / "a", every, (0, 12), (12, 24)), os.link

    def link(source, target, **words):
        if not target.endswith(".json") or target == "zarr.json":  # records are published as ever
            raise OSError(number, os.strerror(number))
        return real(source, target, **words)

    Writer.open(quick_path / "out", ENV)
    monkeypatch.setattr(os, "link", link)
    report = finalize(quick_path / "out", [shard])
    parts = sum(file.stat().st_size for file in (quick_path / "out" / "parts").rglob("*") if file.is_file())
    assert report.bytes_copied == parts - (quick_path / "out" / "parts" / "zarr.json").stat().st_size
    check_whole(quick_path / "out", whole)


def test_what_does_not_belong_together_is_told_and_nothing_is_lost(quick_path, every):
    a = put(quick_path / "a", every, (0, 8))
    for number, (changes, words) in enumerate(
        (
            ({"run": "s", "config": {"seed": 7}}, "config.seed 0 and 7"),
            ({"run": "s"}, "base policies, probing states or teachers"),
            ({"versions": {"jax": "2"}}, "versions.jax '1' and '2'"),
            ({"simulation": {"device": "b"}}, "simulation.device 'a' and 'b'"),
        )
    ):
        other = put(quick_path / f"b{number}", every, (8, 16), **changes)
        with pytest.raises(DatasetError, match=words):
            finalize(quick_path / "out", [a, other])
        assert not (quick_path / "out").exists()
        if "run" not in changes:
            assert finalize(quick_path / f"mixed{number}", [a, other], mixed=True).rows == 16
    wrong = put(quick_path / "wrong", every, (0, 8))
    with Writer.open(wrong, ENV) as writer:
        writer.commit(every.select(slice(0, 2)), {"verb": "filter"})
    with pytest.raises(DatasetError, match="commit 1 of .* holds rows without numbers"):
        finalize(quick_path / "out", [wrong])
    short = put(quick_path / "short", every, (0, 8), rows=[0, 9])
    with pytest.raises(CorruptDatasetError, match="rows 0 to 8, and has 8"):
        finalize(quick_path / "out", [short])
    with pytest.raises(DatasetError, match="named twice"):
        finalize(a, [a])
    with pytest.raises(DatasetError, match="no rows to finalize"):
        finalize(quick_path / "nothing")
    joined = put(quick_path / "joined", every, (8, 12), (0, 4), (4, 8))
    compact(joined)
    with pytest.raises(DatasetError, match="was compacted; finalize first"):
        finalize(quick_path / "out", [joined])
    report = finalize(joined)
    assert [(gap.first, gap.end) for gap in report.missing] == [(12, 24)]
    put(joined, every, (12, 24))
    with pytest.raises(DatasetError, match="compacted before it was in order"):
        finalize(joined)
    assert len(epvf_data.open(a)) == 8


def test_another_environment_is_refused(quick_path, every):
    import dataclasses

    other = dataclasses.replace(ENV, horizon=ENV.horizon + 1, digest="0" * 64)
    with Writer.open(quick_path / "other", other) as writer:
        writer.commit(every.select(slice(0, 8)), {**MADE, "rows": [0, 8]})
    with pytest.raises(EnvironmentMismatchError):
        finalize(quick_path / "out", [put(quick_path / "a", every, (8, 16)), quick_path / "other"])


def test_a_recipe_is_several_runs_of_which_none_may_lack(quick_path, every):
    recipe = {"architectures": {"small": {}, "large": {}}, "seed": 0}
    small = put(quick_path / "small", every, (0, 24), config={"recipe": recipe, "architecture": "small"})
    report = finalize(quick_path / "out", [small])
    assert [(gap.run, gap.architecture) for gap in report.missing] == [("", "large")]
    config = {"recipe": recipe, "architecture": "large"}
    large = put(quick_path / "large", every, (0, 8), run="l", rows_wanted=8, config=config)
    assert finalize(quick_path / "out", [small, large]).missing == []
    teachers = put(quick_path / "teachers", every, (0, 8), run="t", rows_wanted=8, config=config)
    with pytest.raises(DatasetError, match="base policies, probing states or teachers"):
        finalize(quick_path / "out2", [small, large, teachers])


def test_the_command_names_the_gaps_and_exits_with_1(quick_path, every, whole, shell):
    path = put(quick_path / "a", every, (16, 24), (0, 8))
    told = shell("finalize", path, code=1).stdout
    assert "16 of 24 rows" in told
    assert "missing: rows 8 to 15" in told
    put(path, every, (8, 16))
    assert (
        "No row is missing, none is there twice, and they are in order, in 1 part."
        in shell("finalize", path, "--compact").stdout
    )
    assert json.loads(shell("finalize", path, "--json").stdout)["missing"] == []
    check_whole(path, whole)
