"""Reading from afar: the same rows as at home, each file once, verified, within the limit of the cache."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import epvf_data
from epvf_data.curation.merge import merge
from epvf_data.errors import ConfigError, CorruptDatasetError, DatasetError
from epvf_data.places.cache import Cache
from epvf_data.store.compact import compact
from epvf_data.store.digest import content_hash
from epvf_data.store.garbage import collect_garbage
from epvf_data.store.loader import Loader
from epvf_data.store.validate import validate


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Cache:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return Cache()


@pytest.fixture
def web(servers, quick_path):
    with servers.files(quick_path) as server:
        server.url = f"http://127.0.0.1:{server.port}"
        yield server


def test_the_same_rows_as_at_home(web, grow, quick_path):
    path = grow("a.zarr", 4)
    here, far = epvf_data.open(path), epvf_data.open(f"{web.url}/a.zarr")
    assert (far.rows, far.revision, far.summary()) == (here.rows, here.revision, here.summary())
    assert content_hash(far) == content_hash(here)
    assert validate(far.path, deep=True) == []
    for mine, theirs in zip(*(Loader(one.table(), batch_size=8) for one in (here, far)), strict=True):
        assert np.array_equal(mine["params"], theirs["params"])
    asked = len(web.asked)
    assert content_hash(epvf_data.open(f"{web.url}/a.zarr")) == content_hash(here)
    assert not [name for name in web.asked[asked:] if "/parts/" in name]
    merge([far.path, path], quick_path / "both.zarr")
    assert epvf_data.open(quick_path / "both.zarr").rows == here.rows


def test_several_may_open_it_at_once(web, grow):
    """Nobody meets another one's half-written records, the first time or when there are new ones."""
    with ThreadPoolExecutor(8) as pool:
        for rows in (10, 20):
            grow("a.zarr")
            assert {far.rows for far in pool.map(epvf_data.open, [f"{web.url}/a.zarr"] * 16)} == {rows}


def test_only_what_is_read_is_fetched(web, grow):
    grow("a.zarr", 3)
    far = epvf_data.open(f"{web.url}/a.zarr")
    assert not [name for name in web.asked if "/parts/" in name]
    far.table().column("returns")
    assert not [name for name in web.asked if "params/c/0/0" in name]
    assert len([name for name in web.asked if "returns/c/0/0" in name]) == 3


def test_new_commits_older_states_and_other_histories(web, grow):
    path = grow("a.zarr", 2)
    url = f"{web.url}/a.zarr"
    first = epvf_data.open(url)
    grow("a.zarr")
    assert (first.rows, epvf_data.open(url).rows) == (20, 30)
    assert epvf_data.open(f"{url}@sha256:{first.revision}").rows == 20
    with pytest.raises(DatasetError, match="older state"):
        epvf_data.open(f"{url}@sha256:{'0' * 64}")
    (path / "commits" / "00000002.json").unlink()
    assert epvf_data.open(url).rows == 20
    grow("a.zarr")
    other = epvf_data.open(url)
    assert other.revision == epvf_data.open(path).revision
    assert content_hash(other) == content_hash(epvf_data.open(path))
    compact(path)
    collect_garbage(path, grace=0)
    assert content_hash(epvf_data.open(url)) == content_hash(epvf_data.open(path))


def test_what_comes_is_verified_before_it_is_kept(web, grow):
    path = grow("a.zarr")
    part = next(path.rglob("returns/c/0/0"))
    good = part.read_bytes()
    part.write_bytes(good[:8] + bytes([good[8] ^ 1]) + good[9:])
    far = epvf_data.open(f"{web.url}/a.zarr")
    with pytest.raises(CorruptDatasetError, match=r"returns/c/0/0 is not the file"):
        far.table().column("returns")
    part.write_bytes(good)
    assert np.array_equal(far.table().column("returns"), epvf_data.open(path).table().column("returns"))


def test_data_sets_with_files_in_common_keep_them_once(web, grow, quick_path, cache):
    path = grow("a.zarr", 2)
    merge([path], quick_path / "b.zarr")
    content_hash(epvf_data.open(f"{web.url}/a.zarr"))
    count = cache.report().files
    content_hash(epvf_data.open(f"{web.url}/b.zarr"))
    assert cache.report().files == count


def test_the_limit(web, grow, cache, monkeypatch, shell):
    grow("a.zarr", 5)
    before = content_hash(epvf_data.open(f"{web.url}/a.zarr"))
    full = cache.report().bytes
    monkeypatch.setenv("EPVF_CACHE_GB", str(full / 2e9))
    shell("cache", "--trim")
    assert 0 < Cache().report().bytes <= full / 2
    assert content_hash(epvf_data.open(f"{web.url}/a.zarr")) == before
    assert json.loads(shell("cache", "--json").stdout)["bytes"] <= full
    assert "0 files" in shell("cache", "--clear").stdout
    assert content_hash(epvf_data.open(f"{web.url}/a.zarr")) == before
    monkeypatch.setenv("EPVF_CACHE_GB", "much")
    with pytest.raises(ConfigError, match="EPVF_CACHE_GB"):
        Cache()


@pytest.mark.parametrize("verb", [["compact"], ["gc"], ["sign", "--key", "k"], ["card"], ["verify", "--signers", "s"]])
def test_verbs_that_change_a_data_set_take_no_url(verb, shell):
    said = shell(verb[0], "https://me:secret@host/a.zarr", *verb[1:], code=2).stderr
    assert "can only be read; `epvf-data pull` it" in said
    assert "secret" not in said


def test_verbs_that_read(web, grow, shell, in_tmp):
    path = grow("ant.zarr", 2)
    url = f"{web.url}/ant.zarr"
    at_home, afar = (shell("info", one).stdout.splitlines() for one in (path, url))
    assert at_home[1:] == afar[1:]
    assert "no problem found" in shell("validate", url, "--deep").stdout
    assert "hold the same 20 rows" in shell("diff", path, url).stdout
    shell("filter", url, "--where", "return > 0")
    assert Path("ant-filtered.zarr").is_dir()
    shell("export-npz", url)


@pytest.mark.soak
def test_a_thousand_commits_over_a_slow_line(servers, grow, quick_path, shell):
    """50 ms for every answer: `info` takes seconds, and the second time a moment."""
    grow("a.zarr", 1000)
    with servers.files(quick_path) as server:
        server.before = lambda handler, name: time.sleep(0.05)
        url = f"http://127.0.0.1:{server.port}/a.zarr"
        took = []
        for _ in range(2):
            began = time.perf_counter()
            shell("info", url)
            took.append(time.perf_counter() - began)
        print(f"{took[0]:.1f} s, then {took[1]:.1f} s")
        assert took[0] < 60
