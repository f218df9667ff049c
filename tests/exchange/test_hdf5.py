"""HDF5 files: out and back without a change, atomic, and nothing hostile gets in."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
import tempfile
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from store import conftest as helpers

from epvf_data.errors import CorruptDatasetError, DatasetError, EpvfError, StorageError, UnsafeDatasetError
from epvf_data.exchange import hdf5_child, hdf5_guard
from epvf_data.exchange.hdf5 import export_hdf5, import_hdf5
from epvf_data.policies.spec import PolicySpec
from epvf_data.store import reader
from epvf_data.store.compact import compact
from epvf_data.store.digest import content_hash
from epvf_data.store.schema import COLUMNS, KEY
from epvf_data.store.validate import validate
from epvf_data.store.writer import Writer

build_rows, ENV = helpers.build_rows, helpers.ENV
HERE = Path(__file__).parent


def fill(path: Path) -> Path:
    """Two architectures, two numbers of episodes, with and without probing states and discount."""
    with Writer.open(path, ENV) as writer:
        writer.commit(build_rows(100, 0, probes=3, discount=0.9), {"step": 0})
        writer.commit([build_rows(1, 1, probes=3, discount=0.5), build_rows(20, 2, episodes=3)], {"step": 1})
        writer.commit(build_rows(5, 3, spec=PolicySpec(4, 2, (5,))), {"step": 2})
    return path


@pytest.fixture(scope="module")
def stored(tmp_path_factory) -> Path:
    return fill(tmp_path_factory.mktemp("stored") / "stored.zarr")


@pytest.fixture(scope="module")
def exported(stored) -> Path:
    export_hdf5(stored, stored.with_name("stored.h5"))
    return stored.with_name("stored.h5")


@pytest.fixture
def copy(exported, tmp_path) -> Path:
    """A copy to be made hostile."""
    path = tmp_path / "copy.h5"
    path.write_bytes(exported.read_bytes())
    return path


@pytest.fixture
def quick_folder(tmp_path):
    """A folder in memory where there is one."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else tmp_path) as folder:
        yield Path(folder)


def digest(path: Path) -> str:
    return content_hash(reader.open(path))


def refused(file: Path, kind: type[EpvfError] = DatasetError) -> str:
    """The one sentence that importing a file gives; nothing may lie at the place of the new data set."""
    out = file.parent / "out.zarr"
    with pytest.raises(kind) as caught:
        import_hdf5(file, out)
    message = str(caught.value)
    assert message.isprintable()
    assert message.endswith(".")
    assert len(message) < 600
    assert file.name in message
    assert not out.exists()
    return message


class TestRoundTrip:
    def test_rows_commits_and_provenance_come_back(self, stored, tmp_path):
        seen: list[tuple[int, int]] = []
        report = export_hdf5(stored, tmp_path / "a.h5", progress=lambda done, of: seen.append((done, of)))
        assert (report.rows, report.architectures, report.size) == (126, 2, (tmp_path / "a.h5").stat().st_size)
        back = import_hdf5(tmp_path / "a.h5", tmp_path / "b.zarr", progress=lambda done, of: seen.append((done, of)))
        assert (back.rows, back.commits, back.architectures) == (126, 3, 2)
        assert seen == [(100, 126), (101, 126), (121, 126), (126, 126), (100, 126), (121, 126), (126, 126)]
        old, new = reader.open(stored), reader.open(tmp_path / "b.zarr")
        assert content_hash(new) == content_hash(old)
        assert validate(tmp_path / "b.zarr", deep=True) == []
        for before, after in zip(old.commits, new.commits, strict=True):
            (origin,) = after.provenance["origins"]
            assert after.provenance["verb"] == "import-hdf5"
            assert (origin["record"], origin["rows"]) == (before.sha256, before.rows)
            assert origin["provenance"] == before.provenance
        for before, after in zip(old.parts, new.parts, strict=True):
            assert after.group.attributes == before.group.attributes
            assert after.entry.files == before.entry.files  # byte by byte

    def test_a_compacted_and_compressed_data_set(self, tmp_path):
        with Writer.open(tmp_path / "a.zarr", ENV, compression=3) as writer:
            for step in range(4):
                writer.commit(build_rows(10, step, probes=2), {"step": step})
        compact(tmp_path / "a.zarr")
        export_hdf5(tmp_path / "a.zarr", tmp_path / "a.h5")
        report = import_hdf5(tmp_path / "a.h5", tmp_path / "b.zarr")
        new = reader.open(tmp_path / "b.zarr")
        assert report.commits == 1
        assert content_hash(new) == digest(tmp_path / "a.zarr")
        assert [origin["provenance"]["step"] for origin in new.commits[0].provenance["origins"]] == [0, 1, 2, 3]

    def test_a_data_set_without_rows(self, tmp_path):
        Writer.open(tmp_path / "a.zarr", ENV)
        export_hdf5(tmp_path / "a.zarr", tmp_path / "a.h5")
        assert import_hdf5(tmp_path / "a.h5", tmp_path / "b.zarr").rows == 0
        assert reader.open(tmp_path / "b.zarr").env == ENV

    def test_a_commit_beyond_memory_becomes_several(self, exported, stored, tmp_path, monkeypatch):
        monkeypatch.setattr("epvf_data.exchange.hdf5._MEMORY", 1 << 13)
        assert import_hdf5(exported, tmp_path / "b.zarr").commits > 3
        new = reader.open(tmp_path / "b.zarr")
        assert content_hash(new) == digest(stored)
        assert sum(item["rows"] for record in new.commits for item in record.provenance["origins"]) == 126

    def test_plain_h5py_reads_the_same_arrays(self, exported, stored):
        dataset = reader.open(stored)
        with h5py.File(exported) as file:
            for part in dataset.parts:
                group = file["parts"][part.entry.id]
                assert set(group) == {*part.names, "zarr.json"}
                about = json.loads(group["zarr.json"][:].tobytes())["attributes"][KEY]
                assert about == part.group.attributes
                for name in part.names:
                    expected = np.empty(part.layout(name).shape, COLUMNS[name].dtype)
                    part.open(name).read(0, part.entry.rows, expected)
                    assert group[name].dtype == expected.dtype
                    assert group[name].fletcher32
                    np.testing.assert_array_equal(group[name][:], expected)
                if part.probe_states is not None:
                    np.testing.assert_array_equal(file["probes"][part.entry.probe][:], part.probe_states)
            for record in dataset.commits:
                data = file[f"commits/{record.number:08d}.json"][:].tobytes()
                assert json.loads(data)["provenance"] == record.provenance

    @pytest.mark.soak  # that of export-npz is tried always
    def test_memory_does_not_grow_with_the_rows(self, tmp_path):
        spec = PolicySpec(4, 2, (512,))
        with Writer.open(tmp_path / "a.zarr", ENV) as writer:
            for seed in range(8):
                writer.commit(build_rows(512, seed, spec=spec), {})  # 7 MB each
        tracemalloc.start()
        try:
            export_hdf5(tmp_path / "a.zarr", tmp_path / "a.h5")
            import_hdf5(tmp_path / "a.h5", tmp_path / "b.zarr")
            assert tracemalloc.get_traced_memory()[1] < 25 << 20
        finally:
            tracemalloc.stop()
        assert (tmp_path / "a.h5").stat().st_size > 55 << 20
        assert digest(tmp_path / "b.zarr") == digest(tmp_path / "a.zarr")


class TestAtomic:
    def test_what_exists_is_never_replaced(self, stored, exported, tmp_path):
        with pytest.raises(DatasetError, match="exists already"):
            export_hdf5(stored, exported)
        fill(tmp_path / "b.zarr")
        before = digest(tmp_path / "b.zarr")
        with pytest.raises(DatasetError, match="choose another path"):
            import_hdf5(exported, tmp_path / "b.zarr")
        assert digest(tmp_path / "b.zarr") == before

    @pytest.mark.parametrize("verb", ["export_hdf5", "import_hdf5"])
    def test_killed_half_way(self, verb, stored, exported, tmp_path):
        source = stored if verb == "export_hdf5" else exported
        script = (
            "import os, sys\nfrom epvf_data.exchange.hdf5 import export_hdf5, import_hdf5\n"
            f"{verb}(sys.argv[1], sys.argv[2], progress=lambda done, of: done > 100 and os.kill(os.getpid(), 9))"
        )
        out = tmp_path / ("out.h5" if verb == "export_hdf5" else "out.zarr")
        result = subprocess.run([sys.executable, "-c", script, source, out], check=False, capture_output=True)
        assert result.returncode == -signal.SIGKILL, result.stderr
        if verb == "export_hdf5":
            assert [item.name[: -len("0123456789abcdef.partial")] for item in tmp_path.iterdir()] == [".out.h5."]
            export_hdf5(source, out)
            import_hdf5(out, tmp_path / "back.zarr")
            assert {item.name for item in tmp_path.iterdir()} == {"out.h5", "back.zarr"}
            assert digest(tmp_path / "back.zarr") == digest(stored)
        else:
            with pytest.raises(DatasetError, match="unfinished"):
                reader.open(out)
            import_hdf5(source, out)
            assert digest(out) == digest(stored)

    def test_a_disk_that_refuses_leaves_nothing(self, stored, tmp_path):
        script = (
            "import resource, sys\nfrom epvf_data.exchange.hdf5 import export_hdf5\n"
            "from epvf_data.errors import StorageError\n"
            "resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))\n"
            "try: export_hdf5(sys.argv[1], sys.argv[2])\nexcept StorageError as error: print(error)\n"
            "resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)\n"
            "export_hdf5(sys.argv[1], sys.argv[2] + '2')"
        )
        command = [sys.executable, "-c", script, stored, tmp_path / "out.h5"]
        result = subprocess.run(command, check=False, capture_output=True, text=True)
        assert result.stdout == (
            f"writing {tmp_path / 'out.h5'} failed (File too large); free space or fix access and retry.\n"
        ), result.stderr
        assert [item.name for item in tmp_path.iterdir()] == ["out.h52"]

    def test_two_at_once_do_not_meet(self, stored, tmp_path):
        def second(done: int, of: int) -> None:
            with pytest.raises(DatasetError, match="another process is writing"):
                export_hdf5(stored, tmp_path / "out.h5")

        export_hdf5(stored, tmp_path / "out.h5", progress=second)
        assert [item.name for item in tmp_path.iterdir()] == ["out.h5"]

    def test_a_folder_that_may_not_be_written(self, stored):
        with pytest.raises(StorageError, match="writing /proc/none/out.h5 failed"):
            export_hdf5(stored, "/proc/none/out.h5")


def replace(file: h5py.File, name: str, value: Any) -> None:
    del file[name]
    file[name] = value


def rewrite(file: h5py.File, name: str, value: np.ndarray, **settings: Any) -> None:
    del file[name]
    file.create_dataset(name, data=value, **({"chunks": value.shape, "fletcher32": True} | settings))


def set_values(file: h5py.File, name: str, value: Any) -> None:
    item = file[name]
    assert isinstance(item, h5py.Dataset)
    item[...] = value


def declare(file: h5py.File, name: str, shape: tuple[int, ...], dtype: Any, **settings: Any) -> None:
    del file[name]
    file.create_dataset(name, shape, dtype, **settings)


def filtered(file: h5py.File, name: str, number: int) -> None:
    """A data set that names a filter which no HDF5 library has built in."""
    del file[name]
    made = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    made.set_chunk((100, 2))
    made.set_filter(number, h5py.h5z.FLAG_OPTIONAL, (1,))
    space, kind = h5py.h5s.create_simple((100, 2)), h5py.h5t.IEEE_F32LE
    h5py.h5d.create(file.id, name.encode(), kind, space, made)


def virtual(file: h5py.File, name: str) -> None:
    del file[name]
    layout = h5py.VirtualLayout((100, 2), "f4")
    layout[:] = h5py.VirtualSource("/etc/passwd", "x", (100, 2))
    file.create_virtual_dataset(name, layout)


def committed(file: h5py.File, name: str) -> None:
    file["parts/type"] = np.dtype("f4")
    declare(file, name, (100, 2), file["parts/type"], chunks=(100, 2), fletcher32=True)
    file[name][...] = 0  # pyright: ignore
    del file["parts/type"]


def flags(file: h5py.File, name: str) -> None:
    """Seven is neither true nor false (nor NaN, which a flag cannot hold)."""
    item = file[name]
    assert isinstance(item, h5py.Dataset)
    kind = item.id.get_type()
    item.id.write(h5py.h5s.ALL, h5py.h5s.ALL, np.full(item.shape, 7, np.int8), kind)


Change = Callable[[h5py.File, str], None]
NO_LINK, NO_BELONG = "has the soft or external link", "does not belong there"
HOSTILE: dict[str, tuple[str, Change]] = {
    "external link": (NO_LINK, lambda f, p: replace(f, f"{p}/returns", h5py.ExternalLink("other.h5", "/x"))),
    "soft link": (NO_LINK, lambda f, p: replace(f, f"{p}/law", h5py.SoftLink(f"/{p}/source"))),
    "dangling soft link": (NO_LINK, lambda f, p: replace(f, "commits", h5py.SoftLink("/nowhere"))),
    "cycle": ("is a hard link to another", lambda f, p: f.__setitem__(f"parts/{'0' * 32}", f["/"])),
    "cycle below": ("is a hard link to another", lambda f, p: replace(f, "commits", f["parts"])),
    "shared array": ("is a hard link to another", lambda f, p: replace(f, f"{p}/law", f[f"{p}/source"])),
    "virtual": ("a virtual, external", lambda f, p: virtual(f, f"{p}/returns")),
    "external storage": (
        "a virtual, external",
        lambda f, p: declare(f, f"{p}/returns", (100, 2), "f4", external=[("/etc/passwd", 0, 800)]),
    ),
    "contiguous": ("is no data set in chunks", lambda f, p: declare(f, f"{p}/returns", (100, 2), "f4")),
    "text": (
        "another type than little-endian float32",
        lambda f, p: declare(f, f"{p}/returns", (9, 2), h5py.string_dtype("utf-8", 9), chunks=(9, 2), fletcher32=True),
    ),
    "text of any length": ("filters []", lambda f, p: declare(f, f"{p}/law", (9,), h5py.string_dtype(), chunks=(9,))),
    "ragged": ("filters []", lambda f, p: declare(f, f"{p}/law", (9,), h5py.vlen_dtype("u2"), chunks=(9,))),
    "references": (
        "another type than little-endian float32",
        lambda f, p: declare(f, f"{p}/returns", (9, 2), h5py.ref_dtype, chunks=(9, 2), fletcher32=True),
    ),
    "compound": (
        "another type than little-endian float32",
        lambda f, p: rewrite(f, f"{p}/returns", np.zeros((100, 2), [("a", "f4"), ("b", "i8")])),
    ),
    "opaque": (
        "another type than little-endian float32",
        lambda f, p: rewrite(f, f"{p}/returns", np.zeros((100, 2), "V4")),
    ),
    "committed type": ("another type than little-endian float32", lambda f, p: committed(f, f"{p}/returns")),
    "wrong type": (
        "another type than little-endian float32",
        lambda f, p: rewrite(f, f"{p}/returns", np.zeros((100, 2))),
    ),
    "big-endian": (
        "another type than little-endian float32",
        lambda f, p: rewrite(f, f"{p}/returns", np.zeros((100, 2), ">f4")),
    ),
    "flags as numbers": (
        "another type than little-endian bool",
        lambda f, p: rewrite(f, f"{p}/finite", np.ones((100, 2), "i1")),
    ),
    "unknown filter": ("the HDF5 filters [32015]", lambda f, p: filtered(f, f"{p}/returns", 32015)),
    "gzip bomb": (
        "the HDF5 filters [1]",
        lambda f, p: rewrite(f, f"{p}/params", np.zeros((4096, 4096), "f4"), compression=9, fletcher32=False),
    ),
    "huge": (
        "more than the file can hold",
        lambda f, p: declare(f, f"{p}/params", (1 << 40, 23), "f4", chunks=(64, 23), fletcher32=True),
    ),
    "huge chunk": (
        "more than the file can hold",
        lambda f, p: declare(f, f"{p}/law", (100,), "u2", chunks=(1 << 28,), maxshape=(None,), fletcher32=True),
    ),
    "empty array": (
        "the shape [0] in chunks of [9]: nothing",
        lambda f, p: declare(f, f"{p}/law", (0,), "u2", chunks=(9,), maxshape=(None,), fletcher32=True),
    ),
    "nothing stored": (
        "lacks data: 0 of",
        lambda f, p: declare(f, f"{p}/returns", (100, 2), "f4", chunks=(100, 2), fletcher32=True),
    ),
    "scalar": ("another rank than 1", lambda f, p: rewrite(f, f"{p}/law", np.zeros((100, 1), "u2"))),
    "wrong shape": (
        "[100, 3]; [100, 2] is expected",
        lambda f, p: rewrite(f, f"{p}/lengths", np.zeros((100, 3), "i4")),
    ),
    "fewer rows": ("has shape [99]; [100] is expected", lambda f, p: rewrite(f, f"{p}/law", np.zeros(99, "u2"))),
    "missing column": ("params is missing", lambda f, p: f.__delitem__(f"{p}/params")),
    "missing probes": ("is missing", lambda f, p: f.__delitem__(f"probes/{next(iter(f['probes']))}")),  # pyright: ignore
    "missing commit": ("does not follow", lambda f, p: f.__delitem__("commits/00000000.json")),
    "missing root": ("it has no zarr.json", lambda f, p: f.__delitem__("zarr.json")),
    "group for an array": (
        "another kind of object",
        lambda f, p: (f.__delitem__(f"{p}/law"), f.create_group(f"{p}/law")),
    ),
    "unknown member": (NO_BELONG, lambda f, p: f.create_group(f"{p}/extra")),
    "unknown array": (NO_BELONG, lambda f, p: f.__setitem__("readme", np.zeros(3))),
    "odd name": (NO_BELONG, lambda f, p: f.create_group("parts/..\x1b[2J")),
    "unknown part": (
        "is in no commit record",
        lambda f, p: f.copy(f["commits/00000000.json"], f"parts/{'a' * 32}/zarr.json"),
    ),
    "attribute": ("has attributes", lambda f, p: f[f"{p}/law"].attrs.__setitem__("x", 1)),
    "vocabulary index": ("source holds indices", lambda f, p: set_values(f, f"{p}/source", 9)),
    "negative index": ("base holds indices", lambda f, p: set_values(f, f"{p}/base", -2)),
    "sign": ("sign holds other values", lambda f, p: set_values(f, f"{p}/sign", 2)),
    "lengths": ("0 to 10 are allowed", lambda f, p: set_values(f, f"{p}/lengths", 11)),
    "flags": ("other values than true and false", lambda f, p: flags(f, f"{p}/finite")),
    "other probing states": (
        "other states than its name",
        lambda f, p: set_values(f, f"probes/{next(iter(f['probes']))}", 0),
    ),  # pyright: ignore
    "no JSON": ("own checksum", lambda f, p: set_values(f, "commits/00000000.json", ord("["))),
    "other attributes": ("its commit's SHA-256", lambda f, p: set_values(f, f"{p}/zarr.json", ord("{"))),
    "other root": ("is not valid JSON", lambda f, p: set_values(f, "zarr.json", ord("x"))),
    "deep root": ("levels", lambda f, p: set_values(f, "zarr.json", ord("["))),
}


@pytest.fixture(scope="module")
def crafted(exported, stored, tmp_path_factory) -> dict[str, str]:
    """What importing each hostile file says."""
    folder, part = tmp_path_factory.mktemp("crafted"), reader.open(stored).parts[0].entry.id
    for name, (_, change) in HOSTILE.items():
        (folder / name).write_bytes(exported.read_bytes())
        with h5py.File(folder / name, "r+", locking=False) as file:
            change(file, f"parts/{part}")
    told = forked("each", *(folder / name for name in HOSTILE))
    return {name: told[str(folder / name)] for name in HOSTILE}


def forked(*words: object) -> dict[str, Any]:
    command = [sys.executable, str(HERE / "forked_import.py"), *map(str, words)]
    result = subprocess.run(command, check=False, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


class TestHostile:
    @pytest.mark.parametrize("name", HOSTILE)
    def test_crafted_files_are_refused(self, name, crafted):
        kind, message = crafted[name].split(": ", 1)
        assert HOSTILE[name][0] in message
        assert kind in ("DatasetError", "CorruptDatasetError", "UnsafeDatasetError")
        assert message.isprintable()
        assert len(message) < 600

    def test_what_is_no_hdf5_file(self, copy, tmp_path):
        data = copy.read_bytes()
        for name, content in (
            ("empty", b""),
            ("random", np.random.default_rng(0).bytes(1000)),
            ("magic", data[:9]),
            ("cut", data[: len(data) // 2]),
            ("user block", bytes(512) + data),
        ):
            file = tmp_path / f"{name}.h5"
            file.write_bytes(content)
            assert ("not an HDF5 file" if name in ("empty", "random", "user block") else "damaged") in refused(file)

    def test_what_is_no_file(self, copy, tmp_path):
        os.mkfifo(tmp_path / "fifo")
        (tmp_path / "folder").mkdir()
        (tmp_path / "link").symlink_to(copy)
        assert stat.S_ISFIFO((tmp_path / "fifo").stat().st_mode)
        assert "special file" in refused(tmp_path / "fifo")
        assert "folder" in refused(tmp_path / "folder")
        assert "symbolic link" in refused(tmp_path / "link", UnsafeDatasetError)
        assert "No such file" in refused(tmp_path / "nothing")

    def test_random_damage_never_gets_through(self, exported, stored, quick_folder):
        told = forked("damage", exported, digest(stored), quick_folder, 80, 0)
        assert set(told) <= {"same", "refused"}
        assert told["refused"] > 60

    def test_no_plug_in_is_ever_looked_for(self, copy, tmp_path, monkeypatch):
        monkeypatch.setenv("HDF5_PLUGIN_PATH", str(tmp_path))
        environment = hdf5_guard._environment()
        assert environment["HDF5_PLUGIN_PATH"] == "/nonexistent"
        assert environment["HDF5_PLUGIN_PRELOAD"] == "::"

    def test_modules_in_the_working_folder_are_not_run(self, exported, tmp_path, monkeypatch):
        (tmp_path / "h5py.py").write_text("raise SystemExit('hijacked')")
        monkeypatch.chdir(tmp_path)
        assert import_hdf5(exported, tmp_path / "b.zarr").rows == 126

    def test_too_many_objects(self, exported, monkeypatch):
        monkeypatch.setattr(hdf5_child, "MAX_OBJECTS", 20)
        with h5py.File(exported) as file, pytest.raises(UnsafeDatasetError, match="more than 20 objects"):
            hdf5_child.walk(h5py, h5py.h5g.open(file.id, b"/"), exported.stat().st_size)

    @pytest.mark.parametrize(
        ("script", "told"),
        [
            ("kill -SEGV $$", "crash (SIGSEGV)"),
            ("kill -XCPU $$", "use up its time"),
            ("exit 3", "crash (exit code 3)"),
            ("printf 'garbage garbage'", "answers nonsense"),
            ("printf 'd\\377\\377\\377\\377'", "answers nonsense"),
            ("printf 'd\\002\\000\\000\\000[]'", "is not a JSON object"),
            ("printf 'd\\030\\000\\000\\000{\"zarr.json\": [9999999]}'", "more numbers than a file"),
            ("printf 'e\\003\\000\\000\\000abc'", "answers nonsense"),
            ("exec sleep 30", "busy for more than"),
        ],
    )
    def test_a_reading_process_that_fails(self, script, told, copy, tmp_path, monkeypatch):
        stand_in = tmp_path / "stand-in"
        stand_in.write_text(f"#!/bin/bash\n{script}\n")
        stand_in.chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(stand_in))
        monkeypatch.setattr(hdf5_guard, "_SILENCE", 1.0)
        assert told in refused(copy)

    def test_reading_has_a_bound_on_memory(self):
        script = (
            "from epvf_data.exchange import hdf5_child\nhdf5_child._limit(60)\n"
            "try: bytearray(2 << 30)\nexcept MemoryError: print('bounded')"
        )
        result = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
        assert result.stdout == "bounded\n"

    def test_the_reading_process_imports_no_accelerator_library(self):
        script = (
            "import sys\nimport h5py\nfrom epvf_data.exchange import hdf5_child\n"
            "print(sorted({'jax', 'flax', 'mujoco', 'zarr'} & set(sys.modules)))"
        )
        result = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
        assert result.stdout == "[]\n"


def test_damage_to_a_checksum_is_named(copy, stored):
    """A flipped bit of a parameter fails HDF5's checksum of its chunk."""
    with h5py.File(copy) as file:
        item = file[f"parts/{reader.open(stored).parts[0].entry.id}/params"]
        assert isinstance(item, h5py.Dataset)
        place = item.id.get_chunk_info(0).byte_offset + 10
    data = bytearray(copy.read_bytes())
    data[place] ^= 1
    copy.write_bytes(data)
    assert "a checksum is wrong" in refused(copy, CorruptDatasetError)
