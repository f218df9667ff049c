"""filter, sample and split: exactly the rows that were asked for, in order, with their history."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import epvf_data
from epvf_data.curation import rewrite
from epvf_data.curation.select import ROW_COLUMNS, filter_rows, sample, split
from epvf_data.errors import ConfigError, DatasetError
from epvf_data.policies.spec import PolicySpec
from epvf_data.store.compact import compact
from epvf_data.store.digest import content_hash
from epvf_data.store.validate import validate
from epvf_data.store.writer import Writer

WIDE = PolicySpec(4, 2, (5,))


@pytest.fixture
def mixed(quick_path, env, make_rows) -> Path:
    """Two architectures, three kinds of parts, one of them with more episodes, compacted in between."""
    path = quick_path / "mixed"
    with Writer.open(path, env) as writer:
        writer.commit([make_rows(70, 0, probes=3), make_rows(9, 1, spec=WIDE)], {"step": 0})
        writer.commit(make_rows(30, 2, probes=3), {"step": 1})
        writer.commit(make_rows(20, 3, episodes=4), {"step": 2})
        writer.commit(make_rows(25, 4, probes=3, discount=0.5), {"step": 3})
    compact(path)
    return path


def rows_of(path):
    """Every row as a tuple of what it is, in order, a list an architecture."""
    found = {}
    dataset = epvf_data.open(path)
    for architecture in dataset.architectures:
        table = dataset.table(architecture.id)
        sources = dataset.lineage(architecture.id).words("source")
        returns = [row for piece in table.pieces("returns") for row in piece.tolist()]
        bytes_ = [row.tobytes() for row in table.column("params")]
        found[architecture.id] = list(zip(bytes_, map(tuple, returns), sources, strict=True))
    return found


def test_filter_keeps_exactly_the_rows_that_fulfil_the_condition(mixed, quick_path):
    out = quick_path / "out"
    report = filter_rows(mixed, out, "return > 0.2 and source == 'perturbed' or episodes == 4")
    expected = {
        name: kept
        for name, rows in rows_of(mixed).items()
        if (kept := [row for row in rows if (np.mean(row[1]) > 0.2 and row[2] == "perturbed") or len(row[1]) == 4])
    }
    assert rows_of(out) == expected
    assert report.datasets == {str(out): sum(map(len, expected.values()))}
    assert report.rows_source == 154
    assert validate(out, deep=True) == []
    kept = [
        (origin["commit"], origin["rows"]) for r in epvf_data.open(out).commits for origin in r.provenance["origins"]
    ]
    assert sum(rows for _, rows in kept) == epvf_data.open(out).rows
    assert {commit for commit, _ in kept} == {0, 1, 2, 3}  # compaction is looked through


@pytest.mark.parametrize("name", ROW_COLUMNS)
def test_every_column_can_be_asked_for(mixed, quick_path, name):
    conditions = {"number": f"{name} == {name}", "flag": f"{name} or not {name}", "words": f"{name} != 'x'"}
    report = filter_rows(mixed, quick_path / "out", conditions[ROW_COLUMNS[name]])
    assert list(report.datasets.values()) == [154]
    assert content_hash(epvf_data.open(quick_path / "out")) == content_hash(epvf_data.open(mixed))


def test_columns_mean_what_they_say(mixed, quick_path):
    dataset = epvf_data.open(mixed)
    table = dataset.table(dataset.architectures[1].id)
    norms = np.linalg.norm(table.column("params").astype(np.float64), axis=1)
    limit = float(np.median(norms))
    filter_rows(mixed, quick_path / "a", f"norm > {limit!r} and architecture == '{table.spec.id[:8]}'")
    assert epvf_data.open(quick_path / "a").rows == (norms > limit).sum()
    filter_rows(mixed, quick_path / "b", "return_min < -1 and return_max > 1 and not terminated")
    expected = [row for rows in rows_of(mixed).values() for row in rows if min(row[1]) < -1 and max(row[1]) > 1]
    assert 0 < epvf_data.open(quick_path / "b").rows <= len(expected)


@pytest.mark.parametrize(
    ("condition", "message"),
    [("return >", "condition"), ("reward > 1", "return"), ("source > 3", "source"), ("__import__('os')", "column")],
)
def test_nonsense_is_refused_in_one_sentence(mixed, quick_path, condition, message):
    with pytest.raises(ConfigError, match=message):
        filter_rows(mixed, quick_path / "out", condition)
    assert not (quick_path / "out").exists()


def test_nothing_is_no_data_set(mixed, quick_path):
    with pytest.raises(DatasetError, match="no row of .* fulfils"):
        filter_rows(mixed, quick_path / "out", "return > 1e9")
    assert not (quick_path / "out").exists()


def test_small_commits_change_nothing(mixed, quick_path, monkeypatch):
    """The limits on memory and provenance only decide how many commits there are."""
    filter_rows(mixed, quick_path / "a", "return > 0")
    monkeypatch.setattr(rewrite, "COMMIT_BYTES", 2_000)
    filter_rows(mixed, quick_path / "b", "return > 0")
    a, b = epvf_data.open(quick_path / "a"), epvf_data.open(quick_path / "b")
    assert len(b.commits) > len(a.commits)
    assert content_hash(a) == content_hash(b)
    monkeypatch.setattr(rewrite, "ORIGIN_BYTES", 1)
    sample(mixed, quick_path / "c", 154)
    assert content_hash(epvf_data.open(quick_path / "c")) == content_hash(epvf_data.open(mixed))


def test_sample_draws_without_replacement_and_again_the_same(mixed, quick_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        sample(mixed, quick_path / name, 60, seed=seed)
    a, b, c = (epvf_data.open(quick_path / name) for name in "abc")
    assert a.rows == 60
    assert content_hash(a) == content_hash(b) != content_hash(c)
    whole = {row for rows in rows_of(mixed).values() for row in rows}
    drawn = [row for rows in rows_of(quick_path / "a").values() for row in rows]
    assert len(set(drawn)) == 60
    assert set(drawn) <= whole
    for rows in (0, 155):
        with pytest.raises(DatasetError, match="has 154"):
            sample(mixed, quick_path / "d", rows)


@pytest.mark.parametrize("by", ["rows", "lineage"])
def test_the_halves_of_a_split_are_the_whole(mixed, quick_path, by):
    report = split(mixed, quick_path / "x", quick_path / "y", test_fraction=0.3, by=by)
    halves = [rows_of(quick_path / name) for name in "xy"]
    for name, rows in rows_of(mixed).items():
        pieces = [half.get(name, []) for half in halves]
        assert sorted(pieces[0] + pieces[1]) == sorted(rows)
        assert all([row for row in rows if row in piece] == piece for piece in pieces)
    assert abs(report.datasets[str(quick_path / "y")] - 0.3 * 154) < (2 if by == "rows" else 16)


def test_a_split_by_lineage_keeps_families_together_over_architectures(quick_path, env, make_rows):
    with Writer.open(quick_path / "a", env) as writer:
        writer.commit([make_rows(12, seed) for seed in range(3)], {})
        writer.commit([make_rows(9, seed, spec=WIDE) for seed in range(3)], {})
    split(quick_path / "a", quick_path / "x", quick_path / "y", test_fraction=0.4)
    bases = []
    for name in "xy":
        dataset = epvf_data.open(quick_path / name)
        bases.append(
            {word for item in dataset.architectures for word in dataset.lineage(item.id).words("base") if word}
        )
    assert bases[0]
    assert bases[1]
    assert not bases[0] & bases[1]


def test_impossible_splits(mixed, quick_path):
    with pytest.raises(DatasetError, match="two paths"):
        split(mixed, quick_path / "x", quick_path / "x")
    with pytest.raises(DatasetError, match="lineage.*rows"):
        split(mixed, quick_path / "x", quick_path / "y", by="colour")
    split(mixed, quick_path / "x", quick_path / "y")
    with pytest.raises(DatasetError, match="already is a data set"):
        split(mixed, quick_path / "z", quick_path / "y")
    assert not (quick_path / "z").exists()
