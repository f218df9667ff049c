"""Folders of strangers: plain files and folders, or one sentence."""

from __future__ import annotations

import os

import pytest

from epvf_data.errors import DatasetError, UnsafeDatasetError
from epvf_data.trees import walk


def found(folder, most=10, depth=3):
    return dict(walk(folder, "thing", most, depth))


def test_files_come_with_their_sizes_and_the_top_may_be_a_link(tmp_path):
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "x y").write_bytes(b"123")
    (tmp_path / "a" / "empty").touch()
    assert found(tmp_path / "a") == {"b/x y": 3, "empty": 0}
    (tmp_path / "link").symlink_to("a")
    assert found(tmp_path / "link") == found(tmp_path / "a")


@pytest.mark.parametrize(
    "spoil",
    [
        lambda path: path.symlink_to("/etc"),
        lambda path: path.symlink_to("nowhere"),
        lambda path: os.mkfifo(path),
    ],
)
def test_links_and_special_files_are_refused(tmp_path, spoil):
    (tmp_path / "mine").write_text("mine")
    (tmp_path / "a" / "b").mkdir(parents=True)
    spoil(tmp_path / "a" / "\x1b[2Jx")
    with pytest.raises(
        UnsafeDatasetError, match=r"x1b\[2Jx is a link or a special file; a thing holds plain"
    ) as caught:
        found(tmp_path / "a")
    assert str(caught.value).isprintable()


def test_many_files_deep_folders_and_no_folder(tmp_path):
    for name in "abcdefgh":
        (tmp_path / name).touch()
    assert len(found(tmp_path, most=8)) == 8
    with pytest.raises(UnsafeDatasetError, match="more than 7 files"):
        found(tmp_path, most=7)
    (tmp_path / "1" / "2" / "3" / "4").mkdir(parents=True)
    with pytest.raises(UnsafeDatasetError, match="too deep"):
        found(tmp_path, most=20, depth=2)
    with pytest.raises(DatasetError, match="does not exist"):
        found(tmp_path / "nothing")
    with pytest.raises(DatasetError, match="cannot be read"):
        found(tmp_path / "a")


def test_what_goes_meanwhile_is_left_out(tmp_path, monkeypatch):
    """A run is drawn while it is trained: checkpoints and drafts come and go."""
    (tmp_path / "gone").mkdir()
    (tmp_path / "stays").touch()
    listing = os.scandir

    def scandir(path):
        if path == tmp_path / "gone/":
            raise FileNotFoundError(path)
        return listing(path)

    monkeypatch.setattr(os, "scandir", scandir)
    assert found(tmp_path) == {"stays": 0}
