"""What is written is read back byte for byte: by our reader, by plain zarr and by TensorStore."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorstore
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from store import conftest

import epvf_data
from epvf_data.errors import ArchitectureMismatchError, DatasetError, EnvironmentMismatchError
from epvf_data.policies.spec import PolicySpec
from epvf_data.store.digest import content_hash
from epvf_data.store.lineage import VOCABULARIES, Lineage
from epvf_data.store.schema import policy_id
from epvf_data.store.shard import Layout, array_metadata, encode
from epvf_data.store.validate import validate
from epvf_data.store.writer import Writer

DOCS = Path(__file__).parents[2] / "docs" / "format.md"


@settings(max_examples=25, deadline=None)
@given(
    counts=st.lists(st.integers(1, 140), min_size=1, max_size=3),
    episodes=st.integers(1, 3),
    probes=st.integers(0, 4),
    hidden=st.lists(st.integers(1, 9), max_size=2),
    discount=st.sampled_from([None, 0.99]),
    compression=st.sampled_from([None, 3]),
)
def test_rows_come_back(make, counts, episodes, probes, hidden, discount, compression):
    make_rows, env = make
    spec = PolicySpec(4, 2, tuple(hidden))
    batches = [
        make_rows(count, seed, spec=spec, episodes=episodes, probes=probes, discount=discount)
        for seed, count in enumerate(counts)
    ]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "set.zarr"
        with Writer.open(path, env, compression) as writer:
            for batch in batches:
                writer.commit(batch, {"counts": counts})
        assert validate(path, deep=True) == []
        dataset = epvf_data.open(path)
        table = dataset.table()
        assert dataset.rows == len(table) == sum(counts)
        assert table.spec == spec
        lineage = Lineage.concatenate([batch.lineage for batch in batches])
        assert set(table.names) == set(batches[0].columns())
        order = np.random.default_rng(0).permutation(len(table))
        for name in table.names:
            expected = np.concatenate([batch.columns()[name] for batch in batches])
            found = table.column(name)
            if name in VOCABULARIES:
                words = table.vocabulary(name)
                assert [None if i < 0 else words[i] for i in found.tolist()] == lineage.words(name)
            else:
                assert found.dtype == expected.dtype
                assert found.tobytes() == expected.tobytes()
            assert table.take(name, order).tobytes() == found[order].tobytes()
            middle = table.read(name, len(table) // 3, len(table) // 2 + 1)
            assert middle.tobytes() == found[len(table) // 3 : len(table) // 2 + 1].tobytes()
        if probes:
            np.testing.assert_array_equal(table.probe_states, batches[0].probe_states)
        for record, batch in zip(dataset.commits, batches, strict=True):
            compare_with_others(path / "parts" / record.add[0].id, batch.columns())


def compare_with_others(part, columns):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        group = zarr.open_group(part, mode="r")
        assert {name for name, _ in group.members()} == set(columns)
        for name, expected in columns.items():
            assert group[name][:].tobytes() == expected.tobytes()
    for name in ("params", "returns", "sign", "finite"):
        store = {"driver": "zarr3", "kvstore": {"driver": "file", "path": str(part / name)}}
        found = tensorstore.open(store).result().read().result()
        assert found.tobytes() == columns[name].tobytes()


@pytest.fixture(scope="module")
def make():
    # Hypothesis wants fixtures that last longer than one example.
    return conftest.build_rows, conftest.ENV


@pytest.mark.parametrize("rows", [1, 16, 17, 64, 130])
@pytest.mark.parametrize("dtype", ["float32", "int8", "bool", "uint16"])
def test_shard_bytes_are_those_that_zarr_writes(tmp_path, rows, dtype):
    values = (np.random.default_rng(rows).random((rows, 3)) * 2).astype(dtype)
    layout = Layout(values.shape, dtype, 32)
    ours = b"".join(encode(values, layout))
    meta = array_metadata(layout, ("row", "word"))
    (tmp_path / "zarr.json").write_bytes(epvf_data.store.schema.to_json(meta))
    array = zarr.open_array(tmp_path, mode="r+", config={"write_empty_chunks": True})
    array[:] = values
    written = (tmp_path / layout.file).read_bytes()
    assert len(written) == len(ours) == layout.size
    (tmp_path / layout.file).write_bytes(ours)
    assert zarr.open_array(tmp_path, mode="r")[:].tobytes() == values.tobytes()
    # zarr may order chunks otherwise inside a shard; along one axis it does not.
    assert written == ours


def test_plain_zarr_sees_the_whole_hierarchy_without_a_warning(small):
    ids = [part.id for record in epvf_data.open(small).commits for part in record.add]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        root: Any = zarr.open_group(small, mode="r")
        assert {name for name, _ in root.members()} == {"parts", "probes", "commits", "staging"}
        assert {name for name, _ in root["parts"].members()} == set(ids)
        assert root["parts"][ids[0]]["params"][:].shape == (100, 23)
        assert root.attrs["epvf_data"]["format_version"] == 1


def test_the_lines_in_the_documentation_read_committed_rows(small):
    code = re.search(r"<!-- plain zarr -->\n```python\n(.*?)```", DOCS.read_text(), re.DOTALL)
    assert code is not None
    assert len([line for line in code[1].splitlines() if line.strip()]) <= 12
    names: dict = {"path": str(small)}
    exec(code[1], names)
    found = np.concatenate([p for p in names["params"] if p.shape[1] == 23])
    table = epvf_data.open(small).table(PolicySpec(4, 2, (3,)))
    assert found.tobytes() == table.column("params").tobytes()


def test_summary_and_tables(small, make_rows, env):
    dataset = epvf_data.open(small)
    summary = dataset.summary()
    returns = [make_rows(n, s, probes=3, discount=0.9).returns for n, s in ((100, 0), (1, 1), (20, 2))]
    returns.append(make_rows(5, 3, spec=PolicySpec(4, 2, (5,))).returns)
    every = np.concatenate(returns).astype(np.float64)
    assert (summary["rows"], summary["commits"], len(dataset)) == (126, 3, 126)
    assert summary["env"] == {"name": "toy", "digest": "d" * 64, "horizon": 10}
    assert [(a["rows"], a["params"]) for a in summary["architectures"]] == [(121, 23), (5, 37)]
    assert summary["sources"] == {"random": 50 + 1 + 10 + 3, "perturbed": 50 + 10 + 2}
    assert summary["returns"] == pytest.approx({"min": every.min(), "mean": every.mean(), "max": every.max()})
    with pytest.raises(DatasetError, match="name exactly one"):
        dataset.table()
    with pytest.raises(DatasetError, match="0 of them"):
        dataset.table("zz")
    first = dataset.architectures[0].id
    assert dataset.table(first[:8]).rows == 121
    with pytest.raises(DatasetError, match="no actions in probing states are stored with all policies 4-5-2"):
        dataset.table(dataset.architectures[1].id).column("probe_actions")
    with pytest.raises(DatasetError, match="rows must be"):
        dataset.table(first).take("params", np.array([121]))


def test_refresh_sees_later_commits_and_the_old_handle_does_not(small, make_rows, env):
    dataset = epvf_data.open(small)
    with Writer.open(small, env) as writer:
        writer.commit(make_rows(7, 9), {})
    assert (dataset.rows, dataset.refresh().rows) == (126, 133)


def test_parts_with_different_episode_counts(tmp_path, make_rows, env):
    with Writer.open(tmp_path / "a", env) as writer:
        writer.commit([make_rows(3, episodes=1), make_rows(4, episodes=5)], {})
    table = epvf_data.open(tmp_path / "a").table()
    with pytest.raises(DatasetError, match="no single array"):
        table.column("returns")
    expected = [make_rows(n, episodes=e).returns.mean(1, dtype=np.float64) for n, e in ((3, 1), (4, 5))]
    np.testing.assert_array_equal(table.mean_returns(), np.concatenate(expected))


def test_groups_join_rows_that_share_a_base(tmp_path, make_rows, env, spec):
    rows = make_rows(6)
    own = policy_id(spec, rows.params[0])
    first = Lineage.build(6, source="x", base=[own, None, own, "b", None, "b"], sign=[0, 0, 1, 1, 0, -1])
    second = Lineage.build(3, source="x", base=["b", own, None])
    with Writer.open(tmp_path / "a", env) as writer:
        writer.commit(replace(rows, lineage=first), {})
        writer.commit(replace(make_rows(3, 1), lineage=second), {})
    table = epvf_data.open(tmp_path / "a").table()
    assert table.groups().tolist() == [0, 1, 0, 2, 3, 2, 2, 0, 4]
    assert table.vocabulary("base") == (own, "b")


def test_content_hash_ignores_commits_but_no_row(tmp_path, make_rows, env):
    rows = make_rows(100, probes=2)

    def stored(name, pieces, compression=None):
        with Writer.open(tmp_path / name, env, compression) as writer:
            for piece in pieces:
                writer.commit(piece, {"name": name})
        return content_hash(epvf_data.open(tmp_path / name))

    whole = stored("whole", [rows])
    assert whole == stored("two", [rows.select(slice(0, 37)), rows.select(slice(37, 100))], 1)
    assert whole == stored("list", [[rows.select(np.arange(64)), rows.select(np.arange(64, 100))]])
    assert whole != stored("swapped", [rows.select(slice(37, 100)), rows.select(slice(0, 37))])
    for name in ("params", "lengths", "reset_seed", "probe_actions"):
        changed = np.array(getattr(rows, name))
        changed.reshape(-1)[5] -= 1
        assert whole != stored(f"changed {name}", [replace(rows, **{name: changed})])
    words = Lineage.build(100, source="other")
    assert whole != stored("lineage", [replace(rows, lineage=words)])


def test_large_rows_are_split_into_parts(tmp_path, make_rows, env, monkeypatch):
    monkeypatch.setattr("epvf_data.store.writer.MAX_PART_ROWS", 64)
    rows = make_rows(150)
    with Writer.open(tmp_path / "a", env) as writer:
        record = writer.commit(rows, {})
    assert [part.rows for part in record.add] == [64, 64, 22]
    table = epvf_data.open(tmp_path / "a").table()
    assert table.column("params").tobytes() == rows.params.tobytes()
    base = table.vocabulary("base")
    assert [None if i < 0 else base[i] for i in table.column("base").tolist()] == rows.lineage.words("base")


def test_wrong_rows_are_refused(tmp_path, make_rows, env):
    rows = make_rows(4)
    with pytest.raises(ArchitectureMismatchError, match="params has shape"):
        replace(rows, params=rows.params[:, :-1])
    with pytest.raises(DatasetError, match="returns is float64"):
        replace(rows, returns=rows.returns.astype(np.float64))
    with pytest.raises(DatasetError, match="come together"):
        replace(rows, probe_states=np.zeros((1, 4), np.float32))
    with pytest.raises(DatasetError, match="lineage has 3 rows"):
        replace(rows, lineage=rows.lineage.select(np.arange(3)))
    with pytest.raises(DatasetError, match="indices from"):
        replace(rows.lineage, source=rows.lineage.source + np.uint16(9))
    with pytest.raises(EnvironmentMismatchError, match="another path"):
        Writer.open(tmp_path / "a", env) and Writer.open(tmp_path / "a", replace(env, digest="e" * 64))
    with Writer.open(tmp_path / "a", env) as writer:
        with pytest.raises(ArchitectureMismatchError, match="observations"):
            writer.commit(make_rows(2, spec=PolicySpec(5, 2, ())), {})
        with pytest.raises(DatasetError, match="JSON"):
            writer.commit(rows, {"bad": float("nan")})
        with pytest.raises(DatasetError, match="lengths"):
            writer.commit(replace(rows, lengths=rows.lengths + np.int32(10)), {})
    assert epvf_data.open(tmp_path / "a").rows == 0
    assert validate(tmp_path / "a", deep=True) == []


def test_paths_that_are_no_data_set(tmp_path, env):
    (tmp_path / "file").write_text("x")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "mine.txt").write_text("x")
    zarr.create_group(tmp_path / "foreign.zarr")
    with pytest.raises(DatasetError, match="does not exist"):
        epvf_data.open(tmp_path / "missing")
    with pytest.raises(DatasetError, match="is a file"):
        epvf_data.open(tmp_path / "file")
    for name in ("file", "folder"):
        with pytest.raises(DatasetError, match="choose another path"):
            Writer.open(tmp_path / name, env)
    for name in ("folder", "foreign.zarr"):
        with pytest.raises(DatasetError, match="not a data set"):
            epvf_data.open(tmp_path / name)
    assert (tmp_path / "folder" / "mine.txt").read_text() == "x"


def test_a_newer_format_is_refused(tmp_path, env):
    Writer.open(tmp_path / "a", env)
    root = tmp_path / "a" / "zarr.json"
    root.write_text(root.read_text().replace('"format_version":1', '"format_version":2'))
    with pytest.raises(DatasetError, match="upgrade"):
        epvf_data.open(tmp_path / "a")


def test_opening_imports_nothing_heavy_and_is_quick(small):
    code = (
        "import time, sys; t = time.perf_counter(); import epvf_data; d = epvf_data.open(sys.argv[1]); d.summary();"
        "print(time.perf_counter() - t, d.rows, sorted({m.split('.')[0] for m in sys.modules}))"
    )
    runs = [subprocess.run([sys.executable, "-c", code, small], capture_output=True, text=True) for _ in range(3)]
    assert all(run.returncode == 0 for run in runs), runs[0].stderr
    assert min(float(run.stdout.split()[0]) for run in runs) < 1.0
    for name in ("jax", "jaxlib", "flax", "optax", "mujoco", "zarr", "typer"):
        assert f"'{name}'" not in runs[0].stdout
