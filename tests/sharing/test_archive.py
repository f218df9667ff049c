"""export-archive: zip files that are the data set, whole, under their size, and read back by pull with suspicion."""

from __future__ import annotations

import json
import shutil
import struct
import subprocess
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import epvf_data
from epvf_data.curation.diff import diff
from epvf_data.errors import ConfigError, CorruptDatasetError, DatasetError, EpvfError, StorageError
from epvf_data.places.archive import MANIFEST, MAX_MEMBERS
from epvf_data.sharing.archive import export_archive, parse_size
from epvf_data.sharing.pull import pull
from epvf_data.store.compact import compact
from epvf_data.store.validate import leftovers, validate

SIZE = 20_000


@pytest.fixture
def archive(grow, quick_path) -> tuple[Path, Path]:
    """A data set with a card, and its archive of several zip files."""
    path, out = grow("ant.zarr", 4), quick_path / "ant-archive"
    (path / "README.md").write_text("license: CC0-1.0")
    export_archive(path, out, size=SIZE)
    return path, out


def same(path: Path, copy: Path) -> bool:
    assert validate(copy, deep=True) == []
    assert leftovers(copy) == []
    return epvf_data.open(path).revision == epvf_data.open(copy).revision and diff(path, copy).equal


def test_there_and_back(archive, quick_path):
    path, out = archive
    found = json.loads((out / MANIFEST).read_bytes())
    assert (found["name"], found["rows"], found["revision"]) == (
        "ant.zarr",
        40,
        f"sha256:{epvf_data.open(path).revision}",
    )
    assert len(found["zips"]) > 2
    assert {one["name"] for one in found["zips"]} == {file.name for file in out.glob("*.zip")}
    assert all((out / one["name"]).stat().st_size == one["size"] <= SIZE for one in found["zips"])
    report = pull(str(out), quick_path / "b.zarr")
    assert (report.rows, report.commits_new) == (40, 4)
    assert same(path, quick_path / "b.zarr")
    assert (quick_path / "b.zarr" / "README.md").read_text() == "license: CC0-1.0"
    pinned = pull(f"{out}@sha256:{epvf_data.open(path).commits[1].sha256}", quick_path / "c.zarr")
    assert pinned.rows == 20


@pytest.mark.skipif(shutil.which("unzip") is None, reason="unzip is not installed")
def test_whoever_unzips_it_has_the_data_set(archive, quick_path):
    path, out = archive
    for file in out.glob("*.zip"):
        subprocess.run(["unzip", "-q", file, "-d", quick_path / "by-hand"], check=True)
    assert same(path, quick_path / "by-hand" / "ant.zarr")


def test_the_same_data_set_gives_the_same_files_and_only_what_is_missing_is_written(archive, quick_path):
    path, out = archive
    other = quick_path / "again"
    export_archive(path, other, size=SIZE)
    assert {file.name: file.read_bytes() for file in out.iterdir()} == {
        file.name: file.read_bytes() for file in other.iterdir()
    }
    times = {file: file.stat().st_mtime_ns for file in other.glob("*.zip")}
    gone = min(times)
    gone.unlink()
    (other / MANIFEST).unlink()
    report = export_archive(path, other, size=SIZE)
    assert report.zips_there_before == len(times) - 1
    assert all(file.stat().st_mtime_ns == when for file, when in times.items() if file != gone)
    assert same(path, quick_path / "b.zarr") if pull(str(other), quick_path / "b.zarr") else False


def test_what_stands_in_the_way_is_named(archive, grow, quick_path):
    path, out = archive
    grow("ant.zarr")
    with pytest.raises(DatasetError, match="another state|choose another folder"):
        export_archive(path, out, size=SIZE)
    with pytest.raises(ConfigError, match=r"has [\d,]+ bytes; let the zip files have"):
        export_archive(path, quick_path / "small", size=500)
    part = next(path.rglob("returns/c/0/0"))
    part.write_bytes(part.read_bytes()[:-1] + b"\0")
    with pytest.raises(CorruptDatasetError, match="returns/c/0/0 does not match"):
        export_archive(path, quick_path / "damaged", size=SIZE)
    assert not (quick_path / "damaged" / MANIFEST).exists()
    (quick_path / "none.zarr").mkdir()
    with pytest.raises(DatasetError):
        export_archive(quick_path / "none.zarr", quick_path / "none")


def test_compacted_data_sets(grow, quick_path):
    path = grow("a.zarr", 3)
    compact(path)
    export_archive(path, quick_path / "out")
    pull(str(quick_path / "out"), quick_path / "b.zarr")
    assert same(path, quick_path / "b.zarr")


def test_a_full_disk(grow, quick_path, monkeypatch):
    path = grow("a.zarr", 2)
    with monkeypatch.context() as patch:
        patch.setattr("shutil.disk_usage", lambda path: shutil._ntuple_diskusage(10, 10, 0))
        with pytest.raises(StorageError, match="GB are free"):
            export_archive(path, quick_path / "out")


def test_missing_and_damaged_zips(archive, quick_path):
    """Every byte that is another one in a zip is noticed, or was of none of the data set's files."""
    path, out = archive
    first = sorted(out.glob("*.zip"))[1]
    good = first.read_bytes()
    step = max(1, len(good) // 40)
    for place in range(0, len(good), step):
        first.write_bytes(good[:place] + bytes([good[place] ^ 1]) + good[place + 1 :])
        copy = quick_path / f"copy-{place}.zarr"
        try:
            pull(str(out), copy)
        except EpvfError:
            continue
        assert same(path, copy)
    first.write_bytes(good[:-1])
    with pytest.raises(CorruptDatasetError, match="are expected: fetch it again"):
        pull(str(out), quick_path / "b.zarr")
    first.unlink()
    with pytest.raises(CorruptDatasetError, match=f"{first.name} is missing"):
        pull(str(out), quick_path / "b.zarr")
    first.write_bytes(good)
    pull(str(out), quick_path / "b.zarr")
    assert same(path, quick_path / "b.zarr")


def hostile(kind: str, folder: Path) -> Path:
    """An archive of a stranger's."""
    name = folder / "x-001-of-001.zip"
    with zipfile.ZipFile(name, "w", zipfile.ZIP_DEFLATED if kind == "bomb" else zipfile.ZIP_STORED) as opened:
        opened.writestr("x.zarr/zarr.json", b" " * 10_000_000 if kind == "bomb" else b"{}")
        if kind == "outside":
            opened.writestr("../../../../tmp/labs-outside", b"here")
    data = bytearray(name.read_bytes())
    if kind == "entries":
        data[-12:-10] = struct.pack("<H", MAX_MEMBERS + 1)
    if kind == "directory":
        data[-10:-6] = struct.pack("<I", 1 << 30)
    if kind == "end64":
        end64 = b"PK\6\6" + struct.pack("<QHHIIQQQQ", 44, 45, 45, 0, 0, 1, 1, 1 << 40, 0)
        data[-22:-22] = end64 + b"PK\6\7" + struct.pack("<IQI", 0, len(data) - 22, 1)
    name.write_bytes(data)
    listed = "../x-001-of-001.zip" if kind == "name" else name.name
    zips = [{"name": listed, "size": len(data)}] * (2_000 if kind == "many" else 1)
    if kind == "link":
        (folder / "elsewhere").write_bytes(data)
        name.unlink()
        name.symlink_to(folder / "elsewhere")
    (folder / MANIFEST).write_text(json.dumps({"zips": "none" if kind == "list" else zips}))
    return folder


KINDS = ["bomb", "outside", "entries", "directory", "end64", "name", "many", "link", "list"]


@pytest.mark.parametrize("kind", KINDS)
def test_archives_of_strangers(kind, tmp_path, shell):
    out = tmp_path / "out"
    out.mkdir()
    hostile(kind, out)
    with pytest.raises(DatasetError) as caught:
        pull(str(out), tmp_path / "b.zarr")
    assert len(str(caught.value)) < 600
    assert not (tmp_path / "b.zarr").exists()
    assert not Path("/tmp/labs-outside").exists()
    assert "Traceback" not in shell("pull", out, tmp_path / "b.zarr", code=1).stderr


@given(st.integers(1, 10**6), st.sampled_from(["", "B", "kB", "MB", "GB", " GB", "tb"]))
def test_sizes(number, unit):
    factor = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12}[unit.strip().lower()]
    assert parse_size(f"{number}{unit}") == number * factor


@pytest.mark.parametrize("text", ["", "GB", "-1GB", "1e9", "4 GiB", "40GB\n\x1b[2J", "nan"])
def test_sizes_that_are_none(text, shell, tmp_path):
    with pytest.raises(ConfigError, match="such as 40GB"):
        parse_size(text)
    assert "such as 40GB" in shell("export-archive", tmp_path, tmp_path / "out", "--size", text, code=2).stderr


def test_the_verb(grow, shell, in_tmp):
    path = grow("ant.zarr", 2)
    assert "every byte read back" in shell("export-archive", path, "ant-archive", "--size", "20kB").stdout
    assert "20 rows in all, every byte verified" in shell("pull", "ant-archive", "ant.zarr").stdout
    assert same(path, Path("ant.zarr"))
