"""rows.parquet: what pyarrow reads of it is what the data set holds, and push keeps it of the newest commit."""

from __future__ import annotations

import io
import sys

import numpy as np
import pytest
from store import conftest as helpers

import epvf_data
from epvf_data.exchange.parquet import LEFT_OUT, write_rows
from epvf_data.policies.spec import PolicySpec
from epvf_data.store.lineage import VOCABULARIES
from epvf_data.store.schema import COLUMNS
from epvf_data.store.writer import Writer

parquet = pytest.importorskip("pyarrow.parquet", reason="the extra parquet is not installed")


def written(path) -> bytes:
    file = io.BytesIO()
    write_rows(epvf_data.open(path), file)
    return file.getvalue()


def test_all_columns_of_all_rows(quick_path, env):
    """Two architectures, one and two episodes, with and without actions and discount: value by value."""
    path = quick_path / "a.zarr"
    kinds = [
        {"probes": 3},
        {"episodes": 1, "discount": 0.9},
        {"spec": PolicySpec(4, 2, (5, 5))},
    ]
    with Writer.open(path, env) as writer:
        for seed, kind in enumerate(kinds):
            writer.commit(helpers.build_rows(70, seed, **kind), {})
    data = written(path)
    assert data == written(path)
    table = parquet.read_table(io.BytesIO(data))
    assert set(table.column_names) == {"row", "commit", "architecture", "mean_return", *COLUMNS} - {*LEFT_OUT}
    assert table["row"].to_pylist() == list(range(210))
    opened = epvf_data.open(path)
    revision = parquet.read_metadata(io.BytesIO(data)).metadata[b"epvf_data.revision"]
    assert revision == f"sha256:{opened.revision}".encode()
    for number, (part, seed) in enumerate(zip(opened.parts, range(3), strict=True)):
        rows = helpers.build_rows(70, seed, **kinds[number])
        some = table.slice(70 * number, 70)
        assert set(some["commit"].to_pylist()) == {number}
        assert set(some["architecture"].to_pylist()) == {part.entry.architecture}
        assert np.array_equal(some["mean_return"], rows.returns.mean(1, dtype=np.float64))
        for name, values in rows.columns().items():
            if name in LEFT_OUT:
                continue
            told = values.tolist()
            if name in VOCABULARIES:
                told = [rows.lineage.vocabularies[name][index] if index >= 0 else None for index in told]
            elif name == "iteration":
                told = [None if value < 0 else value for value in told]
            assert some[name].to_pylist() == told, name
        if "discounted_returns" not in rows.columns():
            assert some["discounted_returns"].null_count == 70


def test_push_keeps_it_of_the_newest_commit(quick_path, env, monkeypatch, shell):
    """Also of commits that others had put there; not again where it is of this state; not without pyarrow."""

    def told(name: str) -> tuple[int, bytes]:
        meta = parquet.read_metadata(quick_path / name / "rows.parquet")
        return meta.num_rows, meta.metadata[b"epvf_data.revision"]

    for name, seed in (("a.zarr", 1), ("b.zarr", 2)):
        with Writer.open(quick_path / name, env) as writer:
            writer.commit(helpers.build_rows(10, seed), {})
    there = quick_path / "there.zarr"
    for rows, name in ((10, "a.zarr"), (20, "b.zarr")):
        report = epvf_data.push(quick_path / name, str(there))
        assert report.rows_file
        assert told("there.zarr") == (rows, f"sha256:{report.revision}".encode())
    before = (there / "rows.parquet").stat().st_mtime_ns
    assert epvf_data.push(quick_path / "a.zarr", str(there)).rows_file
    assert (there / "rows.parquet").stat().st_mtime_ns == before
    assert "no problem found" in shell("validate", there, "--deep").stdout
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert "pyarrow is missing" in shell("push", quick_path / "a.zarr", quick_path / "bare.zarr").stdout
    assert not (quick_path / "bare.zarr" / "rows.parquet").exists()
