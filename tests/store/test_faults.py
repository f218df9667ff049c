"""Full disks, limits, refusals and interrupts: a clear error, the last commit stays, and a retry works."""

from __future__ import annotations

import errno
import os
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import epvf_data
from epvf_data.errors import EpvfError, StorageError
from epvf_data.store.validate import leftovers, validate
from epvf_data.store.writer import Writer

# Fills a disk of 1 MB, is told so, frees some of it, and goes on.
FILL = """
import sys
sys.path.insert(0, sys.argv[1])
import scenarios
from pathlib import Path
from epvf_data.errors import StorageError
path, ballast = Path(sys.argv[2]) / "data.zarr", Path(sys.argv[2]) / "ballast"
ballast.write_bytes(bytes(300_000))
with scenarios.Writer.open(path, scenarios.ENV) as writer:
    done = 0
    try:
        for done in range(1000):
            writer.commit(scenarios.rows(64, done), {})
    except StorageError as error:
        assert "No space left on device" in str(error), error
    assert 1 <= done < 100, done
    assert scenarios.epvf_data.open(path).rows == 64 * done
    assert scenarios.validate(path, deep=True) == []
    try:
        scenarios.compact(path)
    except StorageError as error:
        assert "No space left on device" in str(error), error
    assert scenarios.validate(path, deep=True) == []
    ballast.unlink()
    writer.commit(scenarios.rows(64, done), {})
assert scenarios.epvf_data.open(path).rows == 64 * (done + 1)
assert scenarios.validate(path, deep=True) == []
scenarios.collect_garbage(path, grace=0)
assert scenarios.leftovers(path) == []
print("whole")
"""


def test_a_small_disk_fills_up(tmp_path):
    """A real file system of 1 MB in memory, mounted where nobody else sees it."""
    if shutil.which("unshare") is None:
        pytest.skip("unshare is not installed")
    program = [sys.executable, "-B", "-c", FILL, str(Path(__file__).parent), str(tmp_path)]
    mount = f"mount -t tmpfs -o size=1m none '{tmp_path}' || exit 77; exec \"$@\""
    command = ["unshare", "--mount", "--map-root-user", "sh", "-c", mount, "sh", *program]
    process = subprocess.run(command, capture_output=True, text=True, timeout=120)
    if process.returncode == 77 or "unshare" in process.stderr:
        pytest.skip("this user may not mount anything")
    assert process.stdout == "whole\n", process.stderr


def test_a_file_size_limit_is_a_clear_error(tmp_path, make_rows, env):
    path = tmp_path / "a"
    with Writer.open(path, env) as writer:
        writer.commit(make_rows(5), {})
        old = resource.getrlimit(resource.RLIMIT_FSIZE)
        ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, old[1]))
            with pytest.raises(StorageError, match="File too large"):
                writer.commit(make_rows(500), {})
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, old)
            signal.signal(signal.SIGXFSZ, ignored)
        assert epvf_data.open(path).rows == 5
        assert validate(path, deep=True) == []
        assert leftovers(path) == []
        writer.commit(make_rows(500), {})
    assert epvf_data.open(path).rows == 505


def test_a_folder_without_write_access_is_a_clear_error(tmp_path, make_rows, env, monkeypatch):
    def refuse(*args, **kwargs):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    with Writer.open(tmp_path / "a", env) as writer:
        with monkeypatch.context() as patch:
            patch.setattr(os, "mkdir", refuse)
            with pytest.raises(StorageError, match="Permission denied"):
                writer.commit(make_rows(5), {})
        writer.commit(make_rows(5), {})
    assert validate(tmp_path / "a", deep=True) == []


def test_an_interrupt_after_publishing_keeps_the_commit(tmp_path, make_rows, env, monkeypatch):
    real = os.link
    with Writer.open(tmp_path / "a", env) as writer:

        def link(*args, **words):
            real(*args, **words)
            raise KeyboardInterrupt

        monkeypatch.setattr(os, "link", link)
        with pytest.raises(KeyboardInterrupt):
            writer.commit(make_rows(5), {})
        monkeypatch.setattr(os, "link", real)
        assert epvf_data.open(tmp_path / "a").rows == 5
        assert validate(tmp_path / "a", deep=True) == []
        writer.commit(make_rows(6), {})
    assert epvf_data.open(tmp_path / "a").table().column("params").shape[0] == 11


def test_leftovers_of_a_crash_are_harmless(tmp_path, make_rows, env):
    """A record that still has its staging name is read; a part without a record is noted and not read."""
    path = tmp_path / "a"
    with Writer.open(path, env) as writer:
        record = writer.commit(make_rows(5), {})
        os.link(path / "commits" / "00000000.json", path / "staging" / "left.json")
        assert epvf_data.open(path).rows == 5
        shutil.copytree(path / "parts" / record.add[0].id, path / "parts" / ("0" * 32))
        assert epvf_data.open(path).rows == 5
        assert validate(path, deep=True) == []
        assert len(leftovers(path)) == 2
        writer.commit(make_rows(6), {})
    assert epvf_data.open(path).rows == 11


def test_a_lost_staging_folder_is_made_anew(tmp_path, make_rows, env):
    path = tmp_path / "a"
    with Writer.open(path, env) as writer:
        writer.commit(make_rows(5), {})
    shutil.rmtree(path / "staging")
    assert epvf_data.open(path).rows == 5
    with Writer.open(path, env) as writer:
        assert epvf_data.open(path).rows == 5
        writer.commit(make_rows(6), {})
    assert epvf_data.open(path).rows == 11
    assert (validate(path, deep=True), leftovers(path)) == ([], [])


def test_errors_are_all_of_ours(small):
    """A data set whose files vanish while it is read gives our errors."""
    dataset = epvf_data.open(small)
    shutil.rmtree(small / "parts")
    with pytest.raises(EpvfError):
        dataset.summary()
