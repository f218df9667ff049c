"""Plain `.npz` files: NumPy alone reads them, and they say what the table says."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from store import conftest as helpers

from epvf_data.errors import DatasetError
from epvf_data.exchange.npz import export_npz
from epvf_data.policies.spec import PolicySpec
from epvf_data.store import reader
from epvf_data.store.lineage import VOCABULARIES
from epvf_data.store.writer import Writer

build_rows, ENV, SPEC = helpers.build_rows, helpers.ENV, helpers.SPEC
OTHER = PolicySpec(4, 2, (5,))


@pytest.fixture(scope="module")
def stored(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("stored") / "stored.zarr"
    with Writer.open(path, ENV) as writer:
        writer.commit(build_rows(100, 0, probes=3, discount=0.9), {})
        writer.commit([build_rows(5, 1, spec=OTHER, episodes=3), build_rows(30, 2, probes=3, discount=0.9)], {})
    return path


def load(path: Path) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as file:
        return dict(file)


def check(data: dict[str, np.ndarray], stored: Path, spec: PolicySpec, rows: np.ndarray) -> None:
    """Compares a file's arrays with the table's."""
    dataset = reader.open(stored)
    table = dataset.table(spec)
    for name in table.names:
        assert data[name].dtype == table.dtype(name)
        np.testing.assert_array_equal(data[name], table.column(name)[rows])
    about = {name: json.loads(data[name].tobytes()) for name in ("spec", "env", "vocabularies")}
    assert PolicySpec.from_dict(about["spec"]) == spec
    assert about["env"] == dataset.env.to_dict()
    assert about["vocabularies"] == {name: list(table.vocabulary(name)) for name in VOCABULARIES}
    extra = {"spec", "env", "vocabularies"}
    if table.probe_states is not None:
        np.testing.assert_array_equal(data["probe_states"], table.probe_states)
        extra |= {"probe_states"}
    if "discounted_returns" in table.names:
        assert data["discount"] == 0.9
        extra |= {"discount"}
    assert set(data) == {*table.names, *extra}


@pytest.mark.parametrize("spec", [SPEC, OTHER])
def test_all_rows_of_an_architecture(spec, stored, tmp_path):
    seen: list[tuple[int, int]] = []
    progress = lambda done, of: seen.append((done, of))  # noqa: E731
    report = export_npz(stored, tmp_path / "a.npz", architecture=spec.id[:9], progress=progress)
    rows = 130 if spec == SPEC else 5
    assert (report.rows, report.size) == (rows, (tmp_path / "a.npz").stat().st_size)
    assert seen[-1] == (rows, rows)
    check(load(tmp_path / "a.npz"), stored, spec, np.arange(rows))
    assert zipfile.ZipFile(tmp_path / "a.npz").testzip() is None
    export_npz(stored, tmp_path / "b.npz", architecture=spec.id)
    assert (tmp_path / "b.npz").read_bytes() == (tmp_path / "a.npz").read_bytes()


@given(chosen=st.one_of(st.slices(130), st.lists(st.integers(0, 129), min_size=1, max_size=200)))
def test_any_rows_in_any_order(chosen, stored):
    out = stored.with_name("chosen.npz")
    rows = np.arange(130)[chosen]
    given = chosen if isinstance(chosen, slice) else np.array(chosen)
    if not len(rows):
        with pytest.raises(DatasetError, match="no row is chosen"):
            export_npz(stored, out, architecture=SPEC.id, rows=given)
        return
    export_npz(stored, out, architecture=SPEC.id, rows=given)
    check(load(out), stored, SPEC, rows)
    out.unlink()


def test_a_folder_gets_a_file_named_after_the_architecture(stored, tmp_path):
    report = export_npz(stored, tmp_path, architecture=OTHER.id)
    assert report.file == str(tmp_path / f"{OTHER.id[:12]}.npz")
    check(load(Path(report.file)), stored, OTHER, np.arange(5))


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({}, "name exactly one"),
        ({"architecture": "0000"}, "names 0 of them"),
        ({"architecture": SPEC.id, "rows": np.array([130])}, "whole numbers from 0 to 129"),
        ({"architecture": SPEC.id, "rows": np.array([0.5])}, "whole numbers from 0 to 129"),
        ({"architecture": SPEC.id, "rows": np.array(3)}, "whole numbers from 0 to 129"),
        ({"architecture": SPEC.id, "rows": np.array([], np.int64)}, "no row is chosen"),
    ],
)
def test_wrong_use_is_refused(settings, told, stored, tmp_path):
    with pytest.raises(DatasetError, match=told):
        export_npz(stored, tmp_path / "a.npz", **settings)
    assert list(tmp_path.iterdir()) == []


def test_parts_that_are_no_single_array_are_refused(tmp_path):
    for name, second in (("shapes", {"episodes": 3, "discount": 0.9}), ("discounts", {"discount": 0.5})):
        with Writer.open(tmp_path / name, ENV) as writer:
            writer.commit([build_rows(5, 0, discount=0.9), build_rows(5, 1, **second)], {})
        with pytest.raises(DatasetError, match=name):
            export_npz(tmp_path / name, tmp_path / "a.npz")
    assert not (tmp_path / "a.npz").exists()


def test_what_exists_is_never_replaced(stored, tmp_path):
    (tmp_path / "a.npz").write_text("mine")
    with pytest.raises(DatasetError, match="exists already"):
        export_npz(stored, tmp_path / "a.npz", architecture=SPEC.id)
    assert (tmp_path / "a.npz").read_text() == "mine"


def test_killed_half_way_leaves_no_file(stored, tmp_path):
    script = (
        "import os, sys\nfrom epvf_data.exchange.npz import export_npz\n"
        "export_npz(sys.argv[1], sys.argv[2], architecture=sys.argv[3], progress=lambda *_: os.kill(os.getpid(), 9))"
    )
    out = tmp_path / "a.npz"
    result = subprocess.run([sys.executable, "-c", script, stored, out, SPEC.id], check=False, capture_output=True)
    assert result.returncode == -signal.SIGKILL, result.stderr
    assert [item.name[: -len("0123456789abcdef.partial")] for item in tmp_path.iterdir()] == [".a.npz."]
    export_npz(stored, out, architecture=SPEC.id)
    assert os.listdir(tmp_path) == ["a.npz"]  # noqa: PTH208
    check(load(out), stored, SPEC, np.arange(130))


def test_a_full_disk_leaves_no_file(stored, tmp_path):
    script = (
        "import resource, sys\nfrom epvf_data.exchange.npz import export_npz\n"
        "from epvf_data.errors import StorageError\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (9_000, 9_000))\n"
        "try: export_npz(sys.argv[1], sys.argv[2], architecture=sys.argv[3])\n"
        "except StorageError as error: print(error)"
    )
    command = [sys.executable, "-c", script, stored, tmp_path / "a.npz", SPEC.id]
    result = subprocess.run(command, check=False, capture_output=True, text=True)
    assert result.stdout.endswith("a.npz failed (File too large); free space or fix access and retry.\n"), result.stderr
    assert result.stderr == ""
    assert list(tmp_path.iterdir()) == []


def test_memory_does_not_grow_with_the_rows(tmp_path):
    spec = PolicySpec(4, 2, (512,))
    with Writer.open(tmp_path / "a.zarr", ENV) as writer:
        for seed in range(6):
            writer.commit(build_rows(512, seed, spec=spec), {})  # 7 MB each
    tracemalloc.start()
    try:
        export_npz(tmp_path / "a.zarr", tmp_path / "a.npz")
        export_npz(tmp_path / "a.zarr", tmp_path / "b.npz", rows=np.random.default_rng(0).permutation(6 * 512))
        assert tracemalloc.get_traced_memory()[1] < 25 << 20
    finally:
        tracemalloc.stop()
    assert (tmp_path / "a.npz").stat().st_size > 40 << 20
