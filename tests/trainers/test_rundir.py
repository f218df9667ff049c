"""Run directories are made, written and read without touching what is not theirs."""

from __future__ import annotations

import os

import pytest

from epvf_data.config import to_dict
from epvf_data.errors import DatasetError, RunError, StorageError
from epvf_data.trainers import checkpoint, rundir
from epvf_data.trainers.offline.settings import OfflineConfig

SETTINGS = {"config": to_dict(OfflineConfig())}


def test_a_run_is_made_beside_what_others_left_there(tmp_path, monkeypatch):
    """Earlier versions took `.NAME.PID` for their own draft, and removed it."""
    (tmp_path / f".run.{os.getpid()}").mkdir()
    (tmp_path / f".run.{os.getpid()}" / "mine").write_text("mine")
    rundir.create_run(tmp_path / "run", SETTINGS)
    assert {path.name for path in (tmp_path / "run").iterdir()} == {"config.json", "versions.json"}
    assert {path.name for path in tmp_path.iterdir()} == {"run", f".run.{os.getpid()}"}
    with pytest.raises(RunError, match="exists already"):
        rundir.create_run(tmp_path / "run", SETTINGS)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    rundir.create_run(rundir.Path(), SETTINGS)  # `--out .` in an empty folder
    assert rundir.read_run(tmp_path / "here", OfflineConfig) == SETTINGS


def test_a_run_that_cannot_be_made_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(rundir, "versions", lambda: {"x": float("nan")})
    with pytest.raises(RunError, match="not finite"):
        rundir.create_run(tmp_path / "run", SETTINGS)
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="cannot be made"):
        rundir.create_run(tmp_path / "file" / "run", SETTINGS)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("name", ["report.json", "metrics.jsonl"])
def test_nothing_is_written_through_a_link(tmp_path, name):
    (tmp_path / "thesis.txt").write_text("precious")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / name).symlink_to("../thesis.txt")
    writing = [
        lambda run: rundir.write_json(run / "report.json", {}),
        lambda run: rundir.append_metrics(run, {"epoch": 1}),
        lambda run: rundir.rewind_metrics(run, lambda line: True),
    ]
    for write in writing[:1] if name == "report.json" else writing[1:]:
        with pytest.raises((DatasetError, RunError, StorageError)):
            write(tmp_path / "run")
    assert (tmp_path / "thesis.txt").read_text() == "precious"
    assert (tmp_path / "run" / name).is_symlink()


def test_lines_of_metrics_are_bounded(tmp_path):
    lines = [b'{"epoch": 1}', b"[1]", b'{"epoch": NaN}', b"\xff", b"", b'{"epoch": 2}', b'{"epoch": ']
    (tmp_path / "metrics.jsonl").write_bytes(b"\n".join(lines))
    assert list(rundir.read_lines(tmp_path)) == [{"epoch": 1}, {"epoch": 2}]
    (tmp_path / "metrics.jsonl").write_bytes(b"x" * (rundir.MAX_LINE + 1))
    with pytest.raises(RunError, match="a line of over 1 MiB"):
        list(rundir.read_lines(tmp_path))


@pytest.mark.parametrize(
    ("value", "shape", "right"),
    [
        ({"a": 1, "b": None}, {"a": float, "b": (str, None)}, True),
        ({"a": 1}, {"a": float, "b": (str, None)}, False),
        (True, int, False),
        (True, bool, True),
        (1.5, int, False),
        (1e31, float, False),
        (10**39, int, False),
        ([1, 2, 3], [float], True),
        ([], [float], True),
        ([1, 2, 3], [float, float], False),
        ([1, "x"], [float, str], True),
        ({"x": 1, "y": 2}, {str: int}, True),
        ({"x": 1, "y": "2"}, {str: int}, False),
        ([], {}, False),
    ],
)
def test_shapes(value, shape, right):
    assert rundir.fits(value, shape) is right


def test_only_checkpoints_are_removed(tmp_path):
    for name in ("notes", "007", "٣", ".unfinished-mine", ".unfinished-3.bak", "12"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "mine").write_text("mine")
    (tmp_path / ".unfinished-5.orbax-checkpoint-tmp-0").mkdir()  # of a process that was killed
    before = {path.name for path in tmp_path.iterdir()}
    for step in (20, 21, 22, 23):
        checkpoint.save(tmp_path, step, {"x": checkpoint.np.ones(3)})
    left = {path.name for path in tmp_path.iterdir()}
    assert before - left == {".unfinished-5.orbax-checkpoint-tmp-0"}
    assert left - before == {"22", "23"}
    checkpoint.remove(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == before - {".unfinished-5.orbax-checkpoint-tmp-0"}
