"""Rows without parameters: everything that reads rows reads them, and what needs the policies says so."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import zarr

import epvf_data
from epvf_data.cards.card import write_card
from epvf_data.curation.diff import diff
from epvf_data.curation.merge import merge
from epvf_data.curation.select import filter_rows, sample, split, withhold
from epvf_data.errors import CorruptDatasetError, DatasetError
from epvf_data.exchange.hdf5 import export_hdf5, import_hdf5
from epvf_data.exchange.npz import export_npz
from epvf_data.policies.spec import PolicySpec
from epvf_data.store.compact import compact
from epvf_data.store.digest import content_hash
from epvf_data.store.loader import Loader
from epvf_data.store.schema import COLUMNS
from epvf_data.store.validate import validate
from epvf_data.store.writer import Writer

WIDE = PolicySpec(4, 2, (5,))


@pytest.fixture
def whole(quick_path, env, make_rows) -> Path:
    path = quick_path / "whole"
    with Writer.open(path, env) as writer:
        writer.commit([make_rows(70, 0, probes=3), make_rows(9, 1, spec=WIDE, probes=3)], {"step": 0})
        writer.commit(make_rows(30, 2, probes=3, discount=0.5), {"step": 1})
    return path


@pytest.fixture
def bare(whole, quick_path) -> Path:
    withhold(whole, quick_path / "bare")
    return quick_path / "bare"


def test_everything_but_the_parameters_stays(whole, bare):
    assert validate(bare, deep=True) == []
    before, after = epvf_data.open(whole), epvf_data.open(bare)
    assert after.rows == before.rows == 109
    for item in before.architectures:
        old, new = before.table(item.id), after.table(item.id)
        assert set(new.names) == set(old.names) - {"params"}
        for name in new.names:
            for first, second in zip(old.pieces(name), new.pieces(name), strict=True):
                np.testing.assert_array_equal(first, second)
        assert after.lineage(item.id).words("source") == before.lineage(item.id).words("source")
    assert [item["withheld"] for item in after.summary()["architectures"]] == [100, 9]
    assert not list(bare.glob("parts/*/params"))
    kept = [origin["rows"] for record in after.commits for origin in record.provenance["origins"]]
    assert sum(kept) == 109


def test_a_plain_reader_reads_them(bare):
    root = zarr.open_group(bare, mode="r")
    record = json.loads((bare / "commits" / "00000000.json").read_text())
    actions = [root["parts"][part["id"]]["probe_actions"][:] for part in record["add"]]
    assert sorted(len(one) for one in actions) == [9, 30, 70]


def test_other_verbs_take_them(whole, bare, quick_path):
    digest = content_hash(epvf_data.open(bare))
    filter_rows(bare, quick_path / "all", "parameters > 0 and episodes == 2")
    assert content_hash(epvf_data.open(quick_path / "all")) == digest
    sample(bare, quick_path / "some", 20)
    split(bare, quick_path / "train", quick_path / "test", test_fraction=0.3)
    compact(bare)
    assert content_hash(epvf_data.open(bare)) == digest
    assert merge([bare, quick_path / "some"], quick_path / "merged").rows == 109
    both = merge([whole, bare], quick_path / "both")  # a row with its policy is more than one without
    assert (both.rows, both.rows_repeated) == (218, 0)
    assert not diff(whole, bare).equal
    with pytest.raises(DatasetError, match="withheld"):
        epvf_data.open(quick_path / "both").table(PolicySpec(4, 2, (3,))).column("params")
    with pytest.raises(DatasetError, match="'norm' is not known"):
        filter_rows(bare, quick_path / "norms", "norm > 1")
    for name in ("all", "some", "train", "test", "merged", "both"):
        assert validate(quick_path / name, deep=True) == []


def test_rows_that_differ_in_their_actions_alone_are_different_rows(quick_path, env, make_rows):
    from dataclasses import replace

    rows = make_rows(10, 0, probes=3)
    for name, actions in (("one", rows.probe_actions), ("two", -rows.probe_actions)):
        with Writer.open(quick_path / name, env) as writer:
            writer.commit(replace(rows, params=None, probe_actions=actions), {})
    assert merge([quick_path / "one", quick_path / "two"], quick_path / "both").rows == 20


def test_they_travel_as_files_and_have_a_card(bare, quick_path):
    export_hdf5(bare, quick_path / "bare.h5")
    import_hdf5(quick_path / "bare.h5", quick_path / "again")
    assert content_hash(epvf_data.open(quick_path / "again")) == content_hash(epvf_data.open(bare))
    export_npz(bare, quick_path / "rows.npz", architecture=WIDE.id)
    assert set(COLUMNS) - set(np.load(quick_path / "rows.npz")) == {"params", "discounted_returns"}
    write_card(bare, authors=["Ada Lovelace"])
    text = (bare / "README.md").read_text()
    assert "The parameters of 109 rows are withheld" in text
    assert '["params"]' not in text
    assert '"probe_actions"' in text


def test_batches_come_without_them(bare):
    table = epvf_data.open(bare).table(WIDE.id)
    batches = list(Loader(table, columns=("probe_actions", "returns"), batch_size=4))
    assert sum(len(batch["returns"]) for batch in batches) == 9
    with pytest.raises(DatasetError, match="withheld"):
        Loader(table, batch_size=4)


def test_without_actions_nothing_can_be_withheld(quick_path, env, make_rows):
    with Writer.open(quick_path / "plain", env) as writer:
        writer.commit(make_rows(12, 0), {})
    with pytest.raises(DatasetError, match="12 rows of .* have no probing actions"):
        withhold(quick_path / "plain", quick_path / "out")
    assert not (quick_path / "out").exists()


def test_a_row_needs_a_policy_or_its_actions(make_rows):
    from dataclasses import replace

    with pytest.raises(DatasetError, match="params or probe_actions"):
        replace(make_rows(3, 0), params=None)


def test_a_part_whose_parameters_vanished_is_damaged(whole):
    import shutil

    for folder in whole.glob("parts/*/params"):
        shutil.rmtree(folder)
    with pytest.raises(CorruptDatasetError):
        epvf_data.open(whole).to_numpy(WIDE)
