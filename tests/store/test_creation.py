"""Where a data set may come into being: nothing that is not provably of our making is removed, or added to."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

import epvf_data
from epvf_data.curation.merge import merge
from epvf_data.curation.select import filter_rows, sample, split, withhold
from epvf_data.errors import DatasetError
from epvf_data.store import creation
from epvf_data.store.creation import unmade
from epvf_data.store.folders import FOLDERS, UNFINISHED
from epvf_data.store.garbage import collect_garbage
from epvf_data.store.validate import leftovers, validate
from epvf_data.store.writer import Writer


@pytest.fixture
def source(quick_path, env, make_rows) -> Path:
    with Writer.open(quick_path / "a.zarr", env) as writer:
        writer.commit(make_rows(8, probes=2), {})
    return quick_path / "a.zarr"


def begun(path: Path, source: Path) -> Path:
    """What a killed process leaves of a data set that is made of another one."""
    with pytest.raises(RuntimeError), Writer.create(path, epvf_data.open(source).env) as writer:  # noqa: PT012
        writer.commit(epvf_data.open(source).parts, {})
        shutil.copytree(path, path.with_name("kept"))
        raise RuntimeError
    return path.with_name("kept").rename(path)


def tree(folder: Path) -> dict[str, bytes | None]:
    return {str(item.relative_to(folder)): item.read_bytes() if item.is_file() else None for item in folder.rglob("*")}


MAKERS = {
    "merge": lambda source, out: merge([source], out),
    "filter": lambda source, out: filter_rows(source, out, "length > 0"),
    "sample": lambda source, out: sample(source, out, 3),
    "split": lambda source, out: split(source, out, out.with_name("test.zarr"), by="rows"),
    "withhold": lambda source, out: withhold(source, out),
    "collect": lambda source, out: Writer.open(out, epvf_data.open(source).env),
}


@pytest.mark.parametrize("folder", [*FOLDERS, "src"])
@pytest.mark.parametrize("maker", MAKERS)
def test_a_folder_of_the_users_is_refused_and_stays_as_it_is(source, maker, folder):
    """Also one that is called as ours are: `parts` of a machine, `commits` of a book."""
    project = source.with_name("project")
    (project / folder / "gearbox").mkdir(parents=True)
    (project / folder / "gearbox" / "drawing.step").write_text("months")
    before = tree(project)
    with pytest.raises(DatasetError, match="not a data set: it holds '"):
        MAKERS[maker](source, project)
    assert tree(project) == before
    assert not unmade(project)
    assert not source.with_name("test.zarr").exists()


FOREIGN = {
    "our names without our mark": lambda out: (out / "staging" / UNFINISHED).unlink(),
    "a folder of the user's": lambda out: (out / "parts" / "gearbox").mkdir(),
    "a file called as a part": lambda out: (out / "parts" / ("a" * 32)).write_text("months"),
    "a note among the records": lambda out: (out / "commits" / "todo.json").write_text("[]"),
    "a link among the parts": lambda out: (out / "parts" / ("a" * 32)).symlink_to(out.parent),
    "a folder as the mark": lambda out: (
        (out / "staging" / UNFINISHED).unlink(),
        (out / "staging" / UNFINISHED).mkdir(),
    ),
    "a draft of the user's": lambda out: (out / "staging" / "draft.tex").write_text("months"),
    "a file beside": lambda out: (out / "README.md").write_text("months"),
}


@pytest.mark.parametrize("what", FOREIGN)
def test_only_what_is_ours_through_and_through_is_replaced(source, what):
    out = begun(source.with_name("out"), source)
    FOREIGN[what](out)
    before = tree(out)
    for maker in ("merge", "collect"):
        with pytest.raises(DatasetError):
            MAKERS[maker](source, out)
    assert tree(out) == before


@pytest.mark.parametrize("folder", FOLDERS)
def test_no_link_is_followed_into_another_folder(source, folder):
    """Somebody who may write there has put a link in the place of a folder of a data set that is being made."""
    out, outside = begun(source.with_name("out"), source), source.with_name("outside")
    (out / folder).rename(outside)
    (out / folder).symlink_to(outside)
    before = tree(outside)
    for maker in ("merge", "collect"):
        with pytest.raises(DatasetError):
            MAKERS[maker](source, out)
    assert tree(outside) == before


def test_what_a_killed_process_began_is_replaced(source):
    out = begun(source.with_name("out"), source)
    assert not unmade(out)  # it holds records
    merge([source], out)
    assert epvf_data.open(out).rows == 8
    assert validate(out, deep=True) == leftovers(out) == []
    assert len(list((out / "parts").iterdir())) == 2


@pytest.mark.parametrize("kept", [(), ("staging",), ("staging", UNFINISHED)])
def test_the_first_steps_of_a_killed_process_are_no_obstacle(source, kept):
    """Killed when the root was there, or an empty folder in it, or the mark."""
    for maker in ("merge", "collect"):
        out = source.with_name(f"out-{maker}")
        (out / Path(*kept[:1])).mkdir(parents=True)
        if kept[1:]:
            (out / Path(*kept)).touch()
        assert unmade(out)
        MAKERS[maker](source, out)
        assert epvf_data.open(out).rows == (8 if maker == "merge" else 0)
        assert validate(out, deep=True) == leftovers(out) == []


def test_a_mark_that_stayed_is_garbage(source):
    """Killed after the root's metadata was there."""
    (source / "staging" / UNFINISHED).touch()
    assert epvf_data.open(source).rows == 8
    with pytest.raises(DatasetError, match="already is a data set"):
        merge([source], source)
    assert collect_garbage(source, grace=0).staging == 1
    assert leftovers(source) == []


@pytest.mark.parametrize("folder", ["staging", "parts", "probes", "commits"])
def test_a_folder_that_is_swapped_while_a_data_set_is_made(source, env, make_rows, monkeypatch, folder):
    """Nothing is written into, or removed from, the folder that a link in its place leads to."""
    out, outside = source.with_name("out"), source.with_name("outside")
    (outside / ("b" * 32)).mkdir(parents=True)
    (outside / ("b" * 32) / "thesis.tex").write_text("years")
    before = tree(outside)
    publish = creation._publish_root

    def swapped(folders, metadata):
        (out / folder).rename(out.with_name("moved"))
        (out / folder).symlink_to(outside)
        raise RuntimeError("stop")

    monkeypatch.setattr(creation, "_publish_root", swapped)
    with pytest.raises(RuntimeError, match="stop"), Writer.create(out, env) as writer:
        writer.commit(make_rows(3, probes=2), {})
    assert tree(outside) == before
    monkeypatch.setattr(creation, "_publish_root", publish)
    with pytest.raises(DatasetError):
        merge([source], out)
    assert tree(outside) == before


def test_a_mark_is_on_the_disk_before_anything_else(source, env, monkeypatch):
    """A loss of power must not leave folders of ours without it."""
    made, real = [], os.mkdir
    monkeypatch.setattr(os, "mkdir", lambda name, *words, **more: (made.append(str(name)), real(name, *words, **more)))
    flushed, fsync = [], os.fsync
    monkeypatch.setattr(os, "fsync", lambda number: (flushed.append(len(made)), fsync(number)))
    Writer.open(source.with_name("new"), env)
    names = [Path(name).name for name in made]
    assert names[:2] == ["new", "staging"]
    assert flushed.count(2) >= 2  # `staging` and the root, before the third folder
