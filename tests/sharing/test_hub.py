"""hf://datasets/OWNER/NAME: pushed and pulled as elsewhere, in commits of the hub that nobody can slip in between."""

from __future__ import annotations

import importlib
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

import epvf_data
from epvf_data.curation.diff import diff
from epvf_data.errors import ConfigError, CorruptDatasetError, MissingPackageError, RefusedError, TransferError
from epvf_data.sharing.pull import pull
from epvf_data.sharing.push import push
from epvf_data.store.validate import validate

huggingface_hub = pytest.importorskip("huggingface_hub", reason="the extra hub is not installed")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # the library's own, of its HTTP library
URL = "hf://datasets/lab/ant"


@pytest.fixture
def hub(servers, monkeypatch, tmp_path):
    """The tests' hub, in the place of huggingface.co, with a token that may write."""
    module = importlib.import_module("sharing.hub")
    with module.hub() as server:
        monkeypatch.setenv("HF_TOKEN", module.TOKEN)
        monkeypatch.setenv("HF_ENDPOINT", server.url)  # for processes
        monkeypatch.setenv("HF_HUB_DISABLE_XET", "1")
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", server.url)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr("epvf_data.sharing.hub._PAUSE", 0.01)
        yield server


def records(path) -> list[str]:
    return [record.sha256 for record in epvf_data.open(path).commits]


def same(first, second) -> bool:
    return records(first) == records(second) and validate(second, deep=True) == [] and diff(first, second).equal


def test_there_and_back(hub, grow, quick_path):
    path = grow("a.zarr", 3)
    (path / "README.md").write_text("---\nlicense: cc0-1.0\n---\n")
    report = push(path, URL)
    repository = hub.repositories["lab/ant"]
    assert (report.commits_new, report.rows, report.revision) == (3, 30, records(path)[-1])
    assert repository.private
    assert repository.files["README.md"] == (path / "README.md").read_bytes()
    assert len(repository.commits) < 6  # the first one, the root, all records at once, the card, maybe rows.parquet
    back = pull(URL, quick_path / "b.zarr")
    assert (back.commits_new, back.bytes_new) == (3, report.bytes_new)
    assert same(path, quick_path / "b.zarr")
    assert epvf_data.open(URL).rows == 30
    before = len(repository.commits)
    assert push(path, URL).commits_new == 0
    assert len(repository.commits) == before
    grow("a.zarr")
    assert push(path, URL).commits_new == pull(URL, quick_path / "b.zarr").commits_new == 1
    assert same(path, quick_path / "b.zarr")
    assert hub.tokens_elsewhere
    assert {*hub.tokens_elsewhere} == {None}  # the token stays with the hub


def test_many_files_are_several_commits_of_the_hub(hub, grow, quick_path, monkeypatch):
    monkeypatch.setattr("epvf_data.sharing.hub._MANY", 40)
    path = grow("a.zarr", 4)
    push(path, URL)
    assert len(hub.repositories["lab/ant"].commits) >= 5
    pull(URL, quick_path / "b.zarr")
    assert same(path, quick_path / "b.zarr")


def test_two_pushers_at_once(hub, grow, quick_path):
    """Each commits between the other's look and commit: the hub refuses, both find their place."""
    paths = [grow(f"{name}.zarr", 3) for name in "ab"]
    with ThreadPoolExecutor(2) as pool:
        reports = [one.result() for one in [pool.submit(push, path, URL) for path in paths]]
    assert [report.commits_new for report in reports] == [3, 3]
    assert sum(report.renumbered for report in reports) >= 1
    pull(URL, quick_path / "c.zarr")
    assert validate(quick_path / "c.zarr", deep=True) == []
    parts = {part.entry.id for path in paths for part in epvf_data.open(path).parts}
    assert {part.entry.id for part in epvf_data.open(quick_path / "c.zarr").parts} == parts


def test_a_record_that_another_one_slipped_in(hub, grow, quick_path):
    """The other pusher commits at the very moment: its record keeps the number, ours follows; no file goes twice."""
    path, other, slipped = grow("a.zarr", 1), grow("b.zarr", 1), []

    def slip(handler, name: str) -> bool:
        if name.endswith("/commit/main") and b"commits/00000000.json" in handler.body and not slipped:
            slipped.append(1)
            push(other, URL)
        return False

    hub.before = slip
    report = push(path, URL)
    assert (report.commits_new, report.commits_of_others, report.renumbered) == (1, 1, True)
    sent = [line for line in hub.asked if line.startswith("PUT /lfs/")]
    assert len(sent) == len(set(sent))
    pull(URL, quick_path / "c.zarr")
    first, theirs = (epvf_data.open(one).commits[0].add[0].id for one in (quick_path / "c.zarr", other))
    assert first == theirs


def test_an_answer_that_was_lost(hub, grow, quick_path):
    """The hub commits and the line breaks: the same push goes on and finds it there."""
    path = grow("a.zarr", 2)

    def lose(handler, name: str) -> bool:
        if not name.endswith("/commit/main") or b"commits/00000000.json" not in handler.body:
            return False
        hub.before = None
        handler.commit(hub, hub.repositories["lab/ant"], {"repo": "lab/ant"})
        handler.connection.close()
        return True

    hub.before = lose
    try:
        push(path, URL)
    except TransferError:
        assert push(path, URL).commits_new == 0
    pull(URL, quick_path / "b.zarr")
    assert same(path, quick_path / "b.zarr")


@pytest.mark.parametrize("at", [5, 12, 25])
def test_a_kill_during_a_push(hub, grow, quick_path, at):
    path, killed = grow("a.zarr", 3), []

    def kill(handler, name: str) -> bool:
        if len(hub.asked) == at:
            os.kill(process.pid, signal.SIGKILL)
            killed.append(name)
        return bool(killed)

    hub.before = kill
    code = "import sys; from epvf_data import push; push(*sys.argv[1:])"
    process = subprocess.Popen([sys.executable, "-c", code, str(path), URL], stderr=subprocess.PIPE)
    process.communicate()
    hub.before = None
    assert killed
    sent = {line for line in hub.asked[: at - 1] if line.startswith("PUT /lfs/")}
    hub.asked.clear()
    push(path, URL)
    assert not sent & {*hub.asked}
    pull(URL, quick_path / "b.zarr")
    assert same(path, quick_path / "b.zarr")


def test_what_the_hub_refuses_is_one_sentence(hub, grow, quick_path, monkeypatch, shell):
    path = grow("a.zarr")
    monkeypatch.setenv("HF_TOKEN", "hf_wrongsecret")
    with pytest.raises(RefusedError, match="401.*hf auth login") as caught:
        push(path, URL)
    assert "hf_wrongsecret" not in str(caught.value)
    monkeypatch.setenv("HF_TOKEN", "hf_ofthetests")
    push(path, URL)
    part = next(file for file in (path / "parts").rglob("params/c/0/0"))
    hub.before = lambda handler, name: handler.answer(500) or True if name.endswith("/commit/main") else False
    grow("a.zarr")
    with pytest.raises(TransferError, match="500.*the same command goes on"):
        push(path, URL)
    hub.before = None
    part = next((path / "parts" / epvf_data.open(path).parts[-1].entry.id).rglob("returns/c/0/0"))
    part.write_bytes(part.read_bytes()[:-1] + b"\0")
    with pytest.raises(CorruptDatasetError, match=r"returns/c/0/0"):
        push(path, URL)
    assert "hf_" not in shell("push", path, URL, code=1).stderr


@pytest.mark.parametrize("url", ["hf://lab/ant", "hf://datasets/ant", "hf://datasets/lab/ant/more", "hf://models/a/b"])
def test_addresses_that_are_none(url, quick_path):
    with pytest.raises(ConfigError, match="datasets/OWNER/NAME"):
        pull(url, quick_path / "b.zarr")


def test_the_hub_is_read_by_tls_alone(monkeypatch, quick_path):
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://hub.example")
    with pytest.raises(ConfigError, match="https://"):
        pull(URL, quick_path / "b.zarr")


def test_a_missing_package_is_one_sentence(monkeypatch, grow):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(MissingPackageError, match=r"pip install 'epvf-data\[hub\]'"):
        push(grow("a.zarr"), URL)
