"""Damage is detected and hostile input is refused, by name."""

from __future__ import annotations

import json
import os
import shutil
import socket
from pathlib import Path

import numpy as np
import pytest

import epvf_data
from epvf_data.errors import CorruptDatasetError, DatasetError, UnsafeDatasetError
from epvf_data.store import guard
from epvf_data.store.commit import live_parts, publish_record, read_chain
from epvf_data.store.schema import COLUMNS, to_json
from epvf_data.store.shard import Layout, array_metadata, zstd_content_size
from epvf_data.store.validate import validate
from epvf_data.store.writer import Writer


@pytest.fixture
def tiny(quick_path, make_rows, env) -> Path:
    with Writer.open(quick_path / "tiny", env) as writer:
        writer.commit(make_rows(3, 0, probes=2), {})
        writer.commit(make_rows(2, 1, probes=2), {})
    return quick_path / "tiny"


def noticed(path: Path) -> bool:
    try:
        return bool(validate(path, deep=True))
    except DatasetError:
        return True


def files(path: Path) -> list[Path]:
    return sorted(item for item in path.rglob("*") if item.is_file() and "staging" not in item.parts)


@pytest.mark.slow
def test_every_flip_truncation_and_deletion_is_noticed(tiny):
    """Every file: flipped bits (a few of each byte region), each way to cut it, and its absence."""
    assert validate(tiny, deep=True) == []
    rng = np.random.default_rng(0)
    for file in files(tiny):
        data = file.read_bytes()
        changes = []
        for place in {0, len(data) - 1, *rng.integers(0, len(data), 3).tolist()}:
            flipped = bytearray(data)
            flipped[place] ^= 1 << int(rng.integers(8))
            changes.append(bytes(flipped))
        changes += [data[:-1], b"", data + b"\0"]
        for changed in changes:
            file.write_bytes(changed)
            assert noticed(tiny), (file, changed[:200])
        file.unlink()
        assert noticed(tiny), file
        file.write_bytes(data)
    assert validate(tiny, deep=True) == []


def test_swaps_and_strangers_are_noticed(tiny):
    first, second = sorted((tiny / "parts").glob("[0-9a-f]*"))
    for name in ("returns/c/0/0", "finite/c/0/0"):
        a, b = (first / name).read_bytes(), (second / name).read_bytes()
        (first / name).write_bytes(b)
        (second / name).write_bytes(a)
        assert noticed(tiny)
        (first / name).write_bytes(a)
        (second / name).write_bytes(b)
    for stranger in (first / "extra.txt", tiny / "parts" / "x", tiny / "note", tiny / "commits" / "x.json"):
        stranger.write_text("x")
        assert noticed(tiny), stranger
        stranger.unlink()
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


def test_values_that_contradict_each_other_are_counted(tmp_path, make_rows, env):
    rows = make_rows(70, probes=2)
    rows.params[1, 2] = np.nan
    rows.params[66, 0] = np.inf
    rows.returns[3, 0] = np.nan
    rows.probe_actions[2, 0, 0] = 1.5
    rows.truncated[:], rows.terminated[:] = False, True
    rows.terminated[4, 1] = False
    with Writer.open(tmp_path / "a", env) as writer:
        writer.commit(rows, {})
    assert validate(tmp_path / "a") == []
    problems = " ".join(validate(tmp_path / "a", deep=True))
    for expected in (
        "1 numbers that are not finite in the rows from 0",
        "rows from 64",
        "1 returns are not",
        "1 actions",
    ):
        assert expected in problems
    assert "1 finite episodes are neither" in problems
    assert epvf_data.open(tmp_path / "a").summary()["returns"]["max"] == pytest.approx(np.nanmax(rows.returns))


def reseal(path: Path, change) -> None:
    """Rewrites the part's metadata with its hash in a fresh record: what an attacker would do."""
    root = Path(shutil.copytree(path, path.with_name("forged"), dirs_exist_ok=True))
    record = json.loads((root / "commits" / "00000000.json").read_bytes())
    part = root / "parts" / record["add"][0]["id"]
    import hashlib

    def write(name, value):
        data = to_json(value) if not isinstance(value, bytes) else value
        (part / name).write_bytes(data)
        record["add"][0]["files"][name] = [len(data), hashlib.sha256(data).hexdigest()]

    change(part, record, write)
    for file in (root / "commits").glob("0*.json"):
        file.unlink()
    content = {key: record[key] for key in ("add", "remove", "probes", "provenance")}
    publish_record(root, [], content)


def mutated(name, keys, value):
    def change(part, record, write):
        meta = json.loads((part / name).read_bytes())
        inner = meta
        for key in keys[:-1]:
            inner = inner[key]
        inner[keys[-1]] = value
        write(name, meta)

    return change


PARAMS = "params/zarr.json"
SHARDING = ["codecs", 0, "configuration"]
CHANGES = [
    (PARAMS, ["shape"], [3, 24]),
    (PARAMS, ["shape"], [4, 23]),
    (PARAMS, ["shape"], [1 << 50, 23]),
    (PARAMS, ["shape"], [3] * 9),
    (PARAMS, ["shape"], [-3, 23]),
    (PARAMS, ["shape"], "3"),
    (PARAMS, ["shape"], [3.0, 23]),
    (PARAMS, ["data_type"], "float64"),
    (PARAMS, ["data_type"], "string"),
    (PARAMS, ["fill_value"], 0.0),
    (PARAMS, ["codecs"], [{"name": "pickle"}]),
    (PARAMS, ["codecs"], []),
    (PARAMS, [*SHARDING, "codecs", 1, "name"], "numcodecs.pickle"),
    (PARAMS, [*SHARDING, "chunk_shape"], [1 << 40, 1 << 20]),
    (PARAMS, [*SHARDING, "chunk_shape"], [8, 23]),
    (PARAMS, [*SHARDING, "index_location"], "start"),
    (PARAMS, ["chunk_key_encoding", "configuration", "separator"], "."),
    (PARAMS, ["attributes"], {"x": 1}),
    (PARAMS, ["storage_transformers"], [{"name": "x"}]),
    ("zarr.json", ["attributes", "epvf_data", "rows"], 4),
    ("zarr.json", ["attributes", "epvf_data", "architecture"], "0" * 64),
    ("zarr.json", ["attributes", "epvf_data", "environment"], "0" * 64),
    ("zarr.json", ["attributes", "epvf_data", "policy", "size"], 24),
    ("zarr.json", ["attributes", "epvf_data", "policy", "layers"], 5),
    ("zarr.json", ["attributes", "epvf_data", "probe"], None),
    ("zarr.json", ["attributes", "epvf_data", "discount"], 0.5),
    ("zarr.json", ["attributes", "epvf_data", "vocabularies", "source"], [1]),
    ("zarr.json", ["attributes", "epvf_data", "vocabularies", "source"], []),
    ("zarr.json", ["attributes", "epvf_data", "vocabularies"], {}),
    ("zarr.json", ["attributes", "other"], {}),
    ("zarr.json", ["zarr_format"], 2),
]


@pytest.mark.parametrize(("name", "keys", "value"), CHANGES)
def test_metadata_that_contradicts_is_named_even_when_sealed(tiny, name, keys, value):
    reseal(tiny, mutated(name, keys, value))
    problems = validate(tiny.with_name("forged"), deep=True)
    assert any(str(tiny.with_name("forged") / "parts") in problem for problem in problems), problems


@pytest.mark.parametrize(
    "name", ["../../outside", "/etc/passwd", "params/../x", "a\\b", "c:x", "", "params//zarr.json", "PARAMS/zarr.json"]
)
def test_hostile_names_are_refused(tiny, name):
    def change(part, record, write):
        record["add"][0]["files"][name] = [1, "0" * 64]

    with pytest.raises(UnsafeDatasetError):  # the writer's own check refuses to publish such a record
        reseal(tiny, change)


def test_links_and_special_files_are_refused(tiny, quick_path):
    part = tiny / "parts" / epvf_data.open(tiny).commits[0].add[0].id
    outside = quick_path / "outside"
    target = part / "returns" / "c" / "0" / "0"
    shutil.copy(target, outside)
    whole = shutil.copytree(part / "returns", quick_path / "outside folder")

    def refused(match: str) -> None:
        with pytest.raises(UnsafeDatasetError, match=match):
            epvf_data.open(tiny).table().column("returns")
        assert validate(tiny)

    target.unlink()
    target.symlink_to(outside)
    refused("link")
    target.unlink()
    os.link(outside, target)
    refused("link")
    target.unlink()
    os.mkfifo(target)
    refused("special")
    target.unlink()
    shutil.rmtree(part / "returns")
    (part / "returns").symlink_to(whole)
    refused("link")
    (part / "returns").unlink()
    shutil.copytree(whole, part / "returns")
    assert validate(tiny, deep=True) == []
    for name in ("parts", "commits"):
        (tiny / name).rename(quick_path / "moved")
        (tiny / name).symlink_to(quick_path / "moved")
        with pytest.raises(UnsafeDatasetError, match="link"):
            epvf_data.open(tiny)
        (tiny / name).unlink()
        (quick_path / "moved").rename(tiny / name)
    record = tiny / "commits" / "00000000.json"
    record.rename(quick_path / "record")
    record.symlink_to(quick_path / "record")
    with pytest.raises(UnsafeDatasetError, match="link"):
        epvf_data.open(tiny)
    record.unlink()
    os.mkfifo(record)
    with pytest.raises(UnsafeDatasetError, match="plain file"):
        epvf_data.open(tiny)


def test_a_socket_in_a_part_is_refused(tiny, monkeypatch):
    part = tiny / "parts" / epvf_data.open(tiny).commits[0].add[0].id
    monkeypatch.chdir(part)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("s")
        with pytest.raises(UnsafeDatasetError, match="special"):
            epvf_data.open(tiny).table().column("returns")


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"[" * 100_000, UnsafeDatasetError),
        (b'{"a":' * 40 + b"1" + b"}" * 40, UnsafeDatasetError),
        (b'{"a":[' + b"1," * 3_000_000 + b"1]}", UnsafeDatasetError),
        (b'{"a":1,"a":2}', CorruptDatasetError),
        (b'{"a":NaN}', CorruptDatasetError),
        (b'{"a":' + b"9" * 10_000 + b"}", CorruptDatasetError),
        (b"[1]", CorruptDatasetError),
        (b"\xff\xfe", CorruptDatasetError),
        (b"", CorruptDatasetError),
    ],
)
def test_hostile_json_is_refused(data, error):
    with pytest.raises(error):
        guard.parse_json(data, "here")


def test_brackets_inside_words_are_no_depth():
    assert guard.parse_json(b'{"a":"[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[\\"{{{{{{{"}', "here")["a"].startswith("[[")


def test_huge_metadata_files_are_not_read(tiny):
    with (tiny / "zarr.json").open("wb") as file:
        file.truncate(1 << 40)  # sparse
    with pytest.raises(UnsafeDatasetError, match="at most"):
        epvf_data.open(tiny)


def test_names_that_differ_in_case_only_are_refused():
    with pytest.raises(UnsafeDatasetError, match="both"):
        guard.check_names(["a/B", "a/b"], "here")


def test_the_guard_accepts_what_we_write():
    for name, column in COLUMNS.items():
        layout = Layout((70, *[3] * (len(column.dims) - 1)), column.dtype, 64, 3)
        assert guard.array_layout(array_metadata(layout, column.dims), column, name) == layout


def test_a_compressed_bomb_is_not_unpacked(tmp_path, make_rows, env):
    """A frame that would unfold to more than the chunk, with valid checksums, hashes and index."""
    from numcodecs import zstd

    from epvf_data.store.checksum import crc32c

    with Writer.open(tmp_path / "a", env, compression=3) as writer:
        writer.commit(make_rows(10), {})
    bomb = np.frombuffer(zstd.compress(bytes(1 << 24), 3), np.uint8)
    assert zstd_content_size(bomb) == 1 << 24

    def change(part, record, write):
        index = np.array([0, bomb.nbytes + 4], "<u8").view(np.uint8)
        pieces = [bomb, np.array([crc32c(bomb)], "<u4"), index, np.array([crc32c(index)], "<u4")]
        write("params/c/0/0", b"".join(piece.tobytes() for piece in pieces))

    reseal(tmp_path / "a", change)
    with pytest.raises(CorruptDatasetError, match="declared size"):
        epvf_data.open(tmp_path / "forged").table().column("params")


def test_removed_parts_leave_and_their_successors_take_their_place(tiny, make_rows, env):
    """What compaction will write: readers honour it already."""
    dataset = epvf_data.open(tiny)
    table = dataset.table()
    both = [record.add[0].id for record in dataset.commits]
    with Writer.open(tiny, env) as writer:
        writer.commit(make_rows(4, 2, probes=2), {})
        records = list(read_chain(tiny))
        publish_record(tiny, records, {"add": [], "remove": [both[1]], "probes": {}, "provenance": {}})
    after = epvf_data.open(tiny)
    assert after.rows == 7
    expected = np.concatenate([table.column("params")[:3], make_rows(4, 2).params])
    assert after.table().column("params").tobytes() == expected.tobytes()
    assert validate(tiny, deep=True) == []
    # One record that replaces the first part: the order of rows stays.
    last = after.commits[2]
    from dataclasses import replace

    merged = replace(last, number=4, add=(replace(last.add[0], id="a" * 32),), remove=(both[0],))
    assert [part.id for part in live_parts([*after.commits, merged])] == ["a" * 32, last.add[0].id]
    again = replace(merged, number=5, add=())
    with pytest.raises(CorruptDatasetError, match="commit 5"):
        live_parts([*after.commits, merged, again])
