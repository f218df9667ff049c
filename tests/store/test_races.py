"""Somebody else who may write to a shared data set swaps a folder for a link while a verb is at work."""

from __future__ import annotations

import contextlib
import os
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

import epvf_data
from epvf_data.cards import card
from epvf_data.errors import EpvfError
from epvf_data.store import files, garbage, writer
from epvf_data.store.compact import compact
from epvf_data.store.garbage import collect_garbage
from epvf_data.store.writer import Writer

STRANGE = {
    "staging/notes": "a folder",
    "staging/left.json": "a file",
    "staging/" + "6" * 32: "a link",
    "staging/" + "7" * 31: "a folder",
    "parts/gearbox": "a folder",
    "parts/" + "6" * 32: "a file",
    "parts/" + "8" * 32: "a link",
    "probes/" + "6" * 32: "a folder",
    "probes/" + "9" * 64: "a deep folder",
}


@pytest.fixture
def shared(quick_path, env, make_rows) -> Path:
    """Some live parts, and garbage of every kind."""
    path = quick_path / "shared.zarr"
    with Writer.open(path, env) as writer:
        for seed in range(4):
            writer.commit(make_rows(2, seed, probes=2), {})
    compact(path)
    for name in ("parts/" + "1" * 32, "probes/" + "1" * 64, "staging/" + "1" * 32):
        (path / name).mkdir()
        (path / name / "zarr.json").write_text("{}")
    return path


@pytest.fixture
def outside(shared) -> Path:
    """A folder of the user's where everything that the data set calls garbage has a namesake."""
    folder = shared.with_name("outside")
    for name in {item.name for inner in ("parts", "probes", "staging") for item in (shared / inner).iterdir()}:
        if name != "zarr.json":
            (folder / name).mkdir(parents=True)
            (folder / name / "thesis.tex").write_text("years")
    return folder


def tree(folder: Path) -> set[tuple[str, int, int]]:
    return {(str(item), item.lstat().st_mode, item.lstat().st_mtime_ns) for item in (folder, *folder.rglob("*"))}


def swapping(shared: Path, outside: Path, folder: str, real: Callable) -> Callable:
    """`real`, after whose first call the folder is another one under a link."""

    def call(*words, **more):
        value = real(*words, **more)
        if not (shared / folder).is_symlink():
            (shared / folder).rename(shared.with_name("moved"))
            (shared / folder).symlink_to(outside)
        return value

    return call


@pytest.mark.parametrize("folder", ["parts", "probes", "staging"])
@pytest.mark.parametrize("step", ["_unused", "_measure", "move", "discard"])
def test_garbage_is_removed_where_it_was_seen(shared, outside, folder, step, monkeypatch):
    before = tree(outside)
    real = getattr(garbage, step)
    whole = (lambda folders: iter(list(real(folders)))) if step == "_unused" else real
    monkeypatch.setattr(garbage, step, swapping(shared, outside, folder, whole))
    report = collect_garbage(shared, grace=0)
    assert (report.parts, report.probes, report.staging) == (5, 1, 1)
    assert tree(outside) == before
    assert (shared / folder).is_symlink()


@pytest.mark.parametrize("folder", ["parts", "probes", "staging", "commits"])
@pytest.mark.parametrize("verb", ["commit", "compact"])
@pytest.mark.parametrize("step", [(writer, "write_group"), (files, "write_file"), (writer, "move")])
def test_a_commit_goes_where_it_began(shared, outside, folder, verb, step, make_rows, env, monkeypatch):
    module, name = step
    with Writer.open(shared, env) as first:
        first.commit(make_rows(2, 9, probes=2), {})
    before = tree(outside)
    monkeypatch.setattr(module, name, swapping(shared, outside, folder, getattr(module, name)))
    with contextlib.suppress(EpvfError):
        if verb == "commit":
            with Writer.open(shared, env) as second:
                second.commit(make_rows(3, 10, probes=3), {})
        else:
            compact(shared)
    assert (shared / folder).is_symlink()
    assert tree(outside) == before


def test_a_card_is_written_where_its_folder_was_opened(shared, outside, monkeypatch):
    before = tree(outside)
    monkeypatch.setattr(card, "write_file", swapping(shared, outside, "staging", card.write_file))
    card.write_card(shared)
    assert tree(outside) == before
    assert (shared / "README.md").read_text().startswith("---")


def make(path: Path, what: str) -> None:
    if what == "a file":
        path.write_text("years")
    elif what == "a link":
        path.symlink_to(path.parent.parent)
    else:
        (path / ("a/" * 5 if what == "a deep folder" else ".")).mkdir(parents=True)


def test_what_is_not_garbage_of_ours_is_left_alone_and_told(shared):
    for name, what in STRANGE.items():
        make(shared / name, what)
    before = {name: (shared / name).lstat() for name in STRANGE}
    report = collect_garbage(shared, grace=0)
    assert (report.parts, report.probes, report.staging) == (5, 1, 1)
    assert set(report.names) == set(STRANGE)
    assert report.foreign == len(STRANGE)
    assert {name: (shared / name).lstat() for name in STRANGE} == before
    assert all(stat.S_ISLNK((shared / name).lstat().st_mode) for name, what in STRANGE.items() if what == "a link")


def test_a_folder_without_bottom_is_no_garbage_of_ours(shared):
    """Deeper than Python can follow: looked at no further than parts go."""
    deep = shared / "staging" / ("a" * 32)
    deep.mkdir()
    with contextlib.chdir(deep):
        for _ in range(1500):
            os.mkdir("d")  # noqa: PTH102
            os.chdir("d")
    assert collect_garbage(shared, grace=0).names == (f"staging/{deep.name}",)
    assert epvf_data.open(shared).rows == 8
    subprocess.run(["rm", "-rf", deep], check=True)
