"""push and pull: what arrives is what was sent, once, whatever happens on the way."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import epvf_data
from epvf_data.curation.diff import diff
from epvf_data.errors import (
    ConfigError,
    CorruptDatasetError,
    DatasetError,
    EnvironmentMismatchError,
    EpvfError,
    RowsTakenError,
    StorageError,
    TransferError,
)
from epvf_data.sharing.pull import pull
from epvf_data.sharing.push import push
from epvf_data.store.compact import compact
from epvf_data.store.digest import content_hash
from epvf_data.store.garbage import collect_garbage
from epvf_data.store.validate import leftovers, validate
from epvf_data.store.writer import Writer


@pytest.fixture(params=["folder", pytest.param("file", marks=pytest.mark.soak), "s3"])
def place(request, quick_path) -> str:
    """Where a data set is pushed to: each kind of place."""
    if request.param == "s3":
        return f"{request.getfixturevalue('bucket') and 's3://labs'}/there.zarr"
    return f"{'file://' if request.param == 'file' else ''}{quick_path / 'there.zarr'}"


def records(path: Path) -> list[str]:
    return [record.sha256 for record in epvf_data.open(path).commits]


def equal(first: Path, second: Path) -> bool:
    """Same records, same rows, and nothing wrong or left over in the second one."""
    assert validate(second, deep=True) == []
    assert leftovers(second) == []
    return records(first) == records(second) and content_hash(epvf_data.open(first)) == content_hash(
        epvf_data.open(second)
    )


def test_there_and_back(place, grow, quick_path):
    path = grow("a.zarr", 3)
    report = push(path, place)
    assert (report.commits_new, report.rows, report.revision) == (3, 30, records(path)[-1])
    back = pull(place, quick_path / "b.zarr")
    assert (back.commits_new, back.rows, back.revision, back.bytes_new) == (3, 30, report.revision, report.bytes_new)
    assert equal(path, quick_path / "b.zarr")
    assert push(path, place).commits_new == pull(place, quick_path / "b.zarr").bytes_new == 0


def test_the_second_time_only_what_is_new_goes_over(bucket, grow, quick_path):
    path = grow("a.zarr", 2)
    push(path, "s3://labs/there.zarr")
    pull("s3://labs/there.zarr", quick_path / "b.zarr")
    old = {part.id for record in epvf_data.open(path).commits for part in record.add}
    before = {file: file.stat().st_mtime_ns for file in (quick_path / "b.zarr" / "parts").rglob("*") if file.is_file()}
    grow("a.zarr")
    bucket.asked.clear()
    assert push(path, "s3://labs/there.zarr").commits_new == 1
    assert pull("s3://labs/there.zarr", quick_path / "b.zarr").commits_new == 1
    assert not [line for line in bucket.asked if any(name in line for name in old)]
    assert not [line for line in bucket.asked if "00000000.json" in line and line.startswith("PUT")]
    assert before == {file: file.stat().st_mtime_ns for file in before}
    assert equal(path, quick_path / "b.zarr")


def test_what_compaction_replaced_stays_behind(place, grow, quick_path):
    path = grow("a.zarr", 3)
    push(path, place)
    pull(place, quick_path / "b.zarr")
    grow("a.zarr", 2)
    compact(path)
    collect_garbage(path, grace=0)
    push(path, place)
    pull(place, quick_path / "b.zarr")
    assert equal(path, quick_path / "b.zarr") or leftovers(quick_path / "b.zarr")
    pull(place, quick_path / "c.zarr")
    assert equal(path, quick_path / "c.zarr")
    assert len(list((quick_path / "c.zarr" / "parts").iterdir())) == 2  # the joined part and zarr.json
    with pytest.raises(CorruptDatasetError, match="missing"):
        pull(f"{path}@sha256:{records(path)[3]}", quick_path / "d.zarr")


def test_two_labs_push_into_one_place(place, grow, quick_path):
    """As if both had written into one folder: all parts of both, under other numbers than at home."""
    first, second = grow("a.zarr", 2), grow("b.zarr", 2)
    push(first, place)
    report = push(second, place)
    assert (report.commits_new, report.commits_of_others, report.renumbered) == (2, 2, True)
    assert push(second, place).commits_new == 0
    grow("a.zarr")
    assert push(first, place).commits_new == 1
    pull(place, quick_path / "c.zarr")
    assert validate(quick_path / "c.zarr", deep=True) == []
    parts = {part.entry.id for path in (first, second) for part in epvf_data.open(path).parts}
    assert {part.entry.id for part in epvf_data.open(quick_path / "c.zarr").parts} == parts
    pushed = [record.provenance.get("pushed") for record in epvf_data.open(quick_path / "c.zarr").commits]
    assert pushed[:2] == [None, None]
    assert [one["record"] for one in pushed[2:4]] == records(second)
    with pytest.raises(DatasetError, match="merge"):  # how they differ hangs on whether both began in the same second
        pull(place, second)


def test_a_compaction_that_was_renumbered_says_what_it_joined(place, grow, quick_path):
    push(grow("a.zarr"), place)
    path = grow("b.zarr", 2)
    compact(path)
    push(path, place)
    pull(place, quick_path / "c.zarr")
    assert epvf_data.open(quick_path / "c.zarr").commits[-1].provenance["rows_of"] == [[1, 10], [2, 10]]


def test_what_may_not_be_pushed(place, grow, env, make_rows):
    path = grow("a.zarr", 1, run="r", rows=[0, 10])
    push(path, place)
    with pytest.raises(RowsTakenError, match=r"rows 0 to 9"):
        push(grow("b.zarr", 1, run="r", rows=[0, 10]), place)
    other = path.parent / "other.zarr"
    with Writer.open(other, type(env)(**{**env.__dict__, "digest": "e" * 64})) as writer:
        writer.commit(make_rows(1, 1), {})
    with pytest.raises(EnvironmentMismatchError, match="choose another place"):
        push(other, place)
    with pytest.raises(ConfigError, match="leave out"):
        push(path, f"{place}@sha256:{'0' * 64}")
    assert push(path, place).commits_new == 0


def test_both_compacted(place, grow, quick_path):
    path = grow("a.zarr", 3)
    push(path, place)
    pull(place, quick_path / "b.zarr")
    compact(path)
    push(path, place)
    compact(quick_path / "b.zarr")
    with pytest.raises(DatasetError, match=r"both were compacted.*merge"):
        push(quick_path / "b.zarr", place)


def test_a_damaged_file_is_not_pushed(place, grow):
    path = grow("a.zarr")
    part = next((path / "parts").glob("?*/params/c/0/0"))
    part.write_bytes(part.read_bytes()[:-1] + b"\0")
    with pytest.raises(CorruptDatasetError, match=r"params/c/0/0 .*"):
        push(path, place)


def test_a_store_where_two_can_publish_one_name_is_refused(bucket, grow):
    bucket.exclusive = False
    with pytest.raises(StorageError, match="heed"):
        push(grow("a.zarr"), "s3://labs/there.zarr")
    assert not [name for name in bucket.objects if "commits" in name]


def test_no_data_set_there(bucket, quick_path):
    for url in ("s3://labs/none.zarr", str(quick_path / "none.zarr")):
        with pytest.raises(DatasetError, match="is not a data set"):
            pull(url, quick_path / "b.zarr")
    assert not (quick_path / "b.zarr").exists()


def test_a_pull_goes_where_there_is_nothing_else(grow, quick_path):
    path, other = grow("a.zarr"), grow("other.zarr")
    with pytest.raises(DatasetError, match="another data set|is not the one in"):  # roots tell seconds apart
        pull(str(path), other)
    (quick_path / "mine").mkdir()
    (quick_path / "mine" / "thesis.txt").write_text("mine")
    with pytest.raises(DatasetError, match=r"thesis\.txt"):
        pull(str(path), quick_path / "mine")


def test_rewritten_and_older_states_are_named(grow, quick_path):
    path = grow("a.zarr", 3)
    old, copy = quick_path / "old.zarr", quick_path / "copy.zarr"
    pull(f"{path}@sha256:{records(path)[1]}", old)
    assert len(records(old)) == 2
    pull(str(path), copy)
    with pytest.raises(CorruptDatasetError, match="older state"):
        pull(str(old), copy)
    grow("old.zarr")
    with pytest.raises(CorruptDatasetError, match="history was rewritten"):
        pull(str(old), copy)
    grow("old.zarr")
    with pytest.raises(CorruptDatasetError, match="history was rewritten"):
        pull(str(old), copy)
    (path / "commits" / "00000002.json").unlink()
    with pytest.raises(DatasetError, match="newest records are missing"):
        pull(f"{path}@sha256:{records(copy)[2]}", quick_path / "new.zarr")
    assert pull(f"{path}@sha256:{records(copy)[1]}", copy).commits_new == 0


def test_the_card_comes_along(place, grow, quick_path):
    path = grow("a.zarr")
    (path / "README.md").write_text("license: CC0-1.0")
    push(path, place)
    pull(place, quick_path / "b.zarr")
    assert (quick_path / "b.zarr" / "README.md").read_text() == "license: CC0-1.0"
    (quick_path / "b.zarr" / "README.md").write_text("my notes")
    (path / "README.md").write_text("newer")
    push(path, place)
    pull(place, quick_path / "b.zarr")
    assert (quick_path / "b.zarr" / "README.md").read_text() == "my notes"
    pull(place, quick_path / "c.zarr")
    assert (quick_path / "c.zarr" / "README.md").read_text() == "newer"


CALL = "import sys; from epvf_data import pull, push; globals()[sys.argv[1]](*sys.argv[2:])"


def run(*words: object) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "-c", CALL, *map(str, words)], stderr=subprocess.PIPE)


@pytest.mark.parametrize("at", [pytest.param(3, marks=pytest.mark.soak), 30, pytest.param(64, marks=pytest.mark.soak)])
def test_a_kill_during_a_push(bucket, grow, quick_path, at):
    """The store kills the pusher when it is asked the at-th time: what it published is whole, and pushing goes on."""
    path, killed = grow("a.zarr", 3), []

    def kill(handler, name):
        if len(bucket.asked) == at:
            os.kill(process.pid, signal.SIGKILL)
            killed.append(name)
        return bool(killed)

    bucket.before = kill
    process = run("push", path, "s3://labs/there.zarr")
    process.communicate()
    assert killed
    bucket.before = None
    there = [name for name in bucket.objects if "/commits/0" in name]
    if "/labs/there.zarr/zarr.json" in bucket.objects:
        pull("s3://labs/there.zarr", quick_path / "b.zarr")
        assert validate(quick_path / "b.zarr", deep=True) == []
        assert records(quick_path / "b.zarr") == records(path)[: len(there)]
    push(path, "s3://labs/there.zarr")
    pull("s3://labs/there.zarr", quick_path / "b.zarr")
    assert equal(path, quick_path / "b.zarr")


@pytest.mark.parametrize("at", [2, *(pytest.param(at, marks=pytest.mark.soak) for at in (20, 61)), 40])
def test_a_kill_during_a_pull(servers, grow, quick_path, at):
    """What is here then is whole, or is no data set yet; what had come does not come again."""
    path, killed = grow("a.zarr", 3), []
    with servers.files(quick_path) as server:

        def kill(handler, name):
            if len(server.asked) == at:
                os.kill(process.pid, signal.SIGKILL)
                killed.append(name)
            return bool(killed)

        server.before, copy = kill, quick_path / "b.zarr"
        process = run("pull", f"http://127.0.0.1:{server.port}/a.zarr", copy)
        process.communicate()
        assert killed
        if (copy / "zarr.json").exists():
            assert validate(copy, deep=True) == []
            assert records(copy) == records(path)[: len(records(copy))]
        server.before = None
        whole = {f"a.zarr/parts/{part.name}/" for part in (copy / "parts").glob("*") if part.is_dir()}
        server.asked.clear()
        pull(f"http://127.0.0.1:{server.port}/a.zarr", copy)
        assert not [name for name in server.asked if any(name.startswith(part) for part in whole)]
    collect_garbage(copy, grace=0)  # a record's draft
    assert equal(path, copy)


def big(path: Path, env, make_rows, rows: int = 40_000) -> Path:
    with Writer.open(path, env) as writer:
        writer.commit(make_rows(rows, 1), {})
    return path


def test_a_broken_file_is_gone_on_with_where_it_stopped(servers, env, make_rows, quick_path):
    """Each connection is cut after 400 kB: the file arrives all the same, and little of it twice."""
    path = big(quick_path / "a.zarr", env, make_rows)
    size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    sent = [0]

    def fault(number: int, already: int, piece: bytes) -> str | None:
        sent[0] += 1 << 16
        return "cut" if already > 400_000 else None

    with servers.files(quick_path) as server, servers.Line(server.port, fault) as line:
        pull(f"http://127.0.0.1:{line.port}/a.zarr", quick_path / "b.zarr")
        assert line.struck > 5
        assert sent[0] < 3 * size
    assert equal(path, quick_path / "b.zarr")


def test_a_line_that_is_cut_again_and_again_is_told_and_gone_on_with(servers, env, make_rows, quick_path):
    path = big(quick_path / "a.zarr", env, make_rows)
    with servers.files(quick_path) as server:
        with (
            servers.Line(server.port, lambda number, sent, _: "cut" if number > 12 or sent > 400_000 else None) as line,
            pytest.raises(TransferError, match="the same command goes on"),
        ):
            pull(f"http://127.0.0.1:{line.port}/a.zarr", quick_path / "b.zarr")
        assert not (quick_path / "b.zarr" / "commits" / "00000000.json").exists()
        server.asked.clear()
        pull(f"http://127.0.0.1:{server.port}/a.zarr", quick_path / "b.zarr")
    assert equal(path, quick_path / "b.zarr")


def test_every_flip_in_transit_is_noticed(servers, grow, quick_path, request):
    """One answer, or each one, for a file has a bit flipped: the file is fetched again, or the flip is named."""
    path = grow("a.zarr", 1)
    names = sorted(str(file.relative_to(quick_path)) for file in path.rglob("*") if file.is_file())
    names = [
        name for name in names if "staging" not in name and not name.endswith(("commits/zarr.json", "s/zarr.json"))
    ]
    step = 1 if request.config.getoption("--soak") else 25
    for name in names[::step]:
        with servers.files(quick_path) as server:
            for always in (True, False):
                flips = []

                def flip(handler, asked, name=name, always=always, flips=flips):
                    if asked != name or (flips and not always):
                        return False
                    flips.append(name)
                    data = bytearray((quick_path / name).read_bytes())
                    data[len(data) // 2] ^= 1
                    handler.give(bytes(data), Last_Modified="Thu, 01 Jan 2026 00:00:00 GMT")
                    return True

                server.before, copy = flip, quick_path / f"copy-{always}.zarr"
                shutil.rmtree(copy, ignore_errors=True)
                url = f"http://127.0.0.1:{server.port}/a.zarr"
                if always or "commits/" in name or name == "a.zarr/zarr.json":
                    with pytest.raises(EpvfError):
                        pull(url, copy)
                    server.before = None
                pull(url, copy)
                assert flips
                assert equal(path, copy), name


def test_a_flip_on_the_way_up_is_refused_by_the_store(bucket, grow, monkeypatch, servers, quick_path):
    """The checksum that travels along tells: nothing that was changed on the way is ever there under its name."""
    path = grow("a.zarr")

    def up(number, sent, piece):
        return "flip" if len(piece) > 3000 else None

    with servers.Line(bucket.port, lambda number, sent, piece: None, up) as line:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{line.port}")
        with pytest.raises(EpvfError):
            push(path, "s3://labs/there.zarr")
        assert line.struck
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{bucket.port}")
    push(path, "s3://labs/there.zarr")
    pull("s3://labs/there.zarr", quick_path / "b.zarr")
    assert equal(path, quick_path / "b.zarr")


def test_two_pushers_and_a_puller_at_once(store, grow, quick_path):
    """Nothing is lost, nobody is blocked, and what the puller has is whole each time."""
    paths = [grow(f"{name}.zarr", 4) for name in "ab"]
    with ThreadPoolExecutor(3) as pool:
        pushes = [pool.submit(push, path, f"{store}/there.zarr") for path in paths]
        looks = 0
        while not all(one.done() for one in pushes):
            with contextlib.suppress(DatasetError):  # it is not there yet
                pull(f"{store}/there.zarr", quick_path / "c.zarr")
                looks += 1
            assert not looks or validate(quick_path / "c.zarr") == []
        assert sum(one.result().commits_new for one in pushes) == 8
    pull(f"{store}/there.zarr", quick_path / "c.zarr")
    assert validate(quick_path / "c.zarr", deep=True) == []
    parts = {part.entry.id for path in paths for part in epvf_data.open(path).parts}
    assert {part.entry.id for part in epvf_data.open(quick_path / "c.zarr").parts} == parts


FULL = """
import os, pathlib, sys
import epvf_data
from epvf_data.errors import StorageError
from epvf_data.store.validate import validate

source, disk = sys.argv[1], pathlib.Path(sys.argv[2])
copy, filler = disk / "copy.zarr", disk / "filler"
try:
    epvf_data.pull(source, copy)  # 7 of 9 MB are taken
except StorageError as error:
    assert "GB are free" in str(error), error
filler.unlink()


def fill(done, total):
    if not filler.exists():
        with filler.open("wb") as file:
            try:
                while True:
                    file.write(bytes(4096))
                    file.flush()
            except OSError:
                pass


for _ in range(2):
    try:
        epvf_data.pull(source, copy, progress=fill)
    except StorageError as error:
        print("full:", error)
    else:
        raise SystemExit("the disk was not full")
    if (copy / "zarr.json").exists():
        assert validate(copy) == []
    filler.unlink()
print("rows:", epvf_data.pull(source, copy).rows)
assert validate(copy, deep=True) == []
"""


def test_a_disk_that_is_full_before_and_during_a_pull(servers, env, make_rows, tmp_path, quick_path):
    """A real file system of 9 MB in memory: one sentence each time, then the same call goes on."""
    path = big(quick_path / "a.zarr", env, make_rows, 20_000)
    mount = f"mount -t tmpfs -o size=9m none '{tmp_path}' || exit 77; head -c 7000000 /dev/zero > '{tmp_path}/filler'; "
    mount += 'exec "$@"'
    with servers.files(quick_path) as server:
        slow = threading.Event()  # a request takes a moment, so that the disk fills up meanwhile
        server.before = lambda handler, name: slow.wait(0.3) if "/c/" in name else False
        program = [sys.executable, "-c", FULL, f"http://127.0.0.1:{server.port}/a.zarr", str(tmp_path)]
        command = ["unshare", "--mount", "--map-root-user", "sh", "-c", mount, "sh", *program]
        try:
            process = subprocess.run(command, capture_output=True, text=True, timeout=300)
        except FileNotFoundError:
            pytest.skip("unshare is not installed")
    if process.returncode == 77:
        pytest.skip("this user may not mount anything")
    assert process.returncode == 0, process.stderr
    assert process.stdout.count("full:") == 2
    assert "rows: 20000" in process.stdout
    assert sum(file.stat().st_size for file in path.rglob("*") if file.is_file()) > 1_500_000


def test_servers_without_ranges(servers, grow, quick_path):
    path = grow("a.zarr")
    with servers.files(quick_path) as server:
        server.ranges = False
        pull(f"http://127.0.0.1:{server.port}/a.zarr", quick_path / "b.zarr")
    assert equal(path, quick_path / "b.zarr")


def test_the_verbs(store, grow, quick_path, shell, in_tmp):
    path = grow("ant.zarr", 2)
    said = shell("push", path, f"{store}/ant.zarr").stdout
    assert "2 new commits" in said
    assert f"sha256:{records(path)[-1]}" in said
    said = shell("pull", f"{store}/ant.zarr").stdout
    assert "20 rows in all, every byte verified" in said
    assert diff(path, "ant.zarr").equal
    assert "install it" not in shell("pull", "ftp://nowhere/x", code=2).stderr
