"""Where a data set may lie: among other programs' files, in backups and hubs' folders, on file systems of all kinds."""

from __future__ import annotations

import errno
import json
import os
import resource
import shutil
from pathlib import Path

import pytest
from store.conftest import ENV, build_rows

import epvf_data
from epvf_data import untrusted
from epvf_data.curation.merge import merge
from epvf_data.errors import CorruptDatasetError, DatasetError, StorageError, UnsafeDatasetError
from epvf_data.store import durable, publishing
from epvf_data.store.compact import compact
from epvf_data.store.digest import content_hash
from epvf_data.store.garbage import collect_garbage
from epvf_data.store.loader import Loader, load_all
from epvf_data.store.validate import leftovers, validate
from epvf_data.store.writer import Writer

FILES = (
    *(".DS_Store", "._zarr.json", "._00000000.json", "Thumbs.db", "THUMBS.DB", "desktop.ini", ".directory"),
    *(".nfs000000000a1b", ".fuse_hidden0001", "zarr.json~", ".zarr.json.swp", ".#zarr.json", ".gitattributes"),
)
FOLDERS = (".AppleDouble", ".snapshot", ".ipynb_checkpoints", "lost+found", "@eaDir", ".Trash-1000", ".cache", ".git")
OTHERS = ("zarr 2.json", "zarr (conflicted copy).json", "00000000.json.part", "notes.txt", ".zattrs")


def whole(path: Path, rows: int = 126) -> None:
    """All readers and keepers of a data set work there."""
    assert validate(path, deep=True) == []
    assert leftovers(path) == []
    assert epvf_data.open(path).summary()["rows"] == rows
    assert collect_garbage(path, grace=0).foreign == 0
    with Writer.open(path, ENV) as writer:
        writer.commit(build_rows(2, 9), {})
    assert epvf_data.open(path).rows == rows + 2


def folders(path: Path) -> list[Path]:
    return [path, *(folder for folder in path.rglob("*") if folder.is_dir())]


@pytest.mark.parametrize("names", [FILES, FOLDERS], ids=["files", "folders"])
def test_what_other_programs_leave_everywhere_is_not_looked_at(small, tmp_path, names):
    before = content_hash(epvf_data.open(small))
    for folder in folders(small):
        for name in names:
            if names is FILES:
                (folder / name).write_bytes(b"\0\1\2")
            else:
                (folder / name / "hourly").mkdir(parents=True)
                (folder / name / "hourly" / "zarr.json").symlink_to("/etc/passwd")
    merge([small], tmp_path / "merged")
    assert content_hash(epvf_data.open(small)) == content_hash(epvf_data.open(tmp_path / "merged")) == before
    whole(small)


@pytest.mark.parametrize("name", OTHERS)
def test_other_files_are_named_with_a_cure(small, name):
    for folder in (small, small / "commits", small / "parts", next((small / "parts").glob("*/params"))):
        (folder / name).write_text("{}")
        try:
            problems = validate(small)
        except DatasetError as error:
            problems = [str(error)]
        (folder / name).unlink()
        assert len(problems) == 1, problems
        assert "remove it" in problems[0].lower(), problems
    whole(small)


def test_an_empty_folder_that_a_desktop_has_shown_is_free(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / ".DS_Store").touch()
    with Writer.open(tmp_path / "a", ENV) as writer:
        writer.commit(build_rows(3), {})
    assert epvf_data.open(tmp_path / "a").rows == 3


def test_names_of_ours_are_no_litter(small):
    ours = {name for path in small.rglob("*") for name in path.relative_to(small).parts}
    assert not [name for name in (*ours, ".epvf-data-unfinished", "README.md") if untrusted.is_litter(name)]


def test_a_backup_by_hard_links_is_a_data_set(small, tmp_path):
    shutil.copytree(small, tmp_path / "backup", copy_function=os.link)
    for path in (small, tmp_path / "backup"):
        whole(path)
    compact(small)  # removes and adds names here alone
    collect_garbage(small, grace=0)
    assert validate(tmp_path / "backup", deep=True) == []


def test_equal_files_that_a_deduplicator_has_joined(small):
    first: dict[bytes, Path] = {}
    for path in sorted(path for path in small.rglob("*") if path.is_file()):
        kept = first.setdefault(path.read_bytes(), path)
        if kept != path:
            path.unlink()
            path.hardlink_to(kept)
    whole(small)


def hub(path: Path, blobs: Path) -> None:
    """Every file becomes a link to a blob, as in a hub's cache."""
    blobs.mkdir()
    for number, file in enumerate(sorted(item for item in path.rglob("*") if item.is_file())):
        file.rename(blobs / str(number))
        file.symlink_to(blobs / str(number))


def test_a_hubs_tree_of_links_is_refused_with_the_cure(small, tmp_path):
    hub(small, tmp_path / "blobs")
    with pytest.raises(UnsafeDatasetError, match="cp -RL"):
        epvf_data.open(small)
    shutil.copytree(small, tmp_path / "copied")  # follows links, as cp -RL
    whole(tmp_path / "copied")


@pytest.mark.parametrize(
    ("pointer", "cure"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 9\n", "git lfs pull"),
        (b"/annex/objects/SHA256E-s9--0.json\n", "git annex get"),
    ],
)
@pytest.mark.parametrize("name", ["zarr.json", "commits/00000000.json", "parts/*/params/zarr.json", "parts/*/*/c/0"])
def test_pointers_of_version_control_are_told(small, pointer, cure, name):
    next(path for path in small.glob(name) if path.is_file()).write_bytes(pointer)
    with pytest.raises(CorruptDatasetError, match=cure):
        content_hash(epvf_data.open(small))


@pytest.fixture
def few_files():
    """As `ulimit -n 64`, beside many files that this process holds open already."""
    old, held = resource.getrlimit(resource.RLIMIT_NOFILE), [os.open(os.devnull, os.O_RDONLY) for _ in range(300)]
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(list(Path("/proc/self/fd").iterdir())) + 60, old[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, old)
    for descriptor in held:
        os.close(descriptor)


def test_more_parts_than_a_process_may_open_files(quick_path, few_files):
    with Writer.open(quick_path / "a", ENV) as writer:
        writer.commit([build_rows(2, seed, probes=1, discount=0.5) for seed in range(70)], {})
        writer.commit(build_rows(2, 70, probes=1, discount=0.5), {})
    table = epvf_data.open(quick_path / "a").table()
    every = load_all(table)
    assert (table.take("params", range(142)) == every["params"]).all()
    loader = Loader(table, batch_size=64, resident_bytes=0)
    assert sum(len(batch["params"]) for batch in loader) == 142
    assert validate(quick_path / "a", deep=True) == []
    compact(quick_path / "a")
    assert epvf_data.open(quick_path / "a").rows == 142


def refusing(monkeypatch, name: str, number: int, only: object = None) -> None:
    """A system call answers with an error (of `only` folders, where that is given)."""
    real = getattr(os, name) if hasattr(os, name) else getattr(durable.fcntl, name)

    def call(first, *rest, **words):
        if only is None or (isinstance(first, int) and Path(f"/proc/self/fd/{first}").is_dir()):
            raise OSError(number, os.strerror(number))
        return real(first, *rest, **words)

    monkeypatch.setattr(os if hasattr(os, name) else durable.fcntl, name, call)


UNKNOWN = [errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, 524]


@pytest.mark.parametrize("number", [*UNKNOWN, errno.EMLINK])
def test_without_hard_links_a_rename_publishes(tmp_path, monkeypatch, number):
    refusing(monkeypatch, "link", number)
    with Writer.open(tmp_path / "a", ENV) as first, Writer.open(tmp_path / "a", ENV) as second:
        for seed, writer in enumerate((first, second, second, first)):  # each finds numbers taken
            writer.commit(build_rows(3, seed), {})
    assert epvf_data.open(tmp_path / "a").rows == 12
    assert (validate(tmp_path / "a", deep=True), leftovers(tmp_path / "a")) == ([], [])


def no_links_across_folders(monkeypatch, number: int = errno.EXDEV) -> None:
    """As on AFS, and on BeeGFS."""
    real = os.link

    def link(source, target, *, src_dir_fd, dst_dir_fd, follow_symlinks):
        if os.fstat(src_dir_fd).st_ino != os.fstat(dst_dir_fd).st_ino:
            raise OSError(number, os.strerror(number))
        real(source, target, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd, follow_symlinks=follow_symlinks)

    monkeypatch.setattr(os, "link", link)


def symbolic_links_only(monkeypatch) -> None:
    """As BeeGFS makes of hard links where it is told to."""
    monkeypatch.setattr(
        os, "link", lambda source, target, *, dst_dir_fd, **words: os.symlink(source, target, dir_fd=dst_dir_fd)
    )


def no_renames(monkeypatch) -> None:
    monkeypatch.setattr(publishing.ctypes, "CDLL", lambda *args, **words: object())


@pytest.mark.parametrize("refuse", [no_links_across_folders, symbolic_links_only])
def test_links_of_another_kind(tmp_path, monkeypatch, refuse):
    refuse(monkeypatch)
    if refuse is no_links_across_folders:
        no_renames(monkeypatch)
    with Writer.open(tmp_path / "a", ENV) as first, Writer.open(tmp_path / "a", ENV) as second:
        for seed, writer in enumerate((first, second, second, first)):  # each finds numbers taken
            writer.commit(build_rows(3, seed), {})
    assert epvf_data.open(tmp_path / "a").rows == 12
    assert (validate(tmp_path / "a", deep=True), leftovers(tmp_path / "a")) == ([], [])
    names = {path.name for path in (tmp_path / "a" / "commits").iterdir()}
    assert names == {"zarr.json", *(f"{number:08}.json" for number in range(4))}


def test_symbolic_links_alone_are_not_enough(tmp_path, monkeypatch):
    symbolic_links_only(monkeypatch)
    no_renames(monkeypatch)
    with pytest.raises(StorageError, match="a hard link comes back as a symbolic one"):
        Writer.open(tmp_path / "a", ENV)
    assert not any(path.is_symlink() for path in tmp_path.rglob("*"))


def test_a_place_that_knows_neither_is_named(tmp_path, monkeypatch):
    refusing(monkeypatch, "link", 524)
    monkeypatch.setattr(publishing.ctypes, "CDLL", lambda *args, **words: object())
    with pytest.raises(StorageError, match="knows neither hard links .* nor renames that replace nothing"):
        Writer.open(tmp_path / "a", ENV)


@pytest.mark.parametrize("number", [*UNKNOWN, errno.ENOLCK, errno.EBADF])
@pytest.mark.parametrize("call", ["flock", "fsync"])
def test_without_locks_or_fsync_of_folders_it_works(tmp_path, monkeypatch, number, call):
    refusing(monkeypatch, call, number, only="folders")
    with Writer.open(tmp_path / "a", ENV) as writer:
        writer.commit(build_rows(3), {})
    assert validate(tmp_path / "a", deep=True) == []


@pytest.mark.parametrize(("call", "words"), [("flock", "cannot be locked"), ("fsync", "Input/output error")])
def test_a_failing_disk_is_told(tmp_path, monkeypatch, call, words):
    refusing(monkeypatch, call, errno.EIO, only="folders")
    with pytest.raises(StorageError, match=words):
        Writer.open(tmp_path / "a", ENV)


def test_a_number_without_words_is_put_into_words(tmp_path, monkeypatch):
    refusing(monkeypatch, "fsync", 524)
    with pytest.raises(StorageError, match="the file system does not support this"):
        Writer.open(tmp_path / "a", ENV)


def test_what_cannot_be_mapped_is_read(small, monkeypatch):
    expected = content_hash(epvf_data.open(small))

    def refuse(*args, **words):
        raise OSError(errno.ENODEV, os.strerror(errno.ENODEV))

    monkeypatch.setattr("epvf_data.store.memory.mmap.mmap", refuse)
    assert content_hash(epvf_data.open(small)) == expected


def test_the_working_directory_may_change(small, tmp_path, monkeypatch):
    monkeypatch.chdir(small.parent)
    dataset, writer = epvf_data.open(small.name), Writer.open(small.name, ENV)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    writer.commit(build_rows(3), {})
    assert content_hash(dataset) == content_hash(dataset)
    assert dataset.refresh().rows == dataset.rows + 3
    assert str(dataset.path) == small.name
    assert list(Path().iterdir()) == []


def test_doctor_says_what_a_place_can_promise(tmp_path, monkeypatch, shell):
    told = shell("doctor", tmp_path).stdout
    assert "published by a hard link\n" in told
    assert "problem" not in told
    found = json.loads(shell("doctor", tmp_path, "--json").stdout)["place"]
    assert (found["locks"], found["links"], found["flushes_folders"]) == (True, True, True)
    assert found["free_bytes"] > 0
    with monkeypatch.context() as patch:
        no_links_across_folders(patch)
        refusing(patch, "flock", 524)
        refusing(patch, "fsync", errno.EINVAL, only="folders")
        told = shell("doctor", tmp_path).stdout
        for words in ("a hard link inside the folder", "`finalize` copies", "no locks", "folders cannot be flushed"):
            assert words in told
    with monkeypatch.context() as patch:
        symbolic_links_only(patch)
        assert "published by a rename that replaces nothing" in shell("doctor", tmp_path).stdout
        no_renames(patch)
        assert "no commit can be safe from another one" in shell("doctor", tmp_path, code=1).stdout
    assert list(tmp_path.iterdir()) == []
    assert "is no folder" in shell("doctor", tmp_path / "nothing", code=1).stderr
