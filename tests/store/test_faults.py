"""Kills, full disks, failing system calls and many writers: what was acknowledged stays, and nothing else appears."""

from __future__ import annotations

import errno
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import epvf_data
from epvf_data.errors import EnvironmentMismatchError, EpvfError, StorageError
from epvf_data.store.schema import EnvIdentity
from epvf_data.store.validate import validate
from epvf_data.store.writer import Writer

CHILD = """
import importlib.util, sys
source = importlib.util.spec_from_file_location("helpers", sys.argv[1])
helpers = importlib.util.module_from_spec(source)
source.loader.exec_module(helpers)
from epvf_data.store.writer import Writer
first, count, rows = (int(value) for value in sys.argv[3:6])
with Writer.open(sys.argv[2], helpers.ENV) as writer:
    for step in range(first, first + count):
        record = writer.commit(helpers.build_rows(rows, step, probes=2), {"step": step})
        print(step, record.number, flush=True)
"""
HELPERS = Path(__file__).with_name("conftest.py")


def child(path, first, count, rows=3, prefix=()):
    command = [*prefix, sys.executable, "-c", CHILD, str(HELPERS), str(path), str(first), str(count), str(rows)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def steps(dataset):
    return [record.provenance["step"] for record in dataset.commits]


def serious(problems):
    """Without the parts that an interrupted write may leave behind."""
    return [problem for problem in problems if "is in no commit record" not in problem]


@pytest.mark.slow
def test_eight_writers_lose_nothing(quick_path):
    path = quick_path / "a"
    writers = [child(path, 100 * number, 4) for number in range(8)]
    acknowledged = []
    for writer in writers:
        out, err = writer.communicate(timeout=120)
        assert writer.returncode == 0, err
        acknowledged += [int(line.split()[0]) for line in out.splitlines()]
    dataset = epvf_data.open(path)
    assert sorted(steps(dataset)) == sorted(acknowledged)
    assert len(acknowledged) == 32
    assert validate(path, deep=True) == []


@pytest.mark.slow
def test_kills_lose_no_acknowledged_commit(tmp_path, make_rows):
    path = tmp_path / "a"
    rng = np.random.default_rng(0)
    acknowledged: list[int] = []
    for attempt in range(20):
        writer = child(path, 1000 * attempt, 1000)
        acknowledged.append(int(writer.stdout.readline().split()[0]))  # the clock starts with the first commit
        time.sleep(rng.uniform(0, 0.15))
        writer.send_signal(signal.SIGKILL)
        out, _ = writer.communicate()
        acknowledged += [int(line.split()[0]) for line in out.splitlines() if re.fullmatch(r"\d+ \d+", line)]
    dataset = epvf_data.open(path)
    found = steps(dataset)
    assert set(acknowledged) <= set(found)
    assert len(found) - len(acknowledged) <= 20  # at most the one that was under way at each kill
    assert serious(validate(path, deep=True)) == []
    columns = dataset.table().to_numpy()
    assert {len(values) for values in columns.values()} == {3 * len(found)}
    assert columns["params"].tobytes() == b"".join(make_rows(3, step, probes=2).params.tobytes() for step in found)


MUTATING = ("open", "write", "fsync", "rename", "link", "mkdir")


class Failing:
    """Makes the k-th system call that writes fail; counts them all."""

    def __init__(self, monkeypatch):
        self.count, self.at = 0, None
        for name in MUTATING:
            monkeypatch.setattr(os, name, self.wrap(name, getattr(os, name)))

    def wrap(self, name, real):
        def call(*args, **kwargs):
            writes = name != "open" or args[1] & os.O_CREAT
            if writes:
                self.count += 1
                if self.count - 1 == self.at:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return real(*args, **kwargs)

        return call


@pytest.mark.slow
@pytest.mark.parametrize("fresh", [True, False])
def test_any_system_call_may_fail(quick_path, make_rows, env, monkeypatch, fresh):
    """The k-th call fails, for every k (most of them: the arrays are written alike)."""
    template = quick_path / "template"
    if not fresh:
        with Writer.open(template, env) as writer:
            writer.commit(make_rows(5, 0), {"step": 0})
    before = 0 if fresh else 5
    failing = Failing(monkeypatch)

    def attempt(path):
        with Writer.open(path, env) as writer:
            writer.commit(make_rows(4, 1, probes=2), {"step": 1})

    def copy(name):
        if not fresh:
            shutil.copytree(template, quick_path / name)
        return quick_path / name

    whole = copy("whole")
    failing.count = 0
    attempt(whole)
    total = failing.count
    assert total > 100
    skipped = 7 if total > 150 else 3  # calls at both ends one by one, those in between in steps
    chosen = [k for k in range(total) if k < 40 or k >= total - 25 or k % skipped == 0]
    for k in chosen:
        path = copy(f"at{k}")
        failing.count, failing.at = 0, k
        with pytest.raises(StorageError) as caught:
            attempt(path)
        failing.at = None
        assert "No space left" in str(caught.value)
        visible = "is visible" in str(caught.value)
        if (path / "zarr.json").exists():
            assert epvf_data.open(path).rows == before + (4 if visible else 0)
            assert serious(validate(path, deep=True)) == []
        if not visible:
            attempt(path)
        assert epvf_data.open(path).rows == before + 4
        assert validate(path, deep=True) == []
        assert [item.name for item in (path / "staging").iterdir()] == ["zarr.json"]
        shutil.rmtree(path)


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

        def link(*args):
            real(*args)
            raise KeyboardInterrupt

        monkeypatch.setattr(os, "link", link)
        with pytest.raises(KeyboardInterrupt):
            writer.commit(make_rows(5), {})
        monkeypatch.setattr(os, "link", real)
        assert epvf_data.open(tmp_path / "a").rows == 5
        assert validate(tmp_path / "a", deep=True) == []
        writer.commit(make_rows(6), {})
    assert epvf_data.open(tmp_path / "a").table().column("params").shape[0] == 11


def test_two_creators_agree_or_one_is_told(tmp_path, env, monkeypatch):
    """A second process publishes its root between our look and our own publication."""
    other = EnvIdentity(**{**env.to_dict(), "name": "other", "digest": "e" * 64})
    path = tmp_path / "a"
    real = os.link
    for creator, fits in ((env, True), (other, False)):
        shutil.rmtree(path, ignore_errors=True)

        def link(draft, final, creator=creator):
            if Path(final) == path / "zarr.json":
                monkeypatch.setattr(os, "link", real)
                Writer.open(path, creator)
            real(draft, final)

        monkeypatch.setattr(os, "link", link)
        if fits:
            assert Writer.open(path, env).env == env
        else:
            with pytest.raises(EnvironmentMismatchError, match="other"):
                Writer.open(path, env)
        assert epvf_data.open(path).env == creator


def test_everything_is_flushed_before_it_is_published(tmp_path, make_rows, env, monkeypatch):
    """Recorded calls: each file and folder of the part is fsynced before the rename, `parts` and the record before the
    link, `commits` after it."""
    with Writer.open(tmp_path / "a", env) as writer:
        log: list[tuple[str, str]] = []
        real_fsync, real_rename, real_link = os.fsync, os.rename, os.link

        def fsync(descriptor):
            log.append(("fsync", str(Path(f"/proc/self/fd/{descriptor}").readlink())))
            real_fsync(descriptor)

        def rename(old, new):
            inside = [str(old), *(str(item) for item in Path(old).rglob("*"))]
            flushed = {name for kind, name in log if kind == "fsync"}
            assert set(inside) <= flushed
            log.append(("rename", str(new)))
            real_rename(old, new)

        def link(draft, final):
            assert ("fsync", str(draft)) in log
            log.append(("link", str(final)))
            real_link(draft, final)

        for name, function in (("fsync", fsync), ("rename", rename), ("link", link)):
            monkeypatch.setattr(os, name, function)
        writer.commit(make_rows(4, probes=2), {})
    kinds = [kind for kind, _ in log]
    names = [f"{kind} {Path(name).name}" for kind, name in log]
    assert kinds.count("rename") == 2  # part and probing states
    assert kinds.index("link") > max(names.index("fsync parts"), names.index("fsync probes")) > kinds.index("rename")
    assert names[-1] == "fsync commits"


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
def test_the_order_of_system_calls(tmp_path):
    """The same from outside: in the kernel's order, the record's link comes after an fsync of every file written."""
    trace = tmp_path / "trace"
    prefix = ("strace", "-f", "-y", "-o", str(trace), "-e", "trace=fsync,link,linkat,rename,openat")
    writer = child(tmp_path / "a", 0, 1, prefix=prefix)
    out, err = writer.communicate(timeout=120)
    if writer.returncode != 0 and "ptrace" in err:
        pytest.skip("strace may not trace here")
    assert out.split() == ["0", "0"], err
    lines = trace.read_text().splitlines()
    publish = next(i for i, line in enumerate(lines) if "link" in line and "commits/00000000.json" in line)
    created = {
        match[1]
        for line in lines[:publish]
        if "O_CREAT" in line and (match := re.search(r'"([^"]*/staging/[^"]+)"', line))
    }
    flushed = {match[1] for line in lines[:publish] if (match := re.search(r"fsync\(\d+<([^>]+)>", line))}
    assert len(created) > 30
    assert created <= flushed
    assert any("fsync" in line and line.rstrip().find("/commits>") > 0 for line in lines[publish:])


def test_leftovers_of_a_crash_are_harmless(tmp_path, make_rows, env):
    """A record that still has its staging name is read; a part without a record is reported and not read."""
    path = tmp_path / "a"
    with Writer.open(path, env) as writer:
        record = writer.commit(make_rows(5), {})
        os.link(path / "commits" / "00000000.json", path / "staging" / "left.json")
        assert epvf_data.open(path).rows == 5
        shutil.copytree(path / "parts" / record.add[0].id, path / "parts" / ("0" * 32))
        assert epvf_data.open(path).rows == 5
        assert len(validate(path, deep=True)) == 1
        writer.commit(make_rows(6), {})
    assert epvf_data.open(path).rows == 11


def test_errors_are_all_of_ours(small):
    """A data set whose files vanish while it is read gives our errors."""
    dataset = epvf_data.open(small)
    shutil.rmtree(small / "parts")
    with pytest.raises(EpvfError):
        dataset.summary()
