"""Everything is on the disk before it gets its name, and names are on the disk before they are acknowledged."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from epvf_data.store.writer import Writer

CHILD = """
import sys
sys.path.insert(0, sys.argv[1])
import scenarios
from pathlib import Path
scenario = scenarios.SCENARIOS[sys.argv[2]]
scenario.act(Path(sys.argv[3]))
"""


def test_everything_is_flushed_before_it_is_published(tmp_path, make_rows, env, monkeypatch):
    """Recorded calls: each file and folder of the part is fsynced before the rename, `parts` and the record before the
    link, `commits` after it."""
    with Writer.open(tmp_path / "a", env) as writer:
        log: list[tuple[str, str]] = []
        real_fsync, real_rename, real_link = os.fsync, os.rename, os.link

        def fsync(descriptor):
            log.append(("fsync", str(Path(f"/proc/self/fd/{descriptor}").readlink())))
            real_fsync(descriptor)

        def rename(old, new, src_dir_fd, dst_dir_fd):
            whole = Path(f"/proc/self/fd/{src_dir_fd}").readlink() / old
            inside = [str(whole), *(str(item) for item in whole.rglob("*"))]
            flushed = {name for kind, name in log if kind == "fsync"}
            assert set(inside) <= flushed
            log.append(("rename", new))
            real_rename(old, new, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd)

        def link(draft, final, src_dir_fd, **words):
            assert ("fsync", str(Path(f"/proc/self/fd/{src_dir_fd}").readlink() / draft)) in log
            log.append(("link", final))
            real_link(draft, final, src_dir_fd=src_dir_fd, **words)

        for name, function in (("fsync", fsync), ("rename", rename), ("link", link)):
            monkeypatch.setattr(os, name, function)
        writer.commit(make_rows(4, probes=2), {})
    kinds = [kind for kind, _ in log]
    names = [f"{kind} {Path(name).name}" for kind, name in log]
    assert kinds.count("rename") == 2  # part and probing states
    assert kinds.index("link") > max(names.index("fsync parts"), names.index("fsync probes")) > kinds.index("rename")
    assert names[-1] == "fsync commits"


CALLS = (
    "open,openat,creat,write,pwrite64,fsync,fdatasync,rename,renameat,link,linkat,unlink,unlinkat,mkdir,mkdirat,rmdir"
)
PATH = r'(?:(?:AT_FDCWD|\d+)<(?P<{0}at>[^>]*)>, )?"(?P<{0}>[^"]*)"'
FORMS = (
    ("made", rf"(?:openat|open|creat)\({PATH.format('a')}, \S*O_CREAT"),
    ("made", rf"(?:mkdirat|mkdir)\({PATH.format('a')}"),
    ("written", r"(?:write|pwrite64)\(\d+<(?P<a>/[^>]*)>"),
    ("flushed", r"(?:fsync|fdatasync)\(\d+<(?P<a>/[^>]*)>"),
    ("renamed", rf"(?:renameat|rename)\({PATH.format('a')}, {PATH.format('b')}"),
    ("linked", rf"(?:linkat|link)\({PATH.format('a')}, {PATH.format('b')}"),
    ("gone", rf"(?:unlinkat|unlink|rmdir)\({PATH.format('a')}"),
)


def events(trace: str) -> Iterator[tuple[str, Path, Path]]:
    """What the kernel did, in the order in which the calls ended: kind, path, and the new path if there is one."""
    waiting: dict[str, str] = {}
    for line in trace.splitlines():
        process, call = line.split(maxsplit=1)
        if "<unfinished" in call:
            waiting[process] = call
            continue
        if call.startswith("<..."):
            call = waiting.pop(process, "") + call
        if not re.search(r"\) += \d+", call):
            continue  # it failed
        for kind, form in FORMS:
            if match := re.match(form, call):
                found = match.groupdict()
                one = Path(found.get("aat") or "/", found["a"])
                yield kind, one, Path(found.get("bat") or "/", found.get("b") or "")
                break


class Disk:
    """What a loss of power could take away: contents that are not flushed, and names whose folder is not."""

    def __init__(self) -> None:
        self.contents: set[Path] = set()
        self.names: set[Path] = set()

    def apply(self, kind: str, one: Path, other: Path) -> None:
        if kind == "made":
            self.names.add(one)
        elif kind == "written":
            self.contents.add(one)
        elif kind == "flushed":
            self.contents.discard(one)
            self.names = {name for name in self.names if name.parent != one}
        elif kind == "gone":
            self.contents.discard(one)
            self.names.discard(one)
        elif kind == "linked":
            self.names.add(other)
            self.contents |= {other} & {other for _ in self.contents & {one}}
        elif kind == "renamed":
            self.names.add(one)
            for kept in ("names", "contents"):
                moved = {other / item.relative_to(one) for item in getattr(self, kept) if item.is_relative_to(one)}
                setattr(self, kept, {item for item in getattr(self, kept) if not item.is_relative_to(one)} | moved)

    def unsafe(self, folder: Path, final: Path | None = None) -> set[Path]:
        """What is not durable yet under `folder`, without drafts and without the name `final` itself."""
        found = {item for item in self.contents | self.names if item.is_relative_to(folder)} - {final}
        return {item for item in found if "staging" not in item.parts}


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
@pytest.mark.parametrize("scenario", ["create", "create-whole", "commit", "compact", "merge"])
def test_the_order_of_system_calls(tmp_path, scenarios, scenario):
    """In the kernel's order: what is published is safe from a loss of power, and so is all that is acknowledged.

    A new data set lies in folders that are made on the way: their names count, too.
    """
    folder, trace = tmp_path / "new" / "folder", tmp_path / "trace"
    if scenario not in ("create", "create-whole"):
        folder.mkdir(parents=True)
        scenarios.SCENARIOS[scenario].prepare(folder)
    command = ["strace", "-f", "-y", "-s", "4096", "-o", str(trace), "-e", f"trace={CALLS}"]
    command += [sys.executable, "-B", "-c", CHILD, str(Path(__file__).parent), scenario, str(folder)]
    process = subprocess.run(command, capture_output=True, text=True, timeout=120)
    if "ptrace" in process.stderr:
        pytest.skip("strace may not trace here")
    assert process.returncode == 0, process.stderr
    visible = scenario in ("commit", "compact")
    disk, published, count = Disk(), [], 0
    data = folder / "data.zarr"
    for kind, one, other in events(trace.read_text()):
        count += one.is_relative_to(tmp_path)
        disk.apply(kind, one, other)
        visible = visible or (kind == "linked" and other == data / "zarr.json")
        if visible and kind == "linked" and (other.parent == data or re.fullmatch(r"\d{8}\.json", other.name)):
            published.append(other.name)
            unsafe = disk.unsafe(data, other) - {data}
            assert one not in disk.contents
            assert not unsafe, f"published before it was safe: {unsafe}"
    expected = {"commit": "00000001.json", "compact": "00000002.json"}
    assert published == [expected.get(scenario, "zarr.json")]
    assert count > (30 if scenario == "create" else 150)
    assert not disk.unsafe(tmp_path), f"acknowledged before it was safe: {disk.unsafe(tmp_path)}"
